use serde::{Deserialize, Serialize};

use super::{Limits, Own, Problem};

/// An archive on the node, with what it says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Archive {
    pub name: String,
    pub size_bytes: u64,
    pub user: String,
    pub created_at: i64,
    /// Digest of the image that the berth stood on.
    pub image: String,
    /// What its disk used.
    pub disk_bytes: u64,
    pub docker_images: Vec<String>,
    /// Nothing when they are not understood: an archive may come from anywhere.
    pub notes: Option<ArchiveNotes>,
}

/// What the server puts into an archive: with it a berth is made anew as it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArchiveNotes {
    pub profile: String,
    pub own: Own,
    /// The limits in force: for a host that does not know the profile.
    pub limits: Limits,
    pub image_name: String,
    pub allow_system: bool,
}

/// What is to be done with an archive before the rest of an intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Archiving {
    /// Written before the berth is deleted.
    Write { archive: String, done: bool },
    /// The berth is made from it.
    Restore { archive: String },
}

/// What the node tells while it works on an archive.
#[derive(Clone, Debug, PartialEq)]
pub enum ArchiveProgress {
    Bytes { done: u64, of: u64 },
    Done(Box<Archive>),
    Failed(Problem),
}
