//! The container's mounts, in two halves.
//!
//! [`stage`], as host root in a private mount namespace: everything that comes from the host is attached to a small tmpfs tree, with its
//! final flags, and that tree becomes the root; the host's own mounts are gone. When the container's mount namespace is then made in a
//! lesser user namespace, those mounts are inherited locked. [`enter`], as the container's root: clones of them and new mounts make the
//! real root, every target resolved inside it, because the tenant decides what is a symlink there.

use std::{
    ffi::CString,
    io::Write,
    net::Ipv4Addr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use oci_spec::runtime::{Mount, Spec};
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, makedev, mkdirat, mknodat, openat, openat2, symlinkat,
        unlinkat,
    },
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
        fsmount, fsopen, move_mount, open_tree,
    },
    process::{chdir, pivot_root},
};

use crate::error::{Error, Result, Step};

/// What the container's root is made of.
pub(crate) struct Contents<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) id_base: u32,
    /// Small read-only files: path inside, contents.
    pub(crate) files: &'a [(PathBuf, String)],
    pub(crate) address: Ipv4Addr,
    /// Mount options and host mount point of each v1 hierarchy; none on a pure cgroup v2 host.
    pub(crate) v1: Vec<(&'a str, &'a Path)>,
}

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

/// Where the stage puts things, and where [`enter`] finds them.
const IMAGE: &str = "image";
const DISK: &str = "disk";
const DEV: &str = "dev";
const FILES: &str = "files";
const ROOT: &str = "root";

fn bind_slot(index: usize) -> String {
    format!("bind{index}")
}

fn binds<'a>(contents: &Contents<'a>) -> impl Iterator<Item = &'a Mount> {
    contents.spec.mounts().iter().flatten().filter(|m| m.typ().as_deref() == Some("bind"))
}

/// Builds the tree and makes it the root of the calling process. The caller is host root in a mount namespace of its own.
/// `disk` is the detached mount of the container's disk. Returns the disk's root directory, open for reading.
pub(crate) fn stage(contents: &Contents<'_>, disk: OwnedFd, userns: BorrowedFd<'_>) -> Result<OwnedFd> {
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

    let tree = new_mount("tmpfs", &[("mode", "0755"), ("size", "64k")], MountAttrFlags::empty())?;
    move_mount(tree.as_fd(), "", CWD, "/run", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step("attach", "the stage")?;
    for (name, part) in &parts {
        directory(tree.as_fd(), name, 0o755)?;
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

/// Makes the working directory `/` and drops the old root with all below it; pivot_root(2), "pivot_root(".", ".")".
fn replace_root() -> Result<()> {
    pivot_root(".", ".").step("pivot to", "the new root")?;
    umount2(".", MntFlags::MNT_DETACH).step("detach", "the old root")?;
    chdir("/").step("enter", "/")
}

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
    name_host(contents, root)?;
    rustix::process::fchdir(root).step("enter", "the root")?;
    replace_root()
}

fn hard_but_dev() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC
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

/// Nothing below the root leads out of it, whatever the tenant linked.
fn inside() -> ResolveFlags {
    ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS
}

fn attach(tree: BorrowedFd<'_>, root: BorrowedFd<'_>, path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let target = existing_directory(root, path)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", target.as_fd(), "", flags).step("attach", path.display())
}

fn attach_file(tree: BorrowedFd<'_>, root: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let target = existing_file(root, path)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", target.as_fd(), "", flags).step("attach", path.display())
}

/// The directory at `path` inside `root`, made where it is missing.
fn existing_directory(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
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

fn directory(parent: BorrowedFd<'_>, name: &str, mode: u32) -> Result<()> {
    mkdirat(parent, name, Mode::from_raw_mode(mode)).step("make", name)
}

fn own(dir: BorrowedFd<'_>, name: &str, base: u32) -> Result<()> {
    let name_c = CString::new(name).map_err(|_| Error::Invalid(format!("{name:?} holds a NUL byte")))?;
    chownat(dir, name_c.as_c_str(), Some(Uid::from_raw(base)), Some(Gid::from_raw(base)), AtFlags::SYMLINK_NOFOLLOW).step("give away", name)
}
