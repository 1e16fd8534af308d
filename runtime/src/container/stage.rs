//! The stage: a freshly executed single-threaded child that prepares, as host root, what comes from the host, then gives its rights up
//! step by step until PID 1 is cloned from it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::process::{CLONE_NEWPID, CLONE_PARENT, Side, clone_process, exit_now};
use nix::{
    sched::{CloneFlags, unshare},
    sys::{prctl, signal::Signal},
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

use super::{
    Bundle, child,
    message::{FromChild, ToChild, receive, send},
};
use crate::{
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
    let disk = rootfs::stage(&bundle.contents(), disk::mount(&bundle.disk, userns.as_fd())?, fds.collect(), userns.as_fd())?;
    drop(userns);

    become_owner(bundle.id_base)?;
    fault::point("make the user namespace")?;
    unshare(CloneFlags::CLONE_NEWUSER).step("make", "a user namespace")?;
    ask(socket, &FromChild::NeedMaps)?;
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
    fault::point("clone PID 1")?;
    clone_init(&bundle, socket, init, console, channel, disk)
}

/// The owner of the user namespace must be the container's own base id: namespaces owned by root share root's inotify instances, keys,
/// message queues and locked memory (I08).
fn become_owner(base: u32) -> Result<()> {
    setgroups(&[]).step("drop", "supplementary groups")?;
    let (uid, gid) = (Uid::from_raw(base), Gid::from_raw(base));
    setresgid(gid, gid, gid).step("become", "the base group")?;
    setresuid(uid, uid, uid).step("become", "the base user")?;
    // The change of ids cleared it (prctl(2)); the shim's death must still be ours.
    prctl::set_pdeathsig(Signal::SIGKILL).step("follow", "the shim's death")
}

fn clone_init(bundle: &Bundle, socket: BorrowedFd<'_>, init: OwnedFd, console: OwnedFd, channel: OwnedFd, disk: OwnedFd) -> Result<()> {
    match clone_process(CLONE_NEWPID | CLONE_PARENT).step("clone", "PID 1")? {
        Side::Parent(pid) => send(socket, &FromChild::Cloned { pid }, &[]),
        Side::Child => {
            let error = child::run(bundle, socket, init, console, channel, disk);
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
