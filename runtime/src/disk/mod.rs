//! A berth's disk: everything that it writes, ids from 0.
//!
//! Two backends, recorded for each berth when it is made: a sparse ext4 image on a loop device ([`image`]), or a directory of the host
//! under ext4's or XFS's project quota ([`directory`]). Either is mounted detached: the mount is a descriptor, the host's mount table does
//! not show it, and it frees itself when its last holder dies.
//!
//! A disk has a limit and, below that, [`Room`]: what its berth may still take just now, which the node lowers so that all berths
//! together never fill the host. Both bind from before the first program of the berth runs, and whoever set them may die. The image
//! keeps them by ext4's `reserved_clusters`, free blocks that nobody gets; the directory by its quota.

mod directory;
mod image;
mod loopdev;
mod program;
mod resize;
mod superblock;

use std::{
    fs,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, mkdirat, openat};
use serde::{Deserialize, Serialize};

pub use directory::quota_enforced;

use crate::{
    error::{Error, Result, Step},
    fault,
};

/// What lies in the root of a disk: name, mode. Everything in them is the container's, ids from 0.
const LAYOUT: [(&str, u32); 5] =
    [("rootfs", 0o700), ("rootfs/upper", 0o755), ("rootfs/work", 0o700), ("docker", 0o710), ("containerd", 0o711)];

/// How a berth's bytes are kept. Never changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Backend {
    /// An ext4 image on a loop device.
    #[default]
    Loop,
    /// A directory in a project of its own; `None`: without any limit, for measurements.
    Directory { project: Option<u32> },
}

/// A berth's disk on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub backend: Backend,
    /// The image file, or the directory.
    pub path: PathBuf,
}

/// What a disk may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// An image's own tables and journal included.
    pub bytes: u64,
    /// `None`: as many as the size gives.
    pub inodes: Option<u64>,
}

/// What a berth may take of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    pub limit: Limit,
    /// Bytes that it may still write; `None`: whatever the limit leaves.
    pub free: Option<u64>,
}

/// Size and use of a disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// All of it: an image's own tables and journal included, a directory's limit.
    pub size: u64,
    /// Not used, whether or not the berth may take it.
    pub free: u64,
    /// What the berth may still take.
    pub available: u64,
    /// Of the size, what an image's file system keeps for itself; 0 where that is not known.
    pub tables: u64,
    pub inodes: u64,
    pub free_inodes: u64,
}

impl Space {
    /// Unwritten data and what the file system needs for itself included.
    pub fn used(&self) -> u64 {
        self.size.saturating_sub(self.free)
    }

    /// What `limit` leaves of an image.
    pub fn left(&self, limit: Limit) -> u64 {
        image::left(self, limit)
    }
}

/// Whether a mounted disk could be made larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    Done,
    /// This kernel or this process may not; [`Disk::grow`] can, once nothing has it mounted.
    NotWhileMounted,
}

impl Disk {
    /// Makes it, empty, on stable storage; on failure nothing of it is left.
    pub fn create(&self, limit: Limit) -> Result<()> {
        match self.backend {
            Backend::Loop => image::create(&self.path, limit),
            Backend::Directory { project } => directory::create(&self.path, project, limit),
        }
    }

    /// Takes it away; already gone is success. Nothing may have it mounted.
    pub fn remove(&self) -> Result<()> {
        match self.backend {
            Backend::Loop => image::remove(&self.path),
            Backend::Directory { project } => directory::remove(&self.path, project),
        }
    }

    /// Bytes that the disk occupies on the host's file system; of a directory without a limit nobody knows.
    pub fn occupied(&self) -> Result<u64> {
        match self.backend {
            Backend::Loop => Ok(fs::metadata(&self.path).step("look at", self.path.display())?.blocks() * 512),
            Backend::Directory { project: None } => Ok(0),
            Backend::Directory { project } => directory::space(&self.path, project).map(|space| space.used()),
        }
    }

    /// Size and use while it is not mounted.
    pub fn space(&self) -> Result<Space> {
        match self.backend {
            Backend::Loop => superblock::space(&self.path),
            Backend::Directory { project } => directory::space(&self.path, project),
        }
    }

    /// Whether [`Disk::grow`] has something to do.
    pub fn is_to_grow(&self, bytes: u64) -> Result<bool> {
        match self.backend {
            Backend::Loop => resize::is_to_grow(&self.path, bytes),
            Backend::Directory { .. } => Ok(false),
        }
    }

    /// Makes it as large as `bytes` while nothing has it mounted, and goes on where a process died that did; a larger one stays as it is.
    /// Whatever fails leaves a whole file system of the old size. May take minutes, within a bound.
    pub fn grow(&self, bytes: u64) -> Result<()> {
        match self.backend {
            Backend::Loop => resize::grow(&self.path, bytes),
            Backend::Directory { .. } => Ok(()),
        }
    }

