//! The stage: a freshly executed single-threaded child that prepares, as host root, what comes from the host, then gives its rights up
//! step by step until PID 1 is cloned from it.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use berth_sys::process::{CLONE_NEWPID, CLONE_PARENT, Side, clone_process, exit_now};
use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{prctl, signal::Signal, wait::waitpid},
    unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid},
};
use rustix::{
    fs::fstat,
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
};

use super::{
    Bundle,
    child::{self, Parts},
    message::{FromChild, FromMaker, ToChild, receive, send},
};
use crate::{
    cgroup::Device,
    disk,
    error::{Error, Result, Step, chain},
    fault, idmap, net, rootfs,
};

/// Entry of the stage: to be called by a program that [`start`](super::start()) executed as `<program> stage`. Does not return.
pub fn stage() -> ! {
    let socket = match berth_sys::descriptor::inherited(0) {
        Ok(socket) => socket,
        Err(_) => exit_now(125),
    };
    let status = match run(socket.as_fd()) {
        Ok(()) => 0,
        Err(error) => {
            let _ = send(socket.as_fd(), &FromChild::Failed { detail: chain(&error) }, &[]);
            1
        }
    };
    exit_now(status)
}

fn run(socket: BorrowedFd<'_>) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).step("follow", "the shim's death")?;
    let (ToChild::Bundle(bundle), fds) = receive(socket)? else {
        return Err(Error::Invalid("the first message was no bundle".into()));
    };
    let mut fds = fds.into_iter();
    let (Some(init), Some(console), Some(channel)) = (fds.next(), fds.next(), fds.next()) else {
        return Err(Error::Invalid("the bundle came without its three descriptors".into()));
    };

    fault::point("make the stage's mounts")?;
    let userns = idmap::namespace(bundle.id_base)?;
    unshare(CloneFlags::CLONE_NEWNS).step("make", "a mount namespace")?;
    let disk = disk::mount(&bundle.disk, bundle.room, userns.as_fd())?;
    // Its loop device is known only now, and the host's files will soon be out of sight; still nothing of the container runs.
    let device = Device::loop_device(fstat(&disk).step("look at", "the disk")?.st_dev);
    bundle.cgroup.limit_io(&bundle.limits.io, &bundle.disk.path, device)?;
    let disk = rootfs::stage(&bundle.contents(), disk, fds.collect(), userns.as_fd())?;
    drop(userns);
    fault::point("make the user namespace")?;
    let (tree, userns) = root_tree(&bundle)?;
    rootfs::furnish(&bundle.contents(), tree.as_fd())?;
    drop(tree);

    setns(&userns, CloneFlags::CLONE_NEWUSER).step("enter", "the user namespace")?;
    drop(userns);
    become_user(0)?;
    fault::point("make namespaces")?;
    // All mounts of the stage are inherited here, and locked: the new mount namespace belongs to a lesser user namespace.
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP
            | CloneFlags::from_bits_retain(nix::libc::CLONE_NEWTIME),
    )
    .step("make", "namespaces")?;
    ask(socket, &FromChild::NeedHost)?;
    net::link::configure_inner(bundle.net.address)?;
    // Before there is a pid namespace: its requests carry pids as the host sees them.
    let (device, mount) = match rootfs::mount_emulated() {
        Ok(made) => Some(made).unzip(),
        Err(error) => {
            eprintln!("berth: /proc and /sys show the host's figures inside: {}", chain(&error));
            (None, None)
        }
    };
    fault::point("clone PID 1")?;
    clone_init(&bundle, socket, Parts { init, console, channel, disk, emulated: mount }, device)
}

