//! Archives for the tests, byte by byte: also such as no archiver writes.

use std::io::Write;

use tar::{EntryType, Header};

use crate::image::digest::Digest;

/// Modification time of every entry.
pub(super) const TIME: i64 = 1_700_000_000;
pub(super) const SHELL: &[u8] = b"#!";

/// An archive in the making; mode, owner and attributes are for the next entry only.
pub(super) struct Pack {
    bytes: Vec<u8>,
    mode: u32,
    owner: u32,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Pack {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), mode: 0o755, owner: rustix::process::geteuid().as_raw(), xattrs: Vec::new() }
    }

    /// The least that passes for a root file system.
    pub(super) fn root() -> Self {
        Self::new().dir("./").dir("./bin").file("./bin/sh", SHELL)
    }

    pub(super) fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub(super) fn owner(mut self, owner: u32) -> Self {
        self.owner = owner;
        self
    }

    pub(super) fn xattrs(mut self, xattrs: &[(&str, &[u8])]) -> Self {
        self.xattrs = xattrs.iter().map(|(key, value)| (format!("SCHILY.xattr.{key}"), value.to_vec())).collect();
        self
    }

    pub(super) fn file(self, path: &str, body: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, "", body)
    }

    pub(super) fn dir(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, "", b"")
    }

    pub(super) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, b"")
    }

    pub(super) fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, target, b"")
    }

    pub(super) fn fifo(self, path: &str) -> Self {
        self.entry(EntryType::Fifo, path, "", b"")
    }

    pub(super) fn device(self, path: &str) -> Self {
        self.entry(EntryType::Block, path, "", b"")
    }

    pub(super) fn entry(mut self, kind: EntryType, path: &str, target: &str, body: &[u8]) -> Self {
        let mut records: Vec<(String, Vec<u8>)> = std::mem::take(&mut self.xattrs);
        if path.len() > 100 {
            records.push(("path".into(), path.into()));
        }
        if target.len() > 100 {
            records.push(("linkpath".into(), target.into()));
        }
        if !records.is_empty() {
            let pax: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
            self.raw(EntryType::XHeader, "pax", "", &pax);
        }
        self.raw(kind, path, target, body);
        (self.mode, self.owner) = (0o755, rustix::process::geteuid().as_raw());
        self
    }

    fn raw(&mut self, kind: EntryType, path: &str, target: &str, body: &[u8]) {
        let mut header = Header::new_ustar();
        let old = header.as_old_mut();
        // The checks of `set_path` are what the hostile archives must not have.
        for (field, text) in [(&mut old.name, path), (&mut old.linkname, target)] {
            let length = text.len().min(100);
            field[..length].copy_from_slice(&text.as_bytes()[..length]);
        }
        header.set_entry_type(kind);
        header.set_mode(self.mode);
        header.set_uid(self.owner.into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_mtime(TIME as u64);
        header.set_size(body.len() as u64);
        header.set_cksum();
        self.bytes.extend(header.as_bytes());
        self.bytes.extend(body);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    pub(super) fn done(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (rest + 1..).find(|length| rest + length.to_string().len() == *length).unwrap();
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An OCI layout of one image; what is stated can be made to differ from what is there.
pub(super) struct Oci {
    /// Blobs of layers, as they lie in the archive.
    pub(super) layers: Vec<Vec<u8>>,
    /// Over the decompressed layers.
    pub(super) diff_ids: Vec<String>,
    /// Stated digests of the layers.
    pub(super) digests: Vec<String>,
    pub(super) config: &'static str,
    /// Platform members of the image in the index.
    pub(super) platform: &'static str,
}

impl Oci {
    pub(super) fn new(layers: &[Vec<u8>]) -> Self {
        let digests: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        Self { layers: layers.to_vec(), diff_ids: digests.clone(), digests, config: "{}", platform: "" }
    }

    /// The same layers, compressed in the archive.
    pub(super) fn compress(mut self, with: impl Fn(&[u8]) -> Vec<u8>) -> Self {
        self.layers = self.layers.iter().map(|layer| with(layer)).collect();
        self.digests = self.layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        self
    }

    pub(super) fn done(&self) -> Vec<u8> {
        let config = format!(r#"{{"config":{},"rootfs":{{"type":"layers","diff_ids":{}}}}}"#, self.config, list(&self.diff_ids));
        let sizes =
            self.digests.iter().zip(&self.layers).map(|(digest, layer)| format!(r#"{{"digest":"{digest}","size":{}}}"#, layer.len()));
        let layers: Vec<String> = sizes.collect();
        let manifest = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, descriptor(&config, ""), layers.join(","));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor(&manifest, self.platform));
        let mut pack = Pack::new().file("index.json", index.as_bytes()).dir("blobs/").dir("blobs/sha256/");
        for (digest, bytes) in self.digests.iter().zip(&self.layers) {
            pack = pack.file(&blob(digest), bytes);
        }
        for document in [&config, &manifest] {
            pack = pack.file(&blob(&Digest::of(document.as_bytes()).to_string()), document.as_bytes());
        }
        pack.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).done()
    }
}

fn blob(digest: &str) -> String {
    digest.replace("sha256:", "blobs/sha256/")
}

fn descriptor(text: &str, more: &str) -> String {
    format!(
        r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":{}{more}}}"#,
        Digest::of(text.as_bytes()),
        text.len()
    )
}

pub(super) fn list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|t| format!("\"{t}\"")).collect::<Vec<_>>().join(","))
}
