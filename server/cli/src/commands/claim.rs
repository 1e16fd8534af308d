//! A berth on first use, by the rules of the host.

use std::time::Duration;

use berth_api::OperationState;
use clap::Args;

use super::{Context, login::own_socket};
use crate::{Outcome, failure::Failure, output, progress, progress::Show};

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ClaimArguments {
    /// Wait so many seconds at most, for the service and for the berth
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    wait: u64,
    /// Say nothing; the exit code tells
    #[arg(long, short)]
    quiet: bool,
}

/// Answers within the time given, whatever the service does: logins run it.
pub(super) async fn claim(context: &Context, arguments: ClaimArguments) -> Outcome {
    let made = tokio::time::timeout(Duration::from_secs(arguments.wait), make(context, Show::Nothing)).await;
    let made = made.unwrap_or_else(|_| {
        Err(Failure::own(7, "timed_out", format!("there is no berth within {} s", arguments.wait), Some("see how it stands: berth status")))
    });
    match made {
        Ok(_) if arguments.quiet => Ok(0),
        Err(failure) if arguments.quiet => Ok(failure.code()),
        Ok(new) => {
            match context.json {
                true => output::json(&serde_json::json!({ "made": new }))?,
                false if new => {
                    output::line("You have a berth now; Docker works from the next login on, or at once with: eval \"$(berth env)\"")?
                }
                false => output::line("You have a berth.")?,
            }
            Ok(0)
        }
        Err(failure) => Err(failure),
    }
}

/// Takes a berth, if the rules give one; true when there was none.
pub(super) async fn make(context: &Context, show: Show) -> Result<bool, Failure> {
    if own_socket(&context.socket).is_some() {
        return Ok(false);
    }
    let claim = context.client.claim().await?;
    let Some(operation) = claim.operation else { return Ok(false) };
    let ended = progress::follow_all(&context.client, vec![operation], show, "made").await?;
    match ended.into_iter().find(|operation| operation.state != OperationState::Succeeded) {
        Some(failed) => Err(Failure::operation(failed)),
        None => Ok(true),
    }
}
