//! Files that survive a power loss whole.

use std::{
    fs::{self, File},
    io::Write,
    os::fd::AsFd,
    path::Path,
};

use crate::error::{Result, Step};

/// Temporary file, fsync, rename, fsync of the directory: the old contents or the new, never half.
pub(crate) fn replace_file(file: &Path, contents: &[u8]) -> Result<()> {
    let temporary = file.with_extension("new");
    let mut out = File::create(&temporary).step("write", temporary.display())?;
    out.write_all(contents).step("write", temporary.display())?;
    out.sync_all().step("sync", temporary.display())?;
    fs::rename(&temporary, file).step("replace", file.display())?;
    let dir = file.parent().unwrap_or(Path::new("/"));
    let dir_fd = File::open(dir).step("open", dir.display())?;
    rustix::fs::fsync(dir_fd.as_fd()).step("sync", dir.display())
}
