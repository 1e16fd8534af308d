//! The freezer of one payload by descriptors, so that its shim, which has no right left to open anything, can use it.
//!
//! The file is `cgroup.freeze` of the cgroup2 hierarchy, on pure v2 hosts and on hybrid ones alike. The kernel checks the rights to it when
//! it is opened and not when it is written. SIGKILL ends frozen processes too, and so does `cgroup.kill` (cgroups(7), cgroup-v2.rst).

use std::{
    fs::{File, OpenOptions},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt,
    },
};

use super::{Group, Part};
use crate::{
    error::{Result, Step},
    fault,
};

/// Freezes and thaws everything in the payload, whoever its holder has become.
#[derive(Debug)]
pub struct Freezer {
    freeze: File,
    events: File,
}

impl Group {
    /// The payload's freezer; the group must have been made.
    pub fn freezer(&self) -> Result<Freezer> {
        let dir = self.unified(Part::Payload);
        let (freeze, events) = (dir.join("cgroup.freeze"), dir.join("cgroup.events"));
        Ok(Freezer {
            freeze: OpenOptions::new().write(true).open(&freeze).step("open", freeze.display())?,
            events: File::open(&events).step("open", events.display())?,
        })
    }
}

impl Freezer {
    /// From any files; for tests.
    pub fn from_files(freeze: File, events: File) -> Self {
        Self { freeze, events }
    }

    /// Begins to freeze: returns at once, each process stops when it next leaves the kernel.
    pub fn freeze(&self) -> Result<()> {
        fault::point("freeze")?;
        self.freeze.write_all_at(b"1", 0).step("freeze", "the berth")
    }

    pub fn thaw(&self) -> Result<()> {
        fault::point("thaw")?;
        self.freeze.write_all_at(b"0", 0).step("thaw", "the berth")
    }

    /// True when every process stands still. Readable priority data at [`Freezer::events`] tells of a change after this was asked.
    pub fn frozen(&self) -> Result<bool> {
        let mut text = [0; 256];
        let length = self.events.read_at(&mut text, 0).step("read", "cgroup.events")?;
        Ok(text[..length].split(|&b| b == b'\n').any(|line| line == b"frozen 1"))
    }

    pub fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        process::Command,
        thread,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::cgroup::Hierarchy;

    #[test]
    fn whoever_holds_the_descriptors_freezes_and_thaws_and_a_kill_reaches_the_frozen() {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIP: only root may make control groups");
            return;
        }
        let mut hierarchy = Hierarchy::detect().unwrap();
        // Limits are not the matter here, and the memory hierarchy has other owners.
        hierarchy.v1.clear();
        let group = Group { hierarchy, path: format!("berth-freezer-test-{}", std::process::id()).into() };
        group.make().unwrap();
        let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
        fs::write(group.unified(Part::Payload).join("cgroup.procs"), sleeper.id().to_string()).unwrap();
        let freezer = group.freezer().unwrap();
        let until = |wanted: bool| {
            let end = Instant::now() + Duration::from_secs(10);
            while freezer.frozen().unwrap() != wanted {
                assert!(Instant::now() < end, "not frozen = {wanted} in time");
                thread::sleep(Duration::from_millis(1));
            }
        };
        // Another identity, as the shim's; by setfsuid only this thread changes.
        let root = nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
        let written = freezer.freeze();
        nix::unistd::setfsuid(root);
        written.unwrap();
        until(true);
        freezer.thaw().unwrap();
        until(false);
        freezer.freeze().unwrap();
        until(true);
        group.kill(Part::Payload).unwrap();
        sleeper.wait().unwrap();
        group.wait_empty(Part::Payload, Duration::from_secs(10)).unwrap();
        group.remove().unwrap();
    }
}
