use serde::{Deserialize, Serialize};

use crate::{BerthId, Ensure, Problem};

/// Writes a berth into an archive. The berth is stopped first, and does not wake meanwhile; afterwards it is as before.
/// Asked again for what is there already, it is done at once. Given up when the connection ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveRequest {
    pub id: BerthId,
    /// Of the new archive; see [`valid_archive_name`].
    pub archive: String,
    /// What is to be found in it besides the node's own words: an object of 64 KiB at most.
    #[serde(default)]
    pub notes: serde_json::Value,
}

/// Makes a berth from an archive; it stays stopped. Given up, with nothing left of it, when the connection ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    pub archive: String,
    pub ensure: Ensure,
}

/// One line of archiving or restoring; the last is `done` or `failed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ArchiveProgress {
    /// Bytes of the tree so far, and of all that the disk used.
    Bytes {
        done: u64,
        of: u64,
    },
    Done {
        archive: Archive,
    },
    Failed {
        problem: Problem,
    },
}

/// An archive of this node, with what it says of itself: of one that comes from elsewhere nothing is to be believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    pub name: String,
    pub size_bytes: u64,
    pub user: String,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// Digest of the image that the berth stood on.
    pub image: String,
    /// What its disk used.
    pub disk_bytes: u64,
    pub docker_images: Vec<String>,
    pub notes: serde_json::Value,
}

/// ASCII letters, digits and `_ . @ + -`, not beginning with `.` or `-`, ending in `.berth`, 128 bytes at most.
pub fn valid_archive_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"_.@+-".contains(&b);
    let first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    name.len() <= 128 && name.ends_with(".berth") && name.bytes().next().is_some_and(first) && name.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_archives_are_safe_file_names() {
        for good in ["alice-20261130.berth", "a.b@c.berth"] {
            assert!(valid_archive_name(good), "{good}");
        }
        for bad in ["", ".berth", "a", "../a.berth", "a/b.berth", "a.berth.part", "-a.berth", "a b.berth", "\u{e4}.berth"] {
            assert!(!valid_archive_name(bad), "{bad}");
        }
    }
}
