use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Secret;

/// An unpacked image on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Image {
    /// `sha256:…`
    pub digest: String,
    pub name: String,
    pub size_bytes: u64,
    pub created_at: i64,
    /// True for the image of berths that name none.
    pub default: bool,
    /// Users whose berths stand on it.
    pub used_by: Vec<String>,
}

/// All images, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageList {
    pub items: Vec<Image>,
}

/// Builds an image from Debian packages by the fixed recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildImage {
    /// `default` unless set.
    #[serde(default = "default_name")]
    pub name: String,
    /// `bookworm`, `trixie` or `sid`; `trixie` unless set.
    #[serde(default = "trixie")]
    pub suite: String,
}

/// Fetches an image from a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PullImage {
    /// `[REGISTRY[:PORT]/]NAME[:TAG][@sha256:…]`; Docker Hub and `latest` where they are left out.
    pub reference: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<RegistryLogin>,
    /// PEM of certificate authorities, to be trusted besides those of the host; 128 KiB at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<String>,
    /// Without TLS; loopback addresses only.
    #[serde(default)]
    pub plain_http: bool,
}

/// For the registry only; it is kept in memory until the operation has ended, and nowhere else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryLogin {
    pub username: String,
    pub password: Secret,
}

fn default_name() -> String {
    "default".to_owned()
}

fn trixie() -> String {
    "trixie".to_owned()
}
