//! Lays the emulated files of `/proc` and `/sys` over the kernel's own.
//!
//! In a process of its own: what serves them may be slow, or not be there, and PID 1 waits for neither. The mounts are ordinary ones of
//! the berth's mount namespace. So they are not locked, and a new `/proc` can be mounted beside them (`mount_too_revealing`); who takes
//! them off sees the host's figures.

use std::{
    env, io,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    mount::mount_bind,
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::console;

/// Where the runtime mounted them.
const EMULATED: &str = "/dev/.berth/emulated";
/// What they cover; their names are the last parts.
const COVERED: [&str; 9] = [
    "/proc/meminfo",
    "/proc/cpuinfo",
    "/proc/stat",
    "/proc/loadavg",
    "/proc/swaps",
    "/proc/diskstats",
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/cpu/possible",
    "/sys/devices/system/cpu/present",
];
/// The word that makes this program do it.
const WORD: &str = "cover";
/// How long the image's own init is kept waiting for them.
const PATIENCE: Duration = Duration::from_secs(1);

/// True when this process is the one that [`start`] began.
pub(crate) fn is_asked_for() -> bool {
    env::args_os().nth(1).is_some_and(|word| word == WORD)
}

/// Begins; the supervisor reaps.
pub(crate) fn start() -> Option<Child> {
    if !Path::new(EMULATED).exists() {
        return None;
    }
    Command::new("/proc/self/exe").arg(WORD).spawn().inspect_err(|error| console::say(&format!("emulated files: {error}"))).ok()
}

/// The same, and gives it a moment to be done.
pub(crate) fn start_and_wait() {
    let Some(pid) = start().and_then(|child| Pid::from_raw(child.id().cast_signed())) else { return };
    let wait = || {
        let ended = pidfd_open(pid, PidfdFlags::empty())?;
        let time = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&time)).map(drop)
    };
    let _ = wait();
}

/// What the process does. The first that is not served says so for all.
pub(crate) fn run() -> io::Result<()> {
    for covered in COVERED {
        let Some(name) = Path::new(covered).file_name() else { continue };
        mount_bind(Path::new(EMULATED).join(name), covered)
            .map_err(|error| io::Error::new(error.kind(), format!("{covered} shows the host's figures: {error}")))?;
    }
    Ok(())
}
