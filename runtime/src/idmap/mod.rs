//! Host ids of a berth: exclusive ranges, and the maps of user namespaces and mounts.

mod allocator;
mod living;
pub mod share;

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use berth_sys::process::{CLONE_NEWUSER, Side, clone_process, exit_now};
use nix::{
    sys::{
        prctl,
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{Pid, getpid, getppid, pause},
};
use rustix::{
    fs::CWD,
    mount::{OpenTreeFlags, open_tree},
};

pub use allocator::{Allocator, Held, Range};
pub use living::living;

use crate::error::{Result, Step};

/// Ids in a range: all that a container's root file system may name.
pub const COUNT: u32 = 65536;

/// Writes the one-line map `0 base 65536` to a process that has just made its user namespace. The caller is host root.
pub fn write_maps(pid: u32, base: u32) -> Result<()> {
    let line = format!("0 {base} {COUNT}\n");
    write_map_texts(pid, &line, &line)
}

fn write_map_texts(pid: u32, uids: &str, gids: &str) -> Result<()> {
    for (file, text) in [("uid_map", uids), ("gid_map", gids)] {
        let path = format!("/proc/{pid}/{file}");
        fs::write(&path, text).step("write", path)?;
    }
    Ok(())
}

/// A user namespace with the map `0 base 65536` that nobody lives in, for id-mapped mounts. The caller is single-threaded host root.
pub fn namespace(base: u32) -> Result<OwnedFd> {
    let line = format!("0 {base} {COUNT}\n");
    namespace_with(&line, &line)
}

/// The same with the maps by which `account` has his own directories inside.
pub(crate) fn namespace_of(account: &share::Account, base: u32, role: share::As) -> Result<OwnedFd> {
    namespace_with(&share::text(&account.uid_map(base, role)), &share::text(&account.gid_map(base, role)))
}

fn namespace_with(uids: &str, gids: &str) -> Result<OwnedFd> {
    let caller = getpid();
    match clone_process(CLONE_NEWUSER).step("clone", "a user namespace")? {
        Side::Child => {
            // Nobody is to be left when the caller is killed, also before this was asked for.
            while prctl::set_pdeathsig(Signal::SIGKILL).is_ok() && getppid() == caller {
                pause();
            }
            exit_now(1)
        }
        Side::Parent(pid) => {
            let made = write_map_texts(pid, uids, gids).and_then(|()| {
                let path = format!("/proc/{pid}/ns/user");
                fs::File::open(&path).map(OwnedFd::from).step("open", path)
            });
            let pid = Pid::from_raw(pid as i32);
            kill(pid, Signal::SIGKILL).step("end", "the holder of a user namespace")?;
            waitpid(pid, None).step("await", "the holder of a user namespace")?;
            made
        }
    }
}

/// Tries whether the file system under `dir` takes an id map, on a clone of its mount that nobody sees. The caller is single-threaded host root.
pub fn try_on(dir: &Path, base: u32) -> Result<()> {
    let userns = namespace(base)?;
    let clone =
        open_tree(CWD, dir, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC).step("clone the mount of", dir.display())?;
    berth_sys::mount::set_attributes(clone.as_fd(), 0, Some(userns.as_fd())).step("id-map", dir.display())
}
