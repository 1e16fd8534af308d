//! `/run` of the berth: empty at every start, then the folder of the user's socket.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, ErrorKind},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    },
    path::Path,
};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, open, openat2, unlinkat};

use crate::{arguments::Arguments, cgroup::wants_root, console, engine::DOCKER_SOCKET};

const RUN: &str = "/run";
/// Holds what the runtime put there.
const KEPT: &str = "berth";
/// Each level holds a descriptor; what lies deeper is nobody's real state and stays.
const DEEPEST: usize = 64;

/// Units that can only fail in a berth and would leave systemd `degraded`: there are no modules to load, no terminal, and none of these
/// file systems.
const MASKED_UNITS: [&str; 5] = [
    "console-getty.service",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-modules-load.service",
];

/// Clears `/run` (stale pid files stop dockerd) and makes the folder of the user's socket. What fails is said on the console: a berth
/// with an odd `/run` can still be entered and repaired.
pub(crate) fn prepare(arguments: &Arguments) {
    let complain = |what: &str, done: io::Result<()>| {
        if let Err(error) = done {
            console::say(&format!("{what}: {error}"));
        }
    };
    complain("cannot clear /run", clear(Path::new(RUN)));
    complain("cannot make the folder of the Docker socket", make_socket_dir(arguments));
    complain("cannot link /var/run/docker.sock", link_var_run());
    let Some(program) = arguments.entry.first() else { return };
    // The Docker of such an image knows nothing of the user's path (X12).
    complain("cannot link the user's Docker socket", symlink(DOCKER_SOCKET, &arguments.docker_socket));
    if wants_root(Path::new(program)) {
        complain("cannot mask units", mask_units(Path::new(RUN)));
    }
}

/// In `/run`, which is fresh at each start: nothing of the image is changed, and an init that is not systemd does not look there.
fn mask_units(run: &Path) -> io::Result<()> {
    let dir = run.join("systemd/system");
    // The folder tells programs that systemd runs (sd_booted(3)), which it is about to.
    DirBuilder::new().recursive(true).mode(0o755).create(&dir)?;
    MASKED_UNITS.iter().try_for_each(|unit| symlink("/dev/null", dir.join(unit)))
}

fn clear(run: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    clear_dir(&open(run, flags, Mode::empty())?, 0)
}

fn clear_dir(dir: &OwnedFd, depth: usize) -> io::Result<()> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let kept = depth == 0 && name.to_bytes() == KEPT.as_bytes();
        if kept || matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() != FileType::Directory {
            // A file that is a mount point (EBUSY) is the runtime's and stays.
            let _ = unlinkat(dir, name, AtFlags::empty());
            continue;
        }
        // NO_XDEV: what is mounted below is not ours to clear, bind mounts of the same file system included.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        if depth < DEEPEST
            && let Ok(below) = openat2(dir, name, flags, Mode::empty(), resolve)
        {
            clear_dir(&below, depth + 1)?;
            let _ = unlinkat(dir, name, AtFlags::REMOVEDIR);
        }
    }
    Ok(())
}

fn make_socket_dir(arguments: &Arguments) -> io::Result<()> {
    let dir = arguments.socket_dir();
    DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    // Others pass through, nobody lists; the tenant's root may do as he likes.
    fs::set_permissions(dir, Permissions::from_mode(0o711))?;
    // A socket of the last run would answer ECONNREFUSED until dockerd is up.
    let _ = fs::remove_file(&arguments.docker_socket);
    let (Some(users), Some(uid)) = (dir.parent(), dir.file_name()) else { return Ok(()) };
    if safe_name(&arguments.user_name) && uid != arguments.user_name.as_str() {
        match symlink(uid, users.join(&arguments.user_name)) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            done => done?,
        }
    }
    Ok(())
}

/// A user name that can be a file name beside the uids: not a number, no separator, nothing a terminal would act on.
fn safe_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && !name.starts_with('.')
        && !name.bytes().all(|b| b.is_ascii_digit())
        && name.chars().all(|c| c != '/' && !c.is_control() && !c.is_whitespace())
}

/// Clients look at /var/run/docker.sock, which almost every image makes the same place.
fn link_var_run() -> io::Result<()> {
    if fs::canonicalize("/var/run").is_ok_and(|real| real == Path::new(RUN)) {
        return Ok(());
    }
    if fs::symlink_metadata("/var/run").is_err() {
        return symlink("../run", "/var/run");
    }
    let link = Path::new("/var/run/docker.sock");
    let _ = fs::remove_file(link);
    symlink("/run/docker.sock", link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clearing_keeps_berth_and_never_follows_a_symlink() {
        let dir = tempfile::tempdir().unwrap();
        let (run, outside) = (dir.path().join("run"), dir.path().join("outside"));
        fs::create_dir_all(run.join("docker/netns/deep")).unwrap();
        fs::create_dir_all(run.join("berth/users")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("file"), "x").unwrap();
        fs::write(run.join("docker.pid"), "17").unwrap();
        fs::write(run.join("docker/netns/deep/berth"), "x").unwrap();
        symlink(&outside, run.join("link")).unwrap();
        symlink(&outside, run.join("docker/link")).unwrap();
        clear(&run).unwrap();
        let left: Vec<_> = fs::read_dir(&run).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["berth"]);
        assert!(run.join("berth/users").exists() && outside.join("file").exists());
    }

    #[test]
    fn d04_units_that_no_berth_can_start_are_masked_in_run() {
        let dir = tempfile::tempdir().unwrap();
        mask_units(dir.path()).unwrap();
        assert_eq!(fs::read_link(dir.path().join("systemd/system/sys-kernel-debug.mount")).unwrap(), Path::new("/dev/null"));
    }

    #[test]
    fn only_a_safe_name_becomes_a_link() {
        assert!(safe_name("alice") && safe_name("alice.b-c_d") && safe_name("DOM\\bob"));
        for bad in ["", ".", "..", "../x", "a/b", "1000", "a b", "a\nb", &"x".repeat(65)] {
            assert!(!safe_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn the_socket_folder_has_the_users_name_beside_the_number() {
        let dir = tempfile::tempdir().unwrap();
        let arguments = Arguments {
            channel: 3,
            docker_socket: dir.path().join("users/1000/docker.sock"),
            user_name: "alice".into(),
            dockerd_arguments: Vec::new(),
            entry: Vec::new(),
        };
        for _ in 0..2 {
            make_socket_dir(&arguments).unwrap();
        }
        assert_eq!(fs::read_link(dir.path().join("users/alice")).unwrap(), Path::new("1000"));
        assert_eq!(fs::metadata(dir.path().join("users/1000")).unwrap().permissions().mode() & 0o777, 0o711);
    }
}
