//! A root file system under construction. Every path from an archive is walked here, component by component on directory descriptors
//! that never follow a symlink; a symlink's target is walked in turn, with `/` and `..` ending at the tree's own root. So nothing
//! that an archive names can lie outside.

use std::{
    ffi::{CStr, OsStr},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, chmodat, mkdirat, openat, readlinkat, statat, unlinkat},
    io::Errno,
};

use super::{
    archive::show,
    error::{Error, Result, Step},
    limits::{DEPTH, LINKS, NAME_BYTES},
};

/// Directories in the image that no archive entry describes.
const IMPLIED_MODE: u32 = 0o755;

/// The tree; must be below a directory that only root can enter while it is built.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// The directory walked to last: most entries of an archive follow their siblings. Dropped whenever something is removed.
    last: Option<(Vec<Vec<u8>>, Place)>,
}

/// A directory of the tree and how deep it lies.
#[derive(Debug)]
struct Place {
    dir: OwnedFd,
    depth: usize,
}

/// What to do about a directory on the way that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Make,
    Refuse,
}

/// The components of a path of an archive: no empty ones, no `.`; empty for the root itself.
pub(super) fn components(path: &[u8]) -> Result<Vec<&[u8]>> {
    let refuse = |reason: String| Err(Error::Entry { path: show(path), reason });
    let parts: Vec<&[u8]> = path.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&&b".."[..]) {
        return refuse("its path climbs out with ..".into());
    }
    if path.contains(&0) {
        return refuse("its path holds a NUL".into());
    }
    if parts.iter().any(|part| part.len() > NAME_BYTES) {
        return refuse(format!("a component is longer than {NAME_BYTES} bytes"));
    }
    if parts.len() > DEPTH {
        return refuse(format!("it lies deeper than {DEPTH} directories"));
    }
    Ok(parts)
}

/// A component as the kernel takes it.
pub(super) fn name(component: &[u8]) -> &OsStr {
    OsStr::from_bytes(component)
}

impl Tree {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root, last: None }
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory that `parts` lead to (an `O_PATH` descriptor).
    pub(super) fn directory(&mut self, parts: &[&[u8]], missing: Missing) -> Result<BorrowedFd<'_>> {
        let known = self.last.as_ref().is_some_and(|(path, _)| path.iter().map(Vec::as_slice).eq(parts.iter().copied()));
        if !known {
            let place = self.walk(parts, missing)?;
            self.last = Some((parts.iter().map(|p| p.to_vec()).collect(), place));
        }
        Ok(self.last.as_ref().map_or(self.root.as_fd(), |(_, place)| place.dir.as_fd()))
    }

    /// Makes sure that a directory may hold another one.
    pub(super) fn check_depth(&self, path: &[u8]) -> Result<()> {
        match &self.last {
            Some((_, place)) if place.depth >= DEPTH => Err(too_deep(path)),
            _ => Ok(()),
        }
    }

    /// Removes a file or a directory with all that is in it; a symlink itself, never what it names. Gone already is success.
    pub(super) fn remove(&mut self, parts: &[&[u8]], component: &[u8]) -> Result<()> {
        let parent = self.directory(parts, Missing::Refuse)?.try_clone_to_owned().step("hold", show(component))?;
        self.last = None;
        remove(parent.as_fd(), name(component)).step("remove", show(component))
    }

    /// Removes everything in a directory that is there.
    pub(super) fn clear(&mut self, parts: &[&[u8]]) -> Result<()> {
        let dir = self.directory(parts, Missing::Refuse)?.try_clone_to_owned().step("hold", "a directory")?;
        self.last = None;
        clear(dir.as_fd()).step("clear", parts.last().map_or_else(|| "/".to_owned(), |last| show(last)))
    }

    fn walk(&self, parts: &[&[u8]], missing: Missing) -> Result<Place> {
        let shown = || show(&parts.join(&b'/'));
        let mut above: Vec<OwnedFd> = Vec::new();
        let mut todo: Vec<Vec<u8>> = parts.iter().rev().map(|p| p.to_vec()).collect();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part.is_empty() || part == b"." {
                continue;
            }
            if part == b".." {
                above.pop();
                continue;
            }
            let here = above.last().unwrap_or(&self.root);
            match open_dir(here.as_fd(), name(&part), OFlags::PATH) {
                Ok(dir) => {
                    above.push(dir);
                    if above.len() > DEPTH {
                        return Err(too_deep(&parts.join(&b'/')));
                    }
                }
                Err(Errno::NOENT) if missing == Missing::Make => {
                    mkdirat(here, name(&part), Mode::from_raw_mode(IMPLIED_MODE)).step("make", shown())?;
                    // Whatever the umask of this process is.
                    chmodat(here, name(&part), Mode::from_raw_mode(IMPLIED_MODE), AtFlags::empty()).step("make", shown())?;
                    todo.push(part);
                }
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let target = match readlinkat(here, name(&part), Vec::new()) {
                        Err(Errno::INVAL) => {
                            return Err(Error::Entry { path: shown(), reason: format!("{} is not a directory", show(&part)) });
                        }
                        done => done.step("read", shown())?.into_bytes(),
                    };
                    links += 1;
                    if links > LINKS {
                        return Err(Error::Entry { path: shown(), reason: format!("more than {LINKS} symlinks on the way") });
                    }
                    if target.first() == Some(&b'/') {
                        above.clear();
                    }
                    todo.extend(target.split(|&b| b == b'/').rev().map(<[u8]>::to_vec));
                }
                Err(Errno::NOENT) => {
                    return Err(Error::Entry { path: shown(), reason: format!("there is no directory {}", show(&part)) });
                }
                Err(error) => return Err(error).step("open", shown()),
            }
        }
        let depth = above.len();
        let dir = match above.pop() {
            Some(dir) => dir,
            None => self.root.try_clone().step("hold", "the root")?,
        };
        Ok(Place { dir, depth })
    }
}

fn too_deep(path: &[u8]) -> Error {
    Error::Entry { path: show(path), reason: format!("it lies deeper than {DEPTH} directories") }
}

/// Opens one directory without following a symlink.
pub(super) fn open_dir(parent: BorrowedFd<'_>, component: &OsStr, access: OFlags) -> Result<OwnedFd, Errno> {
    openat(parent, component, access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// What is there under a name, the symlink itself if it is one.
pub(super) fn kind_of(parent: BorrowedFd<'_>, component: &OsStr) -> Result<Option<FileType>, Errno> {
    match statat(parent, component, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Recursion is bounded by [`DEPTH`]: nothing deeper is ever made.
fn remove(parent: BorrowedFd<'_>, component: &OsStr) -> Result<(), Errno> {
    match unlinkat(parent, component, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error),
    }
    clear(open_dir(parent, component, OFlags::PATH)?.as_fd())?;
    unlinkat(parent, component, AtFlags::REMOVEDIR)
}

fn clear(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    let listing = openat(dir, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in Dir::new(listing)? {
        let entry = entry?;
        let found: &CStr = entry.file_name();
        if !matches!(found.to_bytes(), b"." | b"..") {
            remove(dir, OsStr::from_bytes(found.to_bytes()))?;
        }
    }
    Ok(())
}
