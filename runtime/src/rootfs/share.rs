//! Directories of the host at their own path inside, and what stands in the place of those that cannot be there.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, fchmod},
    mount::MountAttrFlags,
};
use serde::{Deserialize, Serialize};

use super::{
    clone_tree, new_mount,
    target::{attach, make_directory, open_inside},
};
use crate::error::{Error, Result, Step, chain};

/// A directory of the host, seen inside at the same path. Shares come with the shallower path first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    pub path: PathBuf,
    /// Three detached mounts come beside (see [`crate::share`]); else an empty read-only cover stands there.
    pub mounted: bool,
}

/// The user as root; the user as himself with his own group; the user as himself with root's group.
pub const MOUNTS_OF_A_SHARE: usize = 3;

/// Below this, `<n>/own` and `<n>/root` are the second and third mount of the n-th share, for inner containers that run as the user.
const AS_USER: &str = "run/berth/as-user";
const COVER: &str = "cover";
/// The mounts of a share beside its own place.
const ROLES: [(usize, &str); 2] = [(1, "own"), (2, "root")];

fn slot(index: usize, which: usize) -> String {
    format!("share{index}.{which}")
}

/// What the stage is to hold: names and detached mounts.
pub(super) fn parts(shares: &[Share], mounts: Vec<OwnedFd>) -> Result<Vec<(String, OwnedFd)>> {
    let wanted = shares.iter().filter(|s| s.mounted).count() * MOUNTS_OF_A_SHARE;
    if mounts.len() != wanted {
        return Err(Error::Invalid(format!("{} mounts came for shares that need {wanted}", mounts.len())));
    }
    let names = shares.iter().enumerate().filter(|(_, s)| s.mounted);
    let names = names.flat_map(|(index, _)| (0..MOUNTS_OF_A_SHARE).map(move |which| slot(index, which)));
    let mut parts: Vec<(String, OwnedFd)> = names.zip(mounts).collect();
    if shares.iter().any(|s| !s.mounted) {
        parts.push((COVER.to_owned(), cover()?));
    }
    Ok(parts)
}

/// An empty directory in which nothing can be made: whoever tries hears it at once (EROFS).
fn cover() -> Result<OwnedFd> {
    let cover = new_mount("tmpfs", &[("mode", "0555"), ("size", "4k"), ("nr_inodes", "2")], MountAttrFlags::empty())?;
    use berth_sys::mount::{NODEV, NOEXEC, NOSUID, RDONLY, set_attributes};
    set_attributes(cover.as_fd(), RDONLY | NOSUID | NODEV | NOEXEC, None).step("make read-only", "a cover")?;
    Ok(cover)
}

/// Makes the directories for the shares, as far as the tenant's own files let it: what is missing is said when they are attached.
pub(super) fn make_places(shares: &[Share], root: BorrowedFd<'_>) -> Result<()> {
    for (index, share) in shares.iter().enumerate() {
        // Below another share its directory is the host's: there nothing is made.
        if !below_another(shares, index) {
            let _ = make_directory(root, &share.path);
        }
        if share.mounted {
            for (_, name) in ROLES {
                make_directory(root, &as_user(index, name))?;
            }
        }
    }
    if shares.iter().any(|s| s.mounted) {
        // The user's own files with the user's own ids: a way for runc, and for nobody else inside.
        let dir = open_inside(root, AS_USER, OFlags::RDONLY | OFlags::DIRECTORY, 0).step("open", AS_USER)?;
        fchmod(&dir, Mode::from_raw_mode(0o700)).step("close", AS_USER)?;
    }
    Ok(())
}

/// Attaches clones of what the stage holds. What a tenant's own files keep from its place is said and left out: the berth starts.
pub(super) fn furnish(shares: &[Share], root: BorrowedFd<'_>) {
    for (index, share) in shares.iter().enumerate() {
        if let Err(error) = place(share, index, root) {
            eprintln!("berth: {} is not in the berth: {}", share.path.display(), chain(&error));
        }
    }
}

fn place(share: &Share, index: usize, root: BorrowedFd<'_>) -> Result<()> {
    let clone = |name: String| clone_tree(CWD, &Path::new("/").join(name));
    let tree = clone(if share.mounted { slot(index, 0) } else { COVER.to_owned() })?;
    attach(tree.as_fd(), root, &share.path)?;
    if share.mounted {
        for (which, name) in ROLES {
            attach(clone(slot(index, which))?.as_fd(), root, as_user(index, name))?;
        }
    }
    Ok(())
}

fn below_another(shares: &[Share], index: usize) -> bool {
    shares[..index].iter().any(|outer| shares[index].path.starts_with(&outer.path))
}

fn as_user(index: usize, name: &str) -> PathBuf {
    Path::new(AS_USER).join(index.to_string()).join(name)
}
