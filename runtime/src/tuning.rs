//! Limits of the host's kernel that all berths share, or that each of them has by itself but that are too small for a Docker.
//!
//! They are raised, never lowered, and what each was before is written down first, below /run: as long-lived as the values themselves, for a
//! reboot takes both away. Several nodes on one host share the memory; the last one that goes puts back what nobody changed meanwhile.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    durable,
    error::{Error, Result, Step, chain},
};

/// A berth with less memory than this cannot be had, so a host has no more of them than its own memory holds of it.
const LEAST_MEMORY: u64 = 256 << 20;
const BERTHS: (u64, u64) = (16, 4096);

/// A sysctl and the least that it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `fs.inotify.max_user_instances`
    pub name: &'static str,
    pub least: u64,
}

/// A sysctl as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub name: &'static str,
    pub least: u64,
    /// `None`: this kernel has none.
    pub now: Option<u64>,
    /// What it was before one of us raised it.
    pub former: Option<u64>,
}

/// What a host with so many bytes of memory should have.
///
/// The first four count for each user, and a berth is one: its whole Docker shares them (user_namespaces(7), keyrings(7)). The rest is
/// shared by all: so much for each berth that fits.
pub fn wanted(memory_bytes: u64) -> Vec<Wanted> {
    let berths = (memory_bytes / LEAST_MEMORY).clamp(BERTHS.0, BERTHS.1);
    let each = |name, least: u64, by: u64, most: u64| Wanted { name, least: (least + berths * by).min(most) };
    let plain = |name, least| Wanted { name, least };
    vec![
        plain("fs.inotify.max_user_instances", 8192),
        plain("fs.inotify.max_user_watches", 524_288),
        plain("kernel.keys.maxkeys", 2000),
        plain("kernel.keys.maxbytes", 200_000),
        // One berth could take all of the two that follow. What it takes is memory of its own (aio.c: 64 bytes of a ring for each event), so
        // that ends first where there is more to be had than memory holds.
        plain("fs.aio-max-nr", (memory_bytes / 64).clamp(1 << 20, 1 << 32)),
        each("kernel.pty.max", 4096, 1024, 1 << 20),
        // What systemd sets too; the most that a 64-bit kernel takes.
        plain("kernel.pid_max", 4_194_304),
        // Each berth is a neighbour of the host, and its containers are neighbours of each other in the same table.
        each("net.ipv4.neigh.default.gc_thresh1", 128, 16, 1 << 17),
        each("net.ipv4.neigh.default.gc_thresh2", 512, 64, 1 << 18),
        each("net.ipv4.neigh.default.gc_thresh3", 1024, 128, 1 << 19),
    ]
}

/// Where the sysctls are, and what is remembered of them.
#[derive(Clone, Debug)]
pub struct Tuning {
    sysctls: PathBuf,
    memory: PathBuf,
    boot: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Memory {
    /// Values of another boot are nobody's.
    boot: String,
    raised: BTreeMap<String, Raised>,
    nodes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Raised {
    former: u64,
    ours: u64,
}

impl Tuning {
    pub fn new() -> Result<Self> {
        let file = "/proc/sys/kernel/random/boot_id";
        let boot = fs::read_to_string(file).step("read", file)?.trim().to_owned();
        Ok(Self { sysctls: "/proc/sys".into(), memory: "/run/berth-tuning".into(), boot })
    }

    /// Raises what is below its least. Returns what could not be raised, in words: a host where this may not be written is one all the same.
    pub fn raise(&self, node: &str, wanted: &[Wanted]) -> Result<Vec<String>> {
        let _lock = self.lock()?;
        let mut memory = self.recall()?;
        if !memory.nodes.iter().any(|n| n == node) {
            memory.nodes.push(node.to_owned());
        }
        let low: Vec<(&Wanted, u64)> =
            wanted.iter().filter_map(|w| Some((w, self.read(w.name)?))).filter(|(w, now)| *now < w.least).collect();
        for (wanted, now) in &low {
            let known = memory.raised.get(wanted.name).copied();
            let former = known.map_or(*now, |known| known.former);
            memory.raised.insert(wanted.name.to_owned(), Raised { former, ours: wanted.least });
        }
        self.note(&memory)?;
        let mut refused = Vec::new();
        for (wanted, _) in low {
            if let Err(error) = self.write(wanted.name, wanted.least) {
                memory.raised.remove(wanted.name);
                refused.push(chain(&error));
            }
        }
        if !refused.is_empty() {
            self.note(&memory)?;
        }
        Ok(refused)
    }

    /// Forgets this node. The last one puts back each value that is still what was made of it; the names of the others are returned.
    pub fn restore(&self, node: &str) -> Result<Vec<String>> {
        if !self.memory.exists() {
            return Ok(Vec::new());
        }
        let lock = self.lock()?;
        let mut memory = self.recall()?;
        memory.nodes.retain(|n| n != node);
        if !memory.nodes.is_empty() {
            self.note(&memory)?;
            return Ok(Vec::new());
        }
        let mut others = Vec::new();
        for (name, Raised { former, ours }) in &memory.raised {
            if self.read(name) == Some(*ours) {
                self.write(name, *former)?;
            } else {
                others.push(name.clone());
            }
        }
        for file in [self.file(), self.file().with_extension("new")] {
            match fs::remove_file(&file) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                done => done.step("remove", file.display())?,
            }
        }
        let _ = fs::remove_dir(&self.memory);
        drop(lock);
        Ok(others)
    }

    /// Each of `wanted` as it is now.
    pub fn look(&self, wanted: &[Wanted]) -> Vec<Seen> {
        let memory = self.recall().unwrap_or_default();
        let seen = |w: &Wanted| {
            let now = self.read(w.name);
            let former = memory.raised.get(w.name).filter(|raised| Some(raised.ours) == now).map(|raised| raised.former);
            Seen { name: w.name, least: w.least, now, former }
        };
        wanted.iter().map(seen).collect()
    }

    /// Held while the memory is changed; whoever went last may have taken the directory along meanwhile.
    fn lock(&self) -> Result<File> {
        use std::os::unix::fs::MetadataExt;
        loop {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.memory).step("make", self.memory.display())?;
            let dir = File::open(&self.memory).step("open", self.memory.display())?;
            dir.lock().step("lock", self.memory.display())?;
            let inode = dir.metadata().step("look at", self.memory.display())?.ino();
            if fs::metadata(&self.memory).is_ok_and(|there| there.ino() == inode) {
                return Ok(dir);
            }
        }
    }

