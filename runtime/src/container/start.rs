use std::{
    fs::File,
    io::{self, Seek},
    net::{TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use nix::sched::{CloneFlags, setns};
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{
    Bundle, Started,
    message::{FromChild, ToChild, receive, send},
    spawn::Stage,
};
use crate::{
    cgroup::Part,
    error::{Error, Result, Step},
    fault, net,
    seccomp::Listener,
    undo::Undo,
};

/// Starts the container; on success PID 1 runs berth-init and is the caller's child.
///
/// The caller is host root, single-threaded, and lives as long as the container: it moves itself into the shim half of the group, and the
/// container is killed when it ends. `mounts` are those of the bundle's shares, [`MOUNTS_OF_A_SHARE`](super::MOUNTS_OF_A_SHARE) detached
/// ones for each that is mounted. On failure the caller unwinds `undo`.
pub fn start(bundle: &Bundle, mounts: Vec<OwnedFd>, undo: &mut Undo) -> Result<Started> {
    let init = sealed_program(&bundle.init)?;
    // The shim half goes when the caller has ended, by its parent's sweep: a group with a process in it cannot be removed.
    let group = bundle.cgroup.clone();
    undo.step("make control groups", || bundle.cgroup.make(), move || group.remove_part(Part::Payload))?;
    // On v1 hierarchies it comes last: what a start takes is not charged to what the shim may hold.
    if !bundle.cgroup.hierarchy.hybrid() {
        bundle.cgroup.join(Part::Shim, 0)?;
    }
    fault::point("set limits")?;
    bundle.cgroup.limit(&bundle.limits, bundle.id_base)?;

    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).step("make", "a socket pair")?;
    let (channel, init_channel) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).step("make", "a socket pair")?;
    let (console, init_console) = pipe_with(PipeFlags::CLOEXEC).step("make", "a pipe")?;

    let group = bundle.cgroup.clone();
    let stage = undo.step(
        "start the stage",
        || Stage::spawn(&bundle.cgroup, theirs),
        move || {
            group.kill(Part::Payload)?;
            group.wait_empty(Part::Payload, Duration::from_secs(10))
        },
    )?;
    bundle.cgroup.join_v1(Part::Payload, stage.id())?;
    let fds: Vec<BorrowedFd<'_>> = [&init, &init_console, &init_channel].into_iter().chain(&mounts).map(AsFd::as_fd).collect();
    send(ours.as_fd(), &ToChild::Bundle(Box::new(bundle.clone())), &fds)?;
    drop((init_console, init_channel, init, mounts));
    // What was needed so far and what is from here on hardly overlap: the peak is what counts against a bound.
    let _ = berth_sys::code::forget();
    serve_stage(bundle, undo, stage, ours.as_fd()).map(|made| Started {
        pid: made.pid,
        pidfd: made.pidfd,
        root: made.root,
        disk: made.disk,
        console,
        channel,
        dns_udp: made.dns_udp,
        dns_tcp: made.dns_tcp,
        loopback: made.loopback,
        emulated: made.emulated,
        heard: made.heard,
        booted: made.booted,
    })
}

struct Made {
    pid: u32,
    pidfd: OwnedFd,
    root: OwnedFd,
    disk: OwnedFd,
    dns_udp: UdpSocket,
    dns_tcp: TcpListener,
    loopback: net::Loopback,
    emulated: Option<OwnedFd>,
    heard: Option<Listener>,
    booted: u64,
}

