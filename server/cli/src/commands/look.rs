//! How berths are: all of them, one, or one's own.

use berth_api::{Berth, BerthState, HomeAccess, HostPortState, OpenTo, Policy, client::BerthQuery};
use clap::Args;
use serde_json::json;

use super::{
    Context, requests,
    words::{self, quota},
};
use crate::{
    Outcome, dates,
    failure::Failure,
    output::{self, Rows, printable},
    units,
};

/// Which berths are listed; what is given narrows together.
#[derive(Debug, Default, Args)]
pub(crate) struct ListArguments {
    /// Only berths in this state
    #[arg(long, value_name = "STATE", value_parser = ["stopped", "starting", "running", "frozen", "stopping", "suspended", "failed"])]
    state: Option<String>,
    /// Only berths of this profile
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Only users whose names hold this
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Only berths with this condition, for instance PendingRestart
    #[arg(long, value_name = "CONDITION")]
    condition: Option<String>,
    /// What orders them; with a minus before it the other way round [default: user]
    #[arg(long, value_name = "KEY", allow_hyphen_values = true, value_parser = SORTS)]
    sort: Option<String>,
}

/// By figures the largest are first unless asked otherwise; a minus turns the order.
const SORTS: [&str; 10] = ["user", "state", "memory", "disk", "last-used", "-user", "-state", "-memory", "-disk", "-last-used"];

impl ListArguments {
    fn query(self) -> BerthQuery {
        let order = self.sort.as_deref().map(|key| {
            let figures = matches!(key.trim_start_matches('-'), "memory" | "disk" | "last-used");
            if figures == key.starts_with('-') { "asc" } else { "desc" }.to_owned()
        });
        BerthQuery {
            state: self.state,
            profile: self.profile,
            user: None,
            search: self.search,
            condition: self.condition,
            sort: self.sort.map(|key| key.trim_start_matches('-').replace('-', "_")),
            order,
        }
    }
}

pub(super) async fn list(context: &Context, arguments: ListArguments) -> Outcome {
    let query = arguments.query();
    let narrowed = [&query.state, &query.profile, &query.search, &query.condition].into_iter().any(Option::is_some);
    let berths = context.client.berths(&query).await?;
    if context.json {
        output::json(&json!({ "items": berths }))?;
        return Ok(0);
    }
    if berths.is_empty() {
        output::line(if narrowed { "There are none of these." } else { "There are no berths. To make one: berth assign USER" })?;
        return Ok(0);
    }
    let mut heading = vec!["USER", "STATE", "CPUS", "MEMORY", "DISK", "PIDS", "PROFILE", "IMAGE", "ADDRESS"];
    // Most hosts have none that end.
    let ends = berths.iter().any(|berth| berth.until.is_some());
    heading.extend(ends.then_some("UNTIL"));
    let mut rows = Rows::new(&heading);
    for berth in &berths {
        let used = berth.usage.filter(|_| is_up(berth));
        let of = |used: Option<u64>, limit: u64| match used {
            Some(used) => format!("{} / {}", units::bytes(used), units::bytes(limit)),
            None => units::bytes(limit),
        };
        let mut cells: Vec<comfy_table::Cell> = vec![
            berth.user.as_str().into(),
            output::word(state(berth)),
            units::cpus(berth.limits.cpu_millis.into()).into(),
            of(used.map(|usage| usage.memory_bytes), berth.limits.memory_bytes).into(),
            of(berth.usage.map(|usage| usage.disk_bytes), berth.limits.disk_bytes).into(),
            berth.limits.pids.to_string().into(),
            berth.profile.as_str().into(),
            berth.image.name.as_str().into(),
            berth.address.as_deref().unwrap_or("-").into(),
        ];
        cells.extend(ends.then(|| comfy_table::Cell::new(berth.until.map_or_else(String::new, dates::shown))));
        rows.push(cells);
    }
    rows.show()?;
    Ok(0)
}

