//! Short grace periods of the kernel's RCU while something waits for many of them.
//!
//! A third of the time that a Docker takes to start is such waits, one after the other: each `iptables -D`, each bridge that goes and the
//! first move between control groups waits until every processor has left what it read, 5 to 25 ms where some are idle. Expedited
//! (`/sys/kernel/rcu_expedited`, Documentation/RCU), the kernel does not wait for processors to come by but interrupts those at work. So
//! that is asked for while berths start, and never on a host that keeps processors free of interruptions.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::error::{Result, Step};

const SWITCH: &str = "/sys/kernel/rcu_expedited";
/// Lists of processors that are to be left alone.
const LEFT_ALONE: [&str; 2] = ["/sys/devices/system/cpu/nohz_full", "/sys/devices/system/cpu/isolated"];

/// The kernel's switch, for whoever of this process is in haste.
#[derive(Debug)]
pub struct Haste {
    switch: PathBuf,
    /// There while the switch is on by us: whoever is killed leaves it to his next run.
    mark: PathBuf,
    left_alone: Vec<PathBuf>,
    holders: Mutex<Holders>,
}

#[derive(Debug, Default)]
struct Holders {
    count: usize,
    /// It was off before the first of them.
    ours: bool,
}

/// Until dropped, somebody is in haste.
#[derive(Debug)]
pub struct Hasty(Arc<Haste>);

impl Haste {
    /// `mark`: a file that no reboot outlives.
    pub fn new(mark: PathBuf) -> Arc<Self> {
        Self::with(SWITCH.into(), mark, LEFT_ALONE.map(PathBuf::from).into())
    }

    fn with(switch: PathBuf, mark: PathBuf, left_alone: Vec<PathBuf>) -> Arc<Self> {
        Arc::new(Self { switch, mark, left_alone, holders: Mutex::default() })
    }

    /// Switches off what an earlier run has left on; nobody may be in haste.
    pub fn settle(&self) -> Result<()> {
        if self.mark.exists() { self.off().step("switch off", self.switch.display()) } else { Ok(()) }
    }

    /// Where the switch cannot be used, or is an administrator's already, nothing is changed.
    pub fn begin(self: &Arc<Self>) -> Hasty {
        let mut holders = self.holders();
        if holders.count == 0 && self.may_switch() {
            match self.on() {
                Ok(()) => holders.ours = true,
                Err(_) => drop(fs::remove_file(&self.mark)),
            }
        }
        holders.count += 1;
        Hasty(Arc::clone(self))
    }

    fn may_switch(&self) -> bool {
        // Kernels write "(null)" where there are none.
        let none = |list: &Path| fs::read_to_string(list).is_ok_and(|list| ["", "(null)"].contains(&list.trim()));
        self.is("0") && self.left_alone.iter().all(|list| !list.exists() || none(list))
    }

    fn is(&self, value: &str) -> bool {
        fs::read_to_string(&self.switch).is_ok_and(|now| now.trim() == value)
    }

    fn on(&self) -> io::Result<()> {
        fs::write(&self.mark, "")?;
        fs::write(&self.switch, "1")
    }

    fn off(&self) -> io::Result<()> {
        if self.is("1") {
            fs::write(&self.switch, "0")?;
        }
        fs::remove_file(&self.mark)
    }

    fn holders(&self) -> MutexGuard<'_, Holders> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hasty {
    fn drop(&mut self) {
        let mut holders = self.0.holders();
        holders.count -= 1;
        if holders.count == 0 && std::mem::take(&mut holders.ours) {
            // What fails here is done by the next run.
            let _ = self.0.off();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host {
        dir: tempfile::TempDir,
    }

    impl Host {
        fn new(switch: &str) -> Self {
            let host = Self { dir: tempfile::tempdir().unwrap() };
            fs::write(host.at("switch"), switch).unwrap();
            host
        }

        fn at(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn haste(&self) -> Arc<Haste> {
            Haste::with(self.at("switch"), self.at("mark"), vec![self.at("nohz_full"), self.at("isolated")])
        }

        fn seen(&self) -> (String, bool) {
            (fs::read_to_string(self.at("switch")).unwrap().trim().to_owned(), self.at("mark").exists())
        }
    }

    fn seen(switch: &str, mark: bool) -> (String, bool) {
        (switch.to_owned(), mark)
    }

    #[test]
    fn it_is_on_from_the_first_to_the_last_in_haste() {
        let host = Host::new("0\n");
        let haste = host.haste();
        let (first, second) = (haste.begin(), haste.begin());
        assert_eq!(host.seen(), seen("1", true));
        drop(first);
        assert_eq!(host.seen(), seen("1", true));
        drop(second);
        assert_eq!(host.seen(), seen("0", false));
        drop(haste.begin());
        assert_eq!(host.seen(), seen("0", false));
    }

    #[test]
    fn an_administrators_own_value_stays() {
        let host = Host::new("1\n");
        let haste = host.haste();
        drop(haste.begin());
        assert_eq!(host.seen(), seen("1", false));
        // Switched off while somebody is in haste: it is not switched on again for him.
        fs::write(host.at("switch"), "0\n").unwrap();
        let hasty = haste.begin();
        fs::write(host.at("switch"), "0\n").unwrap();
        drop(hasty);
        assert_eq!(host.seen(), seen("0", false));
    }

    #[test]
    fn what_a_killed_run_left_on_is_switched_off_by_the_next() {
        let host = Host::new("0\n");
        std::mem::forget(host.haste().begin());
        assert_eq!(host.seen(), seen("1", true));
        host.haste().settle().unwrap();
        assert_eq!(host.seen(), seen("0", false));
        // Nothing of ours is left: this is somebody else's.
        fs::write(host.at("switch"), "1\n").unwrap();
        host.haste().settle().unwrap();
        assert_eq!(host.seen(), seen("1", false));
    }

    #[test]
    fn processors_that_are_to_be_left_alone_are() {
        for (file, list, used) in
            [("nohz_full", "2-7\n", false), ("isolated", "1\n", false), ("nohz_full", "(null)\n", true), ("isolated", "\n", true)]
        {
            let host = Host::new("0\n");
            fs::write(host.at(file), list).unwrap();
            let hasty = host.haste().begin();
            assert_eq!(host.seen(), seen(if used { "1" } else { "0" }, used), "{file} {list:?}");
            drop(hasty);
            assert_eq!(host.seen(), seen("0", false));
        }
    }

    #[test]
    fn a_kernel_without_the_switch_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let haste = Haste::with(dir.path().join("none"), dir.path().join("mark"), vec![]);
        drop(haste.begin());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
