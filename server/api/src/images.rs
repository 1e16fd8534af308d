use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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

fn default_name() -> String {
    "default".to_owned()
}

fn trixie() -> String {
    "trixie".to_owned()
}
