//! Makes an image fit to be a berth's root: what the runtime mounts over must be there.

use std::ffi::OsStr;

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, chmodat, mkdirat, openat},
    io::Errno,
};

use super::{
    archive::show,
    error::{Error, Result, Step},
    tree::{Missing, Tree, kind_of, name},
};

/// The kernel's own file systems, and /run: a symlink here would move them, so it makes way for a directory.
const EXACT: [&str; 4] = ["proc", "sys", "dev", "run"];
/// Directories with their mode when they are made; a symlink is resolved inside the image.
const RESOLVED: [(&str, u32); 5] =
    [("tmp", 0o1777), ("etc", 0o755), ("var", 0o755), ("var/lib/docker", 0o710), ("var/lib/containerd", 0o711)];
/// Laid over by the runtime: regular files, whatever the image has there.
const FILES: [&str; 3] = ["resolv.conf", "hostname", "hosts"];
/// A root file system has programs in at least one of these.
const PROGRAMS: [&[&str]; 6] = [&["bin"], &["sbin"], &["usr", "bin"], &["usr", "sbin"], &["usr", "local", "bin"], &["nix", "store"]];

/// True when the tree could be a root file system, and not just any archive.
pub(super) fn has_programs(tree: &mut Tree) -> bool {
    PROGRAMS.iter().any(|parts| {
        let parts: Vec<&[u8]> = parts.iter().map(|p| p.as_bytes()).collect();
        tree.directory(&parts, Missing::Refuse).is_ok()
    })
}

/// Makes what is missing and says what had to make way.
pub(super) fn prepare(tree: &mut Tree, progress: &mut dyn FnMut(&str)) -> Result<()> {
    for point in EXACT {
        match kind_of(tree.root(), OsStr::new(point)).step("look at", point)? {
            Some(FileType::Directory) => continue,
            Some(_) => {
                progress(&format!("/{point} of the image is no directory; it makes way for one"));
                tree.remove(&[], point.as_bytes())?;
            }
            None => {}
        }
        make_directory(tree, &[], point.as_bytes(), 0o755)?;
    }
    for (path, mode) in RESOLVED {
        let parts: Vec<&[u8]> = path.as_bytes().split(|&b| b == b'/').collect();
        if tree.directory(&parts, Missing::Refuse).is_ok() {
            continue;
        }
        let Some((last, parents)) = parts.split_last() else { continue };
        // A symlink that leads nowhere inside the image is given its target.
        match kind_in(tree, parents, last)? {
            None => make_directory(tree, parents, last, mode)?,
            Some(FileType::Symlink) => drop(tree.directory(&parts, Missing::Make).map_err(|error| unfit(path, &error))?),
            Some(_) => return Err(Error::NotAnImage(format!("its /{path} is no directory"))),
        }
    }
    for file in FILES {
        match kind_in(tree, &[b"etc"], file.as_bytes())? {
            Some(FileType::RegularFile) => continue,
            Some(_) => tree.remove(&[b"etc"], file.as_bytes())?,
            None => {}
        }
        let etc = tree.directory(&[b"etc"], Missing::Refuse)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(etc, file, flags, Mode::from_raw_mode(0o644)).step("make", format!("/etc/{file}"))?;
        chmodat(etc, file, Mode::from_raw_mode(0o644), AtFlags::empty()).step("set the mode of", format!("/etc/{file}"))?;
    }
    Ok(())
}

fn kind_in(tree: &mut Tree, parents: &[&[u8]], last: &[u8]) -> Result<Option<FileType>> {
    kind_of(tree.directory(parents, Missing::Make)?, name(last)).step("look at", show(last))
}

fn make_directory(tree: &mut Tree, parents: &[&[u8]], last: &[u8], mode: u32) -> Result<()> {
    let parent = tree.directory(parents, Missing::Make)?;
    match mkdirat(parent, name(last), Mode::RWXU) {
        Err(Errno::EXIST) => {}
        done => done.step("make", show(last))?,
    }
    // Whatever the umask of this process is.
    chmodat(parent, name(last), Mode::from_raw_mode(mode), AtFlags::empty()).step("set the mode of", show(last))
}

fn unfit(path: &str, error: &Error) -> Error {
    Error::NotAnImage(format!("its /{path} leads nowhere: {error}"))
}
