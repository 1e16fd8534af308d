//! An image inside an archive: an OCI image layout, or what `docker save` writes. Documents are read, digests checked, and what to
//! unpack is laid out as a [`Plan`]; nothing is unpacked here.

use std::{
    collections::HashMap,
    env::consts::ARCH,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Take},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    archive::{Archive, Kind, show},
    digest::{Digest, Hashing},
    error::{Error, Result, Step},
    limits::{DOCUMENT_BYTES, LAYERS, MEMBERS},
};

/// Indexes may name indexes; real ones do so once.
const INDEX_DEPTH: usize = 4;

/// How an image says it wants to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`
    pub env: Vec<String>,
    pub workdir: String,
    /// `user`, `uid`, `user:group`; empty for root.
    pub user: String,
}

/// What an archive turned out to be.
#[derive(Debug)]
pub(super) enum Content {
    /// A root file system.
    Root,
    /// Members of an image layout by their path.
    Layout(Members),
}

pub(super) type Members = HashMap<String, Member>;

/// Where a member lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Member {
    File {
        offset: u64,
        size: u64,
    },
    /// Old versions of docker save store equal layers once: path of the other, normalised.
    Link(String),
}

/// An image ready to be unpacked.
#[derive(Debug)]
pub(super) struct Plan {
    /// The image's content address: digest of the manifest, or of the configuration where there is no manifest.
    pub(super) digest: Digest,
    /// Lowest first.
    pub(super) layers: Vec<Layer>,
    pub(super) config: Config,
}

/// One layer of a [`Plan`].
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) offset: u64,
    pub(super) size: u64,
    /// Over the bytes in the archive, where the manifest states it.
    pub(super) digest: Option<Digest>,
    /// Over the decompressed bytes.
    pub(super) diff_id: Digest,
}

#[derive(Debug, Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    layers: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Configuration {
    config: Option<Settings>,
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Settings {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
}

/// Looks through an archive until it is known to be a root file system, or to its end if it is a layout.
pub(super) fn look<R: Read>(archive: &mut Archive<R>) -> Result<Content> {
    let mut members = Members::new();
    while let Some(entry) = archive.next()? {
        let Some(path) = normal(&entry.path) else { continue };
        if !is_layout_member(&path, entry.kind) {
            return Ok(Content::Root);
        }
        let member = match entry.kind {
            Kind::File => Member::File { offset: entry.offset, size: entry.size },
            Kind::Symlink | Kind::HardLink => {
                let base = if entry.kind == Kind::Symlink { path.rsplit_once('/').map_or("", |(dir, _)| dir) } else { "" };
                match normal(format!("{base}/{}", String::from_utf8_lossy(&entry.link)).as_bytes()) {
                    Some(target) => Member::Link(target),
                    None => continue,
                }
            }
            _ => continue,
        };
        members.insert(path, member);
        if members.len() > MEMBERS {
            return Err(Error::TooMuch { what: format!("an image archive of more than {MEMBERS} members"), limit: MEMBERS as u64 });
        }
    }
    if !members.contains_key("index.json") && !members.contains_key("manifest.json") {
        return Err(Error::NotAnImage("the archive holds neither a root file system nor an index.json or manifest.json".into()));
    }
    Ok(Content::Layout(members))
}

/// Names that only image archives have at their top; anything else makes it a root file system.
fn is_layout_member(path: &str, kind: Kind) -> bool {
    let hex = |name: &str| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    let (first, rest) = path.split_once('/').map_or((path, None), |(first, rest)| (first, Some(rest)));
    match (first, rest) {
        ("oci-layout" | "index.json" | "manifest.json" | "repositories", None) => kind == Kind::File,
        ("blobs", None) => kind == Kind::Directory,
        ("blobs", Some(rest)) => rest == "sha256" || rest.strip_prefix("sha256/").is_some_and(hex),
        (name, None) => hex(name.trim_end_matches(".json").trim_end_matches(".tar")),
        (name, Some("VERSION" | "json" | "layer.tar")) => hex(name),
        _ => false,
    }
}

