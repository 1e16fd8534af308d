//! A directory of the host in a project of its own, under the project quota of ext4 or XFS.
//!
//! Other than an image it lies in a file system that the host's mount table shows. So the directory that holds it belongs to root alone
//! (0700): setuid files of a tenant are reached by nobody of the host. Root opens the directory itself, whose name no tenant can change,
//! and follows nothing below it. A project can be changed, or left by a rename, from the host's own user namespace only.

use std::{
    fs,
    io::ErrorKind,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::Path,
};

use berth_sys::{
    mount::{NODEV, NOEXEC, NOSUID},
    quota::{self, Quota},
};
use rustix::{
    fs::{Mode, OFlags, fstatvfs, open},
    mount::{OpenTreeFlags, open_tree},
};

use super::{Limit, Room, Space, lay_out, program, sync_parent};
use crate::{
    error::{Error, Result, Step},
    fault,
};

/// A limit of 0 would be none.
const LEAST: u64 = 1024;

/// Whether the file system that holds `dir` keeps limits of projects.
pub fn quota_enforced(dir: &Path) -> bool {
    open_dir(dir).is_ok_and(|dir| quota::enforced(dir.as_fd()))
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).step("open", path.display())
}

pub(super) fn create(path: &Path, project: Option<u32>, limit: Limit) -> Result<()> {
    if let (Some(project), Some(parent)) = (project, path.parent()) {
        own_project(open_dir(parent)?.as_fd(), project)?;
    }
    fs::DirBuilder::new().mode(0o755).create(path).step("make", path.display())?;
    let made = open_dir(path).and_then(|dir| {
        if let Some(project) = project {
            fault::point("put the disk into its project")?;
            quota::put_in_project(dir.as_fd(), project).step("give a project to", path.display())?;
            set(dir.as_fd(), project, limit.bytes, limit.inodes)?;
        }
        lay_out(dir.as_fd())?;
        rustix::fs::fsync(&dir).step("sync", path.display())?;
        sync_parent(path)
    });
    if made.is_err() {
        let _ = remove(path, project);
    }
    made
}

/// Nothing may be in the project yet: whoever has something there would share the limit.
fn own_project(dir: BorrowedFd<'_>, project: u32) -> Result<()> {
    if !quota::enforced(dir) {
        return Err(Error::Invalid("the file system of the disks does not enforce project quotas".into()));
    }
    let Quota { used_bytes, used_inodes, .. } = quota::get(dir, project).step("read the quota of project", project)?;
    match used_bytes == 0 && used_inodes == 0 {
        true => Ok(()),
        false => Err(Error::Invalid(format!("project {project} has {used_inodes} files of somebody else already"))),
    }
}

fn set(dir: BorrowedFd<'_>, project: u32, bytes: u64, inodes: Option<u64>) -> Result<()> {
    quota::set(dir, project, bytes.max(LEAST), inodes.unwrap_or(0)).step("set the quota of project", project)
}

/// By the program `rm`: it follows no link, and stays small however deep a tenant has nested his directories.
pub(super) fn remove(path: &Path, project: Option<u32>) -> Result<()> {
    if fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Ok(());
    }
    program::run("rm", &["-rf", "--one-file-system", "--"], &[path], program::REMOVE, &[0])?;
    let (Some(project), Some(parent)) = (project, path.parent()) else { return Ok(()) };
    // Without limit and use the kernel forgets the project.
    quota::set(open_dir(parent)?.as_fd(), project, 0, 0).step("clear the quota of project", project)
}

pub(super) fn space(path: &Path, project: Option<u32>) -> Result<Space> {
    space_of(open_dir(path)?.as_fd(), project)
}

