//! Control groups of a berth, on cgroup v2 and on hybrid hosts.
//!
//! `<parent>/<id>/shim` holds the shim (never frozen, small limits); `<parent>/<id>/payload` the container: the limits lie there, and it
//! is the root of the container's cgroup namespace, whose own limit files it therefore cannot write. Killing, freezing and emptiness
//! always go by the cgroup2 hierarchy (on hybrid hosts the one at `unified`); v1 is there for limits only.

mod devices;
mod freezer;
mod limits;
mod reclaim;
mod usage;
mod v1;
mod v2;
pub(crate) mod view;

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Seek},
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

pub use devices::Device;
pub use freezer::Freezer;
pub use limits::{Io, Limits};
pub use reclaim::swap_exists;
pub use usage::{IoUsage, Pressure, Stall, Usage};
pub use view::{Place, View};

use crate::error::{Error, Result, Step};

/// Where the host has its control groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Mount point of cgroup2.
    pub unified: PathBuf,
    /// Mount points of v1 hierarchies and their controllers; empty on a pure v2 host.
    pub v1: Vec<V1>,
}

/// One v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct V1 {
    /// Mount options that name it: `cpu`, `cpu,cpuacct`, `name=systemd`.
    pub options: String,
    pub mount: PathBuf,
}

/// What the shim may use: it serves one user, so that a flood through it is that user's own.
const SHIM: Limits = Limits {
    cpu_millis: 1000,
    cpu_weight: 100,
    memory_bytes: 256 << 20,
    memory_high_bytes: None,
    swap_bytes: 0,
    pids: 64,
    io: Io { read_bps: None, write_bps: None, read_iops: None, write_iops: None },
};
/// Groups that a tenant may make below his payload, and how deep: each is memory of the kernel.
const MOST_GROUPS: u32 = 8192;
const DEEPEST: u32 = 64;
/// Who writes a payload's limit of swap: a change of limits, or the reclaim of a sleeping berth, which opens it for a while.
static SWAP: Mutex<()> = Mutex::new(());

/// The two halves of a berth's group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Shim,
    Payload,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Shim => "shim",
            Part::Payload => "payload",
        }
    }
}

/// The group of one berth: a path below each hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub hierarchy: Hierarchy,
    /// Relative, e.g. `berth/<id>` or `berth.slice/berth-<id>.scope`.
    pub path: PathBuf,
}

impl Hierarchy {
    /// Reads `/proc/self/mountinfo`.
    pub fn detect() -> Result<Self> {
        let text = fs::read_to_string("/proc/self/mountinfo").step("read", "/proc/self/mountinfo")?;
        parse_mounts(&text).ok_or_else(|| {
            Error::Invalid("no cgroup2 file system is mounted: mount one at /sys/fs/cgroup, or at /sys/fs/cgroup/unified".into())
        })
    }

    /// True where the controllers are on v1 hierarchies.
    pub fn hybrid(&self) -> bool {
        !self.v1.is_empty()
    }

    /// Controllers on the cgroup2 hierarchy.
    pub fn controllers(&self) -> Result<Vec<String>> {
        let file = self.unified.join("cgroup.controllers");
        Ok(fs::read_to_string(&file).step("read", file.display())?.split_whitespace().map(str::to_owned).collect())
    }
}

fn parse_mounts(mountinfo: &str) -> Option<Hierarchy> {
    let mut unified = None;
    let mut v1: Vec<V1> = Vec::new();
    for line in mountinfo.lines() {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (root, mount) = (*left.get(3)?, PathBuf::from(left.get(4)?));
        match (right.first().copied(), root) {
            (Some("cgroup2"), "/") if unified.is_none() => unified = Some(mount),
            (Some("cgroup"), "/") => {
                let flags = ["rw", "ro", "xattr", "clone_children", "noprefix", "cpuset_v2_mode"];
                let named: Vec<&str> =
                    right.get(2)?.split(',').filter(|o| !flags.contains(o) && !o.starts_with("release_agent=")).collect();
                let options = named.join(",");
                if !v1.iter().any(|h| h.options == options) {
                    v1.push(V1 { options, mount });
                }
            }
            _ => {}
        }
    }
    Some(Hierarchy { unified: unified?, v1 })
}

impl Group {
    /// Makes both halves, empty and without limits. Whoever will be in the shim half joins it next, then come the limits.
    pub fn make(&self) -> Result<()> {
        for part in [Part::Shim, Part::Payload] {
            v2::make(&self.unified(part))?;
            for hierarchy in &self.hierarchy.v1 {
                v1::make(hierarchy, &self.path, part)?;
            }
        }
        let payload = self.unified(Part::Payload);
        write(&payload.join("cgroup.max.descendants"), &MOST_GROUPS.to_string())?;
        write(&payload.join("cgroup.max.depth"), &DEEPEST.to_string())
    }

    /// Sets the limits, before any process is in the payload. `owner` (uid and gid of the container's root) may make groups below the
    /// payload but not change the payload's own limits. Nothing may sit in the group itself any more (under systemd the shim starts
    /// there): cgroup v2 gives controllers only to the children of a group without processes.
    pub fn limit(&self, limits: &Limits, owner: u32) -> Result<()> {
        if !self.hierarchy.hybrid() {
            v2::enable(&self.hierarchy.unified, &self.path)?;
        }
        match self.hierarchy.hybrid() {
            true => v1::apply_part(self, Part::Shim, &SHIM)?,
            false => v2::apply_part(&self.unified(Part::Shim), &SHIM)?,
        }
        self.apply(limits)?;
        v2::delegate(&self.unified(Part::Payload), owner)?;
        for hierarchy in self.inner_v1(limits) {
            v1::delegate(&self.below(hierarchy, Part::Payload), owner)?;
        }
        Ok(())
    }

