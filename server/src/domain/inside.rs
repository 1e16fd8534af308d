//! What a berth's Docker says it holds: its tenant's words.

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// When it was seen; milliseconds since the epoch.
    pub at: i64,
    pub container_count: u64,
    pub containers: Vec<InsideContainer>,
    pub image_count: u64,
    pub images: Vec<InsideImage>,
    pub volume_count: u64,
    pub volumes: Vec<InsideVolume>,
    /// Bytes of all of a kind, and of that what is in no use.
    pub disk_images: Taken,
    pub disk_containers: Taken,
    pub disk_volumes: Taken,
    pub disk_build_cache: Taken,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsideContainer {
    pub name: String,
    pub image: String,
    pub state: String,
    pub status: String,
    pub size_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsideImage {
    pub name: String,
    pub size_bytes: u64,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    pub containers: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsideVolume {
    pub name: String,
    pub size_bytes: u64,
    pub containers: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub bytes: u64,
    pub unused_bytes: u64,
}

/// What of the unused is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prune {
    Containers,
    Images,
    BuildCache,
}

impl Prune {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Containers => "containers",
            Self::Images => "images",
            Self::BuildCache => "build_cache",
        }
    }
}
