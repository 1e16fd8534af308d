//! One file of a spool: whole lines, of which those taken are punched out from its beginning.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use berth_protocol::{BerthId, Call, CallRecord};
use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

/// Lines and bytes of one page.
const LINES: usize = 500;
const BYTES: u64 = 1 << 20;
/// Longest line.
pub(super) const LINE: usize = 128 * 1024;
/// Holes are made of whole blocks; other sizes of blocks only leave a little more behind.
const BLOCK: u64 = 4096;

/// `<id>.<base>.jsonl`; `base` is the position of the file's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) base: u64,
    /// Bytes in it when last looked at.
    pub(super) size: u64,
}

/// Lines of one segment.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) records: Vec<CallRecord>,
    /// Offset behind the last line.
    pub(super) next: u64,
    /// Lines that are no records.
    pub(super) foreign: u64,
}

impl Segment {
    pub(super) fn path(self, dir: &Path, id: BerthId) -> PathBuf {
        dir.join(format!("{id}.{}.jsonl", self.base))
    }

    /// What a file name tells.
    pub(super) fn parse(name: &str) -> Option<(BerthId, u64)> {
        let (id, base) = name.strip_suffix(".jsonl")?.split_once('.')?;
        let id = id.parse().ok().map(BerthId).filter(|parsed| parsed.to_string() == id)?;
        Some((id, base.parse().ok()?))
    }

    pub(super) fn end(self) -> u64 {
        self.base.saturating_add(self.size)
    }

    pub(super) fn look(&mut self, dir: &Path, id: BerthId) {
        if let Ok(found) = fs::metadata(self.path(dir, id)) {
            self.size = found.len();
        }
    }

    /// The file for a shim to append to, with its last line whole.
    pub(super) fn open(self, dir: &Path, id: BerthId) -> io::Result<File> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(self.path(dir, id))?;
        let mut last = [b'\n'];
        let size = file.metadata()?.len();
        if size > 0 {
            file.read_exact_at(&mut last, size - 1)?;
        }
        if last != [b'\n'] {
            io::Write::write_all(&mut &file, b"\n")?;
        }
        Ok(file)
    }

    /// Offset of the first byte that is not in a hole: nothing before it is left.
    pub(super) fn data(self, dir: &Path, id: BerthId) -> io::Result<u64> {
        let file = File::open(self.path(dir, id))?;
        match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)) {
            Ok(offset) => Ok(offset),
            Err(Errno::NXIO) => Ok(self.size),
            // A file system that knows no holes: all of it is data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the space of what lies before `offset` back.
    pub(super) fn punch(self, dir: &Path, id: BerthId, offset: u64) -> io::Result<()> {
        let length = offset / BLOCK * BLOCK;
        if length == 0 {
            return Ok(());
        }
        let file = OpenOptions::new().write(true).open(self.path(dir, id))?;
        Ok(fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, length)?)
    }

    /// Whole lines from `offset` on. `closed`: nobody appends any more, so that a torn last line is all that there will be of it.
    pub(super) fn read(self, dir: &Path, id: BerthId, offset: u64, closed: bool) -> io::Result<Lines> {
        let mut file = File::open(self.path(dir, id))?;
        file.seek(SeekFrom::Start(offset))?;
        // Behind what was there at the look, somebody may be about to write.
        let rest = self.size.saturating_sub(offset);
        let mut reader = BufReader::with_capacity(LINE, file.take(BYTES.min(rest)));
        let mut lines = Lines { next: offset, ..Lines::default() };
        let mut line = Vec::new();
        while lines.records.len() < LINES {
            line.clear();
            let length = reader.read_until(b'\n', &mut line)? as u64;
            let Some(text) = line.strip_suffix(b"\n") else {
                // Either the page is full, or the file ends in the middle of a line.
                let full = rest > BYTES && reader.get_ref().limit() == 0;
                if length > 0 && (length >= BYTES || (closed && !full)) {
                    lines.next += length;
                    lines.foreign += 1;
                }
                break;
            };
            // What is left of the first line after a hole is known to the server already, and no JSON any more.
            let rest = lines.next == offset && (text.starts_with(b"\0") || !text.starts_with(b"{"));
            lines.next += length;
            match record(text) {
                Some(record) => lines.records.push(record),
                None if rest => {}
                None => lines.foreign += 1,
            }
        }
        Ok(lines)
    }
}

fn record(line: &[u8]) -> Option<CallRecord> {
    if line.len() > LINE {
        return None;
    }
    let mut record = serde_json::from_slice(line).ok()?;
    match &mut record {
        CallRecord::Call(Call { user, command, method, path, image, container, .. }) => {
            fit(user, 256);
            fit(command, 64);
            fit(method, 32);
            fit(path, 8192);
            for name in [image, container].into_iter().flatten() {
                fit(name, 1024);
            }
        }
        CallRecord::Lost { user, .. } => fit(user, 256),
    }
    Some(record)
}

/// Cuts a text that is longer than anything true.
fn fit(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
    }
}
