//! The host's IPv4 forwarding switch: who of us uses it, and whether it was one of us who turned it.
//!
//! The memory lies below /run, as long-lived as the switch itself: a reboot turns the switch back to what the host is configured to. Several
//! nodes on one host share it; the last one that goes turns the switch back, unless somebody else forwards by then.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::{linux::fs::MetadataExt, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use crate::error::{Result, Step};

const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";
/// Everybody's; below it a directory for each network namespace, in which a file names each node and `off` says what the switch was.
const MEMORY: &str = "/run/berth-forwarding";

/// Switches forwarding on where it is off, noting that first. Returns true when it is on for nodes of ours only.
pub fn enable(node: &str) -> Result<bool> {
    let memory = Memory::open()?;
    let was_off = fs::read_to_string(SWITCH).step("read", SWITCH)?.trim() != "1";
    memory.note(node)?;
    if was_off {
        memory.note("off")?;
        fs::write(SWITCH, "1").step("switch on", SWITCH)?;
    }
    Ok(memory.has("off"))
}

/// Takes over what an earlier version of the node wrote down by itself.
pub fn adopt(state_file: &Path) -> Result<()> {
    if state_file.exists() {
        Memory::open()?.note("off")?;
        fs::remove_file(state_file).step("remove", state_file.display())?;
    }
    Ok(())
}

/// What became of the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It is off again.
    Off,
    /// It was on before us.
    Untouched,
    /// Another node of ours needs it.
    OtherNode,
    /// Somebody else came to forward meanwhile.
    Others,
}

/// Forgets this node, and switches forwarding off again when it was the last one of ours and [`enable`] had switched it on.
pub fn restore(node: &str, others_forward: impl FnOnce() -> Result<bool>) -> Result<Restored> {
    let memory = Memory::open()?;
    memory.forget(node)?;
    let restored = match () {
        () if memory.others() => return Ok(Restored::OtherNode),
        () if !memory.has("off") => Restored::Untouched,
        () if others_forward()? => Restored::Others,
        () => {
            fs::write(SWITCH, "0").step("switch off", SWITCH)?;
            Restored::Off
        }
    };
    memory.forget("off")?;
    memory.remove();
    Ok(restored)
}

/// Locked as long as it is held.
struct Memory {
    dir: PathBuf,
    _lock: File,
}

impl Memory {
    fn open() -> Result<Self> {
        let namespace = fs::metadata("/proc/thread-self/ns/net").step("look at", "the network namespace")?.st_ino();
        let lock = loop {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(MEMORY).step("make", MEMORY)?;
            let lock = File::open(MEMORY).step("open", MEMORY)?;
            lock.lock().step("lock", MEMORY)?;
            // Whoever left while the lock was waited for may have taken the directory along.
            let locked = lock.metadata().step("look at", MEMORY)?.st_ino();
            if fs::metadata(MEMORY).is_ok_and(|there| there.st_ino() == locked) {
                break lock;
            }
        };
        let dir = Path::new(MEMORY).join(namespace.to_string());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).step("make", dir.display())?;
        Ok(Self { dir, _lock: lock })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn has(&self, name: &str) -> bool {
        self.file(name).exists()
    }

    fn note(&self, name: &str) -> Result<()> {
        File::create(self.file(name)).map(drop).step("make", self.file(name).display())
    }

    fn forget(&self, name: &str) -> Result<()> {
        match fs::remove_file(self.file(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done.step("remove", self.file(name).display()),
        }
    }

    fn others(&self) -> bool {
        fs::read_dir(&self.dir).is_ok_and(|entries| entries.flatten().any(|e| e.file_name() != "off"))
    }

    /// The directories stay while others are in them.
    fn remove(self) {
        let _ = fs::remove_dir(&self.dir);
        let _ = fs::remove_dir(MEMORY);
    }
}
