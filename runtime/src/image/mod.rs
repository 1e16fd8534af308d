//! Images: content-addressed root file systems, unpacked once and shared read-only by all berths.
//!
//! ```text
//! <root>/                       0700: files in it have the image's own ids and setuid bits
//!   <64 hexadecimal digits>/    one image, complete: it got its name by rename
//!     image.json                name, digest, size, what the image wants to run
//!     rootfs/
//!   .new-…/  .old-…/            an import or a removal at work, or what a crash left of one; `sweep` removes them
//! ```
//!
//! The address is the SHA-256 of the archive as given for a root file system, of the manifest for an OCI image, and of the
//! configuration for an image saved by an old Docker. Nothing an archive names is reached but through [`tree::Tree`], and every size
//! and number has its bound in [`limits`]. Device nodes are left out, ids beyond a berth's are refused.

mod archive;
mod build;
mod compression;
mod digest;
mod error;
mod extract;
mod import;
mod layout;
pub mod limits;
mod mounts;
mod tree;

use std::{
    fs::{self, DirBuilder, Permissions},
    io::{ErrorKind, Read},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

pub use build::Recipe;
pub use error::{Error, Result};
pub use layout::Config;

use digest::Digest;
use error::Step;

const RECORD: &str = "image.json";
const ROOTFS: &str = "rootfs";
const NEW: &str = ".new-";
const OLD: &str = ".old-";

/// A complete image, as `image.json` holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// What people call it; several images may share a name.
    pub name: String,
    /// `sha256:<64 hexadecimal digits>`
    pub digest: String,
    /// When it was imported, milliseconds since the epoch.
    pub created_ms: i64,
    /// Bytes of its files.
    pub size_bytes: u64,
    /// What an OCI image says about running it; None for a root file system.
    pub config: Option<Config>,
}

/// The images of one node. Imports and removals may run side by side; only one process may use a store.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store, made if it is not there, and closes it to everyone but its owner.
    pub fn open(root: &Path) -> Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(root).step("make", root.display())?;
        fs::set_permissions(root, Permissions::from_mode(0o700)).step("set the mode of", root.display())?;
        Ok(Self { root: root.to_path_buf() })
    }

    /// Takes an archive: a root file system, an OCI layout or the output of `docker save`, plain or compressed. Content that is there
    /// already is not unpacked again, but gets this name. `progress` hears lines for people. Blocks; durable when it returns.
    pub fn import(&self, name: &str, reader: impl Read, now_ms: i64, progress: &mut dyn FnMut(&str)) -> Result<Image> {
        import::check_name(name)?;
        let work = self.work()?;
        let spooled = import::spool(reader, &work, progress)?;
        let image = import::import(self, &work, spooled, name, now_ms, progress);
        let closed = work.close();
        image.and_then(|image| closed.map(|()| image))
    }

    /// All complete images, oldest first. One with an unreadable record is logged and left out.
    pub fn list(&self) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        for entry in fs::read_dir(&self.root).step("list", self.root.display())? {
            let entry = entry.step("list", self.root.display())?;
            let Some(digest) = entry.file_name().to_str().and_then(|name| Digest::parse(name).ok()) else { continue };
            match self.read(&digest) {
                Ok(image) => images.extend(image),
                Err(error) => tracing::warn!(image = %digest, error = &error as &dyn std::error::Error, "image record skipped"),
            }
        }
        images.sort_by(|a, b| (a.created_ms, &a.digest).cmp(&(b.created_ms, &b.digest)));
        Ok(images)
    }

    /// One image by `sha256:…`.
    pub fn get(&self, digest: &str) -> Result<Option<Image>> {
        self.read(&Digest::parse(digest)?)
    }

    /// Where an image's root file system lies; whether it exists is not looked at.
    pub fn rootfs(&self, digest: &str) -> Result<PathBuf> {
        Ok(self.dir(&Digest::parse(digest)?).join(ROOTFS))
    }

    /// Removes an image; gone already is success. The caller knows that no berth stands on it.
    pub fn remove(&self, digest: &str) -> Result<()> {
        let digest = Digest::parse(digest)?;
        let trash = self.unused(OLD);
        // From here on it is no image any more, however far the deletion comes.
        match fs::rename(self.dir(&digest), &trash) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            done => done.step("remove image", &digest)?,
        }
        self.sync()?;
        delete(&trash)
    }

    /// Removes what interrupted imports and removals left. To be called once, before any other use of the store.
    pub fn sweep(&self) -> Result<()> {
        for entry in fs::read_dir(&self.root).step("list", self.root.display())? {
            let entry = entry.step("list", self.root.display())?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(NEW) || name.starts_with(OLD)) {
                delete(&entry.path())?;
            }
        }
        Ok(())
    }

    fn dir(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.hex())
    }

    fn read(&self, digest: &Digest) -> Result<Option<Image>> {
        let path = self.dir(digest).join(RECORD);
        match fs::read(&path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error).step("read", path.display()),
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|source| Error::Record { path, source }),
        }
    }

    fn work(&self) -> Result<Work> {
        let dir = self.unused(NEW);
        DirBuilder::new().mode(0o700).create(&dir).step("make", dir.display())?;
        Ok(Work { dir, closed: false })
    }

    /// A name that nothing else in this store has.
    fn unused(&self, prefix: &str) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        self.root.join(format!("{prefix}{}-{time}-{count}", std::process::id()))
    }

    fn sync(&self) -> Result<()> {
        let dir = fs::File::open(&self.root).step("open", self.root.display())?;
        dir.sync_all().step("make durable", self.root.display())
    }
}

/// A directory of the store for one import, on the same file system as the images.
#[derive(Debug)]
struct Work {
    dir: PathBuf,
    closed: bool,
}

impl Work {
    fn join(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn close(mut self) -> Result<()> {
        self.closed = true;
        delete(&self.dir)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if !self.closed
            && let Err(error) = delete(&self.dir)
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "an interrupted import stays until the next start");
        }
    }
}

/// Deletes a tree without following symlinks; its depth is bounded by what was ever unpacked. Gone already is success.
fn delete(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done.step("delete", path.display()),
    }
}

#[cfg(test)]
mod tests;
