//! Waiting for an operation, with its steps on a terminal.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use berth_api::{
    Accepted, Operation, OperationState,
    client::{Client, Error},
};
use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::Failure;

/// One long poll; the connection is made anew after each.
const POLL: Duration = Duration::from_secs(30);
/// How long a service that has gone is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(300);

/// How the wait is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    Nothing,
    /// A line that moves, if stderr is a terminal.
    Steps,
    /// The same, and each line of output.
    Output,
}

/// Shows warnings and waits until the operation has ended; fails when it did not succeed.
pub(crate) async fn follow(client: &Client, accepted: Accepted, show: Show) -> Result<Operation, Failure> {
    if show != Show::Nothing {
        for warning in &accepted.warnings {
            eprintln!("warning: {}", warning.detail);
        }
    }
    let bar = bar(show);
    let mut operation = accepted.operation;
    let mut shown = 0;
    loop {
        if show == Show::Output {
            shown = output(&bar, &operation, shown);
        }
        if operation.state.is_finished() {
            break;
        }
        let step = if operation.step.is_empty() { "waiting" } else { &operation.step };
        bar.set_message(format!("{}: {step}", operation.subject));
        operation = next(client, &operation).await?;
    }
    bar.finish_and_clear();
    match operation.state {
        OperationState::Succeeded => Ok(operation),
        _ => Err(Failure::operation(operation)),
    }
}

/// Waits until all of them have ended, however they end; `done` is the word for what becomes of each.
pub(crate) async fn follow_all(client: &Client, operations: Vec<Operation>, show: Show, done: &str) -> Result<Vec<Operation>, Failure> {
    let bar = bar(show);
    let (all, mut ended) = (operations.len(), Vec::with_capacity(operations.len()));
    for mut operation in operations {
        while !operation.state.is_finished() {
            bar.set_message(format!("{} of {all} {done}", ended.len()));
            operation = next(client, &operation).await?;
        }
        ended.push(operation);
    }
    bar.finish_and_clear();
    Ok(ended)
}

/// The operation after its next change; a service that is being restarted is waited for, since operations survive that.
async fn next(client: &Client, operation: &Operation) -> Result<Operation, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.wait(operation.id, POLL, Some(operation.revision)).await {
            Err(Error::Connect { .. } | Error::Connection(_)) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
            result => return Ok(result?),
        }
    }
}

/// A spinner, or nothing where nobody looks.
pub(crate) fn bar(show: Show) -> ProgressBar {
    if show == Show::Nothing || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Prints the lines that came since; returns how many there are now.
fn output(bar: &ProgressBar, operation: &Operation, shown: u64) -> u64 {
    let kept = operation.log.len() as u64;
    let first = operation.log_lines - kept.min(operation.log_lines);
    if first > shown {
        bar.suspend(|| eprintln!("… {} lines left out", first - shown));
    }
    for line in operation.log.iter().skip(usize::try_from(shown.saturating_sub(first)).unwrap_or(usize::MAX)) {
        bar.suspend(|| eprintln!("{line}"));
    }
    operation.log_lines
}
