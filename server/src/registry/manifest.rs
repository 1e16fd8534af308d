//! What a registry says of an image: documents, read and held against what may be; pure.

use std::env::consts::ARCH;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::Error;
use crate::domain::is_digest;

/// Bytes of one document, as the node has it.
pub(super) const DOCUMENT_BYTES: u64 = 4 << 20;
/// Layers of an image, likewise.
const LAYERS: usize = 128;
/// Entries of an index that are looked at.
const ENTRIES: usize = 1024;

/// What is asked for: manifests and indexes, of OCI and of Docker.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
const CONFIGS: [&str; 2] = ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    platform: Option<Platform>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

#[derive(Debug)]
pub(super) enum Document {
    /// The manifest for this host.
    Index(Descriptor),
    Manifest(Manifest),
}

#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) media_type: String,
    pub(super) config: Descriptor,
    /// Lowest first.
    pub(super) layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

/// Reads an index or a manifest; `kind` is its media type as the registry says.
pub(super) fn read(kind: &str, bytes: &[u8]) -> Result<Document, Error> {
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let schema1 = || refused("it is in Docker's old format (schema 1), which proves nothing of its layers".to_owned());
    if kind.contains("manifest.v1+") {
        return Err(schema1());
    }
    let raw: Raw = serde_json::from_slice(bytes).map_err(|error| refused(format!("its manifest is not understood: {error}")))?;
    if raw.schema_version == Some(1) {
        return Err(schema1());
    }
    let media_type = raw.media_type.unwrap_or_else(|| kind.to_owned());
    match (raw.manifests, raw.config, raw.layers) {
        (Some(entries), None, None) => choose(entries).map(Document::Index),
        (None, Some(config), layers) => manifest(media_type, config, layers.unwrap_or_default()).map(Document::Manifest),
        // One that is both could be two different images to two programs.
        _ => Err(refused("its manifest is neither an index nor the manifest of one image".to_owned())),
    }
}

fn manifest(media_type: String, config: Descriptor, layers: Vec<Descriptor>) -> Result<Manifest, Error> {
    if !CONFIGS.contains(&config.media_type.as_str()) {
        return Err(refused(format!("it holds {}, not an image", short(&config.media_type))));
    }
    if layers.is_empty() || layers.len() > LAYERS {
        return Err(refused(format!("it has {} layers; 1 to {LAYERS} are taken", layers.len())));
    }
    for one in layers.iter().chain([&config]) {
        check(one)?;
        if layers.iter().any(|other| other.digest == one.digest && other.size != one.size) {
            return Err(refused(format!("its manifest gives {} two sizes", one.digest)));
        }
    }
    if config.size > DOCUMENT_BYTES {
        return Err(Error::TooLarge { what: "the image's configuration".to_owned(), bytes: config.size, most: DOCUMENT_BYTES });
    }
    Ok(Manifest { media_type, config, layers })
}

/// The entry for this host. Attestations have a platform of their own (`unknown`).
fn choose(entries: Vec<Descriptor>) -> Result<Descriptor, Error> {
    if entries.len() > ENTRIES {
        return Err(refused(format!("its index has {} entries; {ENTRIES} are taken", entries.len())));
    }
    let fits = |entry: &Descriptor| entry.platform.as_ref().is_none_or(|platform| is_ours(&platform.os, &platform.architecture));
    let said = |entry: &Descriptor| entry.platform.as_ref().map(|one| short(&format!("{}/{}", one.os, one.architecture)));
    match entries.iter().find(|entry| fits(entry)) {
        Some(entry) => check(entry).map(|()| entry.clone()),
        None => {
            let there: Vec<String> = entries.iter().filter_map(said).filter(|one| one != "unknown/unknown").take(8).collect();
            Err(refused(format!("it is not for linux/{}, but for {}", architecture(), there.join(", "))))
        }
    }
}

fn check(descriptor: &Descriptor) -> Result<(), Error> {
    match is_digest(&descriptor.digest) {
        true => Ok(()),
        false => Err(refused(format!("{} is no SHA-256 digest", short(&descriptor.digest)))),
    }
}

