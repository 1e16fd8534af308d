//! Offboarding: a report first, then each berth into an archive and away.

use std::io::{self, BufRead, IsTerminal, Write};

use berth_api::{Account, AccountState, Operation, OperationState};
use clap::Args;
use serde_json::json;

use super::{Context, archive::check_name};
use crate::{
    Outcome,
    failure::Failure,
    output::{self, Rows, printable, word},
    progress::{self, Show},
    units::{self, Span},
};

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("whom").required(true).multiple(true).args(["users", "inactive", "vanished", "locked"]))]
pub(crate) struct OffboardArguments {
    /// Names of host accounts
    #[arg(value_name = "USER")]
    users: Vec<String>,
    /// Berths that nobody used for so long, for instance 90d
    #[arg(long, value_name = "TIME")]
    inactive: Option<Span>,
    /// Berths that are suspended because their accounts are gone, or are another's
    #[arg(long)]
    vanished: bool,
    /// Berths that are suspended because their accounts are locked or have expired
    #[arg(long)]
    locked: bool,
    /// Only report
    #[arg(long)]
    dry_run: bool,
    /// Keep nothing of them
    #[arg(long, conflicts_with = "archive")]
    no_archive: bool,
    /// Name of the archive, where there is one user [default: USER-DATE-TIME.berth, in archive_dir of node.toml]
    #[arg(long, value_name = "NAME")]
    archive: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// A berth that is to go, and why.
struct Leaver {
    account: Account,
    why: String,
}

pub(super) async fn offboard(context: &Context, arguments: OffboardArguments) -> Outcome {
    let OffboardArguments { users, dry_run, no_archive, archive, yes, .. } = &arguments;
    if let Some(archive) = archive {
        check_name(archive)?;
        if users.len() != 1 || arguments.inactive.is_some() || arguments.vanished || arguments.locked {
            return Err(Failure::usage("--archive names the archive of one user", "berth offboard USER --archive NAME.berth"));
        }
    }
    let all = context.client.all_accounts().await?;
    if (arguments.vanished || arguments.locked) && !dry_run && !all.alarms.is_empty() {
        let why = all.alarms.iter().map(|alarm| alarm.detail.as_str()).collect::<Vec<_>>().join("; ");
        let detail = format!("what the host says of its accounts is not to be believed now: {why}");
        return Err(Failure::own(5, "accounts_in_doubt", detail, Some("berth doctor; to go on all the same, name the users")));
    }
    let leavers = choose(&arguments, all.items, units::now())?;
    for alarm in all.alarms.iter().filter(|_| !context.json) {
        eprintln!("warning: {}", printable(&alarm.detail));
    }
    if !context.json {
        report(&leavers, !no_archive)?;
    }
    if *dry_run || leavers.is_empty() {
        if context.json {
            output::json(&json!({ "leavers": listed(&leavers), "operations": [] }))?;
        }
        return Ok(0);
    }
    if !yes {
        confirm(leavers.len(), *no_archive)?;
    }
    let mut operations = Vec::new();
    let mut refused = Vec::new();
    for leaver in &leavers {
        let user = &leaver.account.user;
        let accepted = match no_archive {
            true => context.client.delete(user).await,
            false => context.client.delete_into_archive(user, archive.as_deref().unwrap_or_default()).await,
        };
        match accepted {
            Ok(accepted) => operations.push(accepted.operation),
            Err(error) => refused.push((user.clone(), Failure::from(error))),
        }
    }
    let show = if context.json { Show::Nothing } else { Show::Steps };
    let operations = progress::follow_all(&context.client, operations, show, "offboarded").await?;
    finish(context, &leavers, &operations, &refused)
}

fn choose(arguments: &OffboardArguments, accounts: Vec<Account>, now: i64) -> Result<Vec<Leaver>, Failure> {
    let OffboardArguments { users, inactive, vanished, locked, .. } = arguments;
    if let Some(missing) = users.iter().find(|user| !accounts.iter().any(|account| account.user == **user)) {
        return Err(Failure::own(3, "berth_not_found", format!("{missing} has no berth"), Some("berth list")));
    }
    let inactive = match inactive {
        Some(Span(None)) => return Err(Failure::usage("never is no time to wait for", "berth offboard --inactive 90d")),
        Some(Span(Some(seconds))) => Some(i64::from(*seconds) * 1000),
        None => None,
    };
    let why = |account: &Account| {
        use AccountState::{Expired, Locked, Renamed, Vanished};
        let last = account.last_used_at.unwrap_or(account.created_at).max(account.created_at);
        let barred = account.suspended.is_some();
        if users.contains(&account.user) {
            return Some("named".to_owned());
        }
        if *vanished && barred && matches!(account.state, Vanished | Renamed)
            || *locked && barred && matches!(account.state, Locked | Expired)
        {
            return Some(account.detail.clone());
        }
        inactive.filter(|least| now - last >= *least).map(|_| format!("not used for {}", units::age(last, now)))
    };
    Ok(accounts.into_iter().filter_map(|account| Some(Leaver { why: why(&account)?, account })).collect())
}

fn report(leavers: &[Leaver], archive: bool) -> Result<(), Failure> {
    if leavers.is_empty() {
        return output::line("There is nobody to offboard.");
    }
    let mut rows = Rows::new(&["USER", "ACCOUNT", "LAST USED", "DISK", "WHY"]);
    for Leaver { account, why } in leavers {
        let last = account.last_used_at.map_or_else(|| "-".to_owned(), |at| format!("{} ago", units::age(at, units::now())));
        let disk = account.disk_bytes.map_or_else(|| "-".to_owned(), units::bytes);
        rows.push([
            account.user.clone().into(),
            word(state(account.state)),
            last.into(),
            disk.into(),
            comfy_table::Cell::new(printable(why)),
        ]);
    }
    rows.show()?;
    let sum: u64 = leavers.iter().filter_map(|leaver| leaver.account.disk_bytes).sum();
    let kept = if archive { "each is kept in an archive" } else { "nothing of them is kept" };
    output::line(&format!("{}, {} on disk; {kept}.", berths(leavers.len()), units::bytes(sum)))
}

fn state(state: AccountState) -> &'static str {
    match state {
        AccountState::Present => "present",
        AccountState::Vanished => "vanished",
        AccountState::Locked => "locked",
        AccountState::Expired => "expired",
        AccountState::Renamed => "renamed",
        AccountState::Unknown => "unknown",
    }
}