pub(super) async fn show(context: &Context, user: &str) -> Outcome {
    let mut berth = context.client.berth(user).await?;
    freshen(context, &mut berth).await;
    if context.json {
        output::json(&berth)?;
        return Ok(0);
    }
    let mut facts = vec![
        ("user", format!("{} (uid {})", berth.user, berth.uid)),
        ("state", describe(&berth)),
        ("docker", if berth.docker_ready { "ready" } else { "not ready" }.to_owned()),
    ];
    facts.extend(berth.running_containers.map(|count| ("containers", format!("{count} running"))));
    facts.extend(berth.last_used_at.map(|at| ("last used", format!("{} ago", units::age(at, units::now())))));
    facts.extend([("profile", berth.profile.clone()), ("image", format!("{} ({})", berth.image.name, berth.image.digest))]);
    facts.extend(words::limits(berth.limits, &berth.own_limits));
    facts.extend(berth.grants.iter().map(|grant| ("granted", requests::grant(grant))));
    facts.extend(berth.usage.iter().flat_map(|usage| words::usage(usage, is_up(&berth))));
    facts.extend(policy(&berth.policy));
    facts.extend(berth.socket.clone().map(|socket| ("socket", socket)));
    facts.extend(berth.address.clone().map(|address| ("address", address)));
    facts.extend(berth.source_ports.map(|range| ("leaves by ports", format!("{}-{}", range.first, range.last))));
    if let (Some(base), Some(count)) = (berth.id_base, berth.id_count) {
        facts.push(("ids", format!("{base}–{}", base + (count - 1))));
    }
    facts.extend(berth.pid.map(|pid| ("pid", pid.to_string())));
    facts.push(("id", berth.id.to_string()));
    facts.push(("assigned", format!("{} ago", units::age(berth.created_at, units::now()))));
    facts.extend(berth.until.map(|until| ("ends", dates::shown(until))));
    output::facts(&facts)?;
    ports(&berth)?;
    conditions(&berth)?;
    Ok(0)
}

/// The service keeps what it was last told; what a berth that is up uses is read anew, and shown as it was where that fails.
async fn freshen(context: &Context, berth: &mut Berth) {
    if is_up(berth)
        && let Ok(told) = context.client.usage(Some(&berth.user)).await
        && let Some(now) = told.items.into_iter().find(|told| told.id == berth.id)
    {
        berth.usage = Some(now.usage);
    }
}

/// What a user wants to know of his own berth.
pub(super) async fn status(context: &Context, user: &str) -> Outcome {
    let mut berth = context.client.berth(user).await?;
    freshen(context, &mut berth).await;
    if context.json {
        output::json(&berth)?;
        return Ok(0);
    }
    output::line(&format!("Your berth is {}.", describe(&berth).trim_end_matches('.')))?;
    match berth.state {
        _ if berth.suspended.is_some() => output::line("Ask an administrator of this host; nothing in it is lost.")?,
        BerthState::Stopped => output::line("It starts on the next connection, for instance: docker ps")?,
        BerthState::Frozen => output::line("It wakes on the next connection, for instance: docker ps")?,
        _ => {}
    }
    output::line(&format!("You have {}.", quota(berth.limits)))?;
    for grant in &berth.grants {
        output::line(&format!("Of that for a while: {}.", requests::grant(grant)))?;
    }
    if let Some(until) = berth.until {
        output::line(&format!("It is yours until {}.", dates::shown(until)))?;
    }
    if let Some(usage) = &berth.usage {
        let disk = usage.disk.map_or(usage.disk_bytes, |disk| disk.used_bytes);
        output::line(&format!("In use: {} memory, {} disk.", units::bytes(usage.memory_bytes), units::bytes(disk)))?;
    }
    if let Some(count) = berth.running_containers {
        let used = berth.last_used_at.map_or_else(String::new, |at| format!("; last used {} ago", units::age(at, units::now())));
        output::line(&format!("Running containers: {count}{used}."))?;
    }
    output::line(&format!("Your home in containers: {}.", home(&berth.policy)))?;
    output::line(&format!("Containers reach {}.", words::egress(&berth.policy.egress)))?;
    if let Some(socket) = &berth.socket {
        output::line(&format!("Docker is at unix://{socket} (eval \"$(berth env)\")."))?;
    }
    if let Some(address) = &berth.address {
        output::line(&format!("Published ports are at {address}, and at 127.0.0.1 where the list says open; -p 127.0.0.1:… only there."))?;
    }
    ports(&berth)?;
    conditions(&berth)?;
    Ok(0)
}