/// A path inside the archive with `.` and `..` resolved; None for the top itself.
fn normal(path: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(path);
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// Reads the documents of a layout from the uncompressed archive `file`.
pub(super) fn plan(file: &File, members: &Members) -> Result<Plan> {
    let source = Source { file, members };
    let plan = if members.contains_key("index.json") { source.plan_oci()? } else { source.plan_saved()? };
    if plan.layers.len() > LAYERS {
        return Err(Error::TooMuch { what: format!("an image of {} layers", plan.layers.len()), limit: LAYERS as u64 });
    }
    Ok(plan)
}

/// The bytes of a layer, as they lie in the archive.
pub(super) fn open<'a>(mut file: &'a File, layer: &Layer) -> Result<Take<&'a File>> {
    file.seek(SeekFrom::Start(layer.offset)).step("seek in", "the archive")?;
    Ok(file.take(layer.size))
}

/// An error unless the bytes of a layer are what the manifest says.
pub(super) fn verify(file: &File, layer: &Layer) -> Result<()> {
    let Some(digest) = &layer.digest else { return Ok(()) };
    let mut bytes = Hashing::new(open(file, layer)?);
    io::copy(&mut bytes, &mut io::sink()).step("read", "a layer")?;
    digest.expect(&bytes.finish(), "a layer")
}

struct Source<'a> {
    file: &'a File,
    members: &'a Members,
}

impl Source<'_> {
    fn plan_oci(&self) -> Result<Plan> {
        let index: Index = parse("index.json", &self.read("index.json")?)?;
        let mut images = Vec::new();
        self.collect(index, INDEX_DEPTH, &mut images)?;
        let image = match images.as_slice() {
            [] => return Err(document("index.json", format!("it names no image for linux/{}", architecture()))),
            [image] => image,
            several => return Err(document("index.json", format!("it names {} images; save them one by one", several.len()))),
        };
        let digest = Digest::parse(&image.digest)?;
        let manifest: Manifest = parse("manifest", &self.blob(image)?)?;
        let (config, diff_ids) = configuration(&self.blob(&manifest.config)?)?;
        same_number(manifest.layers.len(), diff_ids.len())?;
        let layers = manifest.layers.iter().zip(diff_ids).map(|(descriptor, diff_id)| {
            let digest = Digest::parse(&descriptor.digest)?;
            let (offset, size) = self.find(&format!("blobs/sha256/{}", digest.hex()))?;
            if size != descriptor.size {
                return Err(document("manifest", format!("layer {digest} should have {} bytes and has {size}", descriptor.size)));
            }
            Ok(Layer { offset, size, digest: Some(digest), diff_id })
        });
        Ok(Plan { digest, layers: layers.collect::<Result<_>>()?, config })
    }

    /// The manifests of this machine's platform, through nested indexes. Attestations have a platform of their own (`unknown`).
    fn collect(&self, index: Index, depth: usize, found: &mut Vec<Descriptor>) -> Result<()> {
        for descriptor in index.manifests {
            let nested = descriptor.media_type.ends_with("image.index.v1+json") || descriptor.media_type.ends_with("manifest.list.v2+json");
            let fits = descriptor.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == architecture());
            let known = found.iter().any(|other: &Descriptor| other.digest == descriptor.digest);
            match (nested, depth) {
                (true, 0) => return Err(document("index.json", format!("it nests indexes deeper than {INDEX_DEPTH}"))),
                (true, _) => {
                    let index = parse("index", &self.blob(&descriptor)?)?;
                    self.collect(index, depth - 1, found)?;
                }
                (false, _) if fits && !known => found.push(descriptor),
                (false, _) => {}
            }
            if found.len() > MEMBERS {
                return Err(Error::TooMuch { what: "the number of images in the archive".into(), limit: MEMBERS as u64 });
            }
        }
        Ok(())
    }

    /// Before version 25 `docker save` wrote no manifest of its own: the configuration's digest is its file name and names the image.
    fn plan_saved(&self) -> Result<Plan> {
        let mut saved: Vec<Saved> = parse("manifest.json", &self.read("manifest.json")?)?;
        let saved = match (saved.pop(), saved.len()) {
            (Some(only), 0) => only,
            (_, others) => return Err(document("manifest.json", format!("it names {} images; save them one by one", others + 1))),
        };
        let bytes = self.read(&saved.config)?;
        let stated = saved.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        let digest =
            Digest::parse(stated).map_err(|_| document("manifest.json", format!("the configuration's name {stated:?} is no digest")))?;
        digest.expect(&Digest::of(&bytes), "the configuration")?;
        let (config, diff_ids) = configuration(&bytes)?;
        same_number(saved.layers.len(), diff_ids.len())?;
        let layers = saved.layers.iter().zip(diff_ids).map(|(path, diff_id)| {
            let (offset, size) = self.find(path)?;
            Ok(Layer { offset, size, digest: None, diff_id })
        });
        Ok(Plan { digest, layers: layers.collect::<Result<_>>()?, config })
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let digest = Digest::parse(&descriptor.digest)?;
        let bytes = self.read(&format!("blobs/sha256/{}", digest.hex()))?;
        digest.expect(&Digest::of(&bytes), format!("blob {digest}"))?;
        if bytes.len() as u64 != descriptor.size {
            return Err(document("descriptor", format!("{digest} should have {} bytes and has {}", descriptor.size, bytes.len())));
        }
        Ok(bytes)
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let (offset, size) = self.find(path)?;
        if size > DOCUMENT_BYTES {
            return Err(Error::TooMuch { what: format!("the document {} of {size} bytes", show(path.as_bytes())), limit: DOCUMENT_BYTES });
        }
        let mut file = self.file;
        file.seek(SeekFrom::Start(offset)).step("seek in", "the archive")?;
        let mut bytes = Vec::new();
        file.take(size).read_to_end(&mut bytes).step("read", "the archive")?;
        Ok(bytes)
    }

    fn find(&self, path: &str) -> Result<(u64, u64)> {
        let mut path = path.to_owned();
        for _ in 0..8 {
            match self.members.get(&path) {
                Some(Member::File { offset, size }) => return Ok((*offset, *size)),
                Some(Member::Link(target)) => path.clone_from(target),
                None => break,
            }
        }
        Err(document("archive", format!("{} is missing", show(path.as_bytes()))))
    }
}

