use std::{io, path::PathBuf};

use super::limits::Exceeded;

/// Why an image could not be taken, found or removed. Nothing is left of one that could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {operation} {object}")]
    Io {
        operation: &'static str,
        object: String,
        #[source]
        source: io::Error,
    },
    #[error("this is no image: {0}. Give a root file system as tar (plain, gzip or zstd), an OCI layout, or the output of docker save")]
    NotAnImage(String),
    #[error("the image's {document} is not what it should be: {reason}")]
    Document { document: String, reason: String },
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    #[error("entry {path} of the archive is refused: {reason}")]
    Entry { path: String, reason: String },
    #[error("{what} is more than Berth takes; the limit is {limit}")]
    TooMuch { what: String, limit: u64 },
    #[error("{object} is not what its digest says: expected {expected}, found {found}")]
    Digest { object: String, expected: String, found: String },
    #[error("image name {name:?} is refused: 1 to {limit} letters, digits and . _ - / : @, the first a letter or digit", limit = super::limits::IMAGE_NAME_CHARS)]
    Name { name: String },
    #[error("{text:?} is no digest: sha256: and 64 hexadecimal digits")]
    NoDigest { text: String },
    #[error("the recipe {recipe} failed ({status}): {last_lines}")]
    Recipe { recipe: PathBuf, status: String, last_lines: String },
    #[error("the build was cancelled")]
    Cancelled,
    #[error("record {path} is not readable as what it should be")]
    Record {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// True when what was given is at fault, not the host: a client's error, and trying again with the same is of no use.
    pub fn is_input(&self) -> bool {
        match self {
            Error::Io { source, .. } => {
                source.get_ref().is_some_and(|inner| inner.is::<Exceeded>()) || source.kind() == io::ErrorKind::InvalidData
            }
            Error::Recipe { .. } | Error::Cancelled | Error::Record { .. } => false,
            _ => true,
        }
    }
}

/// Names the operation and its object on a system error.
pub(super) trait Step<T> {
    fn step(self, operation: &'static str, object: impl ToString) -> Result<T>;
}

impl<T, E: Into<io::Error>> Step<T> for std::result::Result<T, E> {
    fn step(self, operation: &'static str, object: impl ToString) -> Result<T> {
        self.map_err(|error| Error::Io { operation, object: object.to_string(), source: error.into() })
    }
}
