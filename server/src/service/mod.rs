//! What the API does: authorise, validate, write the intent in one transaction with its audit row and operation, wake the reconciler.
//!
//! The service reads from the node (accounts, images, console, doctor) and passes exec streams through; it never asks the node to change
//! anything: that is the reconciler's. The berth of a deep check is no change: it is gone when the node answers, and nobody's intent.

mod accounts;
mod administrators;
mod archives;
mod assign;
mod berths;
mod cancel;
mod chart;
mod claim;
mod credentials;
mod events;
mod exec;
mod figures;
mod history;
mod host;
mod images;
mod inside;
mod keyed;
mod keys;
mod listening;
mod many;
mod own;
mod passwords;
mod profiles;
mod quota;
mod requests;
mod rules;
mod secrets;
mod sessions;
mod suspension;
mod throttle;
mod tokens;
mod trail;
mod usage;

use std::sync::Arc;

pub use accounts::HolderState;
pub use administrators::{ChangeAdministrator, NewAdministrator};
pub use archives::RestoreBerth;
pub use assign::AssignBerth;
pub use berths::{ChangeBerth, Difference, Preview};
pub use claim::Claimed;
pub use credentials::{Authentication, Myself, Proven};
pub use events::Told;
pub use figures::Figures;
pub use history::Page;
pub use host::NodeSummary;
pub use images::ImageState;
pub use keys::{Keys, SigningKey};
pub use listening::Listening;
pub use many::{Done, Mode, Outcome, Report, Whose};
pub use profiles::{ChangeProfile, CreateProfile};
pub use quota::Headroom;
pub use requests::{Decision, NewRequest};
pub use rules::{ChangeRule, NewRule};
pub use sessions::{Browser, Link};
pub use suspension::AllAccepted;
pub use tokens::NewApiToken;
pub use trail::{Followed, Listed};
pub use usage::BerthUse;

use tokio::sync::watch;

