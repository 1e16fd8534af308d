//! Writing an archive: under a temporary name, synced, then renamed.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::atomic::AtomicBool,
};

use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use super::{BUFFER, DISK, Hashing, MANIFEST, Manifest, Progress, SUMS, Task, Way, Worker, go_on, hex};
use crate::{
    disk::{Disk, Limit},
    error::{Error, Result, Step},
    fault,
};

/// zstd's own; the tree is mostly layers that are worth it.
const LEVEL: i32 = 3;
const BLOCK: u64 = 512;
/// A list of a thousand names.
const MOST_IMAGES_LINE: u64 = 1 << 20;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    pub manifest: Manifest,
    pub size: u64,
}

/// Packs a disk that nothing has mounted into `file`, which is there whole or not at all. `program` is `berth-shim`.
pub fn pack(
    program: &Path,
    (disk, limit): (&Disk, Limit),
    file: &Path,
    mut manifest: Manifest,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Packed> {
    // The name ends in `.berth`.
    let temporary = file.with_extension("berth.part");
    fault::point("make archive")?;
    let _ = fs::remove_file(&temporary);
    let out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).step("make", temporary.display())?;
    let written = (|| {
        let mut worker = Worker::start(program, &Task { disk: disk.clone(), limit, way: Way::Pack })?;
        let stdout = worker.child.stdout.take().ok_or_else(|| Error::Invalid("no pipe".into()))?;
        let mut tree = BufReader::with_capacity(BUFFER, stdout);
        let mut line = Vec::new();
        tree.by_ref().take(MOST_IMAGES_LINE).read_until(b'\n', &mut line).step("read", "the list of images")?;
        if !line.ends_with(b"\n") {
            worker.finish()?;
            return Err(Error::Invalid("the disk could not be read".into()));
        }
        manifest.docker_images = serde_json::from_slice(&line).unwrap_or_default();
        let size = write(out, &manifest, tree, worker, cancel, progress)?;
        fault::point("place archive")?;
        go_on(cancel)?;
        fs::rename(&temporary, file).step("place", file.display())?;
        let dir = file.parent().unwrap_or(Path::new("/"));
        File::open(dir).and_then(|dir| dir.sync_all()).step("sync", dir.display())?;
        Ok(size)
    })();
    match written {
        Ok(size) => Ok(Packed { manifest, size }),
        Err(error) => {
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

fn write(
    mut out: File,
    manifest: &Manifest,
    mut tree: impl Read,
    worker: Worker,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(Progress),
) -> Result<u64> {
    let text = serde_json::to_vec_pretty(manifest).map_err(|e| Error::Invalid(format!("the manifest cannot be written: {e}")))?;
    let time = manifest.created_at / 1000;
    member(&mut out, MANIFEST, time, text.len() as u64).and_then(|()| out.write_all(&text)).step("write", MANIFEST)?;
    pad(&mut out, text.len() as u64).step("write", MANIFEST)?;
    // How long it is shows at its end.
    let at = out.stream_position().step("write", DISK)?;
    member(&mut out, DISK, time, 0).step("write", DISK)?;
    let mut packed = zstd::stream::write::Encoder::new(Hashing::new(out), LEVEL).step("begin to compress", DISK)?;
    packed.include_checksum(true).step("begin to compress", DISK)?;
    let mut buffer = vec![0; BUFFER];
    let mut done = Progress::default();
    loop {
        go_on(cancel)?;
        fault::point("write archive")?;
        let count = match tree.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).step("read", "the disk"),
        };
        packed.write_all(&buffer[..count]).step("write", "the archive")?;
        done = Progress { tree: done.tree + count as u64, file: packed.get_ref().bytes };
        progress(done);
    }
    worker.finish()?;
    let hashing = packed.finish().step("write", "the archive")?;
    let size = hashing.bytes;
    let (mut out, sum) = hashing.finish();
    let sums = format!("{}  {MANIFEST}\n{sum}  {DISK}\n", hex(Sha256::new_with_prefix(&text)));
    let finish = |out: &mut File| -> std::io::Result<u64> {
        pad(out, size)?;
        member(out, SUMS, time, sums.len() as u64)?;
        out.write_all(sums.as_bytes())?;
        pad(out, sums.len() as u64)?;
        out.write_all(&[0; 2 * BLOCK as usize])?;
        let end = out.stream_position()?;
        out.seek(SeekFrom::Start(at))?;
        member(out, DISK, time, size)?;
        out.sync_all()?;
        Ok(end)
    };
    finish(&mut out).step("write", "the archive")
}

fn member(out: &mut File, name: &str, time: i64, size: u64) -> std::io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_path(name)?;
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(time.max(0).unsigned_abs());
    header.set_size(size);
    header.set_cksum();
    out.write_all(header.as_bytes())
}

fn pad(out: &mut File, size: u64) -> std::io::Result<()> {
    let zeros = [0; BLOCK as usize];
    out.write_all(&zeros[..(size.next_multiple_of(BLOCK) - size) as usize])
}
