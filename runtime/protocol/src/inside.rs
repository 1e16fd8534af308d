use serde::{Deserialize, Serialize};

/// What a berth's inner Docker says it holds. All of it is the tenant's word: bounded, shown as text, and believed by nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// When it was asked; milliseconds since the epoch.
    pub at: i64,
    /// How many there are, and the [`Inside::MOST`] that take most.
    pub container_count: u64,
    pub containers: Vec<InsideContainer>,
    pub image_count: u64,
    pub images: Vec<InsideImage>,
    pub volume_count: u64,
    pub volumes: Vec<InsideVolume>,
    pub disk: InsideDisk,
}

impl Inside {
    /// Of each list.
    pub const MOST: usize = 100;
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InsideContainer {
    pub name: String,
    pub image: String,
    /// `running`, `exited`, …
    pub state: String,
    /// `Up 3 hours`, `Exited (0) 2 days ago`, …
    pub status: String,
    /// Bytes that it has written on top of its image.
    pub size_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InsideImage {
    /// A name with its tag, or the first digits of its id.
    pub name: String,
    /// With what it shares with others.
    pub size_bytes: u64,
    /// Seconds since the epoch.
    pub created: i64,
    /// Containers that stand on it.
    pub containers: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InsideVolume {
    pub name: String,
    pub size_bytes: u64,
    /// Containers that have it.
    pub containers: u64,
}

/// Bytes of all of a kind, and of that what is in no use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InsideDisk {
    pub images: Taken,
    pub containers: Taken,
    pub volumes: Taken,
    pub build_cache: Taken,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    pub bytes: u64,
    pub unused_bytes: u64,
}

/// What of the unused is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prune {
    /// Containers that do not run.
    Containers,
    /// Images on which no container stands.
    Images,
    BuildCache,
}

/// Body of a prune.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneRequest {
    pub what: Vec<Prune>,
}

/// What a prune gave back, as the inner Docker says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    pub bytes: u64,
}
