//! Which loop device has a file. `/sys/block/loopN/loop/backing_file` shows the same bare name for every berth (S01), so the devices
//! themselves are asked.

use std::{
    fs::{self, File, Metadata},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::fs::{AtFlags, StatxFlags, statx};

use crate::error::{Error, Result, Step};

/// After its last holder died, a mount and its loop device go within moments; longer than a stuck host disk keeps them.
const RELEASE: Duration = Duration::from_secs(20);
/// Major number of loop devices, Documentation/admin-guide/devices.txt.
const LOOP: u32 = 7;

/// Waits until no loop device has `file` any more: mounted twice, a file system is lost. The kernel tells nobody when it detaches.
pub(super) fn await_release(file: &Path) -> Result<()> {
    let wanted = fs::metadata(file).step("look at", file.display())?;
    let end = Instant::now() + RELEASE;
    let mut pause = Duration::from_millis(1);
    while let Some(device) = holder(&wanted)? {
        if Instant::now() > end {
            return Err(Error::Invalid(format!("{} is still in use by {}", file.display(), device.display())));
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
    Ok(())
}

fn holder(wanted: &Metadata) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir("/sys/block").step("list", "block devices")?.flatten() {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b"loop") && entry.path().join("loop/backing_file").exists() {
            let device = Path::new("/dev").join(name);
            if File::open(&device).is_ok_and(|device| is_behind(device.as_fd(), wanted)) {
                return Ok(Some(device));
            }
        }
    }
    Ok(None)
}

fn is_behind(device: BorrowedFd<'_>, file: &Metadata) -> bool {
    // The kernel's encoding of a device number is stat's for every major and minor that there is.
    berth_sys::loopdev::backing(device).is_ok_and(|found| found == (file.dev(), file.ino()))
}

/// The loop device below the file system of `dir`, which must be the one over `file`: its name, and the device. `dir` comes from a shim:
/// it may be a directory of anything, even of a FUSE file system that never answers.
pub(super) fn below(dir: BorrowedFd<'_>, file: &Path) -> Result<(String, File)> {
    let found = statx(dir, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::INO).step("look at", "the berth's disk")?;
    let stranger = || Error::Invalid(format!("the shim's descriptor is not on {}", file.display()));
    if found.stx_dev_major != LOOP {
        return Err(stranger());
    }
    let link = PathBuf::from(format!("/sys/dev/block/{LOOP}:{}", found.stx_dev_minor));
    let target = fs::read_link(&link).step("read", link.display())?;
    let name = target.file_name().and_then(|name| name.to_str()).ok_or_else(stranger)?.to_owned();
    let path = Path::new("/dev").join(&name);
    let device = File::open(&path).step("open", path.display())?;
    match is_behind(device.as_fd(), &fs::metadata(file).step("look at", file.display())?) {
        true => Ok((name, device)),
        false => Err(stranger()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_on_anything_else_is_refused_and_a_file_without_a_device_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk.img");
        fs::write(&file, "x").unwrap();
        let own = File::open(dir.path()).unwrap();
        let proc = File::open("/proc").unwrap();
        for stranger in [&own, &proc] {
            assert!(below(stranger.as_fd(), &file).unwrap_err().to_string().contains("not on"));
        }
        await_release(&file).unwrap();
    }
}
