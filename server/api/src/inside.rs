use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a berth's Docker says it holds, as last seen. All of it is the tenant's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Inside {
    /// When it was seen; milliseconds since the epoch.
    pub at: i64,
    pub disk: InsideDisk,
    /// How many there are; the list holds the largest 100.
    pub container_count: u64,
    pub containers: Vec<InsideContainer>,
    pub image_count: u64,
    pub images: Vec<InsideImage>,
    pub volume_count: u64,
    pub volumes: Vec<InsideVolume>,
}

/// What takes the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InsideDisk {
    pub images: Taken,
    pub containers: Taken,
    pub volumes: Taken,
    pub build_cache: Taken,
}

/// Bytes of all of a kind, and of that what is in no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Taken {
    pub bytes: u64,
    pub unused_bytes: u64,
}

/// A container in a berth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InsideContainer {
    pub name: String,
    pub image: String,
    /// `running`, `exited`, …
    pub state: String,
    /// `Up 3 hours`, …
    pub status: String,
    /// Bytes that it has written on top of its image.
    pub size_bytes: u64,
}

/// An image in a berth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InsideImage {
    pub name: String,
    /// With what it shares with others.
    pub size_bytes: u64,
    pub created_at: i64,
    /// Containers that stand on it.
    pub containers: u64,
}

/// A volume in a berth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InsideVolume {
    pub name: String,
    pub size_bytes: u64,
    /// Containers that have it.
    pub containers: u64,
}

/// What of the unused is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PruneKind {
    /// Containers that do not run.
    Containers,
    /// Images on which no container stands.
    Images,
    BuildCache,
}

/// Makes room in a berth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PruneBerth {
    /// In this order.
    #[schema(min_items = 1, max_items = 3)]
    pub what: Vec<PruneKind>,
}

/// What it gave, as the berth's Docker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pruned {
    pub bytes: u64,
}
