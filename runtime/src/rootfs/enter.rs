//! The last part: the container's root adds what belongs to its own namespaces, and makes the tree its `/`.

//! The second half: the container's root makes its own `/` from what the stage left.

use std::{
    io::Write,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, FileType, OFlags, symlinkat},
    mount::{MoveMountFlags, move_mount},
};

use super::{
    Contents, DISK, ROOT, clone_all, clone_tree,
    emulated::{EMULATED, PROC, SYS},
    hard, hard_but_dev, new_mount, new_mount_with, replace_root,
    target::{attach, make_directory, open_inside},
};
use crate::error::{Result, Step};

/// Adds the container's own mounts to the root that [`super::furnish`] left, and makes it `/`. The caller is root of all the container's
/// namespaces and stands in the stage's tree, where every mount is locked.
pub(crate) fn enter(contents: &Contents<'_>, emulated: Option<OwnedFd>) -> Result<()> {
    // A locked mount cannot be pivoted to. Of a clone only the top is free; what the host laid below stays locked (M03).
    let tree = clone_all(Path::new(&format!("/{ROOT}")))?;
    move_mount(tree.as_fd(), "", CWD, format!("/{ROOT}"), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step("attach", "the root")?;
    let root = tree.as_fd();

    for (inside, on_disk) in [("var/lib/docker", "docker"), ("var/lib/containerd", "containerd")] {
        place(clone_tree(CWD, Path::new(&format!("/{DISK}/{on_disk}")))?.as_fd(), root, inside)?;
    }
    for (kind, places) in [("proc", ["proc", PROC]), ("sysfs", ["sys", SYS])] {
        for inside in places {
            place(new_mount(kind, &[], hard())?.as_fd(), root, inside)?;
        }
    }
    if let Some(emulated) = emulated {
        place(emulated.as_fd(), root, EMULATED)?;
    }
    control_groups(contents, root)?;
    let pts = new_mount_with("devpts", &[("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")], &["newinstance"], hard_but_dev())?;
    place(pts.as_fd(), root, "dev/pts")?;
    place(new_mount("tmpfs", &[("mode", "1777")], hard())?.as_fd(), root, "dev/shm")?;
    place(new_mount("mqueue", &[], hard())?.as_fd(), root, "dev/mqueue")?;
    name_host(contents, root)?;
    rustix::process::fchdir(root).step("enter", "the root")?;
    replace_root()
}

/// `/sys/fs/cgroup` as the container's cgroup namespace shows it: cgroup2, or on hybrid hosts each v1 hierarchy and `unified`.
fn control_groups(contents: &Contents<'_>, root: BorrowedFd<'_>) -> Result<()> {
    let hard = hard();
    if contents.v1.is_empty() {
        return place(new_mount("cgroup2", &[], hard)?.as_fd(), root, "sys/fs/cgroup");
    }
    let tree = new_mount("tmpfs", &[("mode", "0755"), ("size", "64k")], hard)?;
    place(tree.as_fd(), root, "sys/fs/cgroup")?;
    for (options, mount) in &contents.v1 {
        let Some(name) = mount.file_name().map(Path::new) else { continue };
        let (strings, flags): (Vec<&str>, Vec<&str>) = options.split(',').partition(|o| o.contains('='));
        let strings: Vec<(&str, &str)> = strings.iter().filter_map(|o| o.split_once('=')).collect();
        let flags = if flags.is_empty() { vec!["none"] } else { flags };
        place(new_mount_with("cgroup", &strings, &flags, hard)?.as_fd(), tree.as_fd(), name)?;
        for alias in options.split(',').filter(|o| !o.contains('=') && Path::new(o) != name) {
            let _ = symlinkat(name, &tree, alias);
        }
    }
    place(new_mount("cgroup2", &[], hard)?.as_fd(), tree.as_fd(), "unified")
}

/// `/etc/hostname` and `/etc/hosts`, where the image or the tenant has none.
fn name_host(contents: &Contents<'_>, root: BorrowedFd<'_>) -> Result<()> {
    let name = contents.spec.hostname().as_deref().unwrap_or("berth");
    let hosts = format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n{}\t{name}\n", contents.address);
    for (file, text) in [("etc/hostname", format!("{name}\n")), ("etc/hosts", hosts)] {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        // What the tenant made of these names (a link, a directory) is his; the berth starts all the same.
        let Ok(fd) = open_inside(root, file, flags, 0o644) else { continue };
        let empty = rustix::fs::fstat(&fd).is_ok_and(|s| s.st_size == 0 && FileType::from_raw_mode(s.st_mode) == FileType::RegularFile);
        if empty {
            std::fs::File::from(fd).write_all(text.as_bytes()).step("write", file)?;
        }
    }
    Ok(())
}

/// Attaches a mount to a directory that is made where it is missing.
fn place(tree: BorrowedFd<'_>, root: BorrowedFd<'_>, path: impl AsRef<Path>) -> Result<()> {
    make_directory(root, path.as_ref())?;
    attach(tree, root, path)
}
