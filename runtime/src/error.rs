use std::{io, path::PathBuf};

/// A step of the runtime that failed: the operation, its object, and the kernel's reason as source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {operation} {object}")]
    Step {
        operation: &'static str,
        object: String,
        #[source]
        source: io::Error,
    },
    #[error("{program} failed ({status}): {stderr}")]
    Program { program: &'static str, status: String, stderr: String },
    #[error("cannot {operation} by netlink")]
    Netlink {
        operation: String,
        #[source]
        source: Box<rtnetlink::Error>,
    },
    #[error("the container's child failed: {detail}")]
    Child { detail: String },
    #[error("{0}")]
    Invalid(String),
    #[error("record {path} is not readable as what it should be")]
    Record {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("seccomp: {operation}")]
    Seccomp {
        operation: String,
        #[source]
        source: libseccomp::error::SeccompError,
    },
    /// Every id range of the pool is in use or held.
    #[error(
        "no id range is free: of {capacity}, {in_use} are in use, {quarantined} in quarantine, {held} held by files or processes that have \
         their ids, {foreign} named for somebody else"
    )]
    NoRange { capacity: u32, in_use: u32, quarantined: u32, held: u32, foreign: u32 },
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A failure that a test asked for (`BERTH_FAULT`).
    #[error("injected failure at step {step}")]
    Injected {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    /// The cause, and what could not be undone after it.
    #[error("{cause}; and undoing it left {}", leftovers.join(", "))]
    Undone {
        #[source]
        cause: Box<Error>,
        leftovers: Vec<String>,
    },
}

/// A limit that the kernel did not take. What was in force before is in force again, unless `left` says otherwise.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refuses {field} of {wanted}{}{}", in_use(.used), not_put_back(.left))]
pub struct Refused {
    /// As in the protocol's limits: `memory_bytes`.
    pub field: &'static str,
    pub wanted: u64,
    /// What is in use and cannot be taken back, or has been given away inside; in the units of the limit.
    pub used: Option<u64>,
    /// What could not be written back.
    pub left: Vec<String>,
    #[source]
    pub source: Box<Error>,
}

fn in_use(used: &Option<u64>) -> String {
    used.map(|used| format!(", {used} are in use")).unwrap_or_default()
}

fn not_put_back(left: &[String]) -> String {
    if left.is_empty() { String::new() } else { format!("; not put back: {}", left.join(", ")) }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Names the operation and its object on a system error.
pub trait Step<T> {
    fn step(self, operation: &'static str, object: impl ToString) -> Result<T>;
}

impl<T, E: Into<io::Error>> Step<T> for std::result::Result<T, E> {
    fn step(self, operation: &'static str, object: impl ToString) -> Result<T> {
        self.map_err(|error| Error::Step { operation, object: object.to_string(), source: error.into() })
    }
}

/// The whole chain of an error in one line, outermost first.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
