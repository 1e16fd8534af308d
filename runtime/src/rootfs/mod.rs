//! The container's mounts, by four hands.
//!
//! [`stage`], as host root in a private mount namespace: everything that comes from the host is attached to a small tmpfs tree, with its
//! final flags, and that tree becomes the root; the host's own mounts are gone. [`lay`], as the container's root in a child: the overlay.
//! [`furnish`], as host root again: clones of what came from the host, on the overlay. When the container's mount namespace is then made
//! in a lesser user namespace, it inherits the tree with all mounts in it locked: neither their flags nor they themselves can be taken
//! off (`MNT_LOCKED`). [`enter`], as the container's root: the mounts of its own namespaces, and pivot_root.
//!
//! Every place in the overlay is resolved inside it, because the tenant decides what is a symlink there.
//! The price of the locks: a bind that is not recursive, or an overlay, of a directory above such a mount is refused (EINVAL).

mod emulated;
mod enter;
mod lay;
mod share;
mod stage;
mod target;
mod wrapper;

use std::{
    net::Ipv4Addr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, umount2};
use oci_spec::runtime::{Mount, Spec};
use rustix::{
    fs::CWD,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
        open_tree,
    },
    process::{chdir, pivot_root},
};

pub(crate) use emulated::mount_emulated;
pub(crate) use enter::enter;
pub(crate) use lay::lay;
pub use share::{MOUNTS_OF_A_SHARE, Share};
pub(crate) use stage::{furnish, stage};
pub use wrapper::{install_wrapper, remove_wrapper};

use crate::error::{Result, Step};

/// What the container's root is made of.
pub(crate) struct Contents<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) id_base: u32,
    /// Small read-only files: path inside, contents.
    pub(crate) files: &'a [(PathBuf, String)],
    /// The inner OCI-runtime wrapper, a file of the host.
    pub(crate) runc: Option<&'a Path>,
    pub(crate) shares: &'a [Share],
    pub(crate) address: Ipv4Addr,
    /// Mount options and host mount point of each v1 hierarchy; none on a pure cgroup v2 host.
    pub(crate) v1: Vec<(&'a str, &'a Path)>,
}

/// Where the stage puts things, and where [`enter`] finds them.
const IMAGE: &str = "image";
const DISK: &str = "disk";
const DEV: &str = "dev";
const FILES: &str = "files";
const RUNC: &str = "runc";
const ROOT: &str = "root";

fn bind_slot(index: usize) -> String {
    format!("bind{index}")
}

fn binds<'a>(contents: &Contents<'a>) -> impl Iterator<Item = &'a Mount> {
    contents.spec.mounts().iter().flatten().filter(|m| m.typ().as_deref() == Some("bind"))
}

/// Makes the working directory `/` and drops the old root with all below it; pivot_root(2), "pivot_root(".", ".")".
fn replace_root() -> Result<()> {
    pivot_root(".", ".").step("pivot to", "the new root")?;
    umount2(".", MntFlags::MNT_DETACH).step("detach", "the old root")?;
    chdir("/").step("enter", "/")
}

fn hard() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC
}

fn hard_but_dev() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC
}

fn new_mount(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd> {
    new_mount_with(kind, options, &[], attributes)
}

/// A new file system, attached nowhere yet.
fn new_mount_with(kind: &str, options: &[(&str, &str)], flags: &[&str], attributes: MountAttrFlags) -> Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).step("open file system", kind)?;
    fsconfig_set_string(context.as_fd(), "source", kind).step("configure", kind)?;
    for (key, value) in options {
        fsconfig_set_string(context.as_fd(), *key, *value).step("configure", format!("{kind} ({key}={value})"))?;
    }
    for flag in flags {
        fsconfig_set_flag(context.as_fd(), *flag).step("configure", format!("{kind} ({flag})"))?;
    }
    fsconfig_create(context.as_fd()).step("create file system", kind)?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).step("mount", kind)
}

fn clone_tree(dir: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(dir, path, flags).step("clone the mount at", path.display())
}

/// The same with all that is mounted below: of the clone, only the top is not locked where the mounts below are.
fn clone_all(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags).step("clone the mounts at", path.display())
}