    /// Waits until nothing has it mounted; what a killed berth held goes within moments.
    pub fn await_release(&self) -> Result<()> {
        match self.backend {
            Backend::Loop => loopdev::await_release(&self.path),
            Backend::Directory { .. } => Ok(()),
        }
    }

    /// Empties the root file system, with `docker` also what Docker keeps, and gives the room back to the host; nothing may have it
    /// mounted. Takes longer the more files there are. Whoever dies over it leaves a part, and who does it again goes on.
    pub fn empty(&self, limit: Limit, docker: bool) -> Result<()> {
        self.await_release()?;
        let mount = mount_as_it_lies(self, Room { limit, free: None })?;
        fault::point("empty the root")?;
        program::remove(&mount, if docker { &["rootfs", "docker", "containerd"] } else { &["rootfs"] })?;
        lay_out(mount.as_fd())?;
        // That of a mount is only a place (O_PATH).
        let root = openat(&mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step("open", "the disk")?;
        rustix::fs::syncfs(&root).step("sync", self.path.display())?;
        if self.backend == Backend::Loop {
            image::trim(root.as_fd(), &self.path, || true)?;
        }
        drop((mount, root));
        self.await_release()
    }

    /// A handle on it while it is mounted. `dir`: a descriptor from whoever has it mounted, not trusted; a directory needs none.
    pub fn mounted(&self, dir: Option<OwnedFd>) -> Result<Mounted> {
        match (self.backend, dir) {
            (Backend::Loop, Some(dir)) => image::Mounted::new(&self.path, dir).map(Mounted::Loop),
            (Backend::Loop, None) => Err(Error::Invalid(format!("no descriptor on {}", self.path.display()))),
            (Backend::Directory { project }, _) => directory::Mounted::new(&self.path, project).map(Mounted::Directory),
        }
    }
}

/// A mounted disk, for as long as this is held; nothing else of the berth is kept by it. None of its calls waits for the tenant.
#[derive(Debug)]
pub enum Mounted {
    Loop(image::Mounted),
    Directory(directory::Mounted),
}

impl Mounted {
    pub fn space(&self) -> Result<Space> {
        match self {
            Self::Loop(disk) => disk.space(),
            Self::Directory(disk) => disk.space(),
        }
    }

    /// Binds at once, whatever is used already.
    pub fn bind(&self, room: Room) -> Result<()> {
        match self {
            Self::Loop(disk) => disk.bind(room),
            Self::Directory(disk) => disk.bind(room),
        }
    }

    /// Makes it as large as `bytes`.
    pub fn grow(&self, bytes: u64) -> Result<Growth> {
        match self {
            Self::Loop(disk) => disk.grow(bytes),
            Self::Directory(_) => Ok(Growth::Done),
        }
    }

    /// Gives what the berth deleted back to the host, part after part for as long as `go_on` says; returns the bytes trimmed. Blocks while
    /// the host's disk works.
    pub fn trim(&self, go_on: impl FnMut() -> bool) -> Result<u64> {
        match self {
            Self::Loop(disk) => disk.trim(go_on),
            Self::Directory(_) => Ok(0),
        }
    }
}

/// Mounts the disk nowhere: the descriptor is the mount. Ids are those of `userns`; directories of [`LAYOUT`] are there, and `room` binds.
pub(crate) fn mount(disk: &Disk, room: Room, userns: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mount = match disk.backend {
        Backend::Loop => image::mount(&disk.path, room)?,
        Backend::Directory { project } => directory::mount(&disk.path, project, room)?,
    };
    berth_sys::mount::set_attributes(mount.as_fd(), 0, Some(userns)).step("id-map", disk.path.display())?;
    Ok(mount)
}

/// The same as it lies on the disk, ids from 0: for whoever packs or fills it, in a mount namespace of his own.
pub(crate) fn mount_as_it_lies(disk: &Disk, room: Room) -> Result<OwnedFd> {
    match disk.backend {
        Backend::Loop => image::mount(&disk.path, room),
        Backend::Directory { project } => directory::mount(&disk.path, project, room),
    }
}

/// The directories of a disk, where they are not there yet. `root` is seen by host root alone, and no tenant ever names anything in it.
fn lay_out(root: BorrowedFd<'_>) -> Result<()> {
    for (name, mode) in LAYOUT {
        match mkdirat(root, name, Mode::from_raw_mode(mode)) {
            Err(rustix::io::Errno::EXIST) => {}
            done => done.step("make", name)?,
        }
    }
    Ok(())
}

/// Makes what happened in the directory of `file` durable.
fn sync_parent(file: &Path) -> Result<()> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    fs::File::open(dir).and_then(|dir| dir.sync_all()).step("sync", dir.display())
}
