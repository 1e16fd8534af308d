//! The first half: host root prepares, in a private mount namespace, what comes from the host.

use std::{
    ffi::CString,
    io::Write,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::mount::{MsFlags, mount};
use oci_spec::runtime::Mount;
use rustix::{
    fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chownat, makedev, mkdirat, mknodat, openat, symlinkat},
    mount::{MountAttrFlags, MoveMountFlags, move_mount},
};

use super::{
    Contents, DEV, DISK, FILES, IMAGE, ROOT, RUNC, bind_slot, binds, clone_tree, hard_but_dev,
    lay::{WRAPPER, wrapper_taken},
    new_mount, replace_root, share,
    target::{attach, attach_file},
};
use crate::error::{Error, Result, Step, chain};

/// Device nodes inside: name, major, minor. `console` swallows: a berth has no terminal of its own.
const DEVICES: [(&str, u32, u32); 9] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
    ("console", 1, 3),
    ("fuse", 10, 229),
    ("net/tun", 10, 200),
];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Builds the tree and makes it the root of the calling process. The caller is host root in a mount namespace of its own.
/// `disk` is the detached mount of the container's disk. Returns the disk's root directory, open for reading.
/// `shares` are the detached mounts of the shares, in order.
pub(crate) fn stage(contents: &Contents<'_>, disk: OwnedFd, shares: Vec<OwnedFd>, userns: BorrowedFd<'_>) -> Result<OwnedFd> {
    let everything: Option<&str> = None;
    mount(everything, "/", everything, MsFlags::MS_REC | MsFlags::MS_PRIVATE, everything).step("make private", "/")?;

    let image_path =
        contents.spec.root().as_ref().map(|r| r.path().clone()).ok_or_else(|| Error::Invalid("the spec names no root".into()))?;
    let image = clone_tree(CWD, &image_path)?;
    berth_sys::mount::set_attributes(image.as_fd(), berth_sys::mount::RDONLY | berth_sys::mount::NODEV, Some(userns))
        .step("id-map", "the image")?;
    let mut parts = vec![(IMAGE.to_owned(), image), (DISK.to_owned(), disk)];
    parts.push((DEV.to_owned(), devices(contents.id_base)?));
    parts.push((FILES.to_owned(), small_files(contents)?));
    for (index, bind) in binds(contents).enumerate() {
        parts.push((bind_slot(index), host_bind(bind)?));
    }
    parts.extend(share::parts(contents.shares, shares)?);
    if let Some(runc) = contents.runc {
        parts.push((RUNC.to_owned(), wrapper(runc, userns)?));
    }

    let tree = new_mount("tmpfs", &[("mode", "0755"), ("size", "64k")], MountAttrFlags::empty())?;
    move_mount(tree.as_fd(), "", CWD, "/run", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step("attach", "the stage")?;
    for (name, part) in &parts {
        match name.as_str() {
            RUNC => file(tree.as_fd(), name)?,
            _ => directory(tree.as_fd(), name, 0o755)?,
        }
        move_mount(part.as_fd(), "", tree.as_fd(), name.as_str(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step("attach", name)?;
    }
    // A new proc or sysfs may be mounted in a lesser user namespace only beside one that is fully visible (mount_too_revealing).
    for (name, kind) in [("proc", "proc"), ("sys", "sysfs")] {
        directory(tree.as_fd(), name, 0o755)?;
        let visible =
            new_mount(kind, &[], MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
        move_mount(visible.as_fd(), "", tree.as_fd(), name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step("attach", name)?;
    }
    directory(tree.as_fd(), ROOT, 0o755)?;
    rustix::process::fchdir(&tree).step("enter", "the stage")?;
    replace_root()?;
    openat(CWD, DISK, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step("open", "the disk")
}

/// Lays what comes from the host over the container's root, `tree`, and leaves that in the stage. The caller stands in the stage as host
/// root; the mount namespace that the container will have is a copy of this one, and in it everything below the root is locked.
///
/// Each place was made by [`super::lay`]; `/dev` comes last, so that a symlink to there cannot take a place away.
pub(crate) fn furnish(contents: &Contents<'_>, tree: BorrowedFd<'_>) -> Result<()> {
    move_mount(tree, "", CWD, format!("/{ROOT}"), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step("attach", "the root")?;
    for (index, (inside, _)) in contents.files.iter().enumerate() {
        attach_file(clone_tree(CWD, Path::new(&format!("/{FILES}/{index}")))?.as_fd(), tree, inside)?;
    }
    for (index, bind) in binds(contents).enumerate() {
        attach(clone_tree(CWD, Path::new(&format!("/{}", bind_slot(index))))?.as_fd(), tree, bind.destination())?;
    }
    share::furnish(contents.shares, tree);
    if contents.runc.is_some()
        && !wrapper_taken(tree)
        && let Err(error) = attach_file(clone_tree(CWD, Path::new(&format!("/{RUNC}")))?.as_fd(), tree, Path::new(WRAPPER))
    {
        eprintln!("berth: no wrapper for runc: {}", chain(&error));
    }
    attach(clone_tree(CWD, Path::new(&format!("/{DEV}")))?.as_fd(), tree, "dev")
}

/// `/dev` as a tmpfs whose nodes belong to the container's root; it cannot make others (mknod needs a right on the host).
fn devices(base: u32) -> Result<OwnedFd> {
    let owner = base.to_string();
    let options = [("mode", "0755"), ("size", "1m"), ("nr_inodes", "1024"), ("uid", owner.as_str()), ("gid", owner.as_str())];
    let dev = new_mount("tmpfs", &options, hard_but_dev())?;
    for name in ["pts", "shm", "mqueue", "net"] {
        directory(dev.as_fd(), name, 0o755)?;
        own(dev.as_fd(), name, base)?;
    }
    for (name, major, minor) in DEVICES {
        let mode = Mode::from_raw_mode(0o666);
        mknodat(&dev, name, FileType::CharacterDevice, mode, makedev(major, minor)).step("make device", name)?;
        rustix::fs::chmodat(&dev, name, mode, AtFlags::empty()).step("open to all", name)?;
        own(dev.as_fd(), name, base)?;
    }
    for (name, target) in LINKS {
        symlinkat(target, &dev, name).step("link", name)?;
        own(dev.as_fd(), name, base)?;
    }
    Ok(dev)
}

/// The small files, numbered, on a read-only tmpfs.
fn small_files(contents: &Contents<'_>) -> Result<OwnedFd> {
    let files = new_mount("tmpfs", &[("mode", "0755"), ("size", "1m")], MountAttrFlags::empty())?;
    for (index, (_, text)) in contents.files.iter().enumerate() {
        let name = index.to_string();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = openat(&files, name.as_str(), flags, Mode::from_raw_mode(0o644)).step("make", &name)?;
        std::fs::File::from(fd).write_all(text.as_bytes()).step("write", &name)?;
        own(files.as_fd(), &name, contents.id_base)?;
    }
    use berth_sys::mount::{NODEV, NOEXEC, NOSUID, RDONLY, set_attributes};
    set_attributes(files.as_fd(), RDONLY | NOSUID | NODEV | NOEXEC, None).step("make read-only", "the small files")?;
    Ok(files)
}

/// A path of the host for the inside: always nosuid and nodev; `ro` and `noexec` by its options.
fn host_bind(bind: &Mount) -> Result<OwnedFd> {
    let source = bind.source().as_ref().ok_or_else(|| Error::Invalid(format!("bind {} has no source", bind.destination().display())))?;
    let tree = clone_tree(CWD, source)?;
    let mut attributes = berth_sys::mount::NOSUID | berth_sys::mount::NODEV;
    for option in bind.options().iter().flatten() {
        attributes |= match option.as_str() {
            "ro" => berth_sys::mount::RDONLY,
            "noexec" => berth_sys::mount::NOEXEC,
            "rw" | "bind" | "nosuid" | "nodev" => 0,
            other => return Err(Error::Invalid(format!("bind {}: option {other} is not supported", bind.destination().display()))),
        };
    }
    berth_sys::mount::set_attributes(tree.as_fd(), attributes, None).step("set flags of", source.display())?;
    Ok(tree)
}

/// The wrapper's file, which belongs to root inside where the file system below can show it so (tmpfs, since 6.3).
fn wrapper(runc: &Path, userns: BorrowedFd<'_>) -> Result<OwnedFd> {
    use berth_sys::mount::{NODEV, NOSUID, RDONLY, set_attributes};
    let tree = clone_tree(CWD, runc)?;
    let flags = RDONLY | NOSUID | NODEV;
    set_attributes(tree.as_fd(), flags, Some(userns))
        .or_else(|_| set_attributes(tree.as_fd(), flags, None))
        .step("set flags of", runc.display())?;
    Ok(tree)
}

fn file(parent: BorrowedFd<'_>, name: &str) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop).step("make", name)
}

fn directory(parent: BorrowedFd<'_>, name: &str, mode: u32) -> Result<()> {
    mkdirat(parent, name, Mode::from_raw_mode(mode)).step("make", name)
}

fn own(dir: BorrowedFd<'_>, name: &str, base: u32) -> Result<()> {
    let name_c = CString::new(name).map_err(|_| Error::Invalid(format!("{name:?} holds a NUL byte")))?;
    chownat(dir, name_c.as_c_str(), Some(Uid::from_raw(base)), Some(Gid::from_raw(base)), AtFlags::SYMLINK_NOFOLLOW).step("give away", name)
}