fn confirm(count: usize, no_archive: bool) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("offboarding needs a yes", "pass --yes"));
    }
    let kept = if no_archive { " without an archive" } else { "" };
    eprint!("This deletes {}{kept}.\nType yes to go on: ", berths(count));
    io::stderr().flush().map_err(|error| Failure::io("cannot ask", &error))?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|error| Failure::io("cannot read the answer", &error))?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(Failure::own(1, "not_confirmed", "nothing was deleted", None)),
    }
}

fn finish(context: &Context, leavers: &[Leaver], operations: &[Operation], refused: &[(String, Failure)]) -> Outcome {
    let failed: Vec<&Operation> = operations.iter().filter(|operation| operation.state != OperationState::Succeeded).collect();
    if context.json {
        output::json(&json!({ "leavers": listed(leavers), "operations": operations }))?;
    } else {
        for operation in operations.iter().filter(|operation| operation.state == OperationState::Succeeded) {
            let kept = operation.result.as_deref().map(|name| format!(": {name}")).unwrap_or_default();
            output::line(&format!("{} is offboarded{kept}", operation.subject))?;
        }
        for operation in &failed {
            let why = operation.problem.as_ref().map_or("it did not succeed", |problem| &problem.detail);
            eprintln!("{}: {}", operation.subject, printable(why));
        }
        output::line(&format!("{} offboarded.", berths(operations.len() - failed.len())))?;
    }
    for (user, failure) in refused {
        eprint!("{user}: ");
        failure.show(context.json);
    }
    match failed.len() + refused.len() {
        0 => Ok(0),
        count => Err(Failure::own(
            1,
            "some_failed",
            format!("{count} of {} were not offboarded", leavers.len()),
            Some("ask again; what is gone is gone"),
        )),
    }
}

fn listed(leavers: &[Leaver]) -> Vec<serde_json::Value> {
    leavers.iter().map(|leaver| json!({ "account": leaver.account, "why": leaver.why })).collect()
}

fn berths(count: usize) -> String {
    match count {
        1 => "1 berth".to_owned(),
        _ => format!("{count} berths"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    fn account(user: &str, state: AccountState, last_used_at: Option<i64>, suspended: bool) -> Account {
        Account {
            user: user.to_owned(),
            uid: 1000,
            state,
            detail: format!("{user} is gone"),
            since: None,
            last_used_at,
            created_at: 0,
            suspended: suspended.then(|| "gone".to_owned()),
            disk_bytes: None,
        }
    }

    fn chosen(users: &[&str], inactive: Option<u32>, vanished: bool) -> Vec<String> {
        let arguments = OffboardArguments {
            users: users.iter().map(|user| (*user).to_owned()).collect(),
            inactive: inactive.map(|days| Span(Some(days * 86_400))),
            vanished,
            locked: false,
            dry_run: false,
            no_archive: false,
            archive: None,
            yes: false,
        };
        let accounts = vec![
            account("busy", AccountState::Present, Some(99 * DAY), false),
            account("idle", AccountState::Present, Some(5 * DAY), false),
            account("never", AccountState::Present, None, false),
            account("missed", AccountState::Vanished, Some(99 * DAY), false),
            account("gone", AccountState::Vanished, Some(99 * DAY), true),
        ];
        let leavers = choose(&arguments, accounts, 100 * DAY).ok().unwrap();
        leavers.into_iter().map(|leaver| leaver.account.user).collect()
    }

    #[test]
    fn l05_who_is_named_not_used_or_suspended_for_being_gone_is_chosen_and_nobody_else() {
        assert_eq!(chosen(&["busy"], None, false), ["busy"]);
        assert_eq!(chosen(&[], Some(90), false), ["idle", "never"]);
        assert_eq!(chosen(&[], None, true), ["gone"], "not one that was only missed");
        assert_eq!(chosen(&["busy"], Some(96), true), ["busy", "never", "gone"]);
    }
}
