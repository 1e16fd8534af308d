//! Growing an image that nothing has mounted, for kernels and processes that may not grow a mounted one.
//!
//! resize2fs works in place. What it overwrites it first keeps in a file beside the image, which stays until the grown image is on
//! stable storage: whoever finds that file puts the image back as it was.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{image, loopdev, program, superblock, sync_parent};
use crate::{
    error::{Result, Step},
    fault,
};

/// A whole check of a large disk; the berth's user waits meanwhile.
const CHECK: Duration = Duration::from_secs(300);
const RESIZE: Duration = Duration::from_secs(120);

/// mke2fs and resize2fs leave out a last group that could hold no more than its own tables.
const SLACK: u64 = 16 << 20;

pub(super) fn is_to_grow(file: &Path, bytes: u64) -> Result<bool> {
    let (length, size) = (fs::metadata(file).step("look at", file.display())?.len(), superblock::space(file)?.size);
    Ok(bytes > size + SLACK || length > size + SLACK || kept(file).exists())
}

fn kept(file: &Path) -> PathBuf {
    file.with_extension("undo")
}

pub(super) fn grow(file: &Path, bytes: u64) -> Result<()> {
    let (kept, bytes) = (kept(file), image::whole_blocks(bytes));
    loopdev::await_release(file)?;
    put_back(file, &kept)?;
    let old = superblock::space(file)?.size;
    let image = OpenOptions::new().write(true).open(file).step("open", file.display())?;
    if bytes <= old + SLACK {
        // A growth that died before it began left the file longer.
        return image.set_len(old).step("size", file.display());
    }
    fault::point("check the disk")?;
    // 1: mended, as after a journal that had to be replayed.
    program::run("e2fsck", &["-f", "-p"], &[file], CHECK, &[0, 1])?;
    fault::point("grow the disk")?;
    let grown = enlarge(&image, file, &kept, bytes);
    if grown.is_err() {
        put_back(file, &kept)?;
        image.set_len(old).step("size", file.display())?;
    }
    grown
}

fn enlarge(image: &File, file: &Path, kept: &Path, bytes: u64) -> Result<()> {
    image.set_len(bytes).step("size", file.display())?;
    program::run("resize2fs", &["-z"], &[kept, file], RESIZE, &[0])?;
    image.sync_all().step("sync", file.display())?;
    fault::point("keep the grown disk")?;
    remove(kept)?;
    sync_parent(file)
}

/// Undoes a growth that did not come to its end.
fn put_back(file: &Path, kept: &Path) -> Result<()> {
    if !kept.exists() {
        return Ok(());
    }
    // One that died before its first change kept nothing to put back: e2undo refuses such a file, and the check that follows finds a whole image.
    if let Err(error) = program::run("e2undo", &[], &[kept, file], RESIZE, &[0]) {
        tracing::warn!(image = %file.display(), %error, "nothing to put back after a growth that was broken off");
        program::run("e2fsck", &["-f", "-y"], &[file], CHECK, &[0, 1])?;
    }
    File::open(file).and_then(|file| file.sync_all()).step("sync", file.display())?;
    remove(kept)
}

fn remove(kept: &Path) -> Result<()> {
    match fs::remove_file(kept) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done.step("remove", kept.display()),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::FileExt, process::Command};

    use super::*;
    use crate::disk::Limit;

    fn whole(file: &Path) -> bool {
        Command::new("e2fsck").args(["-f", "-n"]).arg(file).output().unwrap().status.success()
    }

    fn disk(dir: &Path) -> PathBuf {
        let file = dir.join("disk.img");
        image::create(&file, Limit { bytes: 1 << 30, inodes: None }).unwrap();
        file
    }

    #[test]
    fn q06_an_unmounted_disk_grows_stays_whole_and_does_not_shrink() {
        let dir = tempfile::tempdir().unwrap();
        let file = disk(dir.path());
        assert!(is_to_grow(&file, 3 << 30).unwrap());
        grow(&file, 3 << 30).unwrap();
        assert!(whole(&file) && !kept(&file).exists() && !is_to_grow(&file, 3 << 30).unwrap());
        grow(&file, 2 << 30).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().len(), 3 << 30);
        let space = superblock::space(&file).unwrap();
        assert!(space.free > 5 << 29, "{space:?}");
    }

    #[test]
    fn q06_a_growth_that_was_broken_off_is_taken_back_and_done_anew() {
        let dir = tempfile::tempdir().unwrap();
        let file = disk(dir.path());
        // As far as a process that died in the midst of it came: the image is changed, what was there is kept.
        let kept = kept(&file);
        OpenOptions::new().write(true).open(&file).unwrap().set_len(2 << 30).unwrap();
        program::run("resize2fs", &["-z"], &[&kept, &file], RESIZE, &[0]).unwrap();
        let image = OpenOptions::new().write(true).open(&file).unwrap();
        image.write_all_at(&[0xAA; 4096], 4096).unwrap();
        assert!(!whole(&file));
        grow(&file, 2 << 30).unwrap();
        assert!(whole(&file) && !kept.exists());
        assert_eq!(superblock::space(&file).unwrap().size, 2 << 30);
    }

    #[test]
    fn a_file_that_was_only_lengthened_gets_its_size_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = disk(dir.path());
        OpenOptions::new().write(true).open(&file).unwrap().set_len(2 << 30).unwrap();
        assert!(is_to_grow(&file, 1 << 30).unwrap());
        grow(&file, 1 << 30).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().len(), 1 << 30);
    }
}
