use std::{
    env,
    fs::File,
    io::{self, Seek, Write},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use serde_json::json;

use crate::report::{Done, hold as wait_for_end, name, need, outcome, parse, say};

const STEP: usize = 64 << 20;
const PAGE: usize = 4096;
const BLOCK: usize = 1 << 20;

/// Touches every page, so that the memory is there.
pub(crate) fn hog(bytes: &str) -> Done {
    let bytes: usize = parse(bytes)?;
    let mut held: Vec<Vec<u8>> = Vec::new();
    while held.len() * STEP < bytes {
        let mut block = vec![0_u8; STEP];
        block.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
        held.push(block);
        say(&json!({ "touched": held.len() * STEP }))?;
    }
    say(&json!({ "ok": true, "touched": held.len() * STEP }))
}

/// Children wait for the end of a pipe that only this process holds, so none outlives it.
pub(crate) fn fork_bomb(count: &str) -> Done {
    let count: usize = parse(count)?;
    let program = need("find this program", env::current_exe())?;
    let (read, write) = need("make a pipe", io::pipe())?;
    let mut children = Vec::new();
    let mut errno = None;
    while children.len() < count {
        let input = need("copy a pipe", read.try_clone())?;
        match Command::new(&program).arg("hold").stdin(Stdio::from(input)).stdout(Stdio::null()).spawn() {
            Ok(child) => children.push(child),
            Err(error) => {
                errno = Some(name(&error));
                break;
            }
        }
    }
    let done = say(&json!({ "count": children.len(), "errno": errno }));
    drop(write);
    for mut child in children {
        let _ = child.wait();
    }
    done
}

/// One child of the fork bomb.
pub(crate) fn hold() -> Done {
    wait_for_end();
    Ok(())
}

/// As a small database writes: each time a block of 4 KiB, on stable storage before the next.
pub(crate) fn fsync(path: &str, count: &str) -> Done {
    let count: usize = parse(count)?;
    let mut file = need("make the file", File::create(path))?;
    let mut nanoseconds = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        need("write", file.write_all(&[7; PAGE]).and_then(|()| file.sync_all()))?;
        nanoseconds.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    say(&json!({ "nanoseconds": nanoseconds }))
}

/// Overwrites a file of 256 MiB, each MiB on stable storage before the next.
pub(crate) fn fsync_busy(path: &str) -> Done {
    let over = Arc::new(AtomicBool::new(false));
    let waiting = Arc::clone(&over);
    thread::spawn(move || {
        wait_for_end();
        waiting.store(true, Ordering::Relaxed);
    });
    let mut file = need("make the file", File::create(path))?;
    let block = vec![7_u8; BLOCK];
    let mut synced = 0_u64;
    say(&json!({ "ok": true }))?;
    while !over.load(Ordering::Relaxed) {
        if synced.is_multiple_of(256) {
            need("rewind", file.rewind())?;
        }
        need("write", file.write_all(&block).and_then(|()| file.sync_all()))?;
        synced += 1;
    }
    say(&json!({ "synced": synced }))
}

pub(crate) fn disk_fill(path: &str, bytes: &str) -> Done {
    let bytes: u64 = parse(bytes)?;
    let mut file = match File::create(path) {
        Ok(file) => file,
        refused => return outcome(refused, json!({ "written": 0 })),
    };
    // Not zeros: a file system may not store those.
    let block: Vec<u8> = (0..BLOCK).map(|n| (n.wrapping_mul(2_654_435_761) >> 7) as u8).collect();
    let mut written = 0;
    let mut attempt = Ok(());
    while written < bytes && attempt.is_ok() {
        attempt = file.write(&block).map(|count| written += count as u64);
    }
    let synced = file.sync_all().map_err(|error| name(&error)).err();
    outcome(attempt, json!({ "written": written, "sync_errno": synced }))
}
