//! Reading an archive, which may come from anywhere.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::atomic::AtomicBool,
};

use sha2::{Digest, Sha256};
use tar::Header;

use super::{BUFFER, DISK, FORMAT, Hashing, MANIFEST, MOST_MANIFEST, Manifest, Progress, SUMS, Task, WINDOW_LOG, Way, Worker, go_on, hex};
use crate::{
    disk::{Disk, Limit},
    error::{Error, Result, Step},
    fault,
};

const BLOCK: usize = 512;
/// A tree without holes is at most as large as its disk; its names and attributes come on top.
const MOST_OVER_LIMIT: u64 = 4;

/// What the archive says of itself; the rest of it is not looked at.
pub fn manifest(file: &Path) -> Result<Manifest> {
    let mut input = open(file)?;
    read_manifest(&mut input, file).map(|(manifest, _)| manifest)
}

/// Fills a disk that was just made, and that nothing has mounted. On failure whatever came of it is to be thrown away: the last thing that
/// is known is whether the archive was whole. `program` is `berth-shim`.
pub fn unpack(
    program: &Path,
    (disk, limit): (&Disk, Limit),
    file: &Path,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let mut input = open(file)?;
    let (_, manifest_sum) = read_manifest(&mut input, file)?;
    let size = member(&mut input, DISK, file)?;
    let mut worker = Worker::start(program, &Task { disk: disk.clone(), limit, way: Way::Unpack })?;
    let mut tree = worker.child.stdin.take().ok_or_else(|| Error::Invalid("no pipe".into()))?;
    let packed = BufReader::with_capacity(BUFFER, Hashing::new((&mut input).take(size)));
    let mut unpacked = zstd::stream::read::Decoder::with_buffer(packed).step("begin to decompress", DISK)?;
    unpacked.window_log_max(WINDOW_LOG).step("bound", "the zstd window")?;
    let most = limit.bytes.saturating_mul(MOST_OVER_LIMIT);
    let mut buffer = vec![0; BUFFER];
    let mut done = Progress::default();
    let mut refused = None;
    loop {
        go_on(cancel)?;
        fault::point("fill the disk")?;
        let count = match unpacked.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(damaged(file, &format!("it cannot be decompressed ({error})"))),
        };
        // tar reads on to the end of its input; a pipe that broke says that it has ended, and it says why.
        if let Err(error) = tree.write_all(&buffer[..count]) {
            refused = Some(error);
            break;
        }
        done = Progress { tree: done.tree + count as u64, file: unpacked.get_ref().get_ref().bytes };
        if done.tree > most {
            return Err(Error::Invalid(format!("the archive holds more than {MOST_OVER_LIMIT} times the disk of {} bytes", limit.bytes)));
        }
        progress(done);
    }
    drop(tree);
    worker.finish()?;
    if let Some(error) = refused {
        return Err(error).step("pass on", "the archive");
    }
    let mut packed = unpacked.finish();
    io::copy(&mut packed, &mut io::sink()).step("read", file.display())?;
    let (_, disk_sum) = packed.into_inner().finish();
    skip_padding(&mut input, size, file)?;
    let sums = read_member(&mut input, SUMS, file)?;
    if sums != format!("{manifest_sum}  {MANIFEST}\n{disk_sum}  {DISK}\n").into_bytes() {
        return Err(damaged(file, "its checksums differ"));
    }
    Ok(())
}

fn open(file: &Path) -> Result<File> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let input = OpenOptions::new().read(true).custom_flags(flags).open(file).step("open", file.display())?;
    match input.metadata().step("look at", file.display())?.is_file() {
        true => Ok(input),
        false => Err(Error::Invalid(format!("{} is no file", file.display()))),
    }
}

fn damaged(file: &Path, why: &str) -> Error {
    Error::Invalid(format!("{} is no whole archive of a berth: {why}", file.file_name().unwrap_or_default().display()))
}

fn read_manifest(input: &mut File, file: &Path) -> Result<(Manifest, String)> {
    let text = read_member(input, MANIFEST, file)?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| damaged(file, &format!("{MANIFEST}: {e}")))?;
    if manifest.format != FORMAT {
        return Err(damaged(file, &format!("its format is {}, this program knows {FORMAT}", manifest.format)));
    }
    Ok((manifest, hex(Sha256::new_with_prefix(&text))))
}

fn read_member(input: &mut File, name: &str, file: &Path) -> Result<Vec<u8>> {
    let size = member(input, name, file)?;
    if size > MOST_MANIFEST {
        return Err(damaged(file, &format!("{name} has {size} bytes")));
    }
    let mut text = Vec::new();
    input.take(size).read_to_end(&mut text).step("read", file.display())?;
    if text.len() as u64 != size {
        return Err(damaged(file, "it ends too early"));
    }
    skip_padding(input, size, file)?;
    Ok(text)
}

/// The next member, which must have this name; its size.
fn member(input: &mut File, name: &str, file: &Path) -> Result<u64> {
    let mut header = Header::new_old();
    input.read_exact(header.as_mut_bytes()).map_err(|_| damaged(file, "it ends too early"))?;
    let sum: u32 = header.as_bytes().iter().enumerate().map(|(at, &b)| if (148..156).contains(&at) { 32 } else { u32::from(b) }).sum();
    if header.cksum().ok() != Some(sum) || header.path_bytes().as_ref() != name.as_bytes() {
        return Err(damaged(file, &format!("{name} is missing")));
    }
    header.entry_size().map_err(|_| damaged(file, &format!("the size of {name} is not readable")))
}

fn skip_padding(input: &mut File, size: u64, file: &Path) -> Result<()> {
    let mut padding = vec![0; (size.next_multiple_of(BLOCK as u64) - size) as usize];
    input.read_exact(&mut padding).map_err(|_| damaged(file, "it ends too early"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_archive_is_refused_with_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.berth");
        for (bytes, why) in [(&b""[..], "too early"), (&[0; 512], "missing"), (&[7; 2000], "missing")] {
            std::fs::write(&file, bytes).unwrap();
            let told = manifest(&file).unwrap_err().to_string();
            assert!(told.contains(why), "{told}");
        }
        let link = dir.path().join("link.berth");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(manifest(&link).is_err());
        assert!(manifest(dir.path()).unwrap_err().to_string().contains("no file"));
    }
}
