//! Operations: list, look, wait, cancel.

use std::time::{Duration, Instant};

use berth_api::{Operation, OperationState, client::OperationQuery};
use clap::{Subcommand, ValueEnum};
use serde::Serialize;
use uuid::Uuid;

use super::Context;
use crate::{
    Outcome,
    failure::Failure,
    output::{self, Rows, printable},
    units,
};

#[derive(Debug, Subcommand)]
pub(crate) enum OperationsCommand {
    /// List operations, newest first
    #[command(visible_alias = "ls")]
    List {
        /// Only those about this user or image
        #[arg(long, value_name = "NAME")]
        subject: Option<String>,
        /// Only those in this state
        #[arg(long, value_enum)]
        state: Option<State>,
        /// Only of this kind, for instance berth_start
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        /// At most so many
        #[arg(short = 'n', long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
    /// Show an operation
    Show { id: Uuid },
    /// Wait until an operation has ended; fails as it did
    Wait {
        id: Uuid,
        /// Give up after so many seconds
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
    },
    /// Cancel what nobody has begun, or an image that is being built or imported
    Cancel { id: Uuid },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    Pending,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

pub(super) async fn run(context: &Context, command: OperationsCommand) -> Outcome {
    match command {
        OperationsCommand::List { subject, state, kind, limit } => {
            let state = state.map(|state| match state {
                State::Pending => OperationState::Pending,
                State::Running => OperationState::Running,
                State::Succeeded => OperationState::Succeeded,
                State::Failed => OperationState::Failed,
                State::Cancelled => OperationState::Cancelled,
            });
            list(context, &OperationQuery { subject, state: state.map(word), kind, limit }).await
        }
        OperationsCommand::Show { id } => show(context, &context.client.operation(id).await?),
        OperationsCommand::Cancel { id } => {
            let operation = context.client.cancel_operation(id).await?;
            match context.json {
                true => output::json(&operation)?,
                false => output::line(&format!("The operation {id} ({}) is cancelled.", operation.subject))?,
            }
            Ok(0)
        }
        OperationsCommand::Wait { id, timeout } => wait(context, id, timeout.map(Duration::from_secs)).await,
    }
}

async fn list(context: &Context, query: &OperationQuery) -> Outcome {
    let operations = context.client.operations(query).await?.items;
    if context.json {
        output::json(&serde_json::json!({ "items": operations }))?;
        return Ok(0);
    }
    if operations.is_empty() {
        output::line("There are none.")?;
        return Ok(0);
    }
    let mut rows = Rows::new(&["ID", "KIND", "ABOUT", "STATE", "STEP", "BY", "AGE"]);
    for operation in operations {
        let step = step(&operation);
        rows.push([
            operation.id.to_string().into(),
            word(operation.kind).into(),
            printable(&operation.subject).into(),
            output::word(&word(operation.state)),
            printable(&step).into(),
            printable(&operation.actor).into(),
            units::age(operation.created_at, units::now()).into(),
        ]);
    }
    rows.show()?;
    Ok(0)
}

fn show(context: &Context, operation: &Operation) -> Outcome {
    if context.json {
        output::json(operation)?;
        return Ok(0);
    }
    let mut facts = vec![
        ("id", operation.id.to_string()),
        ("kind", word(operation.kind)),
        ("about", printable(&operation.subject)),
        ("state", word(operation.state)),
    ];
    facts.extend(Some(step(operation)).filter(|step| !step.is_empty()).map(|step| ("step", printable(&step))));
    facts.extend(operation.result.clone().map(|result| ("result", result)));
    facts.extend(operation.problem.iter().map(|problem| ("problem", format!("{}: {}", problem.code, printable(&problem.detail)))));
    facts.push(("asked by", printable(&operation.actor)));
    facts.push(("begun", format!("{} ago", units::age(operation.created_at, units::now()))));
    output::facts(&facts)?;
    for line in &operation.log {
        output::line(&printable(line))?;
    }
    Ok(0)
}

async fn wait(context: &Context, id: Uuid, timeout: Option<Duration>) -> Outcome {
    const POLL: Duration = Duration::from_secs(30);
    let end = timeout.map(|timeout| Instant::now() + timeout);
    let operation = loop {
        let left = end.map_or(POLL, |end| end.saturating_duration_since(Instant::now()).min(POLL));
        let operation = context.client.wait(id, left, None).await?;
        if operation.state.is_finished() {
            break operation;
        }
        // The service counts whole seconds.
        if end.is_some_and(|end| end.saturating_duration_since(Instant::now()) < Duration::from_secs(1)) {
            return Err(Failure::own(7, "timed_out", format!("the operation {id} has not ended yet"), Some("berth operations show")));
        }
    };
    match operation.state {
        OperationState::Succeeded => show(context, &operation),
        _ => Err(Failure::operation(operation)),
    }
}

fn step(operation: &Operation) -> String {
    let far = match operation.progress {
        Some(progress) => match progress.total {
            Some(total) if total > 0 => format!("{} of {}", units::bytes(progress.done), units::bytes(total)),
            _ => units::bytes(progress.done),
        },
        None => String::new(),
    };
    [operation.step.as_str(), far.as_str()].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ")
}

/// As the API writes it.
fn word(value: impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