/// An error unless the configuration is of an image for this host.
pub(super) fn check_platform(config: &[u8]) -> Result<(), Error> {
    let platform: Platform =
        serde_json::from_slice(config).map_err(|error| refused(format!("its configuration is not understood: {error}")))?;
    match is_ours(&platform.os, &platform.architecture) {
        true => Ok(()),
        false => {
            let said = short(&format!("{}/{}", platform.os, platform.architecture));
            Err(refused(format!("it is for {said}, not for linux/{}", architecture())))
        }
    }
}

fn is_ours(os: &str, its: &str) -> bool {
    os == "linux" && its == architecture()
}

/// This host's architecture as images name it.
pub(super) fn architecture() -> &'static str {
    match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `sha256:…` of these bytes.
pub(super) fn digest(bytes: &[u8]) -> String {
    written(Sha256::new_with_prefix(bytes))
}

pub(super) fn written(hash: Sha256) -> String {
    hash.finalize().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn refused(reason: String) -> Error {
    Error::Image(reason)
}

/// What somebody else wrote, fit for a message.
pub(super) fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn descriptor(number: u8, size: u64) -> serde_json::Value {
        json!({ "mediaType": CONFIGS[0], "digest": digest(&[number]), "size": size })
    }

    fn of(value: &serde_json::Value) -> Result<Document, Error> {
        read("application/json; charset=utf-8", value.to_string().as_bytes())
    }

    #[test]
    fn an_index_leads_to_this_hosts_image() {
        let entry = |number: u8, os: &str, architecture: &str| {
            let mut entry = descriptor(number, 1);
            entry["platform"] = json!({ "os": os, "architecture": architecture });
            entry
        };
        let mut all = vec![
            entry(1, "unknown", "unknown"),
            entry(2, "linux", "s390x"),
            entry(3, "linux", architecture()),
            entry(4, "linux", architecture()),
        ];
        match of(&json!({ "schemaVersion": 2, "manifests": all })) {
            Ok(Document::Index(chosen)) => assert_eq!(chosen.digest, digest(&[3])),
            other => panic!("{other:?}"),
        }
        all.truncate(2);
        let refused = of(&json!({ "manifests": all })).unwrap_err().to_string();
        assert!(refused.contains("for linux/s390x") || refused.contains("but for linux/s390x"), "{refused}");
    }

    #[test]
    fn what_is_no_image_is_refused_with_its_reason() {
        let layers = |count: usize| vec![descriptor(1, 5); count];
        let good = json!({ "schemaVersion": 2, "config": descriptor(9, 5), "layers": layers(1) });
        assert!(matches!(of(&good), Ok(Document::Manifest(manifest)) if manifest.layers.len() == 1));
        for (value, reason) in [
            (json!({ "schemaVersion": 1, "fsLayers": [] }), "schema 1"),
            (json!({ "config": descriptor(9, 5), "layers": layers(1), "manifests": [] }), "neither"),
            (json!({}), "neither"),
            (json!({ "config": descriptor(9, 5), "layers": layers(0) }), "0 layers"),
            (json!({ "config": descriptor(9, 5), "layers": layers(129) }), "129 layers"),
            (json!({ "config": descriptor(9, 5), "layers": [descriptor(1, 5), descriptor(1, 6)] }), "two sizes"),
            (json!({ "config": descriptor(9, 5), "layers": [{ "digest": "sha512:00", "size": 1 }] }), "sha512:00"),
            (json!({ "config": { "mediaType": "text/chart", "digest": digest(&[1]), "size": 1 }, "layers": layers(1) }), "text/chart"),
            (json!({ "config": descriptor(9, 5 << 20), "layers": layers(1) }), "configuration"),
            (json!({ "config": descriptor(9, 5), "layers": [{ "digest": digest(&[1]), "size": -1 }] }), "not understood"),
        ] {
            let refused = of(&value).unwrap_err().to_string();
            assert!(refused.contains(reason), "{refused}: {reason}");
        }
        let old = read("application/vnd.docker.distribution.manifest.v1+prettyjws", b"{}").unwrap_err();
        assert!(old.to_string().contains("schema 1"));
    }

    #[test]
    fn another_platforms_image_is_refused() {
        assert!(check_platform(json!({ "os": "linux", "architecture": architecture() }).to_string().as_bytes()).is_ok());
        assert!(check_platform(br#"{"os":"windows","architecture":"amd64"}"#).unwrap_err().to_string().contains("windows/amd64"));
        assert!(check_platform(b"[").is_err());
    }
}
