//! Takes all of one kernel resource, and holds it while a test looks at the neighbours.

use std::{
    ffi::CString,
    fs::{self, OpenOptions},
    io,
    path::Path,
};

use berth_sys::{keys, locked_memory::LockedMemory};
use nix::{
    sys::{
        signal::{SigEvent, SigevNotify},
        timer::Timer,
    },
    time::ClockId,
};
use rustix::{fs::inotify, process::Resource, process::Rlimit};
use serde_json::json;

use crate::report::{Done, hold, name, need, say};

/// More than any limit in question, so that a kernel without one ends the probe and not the machine.
const MOST: usize = 200_000;
const LOCK_BYTES: usize = 64 << 10;

pub(crate) fn inotify() -> Done {
    allow_descriptors()?;
    fill(|_| inotify::init(inotify::CreateFlags::CLOEXEC)).map(drop)
}

/// Queues of the default size, made in the mqueue file system.
pub(crate) fn queues(dir: &str) -> Done {
    allow_descriptors()?;
    let path = |number: usize| Path::new(dir).join(format!("berth-probe-{}-{number}", std::process::id()));
    let made = fill(|number| OpenOptions::new().write(true).create_new(true).open(path(number)).map(drop))?;
    (0..made.len()).for_each(|number| drop(fs::remove_file(path(number))));
    Ok(())
}

pub(crate) fn keys() -> Done {
    fill(|number| {
        let description = CString::new(format!("berth-probe-{number}"))?;
        keys::add_to_process(&description, b"x")
    })
    .map(drop)
}

/// Each timer sets a pending signal aside, timer_create(2).
pub(crate) fn timers() -> Done {
    fill(|_| Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(SigevNotify::SigevNone)).map_err(io::Error::from)).map(drop)
}

pub(crate) fn locked_memory() -> Done {
    fill(|_| LockedMemory::new(LOCK_BYTES)).map(drop)
}

/// Makes one after the other until refused, says how many and why, and holds them until standard input ends.
fn fill<T, E: Into<io::Error>>(mut make: impl FnMut(usize) -> Result<T, E>) -> Result<Vec<T>, crate::Failure> {
    let mut held = Vec::new();
    let mut errno = None;
    while held.len() < MOST {
        match make(held.len()) {
            Ok(one) => held.push(one),
            Err(error) => {
                errno = Some(name(&error.into()));
                break;
            }
        }
    }
    say(&json!({ "count": held.len(), "errno": errno }))?;
    hold();
    Ok(held)
}

/// The limit in question must be reached before the one of this process.
fn allow_descriptors() -> Done {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    need(
        "raise the limit of open files",
        rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }),
    )
}
