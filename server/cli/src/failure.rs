//! What went wrong, for a person or as a problem document, and the exit code.

use std::io;

use berth_api::{Operation, Problem, client};

use crate::output::printable;

pub(crate) struct Failure {
    problem: Problem,
    code: u8,
}

impl Failure {
    /// The program was called in a way that makes no sense.
    pub(crate) fn usage(detail: impl Into<String>, hint: &str) -> Self {
        Self::own(2, "usage", detail, Some(hint))
    }

    pub(crate) fn own(code: u8, name: &str, detail: impl Into<String>, hint: Option<&str>) -> Self {
        let problem = Problem { status: 0, code: name.to_owned(), detail: detail.into(), hint: hint.map(str::to_owned), request_id: None };
        Self { problem, code }
    }

    pub(crate) fn io(what: &str, error: &io::Error) -> Self {
        Self::own(1, "io", format!("{what}: {error}"), None)
    }

    /// An operation that did not succeed.
    pub(crate) fn operation(operation: Operation) -> Self {
        match operation.problem {
            Some(problem) => problem.into(),
            None => Self::own(1, "operation_failed", format!("{} did not succeed", operation.subject), None),
        }
    }

    pub(crate) fn detail(&self) -> &str {
        &self.problem.detail
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// True when the service could not be reached or could not answer now.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self.code, 6 | 7)
    }

    pub(crate) fn is(&self, code: &str) -> bool {
        self.problem.code == code
    }

    pub(crate) fn show(&self, json: bool) {
        if json {
            eprintln!("{}", serde_json::to_string(&self.problem).unwrap_or_default());
            return;
        }
        eprintln!("berth: {}", printable(&self.problem.detail));
        if let Some(hint) = &self.problem.hint {
            eprintln!("hint: {}", printable(hint));
        }
        if let (500.., Some(id)) = (self.problem.status, &self.problem.request_id) {
            eprintln!("request: {id}");
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let code = match problem.status {
            400 | 413 | 415 => 2,
            404 => 3,
            401 | 403 => 4,
            409 | 412 | 422 => 5,
            429 | 503 => 6,
            408 | 504 => 7,
            _ => 1,
        };
        Self { problem, code }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        let detail = chain(&error);
        match error {
            client::Error::Problem(problem) => problem.into(),
            client::Error::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Self::own(4, "not_permitted", detail, Some("the socket must be open to everybody: see the log of berth-server"))
            }
            client::Error::Connect { .. } => {
                Self::own(6, "service_unreachable", detail, Some("see whether berth-server runs: systemctl status berth-server"))
            }
            client::Error::Connection(_) => Self::own(6, "service_unreachable", detail, Some("try again; see the log of berth-server")),
            client::Error::Timeout { .. } => Self::own(7, "timed_out", detail, None),
            client::Error::Decode { .. } => {
                Self::own(1, "answer_not_understood", detail, Some("use berth and berth-server of the same version"))
            }
            client::Error::Request { .. } | client::Error::NoUpgrade => Self::own(1, "failed", detail, None),
        }
    }
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_the_kind_of_problem() {
        for (status, code) in [(400, 2), (404, 3), (403, 4), (409, 5), (422, 5), (503, 6), (504, 7), (500, 1), (502, 1)] {
            let problem = Problem { status, code: String::new(), detail: String::new(), hint: None, request_id: None };
            assert_eq!(Failure::from(problem).code(), code, "{status}");
        }
        assert_eq!(printable("a\x1b[2Jb"), "a\u{fffd}[2Jb");
    }
}
