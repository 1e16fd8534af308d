//! The audit trail: a table of what was, then, with `--follow`, a line for each that comes.

use std::time::Duration;

use berth_api::{AuditAction, AuditCall, AuditRecord, CallOutcome, client::AuditFilter};
use clap::{Args, ValueEnum};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::json;

use super::Context;
use crate::{
    Outcome,
    failure::Failure,
    output::{self, Rows, printable},
    units,
};

/// Rows that the service gives at once.
const PAGE: u32 = 500;
/// A long poll; the next begins at once.
const WAIT: Duration = Duration::from_secs(45);
/// Between attempts to reach a service that is away, while following.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct AuditArguments {
    /// Only calls of this user, and what was done about the user's berth
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// From then on: 90m, 2h, 7d, or a time such as 2026-05-03T02:10 (of this host, unless it ends in Z or an offset)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<i64>,
    /// Before then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<i64>,
    /// Only calls whose path begins so, for instance /containers
    #[arg(long, value_name = "PREFIX")]
    path: Option<String>,
    /// Only calls with at least this status, for instance 400
    #[arg(long, value_name = "CODE")]
    status: Option<u16>,
    /// Only what was asked of Berth (action), or only what users asked of their Dockers (call)
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Go on with what comes; one JSON document a line with --json
    #[arg(short, long, conflicts_with_all = ["export", "until"])]
    follow: bool,
    /// How many of the latest [default: 100; all with --export]
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<u64>,
    /// All of it, newest first, one JSON document a line
    #[arg(long)]
    export: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Action,
    Call,
}

/// Milliseconds since the epoch, of a time or of how long ago.
fn moment(text: &str) -> Result<i64, String> {
    let error = || format!("{text:?} is no time; write for instance 2h, 7d or 2026-05-03T02:10");
    if let Some((count, unit)) = text.split_at_checked(text.len().saturating_sub(1))
        && let Ok(count) = count.parse::<u32>()
    {
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "w" => 604_800,
            _ => return Err(error()),
        };
        return Ok(units::now() - i64::from(count) * seconds * 1000);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.as_millisecond());
    }
    let time: DateTime = text.parse().map_err(|_| error())?;
    TimeZone::system().to_timestamp(time).map(Timestamp::as_millisecond).map_err(|_| error())
}

pub(super) async fn audit(context: &Context, arguments: AuditArguments) -> Outcome {
    let filter = AuditFilter {
        kind: arguments.kind.map(|kind| if kind == Kind::Call { "call" } else { "action" }.to_owned()),
        user: arguments.user,
        since: arguments.since,
        until: arguments.until,
        path: arguments.path,
        status: arguments.status,
    };
    let most = arguments.limit.unwrap_or(if arguments.export { u64::MAX } else { 100 });
    if arguments.export {
        return export(context, &filter, most).await;
    }
    let (mut records, follow) = latest(context, &filter, most).await?;
    // The newest last, as in a log.
    records.reverse();
    match (context.json, arguments.follow) {
        (true, false) => {
            output::json(&json!({ "items": records }))?;
            return Ok(0);
        }
        (true, true) => records.iter().try_for_each(document)?,
        (false, _) => table(&records, arguments.follow)?,
    }
    match arguments.follow {
        true => forever(context, &filter, follow).await,
        false => Ok(0),
    }
}

/// The newest `most`, newest first, and where a follower goes on.
async fn latest(context: &Context, filter: &AuditFilter, most: u64) -> Result<(Vec<AuditRecord>, String), Failure> {
    let (mut records, mut cursor, mut follow) = (Vec::new(), None, None);
    loop {
        let left = most.saturating_sub(records.len() as u64).clamp(1, PAGE.into());
        let page = context.client.audit(filter, u32::try_from(left).unwrap_or(PAGE), cursor.as_deref()).await?;
        let follow = follow.get_or_insert(page.follow);
        records.extend(page.items);
        records.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        match page.next {
            Some(next) if (records.len() as u64) < most => cursor = Some(next),
            _ => return Ok((records, std::mem::take(follow))),
        }
    }
}

