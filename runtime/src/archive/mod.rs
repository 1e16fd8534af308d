//! A berth as one file, from which it can be made again: here or on another host, whatever its ids and its kind of disk.
//!
//! The file is a plain tar of three members: `berth.json` ([`Manifest`]), `disk.tar.zst` (the tree of the disk, ids from 0, as GNU tar
//! packs it: extended attributes, hard links, holes, whiteouts), and `SHA256SUMS` over both, which is written last: what was cut off has none.
//!
//! Packing and unpacking are done by the program `tar` in a child (`berth-shim tree`): a freshly executed process that sees the host
//! read-only and without devices, in a mount namespace of its own, where only the disk can be written to; with the rights to files and none else, so
//! that quotas bind and no device but a whiteout can be made. So an archive from anywhere reaches nothing but the disk that it fills.
//! The disk is mounted nowhere else meanwhile; it frees itself when the child dies.

mod pack;
mod tree;
mod unpack;

use std::{
    io::{self, Read, Write},
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread::JoinHandle,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use pack::{Packed, pack};
pub use tree::tree;
pub use unpack::{manifest, unpack};

use crate::{
    disk::{Disk, Limit},
    error::{Error, Result, Step},
};

/// What the error says when it was cancelled.
pub const GIVEN_UP: &str = "it was given up";
pub const FORMAT: u32 = 1;
const MANIFEST: &str = "berth.json";
const DISK: &str = "disk.tar.zst";
const SUMS: &str = "SHA256SUMS";
const MOST_MANIFEST: u64 = 1 << 20;
const BUFFER: usize = 256 << 10;
/// The largest zstd window that is read: what a decoder may hold in memory (128 MiB).
const WINDOW_LOG: u32 = 27;

/// What an archive says of its berth. Of one that comes from elsewhere nothing is to be believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub user: String,
    /// Id of the berth.
    pub berth: String,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// Digest of the image that it stands on.
    pub image: String,
    /// What the disk used.
    pub bytes: u64,
    pub inodes: u64,
    /// Images in its Docker, as far as its store could be read.
    #[serde(default)]
    pub docker_images: Vec<String>,
    /// Limits, profile and what else whoever asked for the archive wanted to find in it.
    #[serde(default)]
    pub notes: serde_json::Value,
}

/// What the child is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Task {
    disk: Disk,
    limit: Limit,
    way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Way {
    /// A line of JSON with the names of Docker's images, then the tar, on standard output.
    Pack,
    /// The tar from standard input.
    Unpack,
}

/// How far it is: bytes of the tree, and of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub tree: u64,
    pub file: u64,
}

/// The child, ended when dropped, and what it says of itself.
struct Worker {
    child: Child,
    stderr: Option<JoinHandle<String>>,
}

impl Worker {
    fn start(program: &Path, task: &Task) -> Result<Self> {
        let task_text = serde_json::to_string(task).map_err(|e| Error::Invalid(format!("the task cannot be written: {e}")))?;
        let (stdin, stdout) = match task.way {
            Way::Pack => (Stdio::null(), Stdio::piped()),
            Way::Unpack => (Stdio::piped(), Stdio::null()),
        };
        let mut child = Command::new(program)
            .args(["tree", &task_text])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            // Names are bytes.
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .step("run", program.display())?;
        let stderr = child.stderr.take().map(|pipe| std::thread::spawn(move || last_words(pipe)));
        Ok(Self { child, stderr })
    }

    /// Its end: an error with its words when it did not end well.
    fn finish(mut self) -> Result<()> {
        let status = self.child.wait().step("await", "tar")?;
        let stderr = self.stderr.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        match status.success() {
            true => Ok(()),
            false => Err(Error::Program { program: "tar", status: status.to_string(), stderr }),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first of what it says: later words of tar are of what follows from it.
fn last_words(mut pipe: ChildStderr) -> String {
    let mut words = Vec::new();
    let _ = pipe.by_ref().take(4096).read_to_end(&mut words);
    let _ = io::copy(&mut pipe, &mut io::sink());
    String::from_utf8_lossy(&words).trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn go_on(cancel: &AtomicBool) -> Result<()> {
    match cancel.load(Ordering::Relaxed) {
        true => Err(Error::Invalid(GIVEN_UP.into())),
        false => Ok(()),
    }
}

/// Passes bytes on, counts and hashes them.
struct Hashing<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }

    fn finish(self) -> (T, String) {
        (self.inner, hex(self.hash))
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}