    /// The v1 hierarchies that a berth with these limits has inside.
    pub fn inner_v1(&self, limits: &Limits) -> impl Iterator<Item = &V1> {
        let whole = limits.io.any();
        self.hierarchy.v1.iter().filter(move |h| !(whole && v1::is_blkio(h)))
    }

    /// Moves a process (0: the caller) into one half.
    pub fn join(&self, part: Part, pid: u32) -> Result<()> {
        self.join_v1(part, pid)?;
        write(&self.unified(part).join("cgroup.procs"), &pid.to_string())
    }

    /// The rest of the way for a process that was cloned into one half ([`Group::open`]): there are no such clones on v1.
    pub fn join_v1(&self, part: Part, pid: u32) -> Result<()> {
        self.hierarchy.v1.iter().try_for_each(|h| write(&self.below(h, part).join("cgroup.procs"), &pid.to_string()))
    }

    /// One half on the cgroup2 hierarchy, for clone3(2) with CLONE_INTO_CGROUP: who is born there is limited from its first instruction.
    pub fn open(&self, part: Part) -> Result<File> {
        let dir = self.unified(part);
        File::open(&dir).step("open", dir.display())
    }

    /// Moves a process into the place inside the payload where berth-init sits (`init`, where it exists; cgroup v2 allows no process
    /// beside child groups that have controllers).
    pub fn join_inner(&self, pid: u32) -> Result<()> {
        for hierarchy in &self.hierarchy.v1 {
            write(&self.below(hierarchy, Part::Payload).join("cgroup.procs"), &pid.to_string())?;
        }
        let payload = self.unified(Part::Payload);
        let inner = payload.join("init");
        let target = if !self.hierarchy.hybrid() && inner.is_dir() { inner } else { payload };
        write(&target.join("cgroup.procs"), &pid.to_string())
    }

    /// Kills every process of one half, forks included.
    pub fn kill(&self, part: Part) -> Result<()> {
        match fs::write(self.unified(part).join("cgroup.kill"), "1") {
            Err(error) if gone(&error) => Ok(()),
            done => done.step("kill", self.unified(part).display()),
        }
    }

    /// Waits until one half has no process left; told by the kernel, not polled. The file itself is waited for (cgroups(7)): the inotify
    /// instances of root are few, and others may have used them up.
    pub fn wait_empty(&self, part: Part, deadline: Duration) -> Result<()> {
        let events = self.unified(part).join("cgroup.events");
        let end = Instant::now() + deadline;
        let mut file = match File::open(&events) {
            Err(error) if gone(&error) => return Ok(()),
            opened => opened.step("open", events.display())?,
        };
        loop {
            let mut text = String::new();
            match file.rewind().and_then(|()| file.read_to_string(&mut text)) {
                Err(error) if gone(&error) => return Ok(()),
                Err(error) => return Err(error).step("read", events.display()),
                Ok(_) if text.contains("populated 0") => return Ok(()),
                Ok(_) => {}
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Invalid(format!("processes of {} did not end within {deadline:?}", self.path.display())));
            }
            let timeout = rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let mut changed = [rustix::event::PollFd::new(&file, rustix::event::PollFlags::PRI)];
            match rustix::event::poll(&mut changed, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).step("wait for", events.display()),
            }
        }
    }

    /// Removes the whole group, deepest first; already gone is success. Processes must have ended ([`Group::kill`]).
    pub fn remove(&self) -> Result<()> {
        for hierarchy in &self.hierarchy.v1 {
            remove_tree(&hierarchy.mount.join(&self.path))?;
        }
        remove_tree(&self.hierarchy.unified.join(&self.path))
    }

    /// Removes only what is inside one half and the half itself.
    pub fn remove_part(&self, part: Part) -> Result<()> {
        for hierarchy in &self.hierarchy.v1 {
            remove_tree(&self.below(hierarchy, part))?;
        }
        remove_tree(&self.unified(part))
    }

    fn unified(&self, part: Part) -> PathBuf {
        self.hierarchy.unified.join(&self.path).join(part.name())
    }

    fn below(&self, hierarchy: &V1, part: Part) -> PathBuf {
        hierarchy.mount.join(&self.path).join(part.name())
    }
}

/// There is no such group, or it was removed since its file was opened: whoever ends with the berth removes it too.
fn gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).step("write", file.display())
}

/// The tenant may have made groups of any depth; each directory is entered by its parent's listing only, cgroupfs has no symlinks.
fn remove_tree(dir: &Path) -> Result<()> {
    let mut stack = vec![dir.to_path_buf()];
    let mut order = Vec::new();
    while let Some(dir) = stack.pop() {
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries.step("list", dir.display())?,
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                stack.push(entry.path());
            }
        }
        order.push(dir);
    }
    for dir in order.iter().rev() {
        remove_empty(dir)?;
    }
    Ok(())
}

/// A group is EBUSY for a moment after its last process was reaped; the kernel gives no event for that.
fn remove_empty(dir: &Path) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(2));
            }
            done => return done.step("remove", dir.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_and_unified_hosts_are_told_apart() {
        let hybrid = "30 29 0:26 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n\
                      31 29 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                      32 29 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = parse_mounts(hybrid).unwrap();
        assert_eq!(found.unified, Path::new("/sys/fs/cgroup/unified"));
        let options: Vec<&str> = found.v1.iter().map(|h| h.options.as_str()).collect();
        assert_eq!(options, ["cpu", "name=systemd"]);

        let unified = "32 29 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert!(!parse_mounts(unified).unwrap().hybrid());
        assert_eq!(parse_mounts("32 29 0:28 / /proc rw - proc proc rw\n"), None);
    }
}