fn configuration(bytes: &[u8]) -> Result<(Config, Vec<Digest>)> {
    let read: Configuration = parse("configuration", bytes)?;
    let settings = read.config.unwrap_or_default();
    let config = Config {
        entrypoint: settings.entrypoint.unwrap_or_default(),
        cmd: settings.cmd.unwrap_or_default(),
        env: settings.env.unwrap_or_default(),
        workdir: settings.working_dir.unwrap_or_default(),
        user: settings.user.unwrap_or_default(),
    };
    Ok((config, read.rootfs.diff_ids.iter().map(|id| Digest::parse(id)).collect::<Result<_>>()?))
}

fn same_number(layers: usize, diff_ids: usize) -> Result<()> {
    if layers == diff_ids && layers > 0 {
        return Ok(());
    }
    Err(document("manifest", format!("it has {layers} layers, the configuration {diff_ids}")))
}

fn parse<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| document(name, error.to_string()))
}

fn document(name: &str, reason: String) -> Error {
    Error::Document { document: name.to_owned(), reason }
}

/// This machine's architecture as images name it.
fn architecture() -> &'static str {
    match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_image_archives_make_a_layout() {
        let hex = "0".repeat(64);
        for path in [
            "oci-layout",
            "index.json",
            "manifest.json",
            "repositories",
            &format!("blobs/sha256/{hex}"),
            &format!("{hex}.json"),
            &format!("{hex}/layer.tar"),
        ] {
            assert!(is_layout_member(path, Kind::File), "{path}");
        }
        for path in ["bin", "etc/passwd", "blobs/etc", "blobs/sha256/x", &format!("{hex}/other"), "index.json/x"] {
            assert!(!is_layout_member(path, Kind::File), "{path}");
        }
    }

    #[test]
    fn links_inside_the_archive_stay_inside() {
        assert_eq!(normal(b"./a/../../b/./c").as_deref(), Some("b/c"));
        assert_eq!(normal(b"./"), None);
    }

    #[test]
    fn a_configuration_of_docker_is_read_with_its_nulls() {
        let id = format!("sha256:{}", "a".repeat(64));
        let text = format!(
            r#"{{"architecture":"amd64","config":{{"Entrypoint":null,"Cmd":["sh"],"Env":["A=b"],"User":"","Volumes":null}},"rootfs":{{"type":"layers","diff_ids":["{id}"]}}}}"#
        );
        let (config, ids) = configuration(text.as_bytes()).unwrap();
        assert_eq!((config.cmd, config.env, ids.len()), (vec!["sh".to_owned()], vec!["A=b".to_owned()], 1));
        assert!(configuration(b"{}").is_err());
    }
}
