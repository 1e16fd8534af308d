//! Requests: more for a while. A user asks, whoever administers the host decides.

use std::str::FromStr;

use berth_api::{Accepted, Amount, Amounts, ApproveRequest, Grant, NewRequest, Request, RequestState};
use clap::{Args, Subcommand};
use serde_json::json;
use uuid::Uuid;

use super::{Context, berths::settle};
use crate::{
    Outcome,
    dates::{self, End},
    failure::Failure,
    output::{self, Rows, printable},
    units::{self, Cpus, Size},
};

/// `+20g` on top of what there is, or `4g` in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct More<T> {
    value: T,
    on_top: bool,
}

impl<T: FromStr<Err: std::fmt::Display>> FromStr for More<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (text, on_top) = text.strip_prefix('+').map_or((text, false), |rest| (rest, true));
        text.parse().map(|value| Self { value, on_top }).map_err(|error: T::Err| error.to_string())
    }
}

#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct AmountArguments {
    /// CPUs: +1 on top of what there is, or 4 in all
    #[arg(long, value_name = "[+]N")]
    cpus: Option<More<Cpus>>,
    /// Memory: +2g on top of what there is, or 4g in all
    #[arg(long, short = 'm', value_name = "[+]SIZE")]
    memory: Option<More<Size>>,
    /// Processes and threads: +500, or 2000 in all
    #[arg(long, value_name = "[+]N")]
    pids_limit: Option<More<u64>>,
    /// Disk: +20g on top of what there is, or 40g in all
    #[arg(long, value_name = "[+]SIZE")]
    disk: Option<More<Size>>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RequestArguments {
    #[command(flatten)]
    amounts: AmountArguments,
    /// When it ends: friday, tomorrow, 2027-03-31, "2027-03-31 18:00", 7d, 12h
    #[arg(long, value_name = "WHEN")]
    until: End,
    /// What it is for, in one line
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Whose berth [default: yours]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RequestsCommand {
    /// List requests; your own unless you may see all
    #[command(visible_alias = "ls")]
    List {
        /// Only of this user
        #[arg(long, value_name = "USER")]
        user: Option<String>,
        /// Only those that stand so: open, active, overdue, ended, denied, …
        #[arg(long, value_name = "STATE", conflicts_with = "all")]
        state: Option<String>,
        /// Those that are over, too
        #[arg(long)]
        all: bool,
    },
    /// Show a request
    Show { id: Uuid },
    /// Approve a request, as asked or changed; it applies at once and falls back by itself at its end
    Approve {
        id: Uuid,
        #[command(flatten)]
        amounts: AmountArguments,
        /// Another end than asked for
        #[arg(long, value_name = "WHEN")]
        until: Option<End>,
        /// What the user is told
        #[arg(long, value_name = "TEXT")]
        word: Option<String>,
    },
    /// Deny a request
    Deny {
        id: Uuid,
        /// What the user is told
        #[arg(long, value_name = "TEXT")]
        word: String,
    },
    /// Withdraw a request, or end before its time what was granted
    Cancel { id: Uuid },
}

impl AmountArguments {
    fn amounts(self) -> Amounts {
        fn amount<T>(more: Option<More<T>>, number: impl FnOnce(T) -> u64) -> Option<Amount> {
            more.map(|More { value, on_top }| match on_top {
                true => Amount::Add(number(value)),
                false => Amount::To(number(value)),
            })
        }
        Amounts {
            cpu_millis: amount(self.cpus, |cpus| cpus.0.into()),
            memory_bytes: amount(self.memory, |size| size.0),
            pids: amount(self.pids_limit, |pids| pids),
            disk_bytes: amount(self.disk, |size| size.0),
        }
    }
}

pub(super) async fn request(context: &Context, arguments: RequestArguments) -> Outcome {
    let RequestArguments { amounts, until, reason, user } = arguments;
    let amounts = amounts.amounts();
    if amounts == Amounts::default() {
        return Err(Failure::usage("nothing is asked for", "berth request --disk +20g --until friday --reason \"…\""));
    }
    let request = context.client.create_request(&NewRequest { user, amounts, until: until.0, reason }).await?;
    if context.json {
        output::json(&request)?;
        return Ok(0);
    }
    output::line(&format!("Asked for {} until {}.", words(&request.asked), dates::shown(request.until)))?;
    output::line(&format!("An administrator decides; to see how it stands: berth requests show {}", request.id))?;
    Ok(0)
}

pub(super) async fn run(context: &Context, command: RequestsCommand) -> Outcome {
    match command {
        RequestsCommand::List { user, state, all } => list(context, user.as_deref(), state.as_deref(), all).await,
        RequestsCommand::Show { id } => show(context, &context.client.request(id).await?),
        RequestsCommand::Approve { id, amounts, until, word } => {
            let approval = ApproveRequest { amounts: amounts.amounts(), until: until.map(|until| until.0), word };
            let approved = context.client.approve_request(id, &approval).await?;
            let accepted = Accepted { operation: approved.operation, warnings: approved.warnings };
            let Some((operation, warnings)) = settle(context, accepted, true).await? else { return Ok(0) };
            let request = context.client.request(id).await?;
            if context.json {
                output::json(&json!({ "request": request, "operation": operation, "warnings": warnings }))?;
                return Ok(0);
            }
            let granted = request.granted.as_ref().map(words).unwrap_or_default();
            output::line(&format!("{} has {granted} until {}.", request.user, dates::shown(request.until)))?;
            Ok(0)
        }
        RequestsCommand::Deny { id, word } => show(context, &context.client.deny_request(id, &word).await?),
        RequestsCommand::Cancel { id } => show(context, &context.client.cancel_request(id).await?),
    }
}

async fn list(context: &Context, user: Option<&str>, state: Option<&str>, all: bool) -> Outcome {
    let (mut items, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let page = context.client.requests(user, state, cursor.as_deref()).await?;
        items.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    items.retain(|request| all || state.is_some() || !is_over(request.state));
    if context.json {
        output::json(&json!({ "items": items }))?;
        return Ok(0);
    }
    if items.is_empty() {
        output::line(if all || state.is_some() { "There are no such requests." } else { "No request is open, and none holds." })?;
        return Ok(0);
    }
    let mut rows = Rows::new(&["ID", "USER", "STATE", "WHAT", "UNTIL", "REASON"]);
    for request in &items {
        rows.push([
            request.id.to_string(),
            request.user.clone(),
            state_word(request.state).to_owned(),
            words(request.granted.as_ref().unwrap_or(&request.asked)),
            dates::shown(request.until),
            printable(&request.reason),
        ]);
    }
    rows.show()?;
    Ok(0)
}

fn show(context: &Context, request: &Request) -> Outcome {
    if context.json {
        output::json(request)?;
        return Ok(0);
    }
    let mut facts = vec![
        ("user", request.user.clone()),
        ("state", state_word(request.state).to_owned()),
        ("asked", format!("{} until {}", words(&request.asked), dates::shown(request.asked_until))),
        ("reason", printable(&request.reason)),
        ("made", format!("{} ago", units::age(request.created_at, units::now()))),
    ];
    facts.extend(request.granted.as_ref().map(|granted| ("granted", format!("{} until {}", words(granted), dates::shown(request.until)))));
    if let (Some(by), Some(at)) = (&request.decided_by, request.decided_at) {
        facts.push(("decided", format!("by {} {} ago", printable(by), units::age(at, units::now()))));
    }
    facts.extend(request.word.as_ref().map(|word| ("word", printable(word))));
    facts.extend(request.problem.as_ref().map(|problem| ("problem", printable(&problem.detail))));
    facts.push(("id", request.id.to_string()));
    output::facts(&facts)?;
    Ok(0)
}

/// What a berth was granted, for `show` and `status`.
pub(super) fn grant(grant: &Grant) -> String {
    let overdue = if grant.overdue { " (over, but in use)" } else { "" };
    format!("{} until {}{overdue}", words(&grant.amounts), dates::shown(grant.until))
}

fn words(amounts: &Amounts) -> String {
    let word = |amount: Option<Amount>, shown: fn(u64) -> String, what: &str| {
        amount.map(|amount| match amount {
            Amount::Add(value) => format!("{} more {what}", shown(value)),
            Amount::To(value) => format!("{} {what}", shown(value)),
        })
    };
    let parts = [
        word(amounts.cpu_millis, units::cpus, "CPUs"),
        word(amounts.memory_bytes, units::bytes, "memory"),
        word(amounts.pids, |pids| pids.to_string(), "processes"),
        word(amounts.disk_bytes, units::bytes, "disk"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn is_over(state: RequestState) -> bool {
    matches!(state, RequestState::Denied | RequestState::Cancelled | RequestState::Lapsed | RequestState::Ended)
}

fn state_word(state: RequestState) -> &'static str {
    match state {
        RequestState::Open => "open",
        RequestState::Denied => "denied",
        RequestState::Cancelled => "cancelled",
        RequestState::Lapsed => "lapsed",
        RequestState::Approved => "approved",
        RequestState::Active => "active",
        RequestState::Ending => "ending",
        RequestState::Overdue => "overdue",
        RequestState::Ended => "ended",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plus_is_on_top_and_no_plus_is_in_all() {
        assert_eq!("+20g".parse(), Ok(More { value: Size(20 << 30), on_top: true }));
        assert_eq!("4g".parse(), Ok(More { value: Size(4 << 30), on_top: false }));
        for bad in ["", "+", "-1g", "++1g", "+x"] {
            assert!(bad.parse::<More<Size>>().is_err(), "{bad}");
        }
        let arguments = AmountArguments { disk: "+20g".parse().ok(), cpus: "1.5".parse().ok(), ..AmountArguments::default() };
        let amounts = arguments.amounts();
        assert_eq!((amounts.disk_bytes, amounts.cpu_millis), (Some(Amount::Add(20 << 30)), Some(Amount::To(1500))));
        assert_eq!(words(&amounts), "1.5 CPUs, 20 GiB more disk");
    }
}
