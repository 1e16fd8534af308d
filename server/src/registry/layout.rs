//! The image as an archive that the node reads: a tar of an OCI layout, in pieces, with the layers left open.

use std::collections::{HashSet, VecDeque};

use bytes::{Bytes, BytesMut};
use serde_json::json;
use tar::{EntryType, Header};

use super::manifest::{Descriptor, Manifest, architecture};

const BLOCK: u64 = 512;

/// A part of the archive.
#[derive(Debug)]
pub(super) enum Piece {
    Bytes(Bytes),
    /// To be fetched.
    Blob(Descriptor),
}

/// The archive, and its length.
pub(super) fn pieces(digest: &str, bytes: Bytes, config: Bytes, manifest: &Manifest) -> (VecDeque<Piece>, u64) {
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": manifest.media_type,
            "digest": digest,
            "size": bytes.len(),
            "platform": { "os": "linux", "architecture": architecture() },
        }],
    });
    let mut archive = Archive::default();
    archive.document("oci-layout", &Bytes::from_static(br#"{"imageLayoutVersion":"1.0.0"}"#));
    archive.document("index.json", &Bytes::from(index.to_string()));
    archive.head("blobs/", EntryType::Directory, 0);
    archive.head("blobs/sha256/", EntryType::Directory, 0);
    archive.document(&path(digest), &bytes);
    archive.document(&path(&manifest.config.digest), &config);
    // Equal layers are one blob.
    let mut known = HashSet::from([digest, manifest.config.digest.as_str()]);
    for layer in manifest.layers.iter().filter(|layer| known.insert(&layer.digest)) {
        archive.head(&path(&layer.digest), EntryType::Regular, layer.size);
        archive.blob(layer);
    }
    archive.raw(&[0; 2 * BLOCK as usize]);
    archive.end()
}

fn path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

#[derive(Default)]
struct Archive {
    pieces: VecDeque<Piece>,
    open: BytesMut,
    length: u64,
}

impl Archive {
    fn document(&mut self, path: &str, bytes: &Bytes) {
        self.head(path, EntryType::Regular, bytes.len() as u64);
        self.raw(bytes);
        self.pad(bytes.len() as u64);
    }

    fn head(&mut self, path: &str, kind: EntryType, size: u64) {
        let mut header = Header::new_ustar();
        // The longest path has 76 bytes, of the 100 that a header holds.
        let _ = header.set_path(path);
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.raw(header.as_bytes());
    }

    fn blob(&mut self, layer: &Descriptor) {
        self.close();
        self.pieces.push_back(Piece::Blob(layer.clone()));
        self.length = self.length.saturating_add(layer.size);
        self.pad(layer.size);
    }

    fn pad(&mut self, size: u64) {
        let rest = (BLOCK - size % BLOCK) % BLOCK;
        self.raw(&vec![0; rest as usize]);
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.open.extend_from_slice(bytes);
        self.length = self.length.saturating_add(bytes.len() as u64);
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.pieces.push_back(Piece::Bytes(self.open.split().freeze()));
        }
    }

    fn end(mut self) -> (VecDeque<Piece>, u64) {
        self.close();
        (self.pieces, self.length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::{
        super::manifest::{self, Document, digest},
        *,
    };

    #[test]
    fn the_pieces_are_an_archive_of_the_length_that_was_told() {
        let layers = [Bytes::from(vec![1; 700]), Bytes::from_static(b"two"), Bytes::from(vec![1; 700])];
        let config = Bytes::from_static(b"{}");
        let descriptor = |bytes: &Bytes| json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(bytes), "size": bytes.len() });
        let text =
            Bytes::from(json!({ "config": descriptor(&config), "layers": layers.iter().map(descriptor).collect::<Vec<_>>() }).to_string());
        let Ok(Document::Manifest(manifest)) = manifest::read("x", &text) else { panic!("{text:?}") };
        let (pieces, length) = pieces(&digest(&text), text.clone(), config, &manifest);
        let mut whole = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => whole.extend_from_slice(&bytes),
                Piece::Blob(wanted) => whole.extend_from_slice(layers.iter().find(|layer| digest(layer) == wanted.digest).unwrap()),
            }
        }
        assert_eq!(whole.len() as u64, length);
        let mut found = Vec::new();
        for entry in tar::Archive::new(&whole[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            found.push((entry.path().unwrap().to_str().unwrap().to_owned(), bytes));
        }
        let blobs: Vec<_> = found.iter().filter(|(path, bytes)| path.starts_with("blobs/sha256/") && !bytes.is_empty()).collect();
        assert_eq!(blobs.len(), 4, "equal layers are there once");
        for (path, bytes) in blobs {
            assert_eq!(digest(bytes), path.replace("blobs/sha256/", "sha256:"));
        }
    }

    #[test]
    fn sizes_beyond_all_measure_do_not_wrap_around() {
        let layer = |number: u8| json!({ "digest": digest(&[number]), "size": u64::MAX - 5 });
        let config = json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(b""), "size": 0 });
        let text = Bytes::from(json!({ "config": config, "layers": [layer(1), layer(2)] }).to_string());
        let Ok(Document::Manifest(manifest)) = manifest::read("x", &text) else { panic!("{text:?}") };
        assert_eq!(pieces(&digest(&text), text, Bytes::new(), &manifest).1, u64::MAX);
    }
}
