//! Memory taken back from a berth that stands still. Blocking, and work for the host: to be called where that does not matter.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rustix::io::Errno;

use super::{Group, Part, SWAP, usage::read_number, write};
use crate::error::{Error, Result, Step};

/// Asked for at a time, so that it can be given up between two.
const STEP: u64 = 32 << 20;
/// Less than this is no progress.
const LEAST: u64 = 1 << 20;
/// What `memory.swap.max` takes for "no limit"; a berth never has it otherwise.
const OPEN: &str = "max";
/// How the kernel is told to begin with anonymous memory: since 6.16, since 6.9, not at all (cgroup-v2.rst, `memory.reclaim`).
const ANONYMOUS_FIRST: [&str; 3] = [" swappiness=max", " swappiness=200", ""];

/// True where anonymous memory has somewhere to go: a swap device or file, zram included.
pub fn swap_exists() -> bool {
    // One line of head, then one for each.
    fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1)
}

impl Group {
    /// Takes back what can be had of the payload's memory, anonymous memory first where the kernel can be told so. Ends when nothing more
    /// comes, after `time`, or soon after `stop` is set; on v1 hierarchies only when the kernel has gone through it all. Returns the bytes.
    pub fn reclaim(&self, time: Duration, stop: &AtomicBool) -> Result<u64> {
        let before = self.usage()?.memory_bytes;
        match self.hierarchy.hybrid() {
            true => self.force_empty()?,
            false => reclaim(&self.unified(Part::Payload), Instant::now() + time, stop)?,
        }
        Ok(before.saturating_sub(self.usage()?.memory_bytes))
    }

    /// memory.txt, 5.1: frees what is free to be freed, also of groups with processes.
    fn force_empty(&self) -> Result<()> {
        let files = self.hierarchy.v1.iter().map(|h| self.below(h, Part::Payload).join("memory.force_empty"));
        let Some(file) = files.into_iter().find(|f| f.exists()) else { return Ok(()) };
        match fs::write(&file, "0") {
            Err(error) if Errno::from_io_error(&error).is_some_and(|e| matches!(e, Errno::BUSY | Errno::INTR)) => Ok(()),
            done => done.step("reclaim", file.display()),
        }
    }
}

fn reclaim(dir: &Path, end: Instant, stop: &AtomicBool) -> Result<()> {
    let swap = dir.join("memory.swap.max");
    let kept = fs::read_to_string(&swap).ok();
    if kept.is_some() {
        // A berth has little swap of its own, or none: it is opened for what is put there now, which may stay when it is closed again.
        write(&swap, OPEN)?;
    }
    let done = in_steps(dir, end, stop);
    if let Some(kept) = kept {
        let _turn = SWAP.lock();
        // Unless the limits were changed meanwhile.
        if fs::read_to_string(&swap).is_ok_and(|now| now.trim() == OPEN) {
            write(&swap, kept.trim())?;
        }
    }
    done
}

fn in_steps(dir: &Path, end: Instant, stop: &AtomicBool) -> Result<()> {
    let (file, current) = (dir.join("memory.reclaim"), dir.join("memory.current"));
    let mut ways = ANONYMOUS_FIRST.iter();
    let mut way = ways.next().copied().unwrap_or_default();
    while !stop.load(Ordering::Relaxed) && Instant::now() < end {
        let before = read_number(&current)?;
        match fs::write(&file, format!("{}{way}", STEP.min(before))) {
            Ok(()) => {}
            Err(error) => match (Errno::from_io_error(&error), ways.as_slice().first()) {
                // Less came than was asked for; that is how it ends.
                (Some(Errno::AGAIN | Errno::INTR), _) => {}
                (Some(Errno::INVAL), Some(next)) => {
                    way = next;
                    ways.next();
                    continue;
                }
                (Some(Errno::NOENT), _) => return Err(Error::Invalid("this kernel has no memory.reclaim: it came with Linux 5.19".into())),
                _ => return Err(error).step("reclaim", file.display()),
            },
        }
        if before.saturating_sub(read_number(&current)?) < LEAST {
            return Ok(());
        }
    }
    Ok(())
}
