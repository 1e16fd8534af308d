use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An archive of a berth, with what it says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Archive {
    pub name: String,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// Whose berth it was.
    pub user: String,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// Digest of the image that the berth stood on; whoever restores it needs the same.
    pub image: String,
    /// Bytes that its disk used.
    pub disk_bytes: u64,
    /// Images in its Docker.
    pub docker_images: Vec<String>,
    /// Its profile, where the archive tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArchiveList {
    pub items: Vec<Archive>,
}

/// What a berth is made from an archive as; what is left out is as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RestoreBerth {
    /// Name of the host account that gets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Otherwise its own, or `default` where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Start it at once.
    pub start: bool,
    /// Accept a system account.
    pub allow_system: bool,
}
