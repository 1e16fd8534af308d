//! Places inside the container's root. The tenant decides what is a symlink there: nothing resolved here leads out of it.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, unlinkat},
    mount::{MoveMountFlags, move_mount},
};

use crate::error::{Error, Result, Step};

/// A rename or a mount anywhere on the host during one `..` of a path makes the kernel give up (EAGAIN, openat2(2)); on a busy host some do.
const TRIES: usize = 1000;

/// Opens what is at `path` below `root`. Nothing there leads out of it, whatever the tenant linked.
pub(super) fn open_inside(root: BorrowedFd<'_>, path: impl AsRef<Path>, flags: OFlags, mode: u16) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        let found = openat2(root, path.as_ref(), flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode.into()), resolve);
        tries += 1;
        if tries == TRIES || !matches!(found, Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR)) {
            return found;
        }
    }
}

/// Attaches a detached mount to a directory that is there.
pub(super) fn attach(tree: BorrowedFd<'_>, root: BorrowedFd<'_>, path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    attach_to(tree, open_inside(root, path, flags, 0).step("open", path.display())?.as_fd(), path)
}

/// The same for a file that is there.
pub(super) fn attach_file(tree: BorrowedFd<'_>, root: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let target = open_inside(root, path, OFlags::PATH, 0).step("open", path.display())?;
    attach_to(tree, target.as_fd(), path)
}

fn attach_to(tree: BorrowedFd<'_>, target: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", target, "", flags).step("attach", path.display())
}

/// Makes the directory at `path` inside `root` where it is missing, and what is missing above.
pub(super) fn make_directory(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let open = |path: &Path| open_inside(root, path, OFlags::PATH | OFlags::DIRECTORY, 0);
    let mut so_far = PathBuf::from(".");
    let mut last = open(&so_far).step("open", "the root")?;
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        so_far.push(name);
        last = match open(&so_far) {
            Err(rustix::io::Errno::NOENT) => {
                mkdirat(&last, name, Mode::from_raw_mode(0o755)).step("make", so_far.display())?;
                open(&so_far).step("open", so_far.display())?
            }
            found => found.step("open", so_far.display())?,
        };
    }
    Ok(last)
}

/// Makes sure of a file at `path` inside `root`; an empty one takes the place of nothing or of a dangling link.
pub(super) fn make_file(root: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::Invalid(format!("{} names no file", path.display())));
    };
    let found = open_inside(root, path, OFlags::PATH, 0);
    if let Ok(fd) = found {
        let kind = fstat(&fd).map(|s| FileType::from_raw_mode(s.st_mode)).step("look at", path.display())?;
        if kind != FileType::Directory {
            return Ok(());
        }
        return Err(Error::Invalid(format!("{} is a directory inside; a file belongs there", path.display())));
    }
    let parent = make_directory(root, parent)?;
    let _ = unlinkat(&parent, name, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(&parent, name, flags, Mode::from_raw_mode(0o644)).map(drop).step("make", path.display())
}
