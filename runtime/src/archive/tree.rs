//! The child that packs or fills a disk: `berth-shim tree TASK`.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::Command,
};

use berth_sys::{
    mount::{NODEV, NOEXEC, NOSUID, RDONLY, set_attributes, set_attributes_of_all},
    process::exit_now,
};
use nix::{
    sched::{CloneFlags, unshare},
    sys::{prctl, signal::Signal},
};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    mount::{MoveMountFlags, move_mount},
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CapabilitySet, remove_capability_from_bounding_set},
};

use super::{Task, Way};
use crate::{
    disk::{self, Room},
    error::{Error, Result, Step, chain},
};

/// For links to be remembered and directories to be read.
const MEMORY: u64 = 2 << 30;
/// tar goes down a tree by recursion, and a tenant nests as he likes.
const STACK: u64 = 256 << 20;
const MOST_STORE: u64 = 4 << 20;
const MOST_IMAGES: usize = 1000;
const LONGEST_IMAGE: usize = 200;

/// Entry of `berth-shim tree`. Does not return: it becomes tar, or ends.
pub fn tree() -> ! {
    let error = match run() {
        Ok(never) => match never {},
        Err(error) => error,
    };
    eprintln!("{}", chain(&error));
    exit_now(2)
}

fn run() -> Result<std::convert::Infallible> {
    prctl::set_pdeathsig(Signal::SIGKILL).step("follow", "the node's death")?;
    let text = env::args().nth(2).unwrap_or_default();
    let task: Task = serde_json::from_str(&text).map_err(|e| Error::Invalid(format!("the task is not understood: {e}")))?;
    let place = task.disk.path.parent().unwrap_or(Path::new("/")).to_owned();
    unshare(CloneFlags::CLONE_NEWNS).step("unshare", "the mount namespace")?;
    // Before the host is read-only: the loop device writes to the image. It is attached to nothing yet, and stays writable.
    let mount = disk::mount_as_it_lies(&task.disk, Room { limit: task.limit, free: None })?;
    let flags = NOSUID | NODEV | NOEXEC | if task.way == Way::Pack { RDONLY } else { 0 };
    set_attributes(mount.as_fd(), flags, None).step("set flags of", task.disk.path.display())?;
    set_attributes_of_all(RDONLY | NOSUID | NODEV).step("make read-only", "the host")?;
    move_mount(&mount, "", rustix::fs::CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step("mount at", place.display())?;
    if task.way == Way::Pack {
        let images = serde_json::to_string(&docker_images(mount.as_fd())).unwrap_or_else(|_| "[]".to_owned());
        let mut out = std::io::stdout().lock();
        writeln!(out, "{images}").and_then(|()| out.flush()).step("write", "the list of images")?;
    }
    drop(mount);
    bound()?;
    let mut tar = Command::new("tar");
    tar.current_dir(&place);
    match task.way {
        // Of times that of the last change, to the nanosecond.
        Way::Pack => tar.args(["--create", "--file=-", "--format=posix", "--pax-option=delete=atime,delete=ctime", "--sparse"]).args([
            "--one-file-system",
            "--numeric-owner",
            "--acls",
            "--xattrs",
            "--xattrs-include=user.*",
            "--xattrs-include=security.capability",
            "--exclude=./lost+found",
            "--warning=no-file-ignored",
            ".",
        ]),
        Way::Unpack => tar.args(["--extract", "--file=-", "--same-permissions", "--same-owner", "--numeric-owner"]).args([
            "--acls",
            "--xattrs",
            "--xattrs-include=user.*",
            "--xattrs-include=security.capability",
            "--delay-directory-restore",
            "--exclude=./lost+found",
            "--warning=no-timestamp",
        ]),
    };
    Err(tar.exec()).step("run", "tar")
}

/// What tar may: any file of the disk, and nothing of the kernel. Without CAP_MKNOD it makes whiteouts and no other device.
fn bound() -> Result<()> {
    let kept = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::SETFCAP;
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if !kept.contains(capability) {
            match remove_capability_from_bounding_set(capability) {
                // The kernel knows fewer.
                Err(rustix::io::Errno::INVAL) => break,
                done => done.step("give up", format!("capability {number}"))?,
            }
        }
    }
    prctl::set_no_new_privs().step("set", "no_new_privs")?;
    for (resource, wanted) in [(Resource::As, MEMORY), (Resource::Stack, STACK), (Resource::Core, 0), (Resource::Nofile, 1 << 16)] {
        let maximum = getrlimit(resource).maximum;
        let current = Some(maximum.map_or(wanted, |most| most.min(wanted)));
        setrlimit(resource, Rlimit { current, maximum }).step("limit", "tar")?;
    }
    Ok(())
}

/// `repository:tag` of what the berth's Docker keeps; the tenant's own word, and empty where it cannot be read.
fn docker_images(disk: BorrowedFd<'_>) -> Vec<String> {
    let flags = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let open = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = openat2(disk, "docker/image/overlay2/repositories.json", open, Mode::empty(), flags) else { return Vec::new() };
    let mut text = Vec::new();
    if fs::File::from(file).take(MOST_STORE).read_to_end(&mut text).is_err() {
        return Vec::new();
    }
    names(&text)
}

fn names(text: &[u8]) -> Vec<String> {
    let Ok(store) = serde_json::from_slice::<serde_json::Value>(text) else { return Vec::new() };
    let references =
        store["Repositories"].as_object().into_iter().flat_map(serde_json::Map::values).filter_map(serde_json::Value::as_object);
    let named = references.flat_map(serde_json::Map::keys).filter(|name| !name.contains('@'));
    let plain = |name: &&String| name.len() <= LONGEST_IMAGE && !name.chars().any(char::is_control);
    named.filter(plain).take(MOST_IMAGES).cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_by_their_tags_and_what_is_no_store_names_none() {
        let text = br#"{"Repositories":{"busybox":{"busybox:latest":"sha256:1","busybox@sha256:2":"sha256:1"},"b":{"b:1":"x"}}}"#;
        assert_eq!(names(text), ["b:1", "busybox:latest"]);
        for bad in [&b"{"[..], b"[]", b"{\"Repositories\":7}", b"{\"Repositories\":{\"a\":\"b\"}}"] {
            assert!(names(bad).is_empty());
        }
    }
}
