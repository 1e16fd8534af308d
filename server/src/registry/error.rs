use std::io;

use crate::{
    chain,
    domain::{Problem, Refusal},
};

/// Why an image could not be had from a registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot reach {host}")]
    Unreachable { host: String, source: io::Error },
    #[error("{host} has said nothing for {seconds} s")]
    Silent { host: String, seconds: u64 },
    #[error("the certificate of {host} is not trusted")]
    Untrusted { host: String, source: io::Error },
    #[error("the certificates that were given cannot be used: {0}")]
    Certificates(String),
    #[error("the connection to {host} broke")]
    Broken { host: String, source: hyper::Error },
    #[error("{host} gives no proper answer: {reason}")]
    Answer { host: String, reason: String },
    #[error("{host} leads from one address to the next; {most} are followed")]
    Redirects { host: String, most: usize },
    #[error("{host} refuses: {status}")]
    Status { host: String, status: u16 },
    #[error("there is no {what} at {host}")]
    Missing { host: String, what: String },
    #[error("{host} wants a login for {repository}, or there is no such repository")]
    LoginWanted { host: String, repository: String },
    #[error("{host} does not take this login for {repository}")]
    LoginRefused { host: String, repository: String },
    #[error("{what} is not what it should be: expected {expected}, found {found}")]
    Mismatch { what: String, expected: String, found: String },
    #[error("{what} has {bytes} bytes, the most is {most}")]
    TooLarge { what: String, bytes: u64, most: u64 },
    #[error("this is no image that can be taken: {0}")]
    Image(String),
    #[error("{what} broke off at {done} of {of} bytes, and {tries} more tries brought nothing")]
    GivenUp { what: String, done: u64, of: u64, tries: u32, source: Box<Error> },
}

impl Error {
    /// True when the same request may succeed a little later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } | Self::Broken { .. } => true,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }

    /// What a person is told.
    pub fn problem(&self) -> Problem {
        let of = |refusal, code, hint| Problem::new(refusal, code, chain(self)).hint(hint);
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => of(
                Refusal::Unavailable,
                "registry_unreachable",
                "see whether it is up, and whether this host may reach it; then pull again",
            ),
            Self::Silent { .. } => of(Refusal::TimedOut, "registry_silent", "pull again when it answers"),
            Self::GivenUp { source, .. } if matches!(**source, Self::Silent { .. }) => {
                of(Refusal::TimedOut, "registry_silent", "pull again when it answers")
            }
            Self::GivenUp { .. } => of(Refusal::Unavailable, "registry_unreachable", "pull again when the way to it is better"),
            Self::Untrusted { .. } => {
                of(Refusal::Failed, "registry_not_trusted", "if it is the right one, give its certificate authority: --ca FILE")
            }
            Self::Certificates(_) => of(Refusal::Invalid, "invalid_certificates", "give certificates in PEM: --ca FILE"),
            Self::Answer { .. } | Self::Status { .. } => {
                of(Refusal::Failed, "registry_failed", "see whether this is a registry, and its log")
            }
            Self::Redirects { .. } => of(Refusal::Failed, "registry_failed", "whoever runs the registry has to mend it"),
            Self::Missing { .. } => of(Refusal::NotFound, "not_in_registry", "look at the name and the tag"),
            Self::LoginWanted { .. } => of(Refusal::NotPermitted, "registry_login", "give one: --username NAME --password-stdin"),
            Self::LoginRefused { .. } => {
                of(Refusal::NotPermitted, "registry_login", "look at the name and the password, and what they may do there")
            }
            Self::Mismatch { .. } => {
                of(Refusal::Failed, "registry_mismatch", "the registry, or something on the way to it, changes images: do not use it")
            }
            Self::TooLarge { .. } => of(Refusal::Limit, "image_too_large", "pull a smaller image"),
            Self::Image(_) => {
                of(Refusal::Limit, "image_refused", "pull an image in the format of OCI or of Docker (schema 2) for this host")
            }
        }
    }
}
