//! `berth doctor`: each thing that berths need of this host is tried, and what is not as it should be comes with its cure.

pub(crate) mod deep;
mod disks;
mod ids;
mod kernel;
mod limits;
mod network;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
};

use berth_protocol::{BerthStatus, Check, CheckLevel};
use berth_runtime::error::chain;

use super::{
    adopt::{self, Known},
    apparmor,
    host::Host,
    node::Node,
    shims,
};

fn ok(name: &str, detail: impl Into<String>) -> Check {
    Check { name: name.into(), level: CheckLevel::Ok, detail: detail.into(), fix: None }
}

fn warning(name: &str, detail: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { name: name.into(), level: CheckLevel::Warning, detail: detail.into(), fix: Some(fix.into()) }
}

fn failed(name: &str, detail: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { name: name.into(), level: CheckLevel::Failed, detail: detail.into(), fix: Some(fix.into()) }
}

/// All checks. Blocking; some make and remove something small.
pub(crate) fn examine(node: &Node) -> Vec<Check> {
    let mut checks = kernel_checks(&node.host);
    checks.extend(limits::checks(&node.host));
    checks.extend([
        table(node),
        forwarding(),
        network::firewalls(node),
        network::source_ports(node),
        profile(node),
        program("mke2fs", &["-V"], "e2fsprogs", "berths' disks cannot be made"),
        program("nft", &["--version"], "nftables", "berths have no network"),
        program("tar", &["--version"], "tar", "no archives can be made"),
        pam(node),
        own_programs(node),
        recipe(node),
        disks::space(node),
        disks::backend(node),
        ids::ranges(node),
        records(node),
        stray_disks(node),
        shims(node),
        berths(node),
    ]);
    checks
}

fn kernel_checks(host: &Host) -> Vec<Check> {
    // Two at once would be in each other's way.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    kernel::checks(host)
}

/// After a start that failed: what the kernel cannot do (any more) and what to do about it, in one sentence. Blocking.
pub(crate) fn kernel_lacks(host: &Host) -> Option<String> {
    let told = |check: &Check| format!("{}: {}; {}", check.name, check.detail, check.fix.as_deref().unwrap_or("see berth doctor"));
    let failed: Vec<String> = kernel_checks(host).iter().filter(|c| c.level == CheckLevel::Failed).map(told).collect();
    (!failed.is_empty()).then(|| failed.join(". "))
}

fn table(node: &Node) -> Check {
    let name = &node.host.table.name;
    match node.host.table.present() {
        Ok(true) => ok("nft table", format!("inet {name} is loaded; berths have addresses of {}", node.host.table.pool)),
        Ok(false) => failed(
            "nft table",
            format!("inet {name} is not loaded: somebody flushed the rule set"),
            "restart berth-node, it installs the table anew",
        ),
        Err(error) => failed("nft table", chain(&error), "apt-get install nftables"),
    }
}

fn forwarding() -> Check {
    let file = "/proc/sys/net/ipv4/ip_forward";
    match fs::read_to_string(file) {
        Ok(text) if text.trim() == "1" => ok("forwarding", "net.ipv4.ip_forward is 1"),
        Ok(_) => failed("forwarding", "net.ipv4.ip_forward is 0: berths do not reach the network", "restart berth-node, it switches it on"),
        Err(error) => failed("forwarding", format!("{file}: {error}"), "the kernel needs IPv4"),
    }
}

fn profile(node: &Node) -> Check {
    match apparmor::profile(&node.host.config) {
        None => ok("apparmor", "this host has none; berths need none"),
        Some(name) if apparmor::loaded(&name) => ok("apparmor", format!("profile {name} is loaded")),
        Some(name) => failed(
            "apparmor",
            format!("profile {name} is not loaded: berths do not start"),
            "apt-get install apparmor, then restart berth-node",
        ),
    }
}

fn pam(node: &Node) -> Check {
    let file = &node.host.config.accounts.pam;
    match file.exists() {
        true => ok("pam", format!("{} says which accounts are locked or have expired", file.display())),
        false => warning(
            "pam",
            format!("there is no {}: only shadow entries tell which accounts are locked or have expired", file.display()),
            "deploy/up puts it there; or a file with the lines @include common-account",
        ),
    }
}

fn program(name: &str, arguments: &[&str], package: &str, else_what: &str) -> Check {
    match Command::new(name).args(arguments).output() {
        Ok(output) if output.status.success() => ok(name, "works"),
        Ok(output) => failed(
            name,
            format!("{name} {} ends with {}", arguments.join(" "), output.status),
            format!("apt-get install --reinstall {package}"),
        ),
        Err(error) => failed(name, format!("{name}: {error}; {else_what}"), format!("apt-get install {package}")),
    }
}

