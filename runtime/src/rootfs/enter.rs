//! The second half: the container's root makes its own `/` from what the stage left.

use std::{
    io::Write,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, symlinkat, unlinkat},
    mount::{MountAttrFlags, MoveMountFlags, move_mount},
};

use super::{
    Contents, DEV, DISK, FILES, IMAGE, ROOT, RUNC, bind_slot, binds, clone_tree, hard_but_dev, new_mount, new_mount_with, replace_root,
    share,
};
use crate::error::{Error, Result, Step, chain};

/// Before all of the image's own programs in our PATH and in systemd's; no package puts anything here.
const WRAPPER: &str = "usr/local/sbin/runc";

/// Mounts the container's root and makes it `/`. The caller is root of all the container's namespaces and stands in the stage's tree.
pub(crate) fn enter(contents: &Contents<'_>) -> Result<()> {
    let options =
        [("lowerdir", format!("/{IMAGE}")), ("upperdir", format!("/{DISK}/rootfs/upper")), ("workdir", format!("/{DISK}/rootfs/work"))];
    let options: Vec<(&str, &str)> = options.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let overlay = new_mount_with("overlay", &options, &["userxattr"], MountAttrFlags::MOUNT_ATTR_NODEV)?;
    move_mount(overlay.as_fd(), "", CWD, format!("/{ROOT}"), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step("attach", "the root")?;
    let root = overlay.as_fd();

    for (inside, on_disk) in [("var/lib/docker", "docker"), ("var/lib/containerd", "containerd")] {
        attach(clone_tree(CWD, Path::new(&format!("/{DISK}/{on_disk}")))?.as_fd(), root, inside)?;
    }
    let hard = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    attach(new_mount("proc", &[], hard)?.as_fd(), root, "proc")?;
    attach(new_mount("sysfs", &[], hard)?.as_fd(), root, "sys")?;
    control_groups(contents, root)?;
    attach(clone_tree(CWD, Path::new(&format!("/{DEV}")))?.as_fd(), root, "dev")?;
    let pts = new_mount_with("devpts", &[("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")], &["newinstance"], hard_but_dev())?;
    attach(pts.as_fd(), root, "dev/pts")?;
    attach(new_mount("tmpfs", &[("mode", "1777")], hard)?.as_fd(), root, "dev/shm")?;
    attach(new_mount("mqueue", &[], hard)?.as_fd(), root, "dev/mqueue")?;
    let run = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    attach(new_mount("tmpfs", &[("mode", "0755")], run)?.as_fd(), root, "run")?;
    for (index, (inside, _)) in contents.files.iter().enumerate() {
        attach_file(clone_tree(CWD, Path::new(&format!("/{FILES}/{index}")))?.as_fd(), root, inside)?;
    }
    for (index, bind) in binds(contents).enumerate() {
        attach(clone_tree(CWD, Path::new(&format!("/{}", bind_slot(index))))?.as_fd(), root, bind.destination())?;
    }
    share::enter(contents.shares, root)?;
    if contents.runc.is_some()
        && let Err(error) = wrapper(root)
    {
        // What a tenant made of the directories above is his affair; his containers then run without it.
        eprintln!("berth: no wrapper for runc: {}", chain(&error));
    }
    name_host(contents, root)?;
    rustix::process::fchdir(root).step("enter", "the root")?;
    replace_root()
}

/// `/sys/fs/cgroup` as the container's cgroup namespace shows it: cgroup2, or on hybrid hosts each v1 hierarchy and `unified`.
fn control_groups(contents: &Contents<'_>, root: BorrowedFd<'_>) -> Result<()> {
    let hard = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    if contents.v1.is_empty() {
        return attach(new_mount("cgroup2", &[], hard)?.as_fd(), root, "sys/fs/cgroup");
    }
    let tree = new_mount("tmpfs", &[("mode", "0755"), ("size", "64k")], hard)?;
    attach(tree.as_fd(), root, "sys/fs/cgroup")?;
    for (options, mount) in &contents.v1 {
        let Some(name) = mount.file_name().map(Path::new) else { continue };
        let (strings, flags): (Vec<&str>, Vec<&str>) = options.split(',').partition(|o| o.contains('='));
        let strings: Vec<(&str, &str)> = strings.iter().filter_map(|o| o.split_once('=')).collect();
        let flags = if flags.is_empty() { vec!["none"] } else { flags };
        attach(new_mount_with("cgroup", &strings, &flags, hard)?.as_fd(), tree.as_fd(), name)?;
        for alias in options.split(',').filter(|o| !o.contains('=') && Path::new(o) != name) {
            let _ = symlinkat(name, &tree, alias);
        }
    }
    attach(new_mount("cgroup2", &[], hard)?.as_fd(), tree.as_fd(), "unified")
}

/// `/etc/hostname` and `/etc/hosts`, where the image or the tenant has none.
fn name_host(contents: &Contents<'_>, root: BorrowedFd<'_>) -> Result<()> {
    let name = contents.spec.hostname().as_deref().unwrap_or("berth");
    let hosts = format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n{}\t{name}\n", contents.address);
    for (file, text) in [("etc/hostname", format!("{name}\n")), ("etc/hosts", hosts)] {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        // What the tenant made of these names (a link, a directory) is his; the berth starts all the same.
        let Ok(fd) = openat2(root, file, flags, Mode::from_raw_mode(0o644), inside()) else { continue };
        let empty = rustix::fs::fstat(&fd).is_ok_and(|s| s.st_size == 0 && FileType::from_raw_mode(s.st_mode) == FileType::RegularFile);
        if empty {
            std::fs::File::from(fd).write_all(text.as_bytes()).step("write", file)?;
        }
    }
    Ok(())
}

/// Nothing below the root leads out of it, whatever the tenant linked.
pub(super) fn inside() -> ResolveFlags {
    ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS
}

pub(super) fn attach(tree: BorrowedFd<'_>, root: BorrowedFd<'_>, path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    attach_to(tree, existing_directory(root, path)?.as_fd(), path)
}

fn attach_file(tree: BorrowedFd<'_>, root: BorrowedFd<'_>, path: &Path) -> Result<()> {
    attach_to(tree, existing_file(root, path)?.as_fd(), path)
}

pub(super) fn attach_to(tree: BorrowedFd<'_>, target: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", target, "", flags).step("attach", path.display())
}

/// The wrapper at the place where `runc` is looked for first; a file that the tenant has there stays his.
fn wrapper(root: BorrowedFd<'_>) -> Result<()> {
    let found = openat2(root, WRAPPER, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), inside());
    // An empty file is what an earlier start made to attach to.
    let taken = found.is_ok_and(|fd| {
        rustix::fs::fstat(&fd).map_or(true, |s| s.st_size != 0 || FileType::from_raw_mode(s.st_mode) != FileType::RegularFile)
    });
    if taken { Ok(()) } else { attach_file(clone_tree(CWD, Path::new(&format!("/{RUNC}")))?.as_fd(), root, Path::new(WRAPPER)) }
}

/// The directory at `path` inside `root`, made where it is missing.
pub(super) fn existing_directory(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let open = |path: &Path| openat2(root, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), inside());
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

/// The file at `path` inside `root`; an empty one takes the place of nothing or of a dangling link.
fn existing_file(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::Invalid(format!("{} names no file", path.display())));
    };
    let found = openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside());
    if let Ok(fd) = found {
        let kind = rustix::fs::fstat(&fd).map(|s| FileType::from_raw_mode(s.st_mode)).step("look at", path.display())?;
        if kind != FileType::Directory {
            return Ok(fd);
        }
        return Err(Error::Invalid(format!("{} is a directory inside; a file belongs there", path.display())));
    }
    let parent = existing_directory(root, parent)?;
    let _ = unlinkat(&parent, name, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(&parent, name, flags, Mode::from_raw_mode(0o644)).step("make", path.display())
}