/// What is not as it should be, with what helps.
pub(super) fn conditions(berth: &Berth) -> Result<(), Failure> {
    for condition in &berth.conditions {
        let age = units::age(condition.since, units::now());
        output::line(&format!("{}: {} (for {age})", condition.kind, printable(&condition.message)))?;
        if let Some(hint) = &condition.hint {
            output::line(&format!("  next: {}", printable(hint)))?;
        }
    }
    Ok(())
}

/// A profile's policy in words, also shown with a berth.
pub(super) fn policy(policy: &Policy) -> Vec<(&'static str, String)> {
    let ports = match policy.ports {
        Some(range) => format!("{}-{} at 127.0.0.1, open to {}", range.first, range.last, reach(policy.ports_open_to)),
        None => format!("only at the berth's own address, open to {}", reach(policy.ports_open_to)),
    };
    vec![
        ("home", home(policy)),
        ("ports", ports),
        ("reaches", words::egress(&policy.egress)),
        ("idle", words::idle(policy)),
        ("ends", words::restart(policy)),
    ]
}

/// The home, and the further paths.
fn home(policy: &Policy) -> String {
    let home = match policy.home {
        HomeAccess::Rw => "read and write",
        HomeAccess::Ro => "read only",
        HomeAccess::None => "not there",
    };
    let further: Vec<_> = policy
        .paths
        .iter()
        .map(|shared| format!("{}{}", printable(&shared.path), if shared.read_only { " (read only)" } else { "" }))
        .collect();
    match further.is_empty() {
        true => home.to_owned(),
        false => format!("{home}; further: {}", further.join(", ")),
    }
}

fn reach(open_to: OpenTo) -> &'static str {
    match open_to {
        OpenTo::User => "the user and root",
        OpenTo::Host => "every account of the host",
    }
}

fn ports(berth: &Berth) -> Result<(), Failure> {
    if berth.ports.is_empty() {
        return Ok(());
    }
    let mut rows = Rows::new(&["PORT", "CONTAINER", "AT 127.0.0.1"]);
    for port in &berth.ports {
        let word = match port.host {
            HostPortState::Open => "open",
            HostPortState::Pending => "pending",
            HostPortState::Taken => "taken",
            HostPortState::NotAllowed => "not allowed",
        };
        rows.push([
            format!("{}/{}", port.port, printable(&port.protocol)),
            // The name is the tenant's.
            format!("{}:{}", printable(&port.container), port.container_port),
            port.host_detail.as_ref().map_or_else(|| word.to_owned(), |why| format!("{word}: {}", printable(why))),
        ]);
    }
    rows.show()
}

/// The state, since when, and why.
fn describe(berth: &Berth) -> String {
    let age = |since| units::age(since, units::now());
    if let Some(suspension) = &berth.suspended {
        let not_yet = if berth.state == BerthState::Suspended { String::new() } else { format!(" (not yet in force: {})", state(berth)) };
        let (by, reason) = (printable(&suspension.by), printable(&suspension.reason));
        return format!("suspended by {by} for {}{not_yet}: {reason}", age(suspension.since));
    }
    match (berth.state, &berth.sleep, berth.started_at) {
        (BerthState::Frozen | BerthState::Stopped, Some(sleep), _) => {
            format!("{} for {}: {}", state(berth), age(sleep.since), printable(&sleep.reason))
        }
        (BerthState::Running | BerthState::Frozen, _, Some(since)) => format!("{} for {}", state(berth), age(since)),
        _ => state(berth).to_owned(),
    }
}

fn is_up(berth: &Berth) -> bool {
    matches!(berth.state, BerthState::Running | BerthState::Frozen)
}

fn state(berth: &Berth) -> &'static str {
    match berth.state {
        BerthState::Stopped => "stopped",
        BerthState::Starting => "starting",
        BerthState::Running => "running",
        BerthState::Frozen => "frozen",
        BerthState::Stopping => "stopping",
        BerthState::Suspended => "suspended",
        BerthState::Failed => "failed",
    }
}
