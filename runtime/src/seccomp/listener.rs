//! System calls of a berth that its shim answers: sysinfo(2), which no file can cover. For comfort, as the emulated files are; what a
//! tenant may do never rests on it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    thread,
    time::Duration,
};

use libseccomp::{ScmpArch, ScmpNotifReq, ScmpNotifResp, ScmpNotifRespFlags, notify_id_valid};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

/// After a call that could not be taken, which happens when its caller ended meanwhile; libseccomp does not tell why.
const PAUSE: Duration = Duration::from_millis(1);

/// Where the calls of everything in the berth arrive. Whoever calls waits; nobody else does. Should the last of it be closed, callers get
/// ENOSYS.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// A process that waits for its answer.
#[derive(Debug)]
pub struct Call<'l> {
    listener: &'l Listener,
    id: u64,
    /// Of the calling thread, on the host.
    pub pid: u32,
    /// It was made with 32-bit words.
    pub narrow: bool,
    address: u64,
}

impl Listener {
    pub fn new(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// The next call; blocking. An error is the end: nobody is left who could call.
    pub fn next(&self) -> io::Result<Call<'_>> {
        loop {
            let mut ready = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut ready, None) {
                Err(Errno::INTR) => continue,
                done => done?,
            };
            if !ready[0].revents().contains(PollFlags::IN) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            match ScmpNotifReq::receive(self.0.as_raw_fd()) {
                Ok(request) => {
                    return Ok(Call {
                        listener: self,
                        id: request.id,
                        pid: request.pid,
                        narrow: matches!(request.data.arch, ScmpArch::X86 | ScmpArch::Arm),
                        address: request.data.args[0],
                    });
                }
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }
}

impl Call<'_> {
    /// Writes the answer where the caller wants it and lets him go on; EFAULT where that is no place of his.
    pub fn answer(self, bytes: &[u8]) {
        let code = match self.memory() {
            Ok(memory) => match memory.write_all_at(bytes, self.address) {
                Ok(()) => 0,
                Err(_) => Errno::FAULT.raw_os_error(),
            },
            // He has ended, or cannot be written to: the kernel answers him.
            Err(_) => return self.pass(),
        };
        let flags = ScmpNotifRespFlags::empty();
        let response = match code {
            0 => ScmpNotifResp::new_val(self.id, 0, flags),
            code => ScmpNotifResp::new_error(self.id, -code, flags),
        };
        let _ = response.respond(self.listener.0.as_raw_fd());
    }

    /// Lets the kernel answer with the host's figures.
    pub fn pass(self) {
        let response = ScmpNotifResp::new_continue(self.id, ScmpNotifRespFlags::empty());
        let _ = response.respond(self.listener.0.as_raw_fd());
    }

    /// seccomp_unotify(2): the number is the caller's as long as his call is still waited for, which is asked once the file is open.
    fn memory(&self) -> io::Result<File> {
        let memory = OpenOptions::new().write(true).open(format!("/proc/{}/mem", self.pid))?;
        notify_id_valid(self.listener.0.as_raw_fd(), self.id).map_err(io::Error::other)?;
        Ok(memory)
    }
}
