//! Berths: assign, change, start, stop, restart, rebuild, delete.

use std::io::{self, BufRead, IsTerminal, Write};

use berth_api::{Accepted, BerthChange, NewBerth, Operation, Warning};
use serde_json::json;

use super::{
    Context,
    look::conditions,
    many::{ManyArguments, headroom},
    words::{self, quota},
};
use crate::{
    Outcome,
    dates::{End, OrNever},
    failure::Failure,
    limits::{ChangeArguments, LimitArguments, with_limits},
    output::{self, Rows, printable},
    progress::{self, Show},
    units,
};

pub(super) fn new_berth(
    user: String,
    profile: Option<String>,
    image: Option<String>,
    limits: &LimitArguments,
    allow_system: bool,
    start: bool,
    until: Option<End>,
) -> Result<NewBerth, Failure> {
    let egress = limits.egress();
    Ok(with_limits!(limits.named()?, NewBerth { user, profile, image, egress, allow_system, start, until: until.map(|end| end.0) }))
}

pub(super) async fn assign(context: &Context, new: NewBerth, wait: bool) -> Outcome {
    let user = new.user.clone();
    let started = new.start;
    let accepted = context.client.assign(&new).await?;
    let Some(operation) = settle(context, accepted, wait).await? else { return Ok(0) };
    let berth = context.client.berth(&user).await?;
    if context.json {
        output::json(&json!({ "operation": operation.0, "warnings": operation.1, "berth": berth }))?;
        return Ok(0);
    }
    output::line(&format!("{user} has a berth: {}.", quota(berth.limits)))?;
    if !started {
        output::line("It starts on the first connection.")?;
    }
    output::line(&format!("As {user}, Docker works from the next login on, or at once with:"))?;
    output::line("  eval \"$(berth env)\"")?;
    output::line("  docker run --rm hello-world")?;
    Ok(0)
}

/// What a change names of berths that are there.
pub(super) fn change(profile: Option<String>, limits: &ChangeArguments, until: Option<OrNever>) -> Result<BerthChange, Failure> {
    let egress = limits.egress();
    let change = with_limits!(limits.named()?, BerthChange { profile, egress, until: until.map(|until| until.0) });
    if change == BerthChange::default() {
        return Err(Failure::usage("there is nothing to change", "berth set USER --cpus 2 --memory 4g; see berth set --help"));
    }
    Ok(change)
}

pub(super) async fn set(context: &Context, user: &str, change: &BerthChange, many: ManyArguments) -> Outcome {
    if many.dry_run {
        return preview(context, user, change).await;
    }
    let accepted = context.client.change(user, change).await?;
    let Some(operation) = settle(context, accepted, !many.no_wait).await? else { return Ok(0) };
    let berth = context.client.berth(user).await?;
    if context.json {
        output::json(&json!({ "operation": operation.0, "warnings": operation.1, "berth": berth }))?;
        return Ok(0);
    }
    output::line(&format!("{user} has {}.", quota(berth.limits)))?;
    conditions(&berth)?;
    Ok(0)
}

/// What the change would do; nothing is changed.
async fn preview(context: &Context, user: &str, change: &BerthChange) -> Outcome {
    let preview = context.client.preview(user, change).await?;
    if context.json {
        output::json(&preview)?;
        return Ok(0);
    }
    for warning in &preview.warnings {
        eprintln!("warning: {}", warning.detail);
    }
    if preview.changes.is_empty() {
        output::line(&format!("Nothing would change: {user} has that already."))?;
        return Ok(0);
    }
    let mut rows = Rows::new(&["WHAT", "NOW", "THEN", "APPLIES"]);
    for change in &preview.changes {
        let [field, before, after] = words::difference(change);
        let applies = match &change.waits {
            Some(reason) => format!("later: {}", printable(reason)),
            None => "at once".to_owned(),
        };
        rows.push([field, before, after, applies]);
    }
    rows.show()?;
    headroom(&preview.headroom)?;
    Ok(0)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Power {
    Start,
    Stop,
    Restart,
}

pub(super) async fn power(context: &Context, power: Power, user: &str, wait: bool) -> Outcome {
    let (accepted, done) = match power {
        Power::Start => (context.client.start(user).await?, "runs"),
        Power::Stop => (context.client.stop(user).await?, "is stopped"),
        Power::Restart => (context.client.restart(user).await?, "runs again"),
    };
    finish(context, accepted, wait, &format!("The berth of {user} {done}.")).await
}

pub(super) async fn delete(context: &Context, user: &str, archive: Option<String>, yes: bool, wait: bool) -> Outcome {
    if let Some(archive) = &archive {
        super::archive::check_name(archive)?;
    }
    if !yes {
        confirm(context, user, "deleting", "deletes all images, containers and volumes").await?;
    }
    if let Some(archive) = archive {
        return super::archive::delete(context, user, &archive, wait).await;
    }
    let accepted = context.client.delete(user).await?;
    finish(context, accepted, wait, &format!("The berth of {user} is deleted.")).await
}

pub(super) async fn rebuild(context: &Context, user: &str, wipe: bool, yes: bool, wait: bool) -> Outcome {
    if !yes {
        let harm = match wipe {
            true => "stops it, and deletes all images, containers, volumes and files outside the home",
            false => "stops it, and deletes all files outside the home but for images, containers and volumes",
        };
        confirm(context, user, "rebuilding", harm).await?;
    }
    let accepted = context.client.rebuild(user, wipe).await?;
    finish(context, accepted, wait, &format!("The berth of {user} is as new, and runs.")).await
}

/// Has the user's name typed.
async fn confirm(context: &Context, user: &str, doing: &str, harm: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{doing} needs a yes"), "pass --yes"));
    }
    // Looked up first: nobody should type a name in vain.
    let berth = context.client.berth(user).await?;
    let used = berth.usage.map_or_else(String::new, |usage| format!(" ({} on disk)", units::bytes(usage.disk_bytes)));
    eprint!("This {harm} of {user}{used}.\nType the user's name to go on: ");
    io::stderr().flush().map_err(|error| Failure::io("cannot ask", &error))?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|error| Failure::io("cannot read the answer", &error))?;
    match answer.trim() == user {
        true => Ok(()),
        false => Err(Failure::own(1, "not_confirmed", "nothing was deleted", None)),
    }
}

/// Waits, then says that it is done.
pub(super) async fn finish(context: &Context, accepted: Accepted, wait: bool, done: &str) -> Outcome {
    let Some((operation, warnings)) = settle(context, accepted, wait).await? else { return Ok(0) };
    match context.json {
        true => output::json(&Accepted { operation, warnings })?,
        false => output::line(done)?,
    }
    Ok(0)
}

/// Waits for the operation, or says only that it is under way and returns nothing.
pub(super) async fn settle(context: &Context, accepted: Accepted, wait: bool) -> Result<Option<(Operation, Vec<Warning>)>, Failure> {
    if !wait {
        match context.json {
            true => output::json(&accepted)?,
            false => {
                for warning in &accepted.warnings {
                    eprintln!("warning: {}", warning.detail);
                }
                output::line(&format!("Under way: operation {}", accepted.operation.id))?;
            }
        }
        return Ok(None);
    }
    let warnings = accepted.warnings.clone();
    let show = if context.json { Show::Nothing } else { Show::Steps };
    progress::follow(&context.client, accepted, show).await.map(|operation| Some((operation, warnings)))
}
