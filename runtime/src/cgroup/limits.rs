//! What a berth may use, set at its start and changed while it runs.
//!
//! A change stands whole or not at all: what the kernel refuses first (CPU on version 1, memory below its use) is written first, and a
//! refusal at any place writes everything back as it was. The kernel's own reasons:
//!
//! - Memory below use. On v2 `memory.max` would be obeyed at any price, by killing; so `memory.high` is lowered first, which takes back what
//!   can be had and slows down who asks for more, and only what then fits gets the new limit. On v1 the kernel does the same by itself (EBUSY).
//! - CPU on v1 may not be less than what a group below has been given (EINVAL).
//! - Processes may be more than a new limit: none is killed, and none is made until they are fewer.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use super::{Group, Part, devices::Device, v1, v2};
use crate::error::{Error, Refused, Result, chain};

/// What the payload may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Thousandths of a CPU.
    pub cpu_millis: u32,
    /// 1–10000, against other berths.
    pub cpu_weight: u32,
    pub memory_bytes: u64,
    /// On v1 only a hint that the kernel heeds when the host is short of memory.
    pub memory_high_bytes: Option<u64>,
    /// On top of the memory.
    pub swap_bytes: u64,
    pub pids: u32,
    pub io: Io,
}

/// Rates at each disk of the host; `None`: as fast as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// Bytes per second.
    pub read_bps: Option<u64>,
    pub write_bps: Option<u64>,
    /// Operations per second.
    pub read_iops: Option<u64>,
    pub write_iops: Option<u64>,
}

impl Io {
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// Names the limit that a write was for.
pub(super) trait For<T> {
    fn limit(self, field: &'static str, wanted: impl Into<u64>) -> Result<T, Refused>;
}

impl<T> For<T> for Result<T> {
    fn limit(self, field: &'static str, wanted: impl Into<u64>) -> Result<T, Refused> {
        self.map_err(|error| refused(field, wanted, error))
    }
}

pub(super) fn refused(field: &'static str, wanted: impl Into<u64>, error: Error) -> Refused {
    Refused { field, wanted: wanted.into(), used: None, left: Vec::new(), source: Box::new(error) }
}

impl Group {
    /// Sets the payload's limits, I/O apart; a running berth feels them at once. Says nothing of what was there before.
    pub fn apply(&self, limits: &Limits) -> Result<(), Refused> {
        match self.hierarchy.hybrid() {
            true => v1::apply(self, limits),
            false => v2::apply(self, limits),
        }
    }

    /// From one set of limits to another on a running berth: all of them, or none and the reason. `disk` is the berth's own image.
    pub fn change(&self, old: &Limits, new: &Limits, disk: &Path) -> Result<(), Refused> {
        let devices = if old.io == new.io { Vec::new() } else { devices(disk) };
        let done = self.apply(new).and_then(|()| self.set_io(&new.io, &devices));
        done.map_err(|mut refused| {
            let back = [self.apply(old), self.set_io(&old.io, &devices)];
            refused.left.extend(back.into_iter().filter_map(Result::err).map(|error| chain(&error)));
            refused
        })
    }

    /// Sets the I/O limits before anything of the berth runs. `disk` is its own image, `own` the loop device over that.
    pub fn limit_io(&self, io: &Io, disk: &Path, own: Option<Device>) -> Result<(), Refused> {
        if io.any() { self.set_io(io, &limited(disk, own)) } else { Ok(()) }
    }

    /// Sets all limits of a running berth anew, whatever was there. `disk` is the berth's own image.
    pub fn renew(&self, limits: &Limits, disk: &Path) -> Result<(), Refused> {
        self.apply(limits)?;
        if limits.io.any() { self.set_io(&limits.io, &devices(disk)) } else { Ok(()) }
    }

    fn set_io(&self, io: &Io, devices: &[Device]) -> Result<(), Refused> {
        if devices.is_empty() {
            return Ok(());
        }
        match self.hierarchy.hybrid() {
            true => v1::set_io(self, io, devices),
            false => v2::set_io(&self.unified(Part::Payload), io, devices),
        }
    }

    /// True when what runs in groups below the payload does not come under its I/O limits: on v1 each group has its own, and the berth was
    /// started when it had none, so that it may make such groups.
    pub fn io_escapes(&self) -> bool {
        self.hierarchy.hybrid() && v1::io_delegated(self)
    }
}

/// Where limits have to be for one berth.
///
/// What goes through the berth's loop device reaches the disk below it in the name of the same group (loop.c charges its work to whom the
/// request is from), so that one limit there binds it together with what goes to the home. A second one at the loop device would only make
/// both slower: what waits at one is not there when the other could let it pass. It is where the loop device does not reach a disk directly.
fn limited(disk: &Path, own: Option<Device>) -> Vec<Device> {
    super::devices::disks().into_iter().chain(own.filter(|device| !device.reaches_disk(disk))).collect()
}

fn devices(disk: &Path) -> Vec<Device> {
    limited(disk, super::devices::of_image(disk))
}

/// A vanished device needs no limit.
pub(super) fn device_gone(error: &Error) -> bool {
    let errno = match error {
        Error::Step { source, .. } => source.raw_os_error(),
        _ => None,
    };
    errno.is_some_and(|e| [nix::libc::ENODEV, nix::libc::ENXIO].contains(&e))
}

/// The kernel's reason, when that is what the error is.
pub(super) fn reason(error: &Error) -> Option<io::ErrorKind> {
    match error {
        Error::Step { source, .. } => Some(source.kind()),
        _ => None,
    }
}