/// The container's root as a detached tree, and its user namespace: both made by a child that is root there and ends.
fn root_tree(bundle: &Bundle) -> Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).step("make", "a socket pair")?;
    let child = match clone_process(0).step("clone", "the maker of the root")? {
        Side::Parent(pid) => pid,
        Side::Child => {
            drop(ours);
            let status = make_root(bundle, theirs.as_fd()).map_or_else(
                |error| {
                    let _ = send(theirs.as_fd(), &FromMaker::Failed { detail: chain(&error) }, &[]);
                    1
                },
                |()| 0,
            );
            exit_now(status)
        }
    };
    drop(theirs);
    let made = serve_maker(bundle, child, ours.as_fd());
    // Closed first: a child that still waits for an answer then ends.
    drop(ours);
    let ended = waitpid(Pid::from_raw(child as i32), None).step("await", "the maker of the root");
    made.and_then(|made| ended.map(|_| made))
}

fn serve_maker(bundle: &Bundle, child: u32, socket: BorrowedFd<'_>) -> Result<(OwnedFd, OwnedFd)> {
    let (FromMaker::NeedMaps, _) = expect_maker(socket)? else { return Err(Error::Child { detail: "no namespace came first".into() }) };
    fault::point("write id maps")?;
    idmap::write_maps(child, bundle.id_base)?;
    let path = format!("/proc/{child}/ns/user");
    let userns = File::open(&path).step("open", path)?;
    send(socket, &FromMaker::Go, &[])?;
    match expect_maker(socket)? {
        (FromMaker::Made, fds) => {
            let tree = fds.into_iter().next().ok_or_else(|| Error::Child { detail: "no root came".into() })?;
            Ok((tree, userns.into()))
        }
        (message, _) => Err(Error::Child { detail: format!("it said {message:?} out of turn") }),
    }
}

fn expect_maker(socket: BorrowedFd<'_>) -> Result<(FromMaker, Vec<OwnedFd>)> {
    match receive(socket)? {
        (FromMaker::Failed { detail }, _) => Err(Error::Child { detail }),
        message => Ok(message),
    }
}

fn make_root(bundle: &Bundle, socket: BorrowedFd<'_>) -> Result<()> {
    // The owner of the user namespace must be the container's own base id: namespaces owned by root share root's inotify instances, keys,
    // message queues and locked memory (I08).
    become_user(bundle.id_base)?;
    unshare(CloneFlags::CLONE_NEWUSER).step("make", "a user namespace")?;
    send(socket, &FromMaker::NeedMaps, &[])?;
    let (FromMaker::Go, _) = expect_maker(socket)? else { return Err(Error::Invalid("something came instead of go".into())) };
    unshare(CloneFlags::CLONE_NEWNS).step("make", "a mount namespace")?;
    let tree = rootfs::lay(&bundle.contents())?;
    send(socket, &FromMaker::Made, &[tree.as_fd()])
}

/// Becomes one user and his group, as the caller's user namespace has them, with no other group.
fn become_user(id: u32) -> Result<()> {
    setgroups(&[]).step("drop", "supplementary groups")?;
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    setresgid(gid, gid, gid).step("become group", id)?;
    setresuid(uid, uid, uid).step("become user", id)?;
    // The change of ids cleared it (prctl(2)); the death of who made this process must still be its own.
    prctl::set_pdeathsig(Signal::SIGKILL).step("follow", "the maker's death")
}

fn clone_init(bundle: &Bundle, socket: BorrowedFd<'_>, parts: Parts, emulated: Option<OwnedFd>) -> Result<()> {
    match clone_process(CLONE_NEWPID | CLONE_PARENT).step("clone", "PID 1")? {
        Side::Parent(pid) => {
            let device: Vec<BorrowedFd<'_>> = emulated.iter().map(AsFd::as_fd).collect();
            send(socket, &FromChild::Cloned { pid }, &device)
        }
        Side::Child => {
            drop(emulated);
            let error = child::run(bundle, socket, parts);
            let _ = send(socket, &FromChild::Failed { detail: chain(&error) }, &[]);
            exit_now(1)
        }
    }
}

pub(super) fn ask(socket: BorrowedFd<'_>, message: &FromChild) -> Result<()> {
    send(socket, message, &[])?;
    match receive(socket)? {
        (ToChild::Go, _) => Ok(()),
        (other, _) => Err(Error::Invalid(format!("{other:?} came instead of go"))),
    }
}
