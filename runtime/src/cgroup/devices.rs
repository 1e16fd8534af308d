//! Block devices, as far as limits and counts of I/O need to know them.

use std::{
    fmt,
    fs::{self, File},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
    str::FromStr,
};

/// Of whole disks, as control groups name them: limits of partitions are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device {
    pub major: u32,
    pub minor: u32,
}

/// linux/major.h
const LOOP: u32 = 7;
/// No disks, or memory that looks like one.
const OTHERS: [&str; 6] = ["loop", "ram", "zram", "sr", "fd", "nullb"];

impl Device {
    /// The device number of a file system, when that is a loop device.
    pub fn loop_device(number: u64) -> Option<Self> {
        let device = Self { major: rustix::fs::major(number), minor: rustix::fs::minor(number) };
        (device.major == LOOP).then_some(device)
    }

    pub(super) fn is_loop(self) -> bool {
        self.major == LOOP
    }

    /// True for a loop device over `image` whose work goes past the page cache to a block device.
    pub(super) fn reaches_disk(self, image: &Path) -> bool {
        let direct = fs::read_to_string(format!("/sys/dev/block/{self}/loop/dio")).is_ok_and(|text| text.trim() == "1");
        direct && fs::metadata(image).is_ok_and(|m| rustix::fs::major(m.dev()) != 0)
    }

    /// True for a disk that stands on no other device and is not memory.
    pub(super) fn is_physical(self) -> bool {
        let dir = format!("/sys/dev/block/{self}");
        let name = fs::read_link(&dir).ok().and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()));
        let stacked = || fs::read_dir(format!("{dir}/slaves")).is_ok_and(|mut below| below.next().is_some());
        name.is_some_and(|name| is_disk(&name)) && !stacked()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for Device {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (major, minor) = text.split_once(':').ok_or(())?;
        Ok(Self { major: major.parse().map_err(drop)?, minor: minor.trim_end().parse().map_err(drop)? })
    }
}

/// Loop devices of berths are not the host's disks; more of a name than its letters is a number.
fn is_disk(name: &str) -> bool {
    !OTHERS.contains(&name.trim_end_matches(|c: char| c.is_ascii_digit()))
}

/// Every whole disk of the host that has a size.
pub(super) fn disks() -> Vec<Device> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let named = entries.filter(|e| is_disk(&e.file_name().to_string_lossy())).map(|e| e.path());
    let sized = named.filter(|dir| read(&dir.join("size")).is_some_and(|size| size.trim() != "0"));
    let mut found: Vec<Device> = sized.filter_map(|dir| read(&dir.join("dev"))?.parse().ok()).collect();
    found.sort_unstable();
    found
}

/// The loop device over an image file. Its name in sysfs tells no path, so each is asked for its file.
pub(super) fn of_image(file: &Path) -> Option<Device> {
    let wanted = fs::metadata(file).ok().filter(|m| m.is_file())?;
    let entries = fs::read_dir("/sys/block").ok()?.flatten();
    let loops = entries.filter(|e| e.path().join("loop/backing_file").exists());
    loops
        .filter_map(|entry| {
            let device = File::open(Path::new("/dev").join(entry.file_name())).ok()?;
            let backing = berth_sys::loopdev::backing(device.as_fd()).ok()?;
            (backing == (wanted.dev(), wanted.ino())).then(|| fs::read_to_string(entry.path().join("dev")).ok()?.parse().ok()).flatten()
        })
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_told_from_what_only_looks_like_one() {
        for name in ["sda", "vda", "nvme0n1", "dm-3", "md127", "mmcblk0", "xvda"] {
            assert!(is_disk(name), "{name}");
        }
        for name in ["loop0", "loop17", "ram3", "zram0", "sr0", "fd0"] {
            assert!(!is_disk(name), "{name}");
        }
    }

    #[test]
    fn numbers_are_read_as_control_groups_write_them() {
        assert_eq!("254:0\n".parse(), Ok(Device { major: 254, minor: 0 }));
        assert_eq!("Total".parse::<Device>(), Err(()));
        assert_eq!(Device { major: 7, minor: 12 }.to_string(), "7:12");
        assert_eq!(Device::loop_device(rustix::fs::makedev(7, 300)), Some(Device { major: 7, minor: 300 }));
        assert_eq!(Device::loop_device(rustix::fs::makedev(8, 0)), None);
    }
}