    fn file(&self) -> PathBuf {
        self.memory.join("values.json")
    }

    fn recall(&self) -> Result<Memory> {
        let file = self.file();
        let fresh = || Memory { boot: self.boot.clone(), ..Memory::default() };
        let bytes = match fs::read(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(fresh()),
            read => read.step("read", file.display())?,
        };
        let memory: Memory = serde_json::from_slice(&bytes).map_err(|source| Error::Record { path: file, source })?;
        Ok(if memory.boot == self.boot { memory } else { fresh() })
    }

    fn note(&self, memory: &Memory) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(memory).map_err(|source| Error::Record { path: self.file(), source })?;
        durable::replace_file(&self.file(), &bytes)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sysctls.join(Path::new(&name.replace('.', "/")))
    }

    fn read(&self, name: &str) -> Option<u64> {
        fs::read_to_string(self.path(name)).ok()?.trim().parse().ok()
    }

    fn write(&self, name: &str, value: u64) -> Result<()> {
        fs::write(self.path(name), value.to_string()).step("raise", name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> (tempfile::TempDir, Tuning) {
        let dir = tempfile::tempdir().unwrap();
        let tuning = Tuning { sysctls: dir.path().join("sys"), memory: dir.path().join("memory"), boot: "one".into() };
        for (name, value) in [("fs.inotify.max_user_instances", 128), ("kernel.pid_max", 4_194_304), ("kernel.pty.max", 4096)] {
            fs::create_dir_all(tuning.path(name).parent().unwrap()).unwrap();
            tuning.write(name, value).unwrap();
        }
        (dir, tuning)
    }

    const WANTED: [Wanted; 4] = [
        Wanted { name: "fs.inotify.max_user_instances", least: 8192 },
        Wanted { name: "kernel.pid_max", least: 65_536 },
        Wanted { name: "kernel.pty.max", least: 9000 },
        Wanted { name: "fs.aio-max-nr", least: 7 },
    ];

    #[test]
    fn what_is_low_is_raised_and_put_back_unless_somebody_changed_it() {
        let (_dir, tuning) = host();
        assert_eq!(tuning.raise("berth", &WANTED).unwrap(), Vec::<String>::new());
        let seen = tuning.look(&WANTED);
        assert_eq!(seen.iter().map(|s| s.now).collect::<Vec<_>>(), [Some(8192), Some(4_194_304), Some(9000), None]);
        assert_eq!(seen.iter().map(|s| s.former).collect::<Vec<_>>(), [Some(128), None, Some(4096), None]);
        // A second start, and an administrator's own value.
        tuning.raise("berth", &WANTED).unwrap();
        tuning.write("kernel.pty.max", 20_000).unwrap();
        assert_eq!(tuning.restore("berth").unwrap(), ["kernel.pty.max"]);
        assert_eq!(tuning.read("fs.inotify.max_user_instances"), Some(128));
        assert_eq!((tuning.read("kernel.pid_max"), tuning.read("kernel.pty.max")), (Some(4_194_304), Some(20_000)));
        assert!(!tuning.memory.exists());
        assert_eq!(tuning.restore("berth").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn the_last_of_several_nodes_puts_back() {
        let (_dir, tuning) = host();
        tuning.raise("berth", &WANTED).unwrap();
        let higher = [Wanted { name: "kernel.pty.max", least: 10_000 }];
        tuning.raise("berthtwo", &higher).unwrap();
        tuning.restore("berth").unwrap();
        assert_eq!(tuning.read("kernel.pty.max"), Some(10_000));
        tuning.restore("berthtwo").unwrap();
        assert_eq!((tuning.read("kernel.pty.max"), tuning.read("fs.inotify.max_user_instances")), (Some(4096), Some(128)));
    }

    #[test]
    fn values_of_another_boot_are_not_put_back() {
        let (_dir, tuning) = host();
        tuning.raise("berth", &WANTED).unwrap();
        let rebooted = Tuning { boot: "two".into(), ..tuning };
        rebooted.restore("berth").unwrap();
        assert_eq!(rebooted.read("kernel.pty.max"), Some(9000));
    }

    #[test]
    fn a_larger_host_wants_more_and_every_host_enough() {
        let least = |bytes: u64, name: &str| wanted(bytes).into_iter().find(|w| w.name == name).unwrap().least;
        assert!(least(1 << 40, "kernel.pty.max") > least(1 << 33, "kernel.pty.max"));
        assert!(least(0, "net.ipv4.neigh.default.gc_thresh3") > 1024);
        assert_eq!(least(u64::MAX, "kernel.pid_max"), 4_194_304);
        for bytes in [0, 1 << 33, 1 << 36, u64::MAX] {
            let thresholds = ["gc_thresh1", "gc_thresh2", "gc_thresh3"].map(|t| least(bytes, &format!("net.ipv4.neigh.default.{t}")));
            assert!(thresholds.is_sorted());
        }
    }
}
