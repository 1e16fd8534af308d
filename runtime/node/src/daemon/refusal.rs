//! What a client gets instead of an answer: a status, and a [`Problem`] with a stable code.

use std::error::Error as StdError;

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use berth_protocol::{InvalidLimits, Problem};
use berth_runtime::{Error, error::chain};

#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", problem.detail)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) problem: Problem,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self { status, problem: Problem { code: code.to_owned(), detail: detail.into(), hint: None } }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.problem.hint = Some(hint.into());
        self
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    pub(crate) fn conflict(code: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    pub(crate) fn no_berth(user: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "berth_not_found", format!("{user} has no berth on this node"))
            .hint(format!("berth assign {user}"))
    }

    pub(crate) fn invalid_limits(error: &InvalidLimits) -> Self {
        let (code, hint) = match error {
            InvalidLimits::TooLow { bound, .. } => ("limit_too_low", format!("ask for {bound} or more")),
            InvalidLimits::TooHigh { bound, .. } => ("limit_too_high", format!("ask for {bound} or less")),
            InvalidLimits::HighAboveMemory { memory, .. } => ("limit_too_high", format!("ask for {memory} or less, or for more memory")),
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, error.to_string()).hint(hint)
    }

    pub(crate) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "node_stopping", "the node is stopping; running berths go on")
            .hint("ask again when it is back")
    }

    /// An operation on the host that failed. A full file system is told apart.
    pub(crate) fn failed(code: &str, what: impl std::fmt::Display, error: &(dyn StdError + 'static)) -> Self {
        let detail = format!("{what}: {}", chain(error));
        if out_of_space(error) {
            return Self::new(StatusCode::INSUFFICIENT_STORAGE, "host_disk_full", detail)
                .hint("free space on the file system that holds the berths (state_dir in node.toml), then ask again");
        }
        if causes(error).any(no_range) {
            return Self::new(StatusCode::INSUFFICIENT_STORAGE, "ids_exhausted", detail).hint(
                "widen [ids] in node.toml, or shorten quarantine_days; berth doctor tells what holds the ranges, berth-node ids purge ends \
                 quarantines early",
            );
        }
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, detail).hint("berth doctor tells what this host lacks; the node's log has more")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(code = self.problem.code, detail = self.problem.detail, "request failed");
        }
        (self.status, Json(self.problem)).into_response()
    }
}

/// True when a full disk (or quota) is anywhere in the chain.
fn out_of_space(error: &(dyn StdError + 'static)) -> bool {
    for error in causes(error) {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        {
            return true;
        }
        // mke2fs tells it in words only.
        if error.to_string().contains("No space left on device") {
            return true;
        }
    }
    false
}

fn no_range(error: &(dyn StdError + 'static)) -> bool {
    // What is undone carries its cause in a box, which is an error of its own.
    let error = error.downcast_ref().or_else(|| error.downcast_ref::<Box<Error>>().map(|boxed| &**boxed));
    matches!(error, Some(Error::NoRange { .. }))
}

/// The error and what it came from, outermost first.
fn causes<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use berth_runtime::Error;

    use super::*;

    #[test]
    fn a_full_disk_has_its_own_code_wherever_it_is_in_the_chain() {
        let source = std::io::Error::from_raw_os_error(nix::libc::ENOSPC);
        let step = Error::Step { operation: "write", object: "/x".into(), source };
        let error = Error::Undone { cause: Box::new(step), leftovers: vec!["/y".into()] };
        assert_eq!(Refusal::failed("create_failed", "cannot create", &error).problem.code, "host_disk_full");
        let none = Error::NoRange { capacity: 1, in_use: 1, quarantined: 0, held: 0, foreign: 0 };
        let exhausted = Error::Undone { cause: Box::new(none), leftovers: Vec::new() };
        assert_eq!(Refusal::failed("create_failed", "cannot create", &exhausted).problem.code, "ids_exhausted");
        let other = Error::Invalid("no".into());
        assert_eq!(Refusal::failed("create_failed", "cannot create", &other).problem.code, "create_failed");
    }
}