async fn export(context: &Context, filter: &AuditFilter, most: u64) -> Outcome {
    let (mut written, mut cursor) = (0, None);
    while written < most {
        let page = context.client.audit(filter, PAGE, cursor.as_deref()).await?;
        for record in &page.items {
            if written < most {
                document(record)?;
                written += 1;
            }
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    Ok(0)
}

/// Until somebody ends it; a service that restarts is waited for, and nothing is missed meanwhile.
async fn forever(context: &Context, filter: &AuditFilter, mut after: String) -> Outcome {
    loop {
        let page = match context.client.follow_audit(filter, &after, WAIT).await {
            Ok(page) => page,
            Err(berth_api::client::Error::Problem(problem)) if problem.status < 500 => return Err(problem.into()),
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        for record in &page.items {
            match context.json {
                true => document(record)?,
                false => output::line(&cells(record).join("  "))?,
            }
        }
        after = page.follow;
    }
}

fn document(record: &AuditRecord) -> Result<(), Failure> {
    let text = serde_json::to_string(record).map_err(|error| Failure::own(1, "io", format!("cannot be written as JSON: {error}"), None))?;
    output::line(&text)
}

fn table(records: &[AuditRecord], follow: bool) -> Result<(), Failure> {
    if records.is_empty() {
        return if follow { Ok(()) } else { output::line("There is nothing of that in the audit trail.") };
    }
    let mut rows = Rows::new(&["TIME", "USER", "COMMAND", "REQUEST", "ABOUT", "STATUS", "IN", "OUT", "TOOK"]);
    for record in records {
        rows.push(cells(record));
    }
    rows.show()
}

fn cells(record: &AuditRecord) -> [String; 9] {
    match record {
        AuditRecord::Call(call) => of_call(call),
        AuditRecord::Action(action) => of_action(action),
    }
}

fn of_call(call: &AuditCall) -> [String; 9] {
    let about = [&call.container, &call.image].into_iter().flatten().map(|name| word(name)).collect::<Vec<_>>().join(" ");
    let request = match (call.outcome, call.lost) {
        (CallOutcome::Lost, lost) => format!("{} calls without a record", lost.unwrap_or_default()),
        (CallOutcome::Unparsed, _) => "unparsed".to_owned(),
        _ => format!("{} {}", word(&call.method), word(&call.path)),
    };
    let ended = match (call.outcome, call.status) {
        (CallOutcome::Lost, _) => dash(),
        (CallOutcome::Cut, Some(status)) => format!("{status} cut"),
        (CallOutcome::Cut, None) => "cut".to_owned(),
        (CallOutcome::Refused, Some(status)) => format!("{status} by berth"),
        (_, status) => status.map_or_else(dash, |status| status.to_string()),
    };
    let took = if call.outcome == CallOutcome::Lost { dash() } else { took(call.duration_ms) };
    let command = if call.command.is_empty() { dash() } else { format!("{}[{}]", word(&call.command), call.pid) };
    [
        time(call.at),
        word(&call.user),
        command,
        request,
        if about.is_empty() { dash() } else { about },
        ended,
        units::bytes(call.request_bytes),
        units::bytes(call.response_bytes),
        took,
    ]
}

fn of_action(action: &AuditAction) -> [String; 9] {
    let about = format!("{} {}", word(&action.subject_kind), word(&action.subject));
    [time(action.at), word(&action.actor), "berth".to_owned(), word(&action.action), about, dash(), dash(), dash(), dash()]
}

fn dash() -> String {
    "-".to_owned()
}

/// What a user may have chosen, on one line.
fn word(text: &str) -> String {
    printable(text).replace('\n', "\u{fffd}")
}

fn time(at: i64) -> String {
    let local = Timestamp::from_millisecond(at).map(|time| TimeZone::system().to_datetime(time));
    local.map_or_else(|_| at.to_string(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

fn took(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", ms as f64 / 1000.0),
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        _ => format!("{:.1} h", ms as f64 / 3_600_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_ages_or_dates() {
        assert_eq!(moment("2026-05-03T02:10Z"), Ok(1_777_774_200_000));
        assert_eq!(moment("2026-05-03T02:10+02:00"), Ok(1_777_774_200_000 - 7_200_000));
        let local = moment("2026-05-03T02:10").unwrap();
        assert_eq!((time(local).as_str(), moment("2026-05-03 02:10")), ("2026-05-03 02:10:00", Ok(local)));
        assert!((units::now() - moment("2h").unwrap() - 7_200_000).abs() < 1000);
        for bad in ["", "h", "2x", "-2h", "yesterday", "2026-13-01T00:00", "ü", "2ü"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_user_chose_cannot_steer_a_terminal() {
        assert_eq!(word("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!((took(12), took(1_500), took(7_200_000)), ("12 ms".to_owned(), "1.5 s".to_owned(), "2.0 h".to_owned()));
    }
}