/// Does for the children what only host root may do, in the order in which they ask.
fn serve_stage(bundle: &Bundle, undo: &mut Undo, stage: Stage, socket: BorrowedFd<'_>) -> Result<Made> {
    expect(socket, |m| matches!(m, FromChild::NeedHost))?;
    let booted = start_clock(stage.id())?;
    let name = bundle.net.name.clone();
    undo.step("make the link", || net::link::create(&bundle.net, stage.id()), move || net::link::delete(&name))?;
    send(socket, &ToChild::Go, &[])?;

    let ((pid, emulated), fds) = cloned_and_ready(socket)?;
    let emulated = emulated.into_iter().next();
    let raw = Pid::from_raw(pid as i32).ok_or_else(|| Error::Child { detail: "pid 0 came".into() })?;
    // PID 1 is our own child (CLONE_PARENT) and not yet reaped: the number cannot have been given to another process.
    let pidfd = pidfd_open(raw, PidfdFlags::empty()).step("open", format!("process {pid}"))?;
    stage.wait()?;

    let mut fds = fds.into_iter();
    let (Some(root), Some(disk)) = (fds.next(), fds.next()) else {
        return Err(Error::Child { detail: "no descriptors of root and disk came".into() });
    };
    fault::point("open sockets inside")?;
    let (dns_udp, dns_tcp, loopback) = in_network_of(pid, || {
        let udp = UdpSocket::bind((net::DNS_ADDRESS, 53)).step("bind", "the DNS socket")?;
        let tcp = TcpListener::bind((net::DNS_ADDRESS, 53)).step("bind", "the DNS listener")?;
        Ok((udp, tcp, net::Loopback::open(net::DOOR)?))
    })?;
    if bundle.cgroup.hierarchy.hybrid() {
        bundle.cgroup.join(Part::Shim, 0)?;
    }
    fault::point("let PID 1 go")?;
    send(socket, &ToChild::Go, &[])?;
    // The pair closes on a successful exec; a word before that is a failure.
    let mut heard = None;
    let last = match receive::<FromChild>(socket) {
        Ok((FromChild::Heard, fds)) => {
            heard = fds.into_iter().next().map(Listener::new);
            receive::<FromChild>(socket)
        }
        other => other,
    };
    match last {
        Ok((FromChild::Failed { detail }, _)) => Err(Error::Child { detail }),
        _ => Ok(Made { pid, pidfd, root, disk, dns_udp, dns_tcp, loopback, emulated, heard, booted }),
    }
}

/// PID 1 as the stage tells of it: its pid, and the device of what is emulated.
type Cloned = (u32, Vec<OwnedFd>);

/// PID 1 runs before the stage has told its pid: either word may be the first. Each comes with its descriptors.
fn cloned_and_ready(socket: BorrowedFd<'_>) -> Result<(Cloned, Vec<OwnedFd>)> {
    let (mut cloned, mut ready) = (None, None);
    loop {
        match (cloned, ready) {
            (Some(cloned), Some(ready)) => return Ok((cloned, ready)),
            waiting => (cloned, ready) = waiting,
        }
        match expect(socket, |m| matches!(m, FromChild::Cloned { .. } | FromChild::Ready))? {
            (FromChild::Cloned { pid }, fds) => cloned = Some((pid, fds)),
            (_, fds) => ready = Some(fds),
        }
    }
}

fn expect(socket: BorrowedFd<'_>, wanted: impl Fn(&FromChild) -> bool) -> Result<(FromChild, Vec<OwnedFd>)> {
    match receive(socket)? {
        (FromChild::Failed { detail }, _) => Err(Error::Child { detail }),
        (message, fds) if wanted(&message) => Ok((message, fds)),
        (message, _) => Err(Error::Child { detail: format!("it said {message:?} out of turn") }),
    }
}

/// Sets the container's clocks to zero: uptime counts from its start (P01). time_namespaces(7): the offset is what is added. Returns the
/// seconds from the host's boot to then.
fn start_clock(pid: u32) -> Result<u64> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let path = format!("/proc/{pid}/timens_offsets");
    let text = format!("monotonic {} 0\nboottime {} 0\n", -monotonic.tv_sec, -now.tv_sec);
    std::fs::write(&path, text).step("write", path)?;
    Ok(now.tv_sec.max(0).cast_unsigned())
}

/// Runs `work` in the network namespace of `pid` and comes back, also after an error.
fn in_network_of<T>(pid: u32, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let open = |path: String| File::open(&path).step("open", path);
    let home = open("/proc/thread-self/ns/net".into())?;
    let there = open(format!("/proc/{pid}/ns/net"))?;
    setns(&there, CloneFlags::CLONE_NEWNET).step("enter", "the container's network")?;
    let done = work();
    setns(&home, CloneFlags::CLONE_NEWNET).step("return to", "the host's network")?;
    done
}

/// A copy of the program in a sealed memfd: behind `/proc/1/exe` there is then no file of the host (CVE-2019-5736).
fn sealed_program(path: &Path) -> Result<OwnedFd> {
    let mut program = File::open(path).step("open", path.display())?;
    let memfd = memfd_create("berth-init", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).step("make", "a memfd")?;
    let mut copy = File::from(memfd);
    io::copy(&mut program, &mut copy).step("copy", path.display())?;
    copy.rewind().step("copy", path.display())?;
    fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL).step("seal", path.display())?;
    Ok(copy.into())
}
