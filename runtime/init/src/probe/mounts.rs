use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use berth_sys::mount as sys;
use nix::{
    mount::{MntFlags, MsFlags, mount as nix_mount, umount2},
    sched::CloneFlags,
    unistd::pivot_root,
};
use rustix::mount::{OpenTreeFlags, open_tree};
use serde_json::{Value, json};

use crate::{
    Failure,
    report::{Done, answer, need, outcome},
    run,
};

pub(crate) fn mount(kind: &str, source: &str, target: &str, options: &str) -> Done {
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match flag(option) {
            Some(known) => flags |= known,
            None => data.push(option),
        }
    }
    let data = data.join(",");
    outcome(nix_mount(Some(source), target, Some(kind), flags, (!data.is_empty()).then_some(data.as_str())), json!({}))
}

pub(crate) fn unmount(path: &str, detach: bool) -> Done {
    let flags = if detach { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    outcome(umount2(path, flags), json!({ "below": listing(path) }))
}

pub(crate) fn remount(path: &str, options: &str) -> Done {
    outcome(try_remount(path, options)?, json!({}))
}

pub(crate) fn bind_remount(source: &str, target: &str, options: &str) -> Done {
    let bound = nix_mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>);
    if bound.is_err() {
        return outcome(bound, json!({ "step": "bind" }));
    }
    let remounted = try_remount(target, options)?;
    let _ = umount2(target, MntFlags::MNT_DETACH);
    outcome(remounted, json!({ "step": "remount" }))
}

fn try_remount(path: &str, options: &str) -> Result<nix::Result<()>, Failure> {
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    for option in options.split(',').filter(|o| *o != "rw") {
        flags |= flag(option).ok_or(Failure::Usage)?;
    }
    Ok(nix_mount(None::<&str>, path, None::<&str>, flags, None::<&str>))
}

/// Takes flags off by mount_setattr(2), on the mount itself.
pub(crate) fn clear_attributes(path: &str, options: &str) -> Done {
    let mut attributes = 0;
    for option in options.split(',') {
        attributes |= match option {
            "ro" => sys::RDONLY,
            "nosuid" => sys::NOSUID,
            "nodev" => sys::NODEV,
            "noexec" => sys::NOEXEC,
            _ => return Err(Failure::Usage),
        };
    }
    let attempt = open_tree(rustix::fs::CWD, path, OpenTreeFlags::OPEN_TREE_CLOEXEC).map_err(io::Error::from);
    outcome(attempt.and_then(|tree| sys::clear_attributes(tree.as_fd(), attributes)), json!({}))
}

/// What runc does: a new mount namespace, a fresh root in it, the old one detached. Tells how far it came, and the new root's content.
pub(crate) fn pivot(dir: &str) -> Done {
    let dir = PathBuf::from(dir);
    let steps: [(&str, &dyn Fn() -> nix::Result<()>); 5] = [
        ("unshare", &|| nix::sched::unshare(CloneFlags::CLONE_NEWNS)),
        ("private", &|| nix_mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)),
        ("tmpfs", &|| nix_mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), None::<&str>)),
        ("pivot_root", &|| {
            fs::create_dir(dir.join("old")).map_err(|_| nix::errno::Errno::EIO)?;
            pivot_root(&dir, &dir.join("old"))
        }),
        ("detach", &|| {
            nix::unistd::chdir("/")?;
            umount2("/old", MntFlags::MNT_DETACH)
        }),
    ];
    for (step, action) in steps {
        let attempt = action();
        if attempt.is_err() {
            return outcome(attempt, json!({ "step": step }));
        }
    }
    outcome(Ok::<_, io::Error>(()), json!({ "root": listing("/") }))
}

pub(crate) fn unshare(list: &str, rest: &[&str]) -> Done {
    let mut flags = CloneFlags::empty();
    for name in list.split(',') {
        flags |= match name {
            "mnt" => CloneFlags::CLONE_NEWNS,
            "user" => CloneFlags::CLONE_NEWUSER,
            "pid" => CloneFlags::CLONE_NEWPID,
            "net" => CloneFlags::CLONE_NEWNET,
            "ipc" => CloneFlags::CLONE_NEWIPC,
            "uts" => CloneFlags::CLONE_NEWUTS,
            "cgroup" => CloneFlags::CLONE_NEWCGROUP,
            _ => return Err(Failure::Usage),
        };
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let attempt = nix::sched::unshare(flags);
    if attempt.is_err() {
        return outcome(attempt, json!({ "step": "unshare" }));
    }
    if flags.contains(CloneFlags::CLONE_NEWUSER) {
        need("setgroups", fs::write("/proc/self/setgroups", "deny"))?;
        need("uid_map", fs::write("/proc/self/uid_map", format!("0 {uid} 1")))?;
        need("gid_map", fs::write("/proc/self/gid_map", format!("0 {gid} 1")))?;
    }
    if flags.contains(CloneFlags::CLONE_NEWNS) {
        let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
        need("make / a slave", nix_mount(None::<&str>, "/", None::<&str>, slave, None::<&str>))?;
    }
    run(rest)
}

pub(crate) fn chroot(dir: &str, rest: &[&str]) -> Done {
    let attempt = nix::unistd::chroot(dir).and_then(|()| nix::unistd::chdir("/"));
    match attempt {
        Ok(()) => run(rest),
        refused => outcome(refused, json!({ "step": "chroot" })),
    }
}

/// Names in a directory, or why they cannot be seen.
fn listing(path: impl AsRef<Path>) -> Value {
    match fs::read_dir(path) {
        Ok(entries) => json!(entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>()),
        Err(error) => Value::Object(answer(Err::<(), _>(error))),
    }
}

fn flag(option: &str) -> Option<MsFlags> {
    Some(match option {
        "ro" => MsFlags::MS_RDONLY,
        "nosuid" => MsFlags::MS_NOSUID,
        "nodev" => MsFlags::MS_NODEV,
        "noexec" => MsFlags::MS_NOEXEC,
        "noatime" => MsFlags::MS_NOATIME,
        "relatime" => MsFlags::MS_RELATIME,
        "bind" => MsFlags::MS_BIND,
        "rbind" => MsFlags::MS_BIND | MsFlags::MS_REC,
        "remount" => MsFlags::MS_REMOUNT,
        "private" => MsFlags::MS_PRIVATE,
        "move" => MsFlags::MS_MOVE,
        _ => return None,
    })
}
