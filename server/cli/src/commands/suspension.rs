//! Barring berths and letting them go.

use std::io::{self, BufRead, IsTerminal, Write};

use berth_api::{AllAccepted, BerthState, Operation, OperationState};
use serde_json::json;

use super::{Context, berths::finish};
use crate::{
    Outcome,
    arguments::Whom,
    failure::Failure,
    output::{self, printable},
    progress::{self, Show},
};

pub(super) async fn suspend(context: &Context, whom: Whom, reason: &str, wait: bool) -> Outcome {
    if let Some(user) = whom.user {
        let accepted = context.client.suspend(&user, reason).await?;
        return finish(context, accepted, wait, &format!("The berth of {user} is suspended.")).await;
    }
    confirm(context, whom.yes, "This stops every berth of this host and refuses every Docker socket", |state| {
        state != BerthState::Suspended
    })
    .await?;
    let accepted = context.client.suspend_all(reason).await?;
    settle(context, accepted, wait, "suspended").await
}

pub(super) async fn resume(context: &Context, whom: Whom, wait: bool) -> Outcome {
    if let Some(user) = whom.user {
        let accepted = context.client.resume(&user).await?;
        return finish(context, accepted, wait, &format!("The berth of {user} is as it was.")).await;
    }
    confirm(context, whom.yes, "This lets every suspended berth of this host go", |state| state == BerthState::Suspended).await?;
    let accepted = context.client.resume_all().await?;
    settle(context, accepted, wait, "resumed").await
}

/// Asks whoever sits at a terminal; a script has said what it means.
async fn confirm(context: &Context, yes: bool, what: &str, concerned: fn(BerthState) -> bool) -> Result<(), Failure> {
    if yes || !io::stdin().is_terminal() {
        return Ok(());
    }
    let count = context.client.all_berths().await?.iter().filter(|berth| concerned(berth.state)).count();
    eprint!("{what} ({count} now).\nType yes to go on: ");
    io::stderr().flush().map_err(|error| Failure::io("cannot ask", &error))?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|error| Failure::io("cannot read the answer", &error))?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(Failure::own(1, "not_confirmed", "nothing was changed", None)),
    }
}

async fn settle(context: &Context, accepted: AllAccepted, wait: bool, done: &str) -> Outcome {
    let AllAccepted { operations, unchanged } = accepted;
    if !wait {
        match context.json {
            true => output::json(&json!({ "operations": operations, "unchanged": unchanged }))?,
            false => output::line(&format!("Under way: {}", berths(operations.len() as u64)))?,
        }
        return Ok(0);
    }
    let show = if context.json { Show::Nothing } else { Show::Steps };
    let operations = progress::follow_all(&context.client, operations, show, done).await?;
    let failed: Vec<&Operation> = operations.iter().filter(|operation| operation.state != OperationState::Succeeded).collect();
    if context.json {
        output::json(&json!({ "operations": operations, "unchanged": unchanged }))?;
    } else {
        let before = if unchanged > 0 { format!("; {unchanged} needed no change") } else { String::new() };
        output::line(&format!("{} {done}{before}.", berths((operations.len() - failed.len()) as u64)))?;
        for operation in &failed {
            let why = operation.problem.as_ref().map_or("it did not succeed", |problem| &problem.detail);
            eprintln!("{}: {}", operation.subject, printable(why));
        }
    }
    match failed.len() {
        0 => Ok(0),
        count => {
            let detail = format!("{count} of {} berths could not be {done}", operations.len());
            Err(Failure::own(1, "some_failed", detail, Some("see berth list, and berth show USER for each of them")))
        }
    }
}

fn berths(count: u64) -> String {
    match count {
        1 => "1 berth".to_owned(),
        _ => format!("{count} berths"),
    }
}