fn own_programs(node: &Node) -> Check {
    let layout = &node.host.layout;
    let missing: Vec<String> = [layout.shim_program(), layout.init_program(), layout.wrapper_program()]
        .iter()
        .filter(|p| rustix::fs::access(p.as_path(), rustix::fs::Access::EXEC_OK).is_err())
        .map(|p| p.display().to_string())
        .collect();
    match missing.as_slice() {
        [] => ok("programs", format!("berth-shim, berth-init and berth-runc are in {}", layout.programs.display())),
        missing => failed(
            "programs",
            format!("not there or not executable: {}", missing.join(", ")),
            "run deploy/up again, or set programs_dir in node.toml",
        ),
    }
}

fn recipe(node: &Node) -> Check {
    let program = node.host.layout.recipe.join("build");
    if !program.exists() {
        let fix = "run deploy/up again, or set recipe_dir in node.toml";
        return warning("image recipe", format!("{} is not there: berth image build cannot work, import can", program.display()), fix);
    }
    match Command::new("mmdebstrap").arg("--version").output() {
        Ok(_) => ok("image recipe", program.display().to_string()),
        Err(error) => {
            warning("image recipe", format!("mmdebstrap: {error}: berth image build cannot work, import can"), "apt-get install mmdebstrap")
        }
    }
}

fn records(node: &Node) -> Check {
    let corrupt = node.corrupt();
    if corrupt.is_empty() {
        return ok("records", "all records are readable");
    }
    let told = corrupt.iter().map(|c| format!("{} of {} ({})", c.file.display(), c.user.as_deref().unwrap_or("an unknown user"), c.reason));
    let fix = "put the file back from a backup and restart berth-node; or give up the data: berth delete USER";
    failed("records", format!("not readable: {}", told.collect::<Vec<_>>().join("; ")), fix)
}

fn stray_disks(node: &Node) -> Check {
    let records = match node.host.records.load() {
        Ok((records, corrupt)) => Known::new(&records, &corrupt),
        Err(error) => return failed("stray disks", chain(&error), "look at state_dir in node.toml"),
    };
    // What is just being made has no record on disk for a moment, but an owner.
    let owned: BTreeSet<String> = node.all().iter().map(|b| b.id.to_string()).collect();
    let strays = adopt::stray_disks(&node.host, &records);
    let strays: Vec<String> = strays
        .iter()
        .filter(|p| p.file_name().is_none_or(|n| !owned.contains(&*n.to_string_lossy())))
        .map(|p| p.display().to_string())
        .collect();
    match strays.as_slice() {
        [] => ok("stray disks", "every disk has its record"),
        found => warning(
            "stray disks",
            format!("no record tells of {}", found.join(", ")),
            "put the records back from a backup, or remove these directories",
        ),
    }
}

/// What runs an older program goes on with it: a berth is worth more than an upgrade.
fn shims(node: &Node) -> Check {
    let running: Vec<_> = node.statuses().into_iter().filter(|s| s.pid.is_some()).collect();
    let old = running.iter().filter(|s| shims::outdated(&node.host, s.id));
    let since = |s: &BerthStatus| s.started_at.and_then(|at| jiff::Timestamp::from_millisecond(at).ok()).map(|at| format!("{at:.0}"));
    let old: Vec<String> = old.map(|s| format!("{} (since {})", s.user, since(s).unwrap_or_else(|| "its start".into()))).collect();
    let program = node.host.layout.shim_program();
    match old.as_slice() {
        [] => ok("shims", format!("{} run, all of them the installed {}", running.len(), program.display())),
        old => warning(
            "shims",
            format!("of {} that run, {} are older than the installed {}: {}", running.len(), old.len(), program.display(), old.join(", ")),
            "each is replaced when its berth next sleeps or stops; at once by: berth restart USER",
        ),
    }
}

fn berths(node: &Node) -> Check {
    let statuses = node.statuses();
    let told: Vec<String> =
        statuses.iter().flat_map(|s| s.conditions.iter().map(|c| format!("{}: {} ({})", s.user, c.kind, c.message))).collect();
    match told.as_slice() {
        [] => ok("berths", format!("{} berths, none with a condition", statuses.len())),
        told => warning("berths", told.join("; "), "berth show USER; berth logs USER"),
    }
}

/// First line of a program's complaint.
fn first_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).lines().next().unwrap_or("no reason given").trim().to_owned()
}

/// A directory that is gone again when this is dropped.
struct Scratch<'a>(&'a Path);

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0);
    }
}
