//! The `berth-shim enter` process of one command.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io::{self, IoSliceMut, Seek, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    time::Duration,
};

use berth_runtime::container::Enter;
use nix::{
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn},
    sys::{
        signal::{SigSet, Signal},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use rustix::{
    fs::{MemfdFlags, OFlags, memfd_create},
    net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair},
    pipe::{PipeFlags, pipe_with},
    process::{PidfdFlags, pidfd_open, pidfd_send_signal},
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::descriptor::{watch, watch_socket};

/// What `enter` may take until it has made the terminal.
const TERMINAL_DEADLINE: Duration = Duration::from_secs(20);
/// Above every number that the new process is given descriptors at.
const ABOVE: i32 = 16;

/// A pipe end or a terminal's master, not blocking.
pub(crate) type Stream = AsyncFd<OwnedFd>;

pub(crate) struct Child {
    pid: Pid,
    ended: Stream,
    pub(crate) input: Option<Stream>,
    pub(crate) output: Option<Stream>,
    pub(crate) errors: Option<Stream>,
    /// With a terminal: its master. Input and output are duplicates of it.
    pub(crate) terminal: Option<OwnedFd>,
}

impl Child {
    pub(crate) async fn spawn(program: &Path, enter: &Enter) -> io::Result<Self> {
        let mut request = File::from(memfd_create("enter", MemfdFlags::CLOEXEC)?);
        request.write_all(&serde_json::to_vec(enter)?)?;
        request.rewind()?;
        let (errors, child_errors) = pipe_with(PipeFlags::CLOEXEC)?;
        if enter.tty.is_none() {
            let (child_input, input) = pipe_with(PipeFlags::CLOEXEC)?;
            let (output, child_output) = pipe_with(PipeFlags::CLOEXEC)?;
            let pid = execute(program, &[&child_input, &child_output, &child_errors, &request.into()])?;
            let ended = ended(pid)?;
            return Ok(Self {
                pid,
                ended,
                input: Some(stream(input)?),
                output: Some(stream(output)?),
                errors: Some(stream(errors)?),
                terminal: None,
            });
        }
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let null: OwnedFd = File::options().read(true).write(true).open("/dev/null")?.into();
        let pid = execute(program, &[&null, &null, &child_errors, &request.into(), &theirs])?;
        drop((theirs, child_errors));
        let mut child = Self { pid, ended: ended(pid)?, input: None, output: None, errors: Some(stream(errors)?), terminal: None };
        // Without a terminal it has said why on its standard error, and ends.
        if let Ok(Ok(Some(master))) = tokio::time::timeout(TERMINAL_DEADLINE, terminal(stream(ours)?)).await {
            child.input = Some(stream(master.try_clone()?)?);
            child.output = Some(stream(master.try_clone()?)?);
            child.terminal = Some(master);
        }
        Ok(child)
    }

    /// Waits for the end; the command's status, 128 + n after signal n. Reaps: to be called until it has returned once.
    pub(crate) async fn wait(&self) -> i32 {
        loop {
            let waited = self.ended.readable().await;
            match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(_, status)) => return status,
                Ok(WaitStatus::Signaled(_, signal, _)) => return 128 + signal as i32,
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return 125,
            }
            match waited {
                Ok(mut ready) => ready.clear_ready(),
                Err(_) => return 125,
            }
        }
    }

    /// Signals the command itself, the only child of the process that serves it. By pidfd, checked after it was opened: no other process
    /// can be hit.
    pub(crate) fn signal(&self, number: i32) {
        let Ok(signal) = Signal::try_from(number) else { return };
        let Some(command) = self.command() else { return };
        let Ok(pidfd) = pidfd_open(command, PidfdFlags::empty()) else { return };
        if self.command() == Some(command)
            && let Some(signal) = rustix::process::Signal::from_named_raw(signal as i32)
        {
            let _ = pidfd_send_signal(&pidfd, signal);
        }
    }

    /// Ends the serving process; the command dies with it.
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(self.ended.get_ref(), rustix::process::Signal::KILL);
    }

    fn command(&self) -> Option<rustix::process::Pid> {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid)).ok()?;
        rustix::process::Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
    }
}

/// The master arrives over the socket; `None` when the other end closed first.
async fn terminal(socket: Stream) -> io::Result<Option<OwnedFd>> {
    loop {
        let mut ready = socket.readable().await?;
        let received = ready.try_io(|socket| {
            let mut bytes = [0; 64];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
            let descriptor = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            });
            Ok(descriptor)
        });
        if let Ok(done) = received {
            return done;
        }
    }
}

fn stream(descriptor: OwnedFd) -> io::Result<Stream> {
    let flags = rustix::fs::fcntl_getfl(&descriptor)?;
    rustix::fs::fcntl_setfl(&descriptor, flags | OFlags::NONBLOCK)?;
    watch_socket(descriptor)
}

fn ended(pid: Pid) -> io::Result<Stream> {
    let raw = rustix::process::Pid::from_raw(pid.as_raw()).ok_or(io::ErrorKind::NotFound)?;
    // Our own child, not yet reaped.
    watch(pidfd_open(raw, PidfdFlags::NONBLOCK)?, Interest::READABLE)
}

/// Executes `program enter` with these descriptors from 0 on, an empty environment, and every signal as it is by default.
fn execute(program: &Path, descriptors: &[&OwnedFd]) -> io::Result<Pid> {
    let path = CString::new(program.as_os_str().as_bytes())?;
    let mut actions = PosixSpawnFileActions::init()?;
    // Moved up first: placing one must not close another.
    let high: Vec<OwnedFd> = descriptors.iter().map(|d| rustix::io::fcntl_dupfd_cloexec(d, ABOVE)).collect::<Result<_, _>>()?;
    for (number, descriptor) in high.iter().enumerate() {
        actions.add_dup2(descriptor.as_fd().as_raw_fd(), number as i32)?;
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK)?;
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_sigmask(&SigSet::empty())?;
    let no_environment: [&CStr; 0] = [];
    Ok(posix_spawn(path.as_c_str(), &actions, &attributes, &[c"berth-shim", c"enter"], &no_environment)?)
}
