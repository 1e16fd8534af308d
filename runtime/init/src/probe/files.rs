use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::Path,
};

use rustix::fs::{CWD, FileType, Mode, major, makedev, minor, mknodat};
use serde_json::{Value, json};

use crate::{
    Failure,
    report::{Done, answer, need, outcome, parse, say},
};

/// What `read` shows at most.
const MOST: u64 = 1 << 20;

pub(crate) fn mknod(path: &str, kind: &str, major: &str, minor: &str) -> Done {
    let kind = match kind {
        "b" => FileType::BlockDevice,
        "c" => FileType::CharacterDevice,
        _ => return Err(Failure::Usage),
    };
    let made = mknodat(CWD, path, kind, Mode::from_raw_mode(0o600), makedev(parse(major)?, parse(minor)?));
    let opened = made.is_ok().then(|| answer(fs::File::open(path)));
    outcome(made, json!({ "open": opened }))
}

/// A project carries a quota: whoever could leave his would have none.
pub(crate) fn project(path: &str, id: &str) -> Done {
    let dir = need("open the directory", fs::File::open(path))?;
    let before = berth_sys::quota::project_of(dir.as_fd()).map(|(project, _)| project).ok();
    let attempt = berth_sys::quota::put_in_project(dir.as_fd(), parse(id)?);
    let after = berth_sys::quota::project_of(dir.as_fd()).map(|(project, _)| project).ok();
    outcome(attempt, json!({ "before": before, "after": after }))
}

pub(crate) fn devices() -> Done {
    let mut found = Vec::new();
    for entry in need("/dev", fs::read_dir("/dev"))?.flatten() {
        let path = entry.path();
        let meta = need("/dev", fs::symlink_metadata(&path))?;
        found.push(describe(&path, &meta));
    }
    say(&Value::Array(found))
}

pub(crate) fn stat(path: &str) -> Done {
    match fs::symlink_metadata(path) {
        Ok(meta) => outcome(Ok::<_, io::Error>(()), describe(Path::new(path), &meta)),
        Err(error) => outcome(Err::<(), _>(error), json!({})),
    }
}

fn describe(path: &Path, meta: &fs::Metadata) -> Value {
    let kind = match meta.file_type() {
        kind if kind.is_dir() => "directory",
        kind if kind.is_symlink() => "symlink",
        kind if kind.is_block_device() => "block",
        kind if kind.is_char_device() => "character",
        kind if kind.is_socket() => "socket",
        kind if kind.is_fifo() => "fifo",
        _ => "file",
    };
    json!({
        "path": path.to_string_lossy(), "kind": kind, "uid": meta.uid(), "gid": meta.gid(), "mode": format!("{:o}", meta.mode() & 0o7777),
        "size": meta.size(), "major": major(meta.rdev()), "minor": minor(meta.rdev()), "device": meta.dev(), "inode": meta.ino(),
        "target": fs::read_link(path).ok().map(|t| t.to_string_lossy().into_owned()),
    })
}

pub(crate) fn read(path: &str) -> Done {
    let mut bytes = Vec::new();
    let attempt = fs::File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut bytes));
    outcome(attempt, json!({ "text": String::from_utf8_lossy(&bytes) }))
}

/// Writes to what is there; makes nothing.
pub(crate) fn write(path: &str, text: &str) -> Done {
    outcome(OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(text.as_bytes())), json!({}))
}