pub use crate::authz::PUBLIC;
use crate::{
    authz::{self, Access, Operation},
    config::Policy,
    domain::{Caller, Clock, InvalidName, Problem, ReconcileReport, Refusal, Scope},
    node_client::{self, NodeClient, Uploads},
    store::{self, Store, Trouble},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request was understood and refused.
    #[error("{}", .0.detail)]
    Refused(Problem),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Node(#[from] node_client::Error),
    /// Too many attempts; the next one counts after so many seconds.
    #[error("too many attempts, the next after {seconds} s")]
    Throttled { seconds: u64 },
    #[error("{0}")]
    Secrets(&'static str),
    #[error("cannot use the keys of access tokens in {}", path.display())]
    KeyFile { path: std::path::PathBuf, source: std::io::Error },
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl Error {
    /// What the client is told; nothing when it is nobody's business but the log's.
    pub fn problem(&self) -> Option<Problem> {
        match self {
            Self::Refused(problem) => Some(problem.clone()),
            Self::Node(error) => Some(error.problem()),
            Self::Store(store::Error::Exists { what }) => {
                Some(Problem::new(Refusal::Conflict, "exists", format!("cannot {what}: one of this name exists")))
            }
            Self::Store(store::Error::Text { .. }) => {
                Some(Problem::new(Refusal::Invalid, "invalid_body", "a text holds a NUL character, which none may"))
            }
            Self::Store(error @ store::Error::NotLeading) => Some(
                Problem::new(Refusal::Unavailable, "database_unavailable", error.to_string())
                    .hint("see whether another berth-server works on this database, and the log of this one"),
            ),
            Self::Throttled { seconds } => Some(
                Problem::new(Refusal::TooMany, "too_many_attempts", format!("too many attempts; try again in {seconds} s"))
                    .hint("on the host itself, berth as root is never counted"),
            ),
            Self::Store(error) if error.is_passing() => error.trouble().map(unavailable),
            Self::Store(_) | Self::Secrets(_) | Self::KeyFile { .. } => None,
        }
    }

    /// True when somebody must look into it.
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::Throttled { .. })
    }
}

/// What is the matter with the database, and what to do about it.
fn unavailable(trouble: Trouble) -> Problem {
    let (detail, hint) = match trouble {
        Trouble::Busy => ("the database is busy, or does not answer", "try again; if it stays, see berth doctor"),
        Trouble::Full => ("the disk of the database is full", "make room there; nothing that was acknowledged is lost"),
        Trouble::ReadOnly => {
            ("the database cannot be written", "see the owner and the mount of its file, or whether its PostgreSQL server is a standby")
        }
        Trouble::Disk => (
            "the disk of the database fails, or has turned read-only",
            "see dmesg and the mount of its directory; nothing that was acknowledged is lost",
        ),
        Trouble::Away => ("the database does not answer", "see whether it runs and can be reached; the log of berth-server says more"),
        Trouble::Damaged => ("the database is damaged", "stop berth-server and restore a backup: berth backup restore"),
    };
    Problem::new(Refusal::Unavailable, "database_unavailable", detail).hint(hint)
}

/// Everything that the API needs.
pub struct Service {
    store: Arc<Store>,
    node: Arc<NodeClient>,
    uploads: Arc<Uploads>,
    policy: Policy,
    clock: Clock,
    reconciler: watch::Receiver<ReconcileReport>,
    /// Places for reading the audit trail, which may take a while: other requests keep connections of their own.
    trail: tokio::sync::Semaphore,
    usage: usage::Latest,
    feed: events::Feed,
    /// Tells this run of the server from those before it.
    life: String,
    places: own::Places,
    authentication: Authentication,
    claims: claim::Recent,
}

impl Service {
    pub fn new(
        store: Arc<Store>,
        node: Arc<NodeClient>,
        uploads: Arc<Uploads>,
        policy: Policy,
        clock: Clock,
        reconciler: watch::Receiver<ReconcileReport>,
        authentication: Authentication,
    ) -> Self {
        Self {
            store,
            node,
            uploads,
            policy,
            clock,
            reconciler,
            trail: tokio::sync::Semaphore::new(trail::AT_ONCE),
            usage: usage::Latest::default(),
            feed: events::Feed::default(),
            life: clock.id().to_string(),
            places: own::Places::default(),
            authentication,
            claims: claim::Recent::default(),
        }
    }

    /// True when the database can be written and the node answers; the error says which of them does not.
    pub async fn ready(&self) -> Result<(), Error> {
        self.store.ping(true).await?;
        self.store.lead()?;
        self.node.node().await?;
        Ok(())
    }
}

/// Refuses what no role short of a higher one may do.
fn authorise(caller: &Caller, operation: Operation) -> Result<Access, Error> {
    match authz::reach(caller, operation) {
        Access::None => Err(Problem::new(
            Refusal::NotPermitted,
            "not_permitted",
            format!("{} ({}) may not do this ({})", caller.name, said(caller), operation.id()),
        )
        .hint(match caller.scope {
            Scope::Admin => "ask an administrator of this host, or use sudo",
            _ => "the token's scope may be too narrow: berth token list",
        })
        .into()),
        access => Ok(access),
    }
}

/// The caller's role, and his scope where it is less than all.
fn said(caller: &Caller) -> String {
    match caller.scope {
        Scope::Admin => caller.role.as_str().to_owned(),
        scope => format!("{}, with the scope {}", caller.role.as_str(), scope.as_str()),
    }
}

/// Refuses a name that cannot be one, with a code of its own.
fn name<T: std::str::FromStr<Err = InvalidName>>(what: &str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|error: InvalidName| {
        // A name of megabytes would come back in the answer and the log.
        Problem::new(Refusal::Invalid, &format!("invalid_{what}_name"), shorten(&error.to_string())).into()
    })
}

fn shorten(text: &str) -> String {
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn not_found(what: &str, name: &str) -> Error {
    Problem::new(Refusal::NotFound, &format!("{what}_not_found"), format!("there is no {what} {name}")).into()
}