fn space_of(dir: BorrowedFd<'_>, project: Option<u32>) -> Result<Space> {
    let stat = fstatvfs(dir).step("look at", "the berth's disk")?;
    let host = Space {
        size: stat.f_blocks * stat.f_frsize,
        free: stat.f_bfree * stat.f_frsize,
        available: stat.f_bavail * stat.f_frsize,
        inodes: stat.f_files,
        free_inodes: stat.f_ffree,
        tables: 0,
    };
    let Some(project) = project else { return Ok(host) };
    let quota = quota::get(dir, project).step("read the quota of project", project)?;
    let free = quota.limit_bytes.saturating_sub(quota.used_bytes);
    let inodes = match quota.limit_inodes {
        0 => (host.inodes, host.free_inodes),
        limit => (limit, limit.saturating_sub(quota.used_inodes)),
    };
    Ok(Space {
        size: quota.limit_bytes.max(quota.used_bytes),
        free,
        available: free.min(host.available),
        inodes: inodes.0,
        free_inodes: inodes.1,
        tables: 0,
    })
}

/// A detached clone of the directory alone. Where the host's mount is nosuid, as it best is, the clone is not: the tenant's setuid
/// programs must work inside, and there only.
pub(super) fn mount(path: &Path, project: Option<u32>, room: Room) -> Result<OwnedFd> {
    let dir = open_dir(path)?;
    bind(dir.as_fd(), project, room)?;
    lay_out(dir.as_fd())?;
    fault::point("mount the disk")?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(&dir, "", flags).step("clone", path.display())?;
    berth_sys::mount::clear_attributes(tree.as_fd(), NOSUID | NOEXEC).step("set flags of", path.display())?;
    berth_sys::mount::set_attributes(tree.as_fd(), NODEV, None).step("set flags of", path.display())?;
    Ok(tree)
}

fn bind(dir: BorrowedFd<'_>, project: Option<u32>, room: Room) -> Result<()> {
    let Some(project) = project else { return Ok(()) };
    fault::point("bind the disk")?;
    let used = quota::get(dir, project).step("read the quota of project", project)?.used_bytes;
    let bytes = room.free.map_or(room.limit.bytes, |free| room.limit.bytes.min(used.saturating_add(free)));
    set(dir, project, bytes, room.limit.inodes)
}

/// The disk of a running berth. The path is the node's own; nobody else can move it.
#[derive(Debug)]
pub struct Mounted {
    dir: OwnedFd,
    project: Option<u32>,
}

impl Mounted {
    pub(super) fn new(path: &Path, project: Option<u32>) -> Result<Self> {
        Ok(Self { dir: open_dir(path)?, project })
    }

    pub(super) fn space(&self) -> Result<Space> {
        space_of(self.dir.as_fd(), self.project)
    }

    pub(super) fn bind(&self, room: Room) -> Result<()> {
        bind(self.dir.as_fd(), self.project, room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { bytes: 1 << 30, inodes: None };

    #[test]
    fn a_directory_is_laid_out_and_removed_however_deep_a_tenant_nested_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("disk");
        create(&path, None, LIMIT).unwrap();
        assert!(create(&path, None, LIMIT).is_err(), "it is there already");
        assert!(path.join("rootfs/upper").is_dir());
        // Deeper than any stack or path holds: each level is made from the one above.
        let mut dir = open_dir(&path.join("docker")).unwrap();
        for _ in 0..3_000 {
            rustix::fs::mkdirat(&dir, "d", Mode::from_raw_mode(0o755)).unwrap();
            dir = rustix::fs::openat(&dir, "d", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        }
        let victim = parent.path().join("victim");
        fs::write(&victim, "").unwrap();
        std::os::unix::fs::symlink(parent.path(), path.join("containerd/link")).unwrap();
        remove(&path, None).unwrap();
        remove(&path, None).unwrap();
        assert!(victim.exists() && !path.exists());
    }

    #[test]
    fn a_project_has_its_limit_from_the_first_instant_or_is_refused_where_there_are_no_quotas() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("disk");
        let project = Some(4_000_000_000);
        let created = create(&path, project, LIMIT);
        match quota_enforced(parent.path()) {
            true => {
                assert_eq!(space(&path, project).unwrap().size, LIMIT.bytes);
                assert!(create(&parent.path().join("other"), project, LIMIT).is_err(), "the project is taken");
                remove(&path, project).unwrap();
                assert_eq!(quota::get(open_dir(parent.path()).unwrap().as_fd(), 4_000_000_000).unwrap(), Quota::default());
            }
            false => assert!(created.unwrap_err().to_string().contains("project quotas")),
        }
        assert!(!path.exists());
    }
}
