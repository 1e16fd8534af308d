//! Loop devices and trimming, loop(4) and ioctl_fitrim.

use std::{
    fs::{File, OpenOptions},
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
    path::PathBuf,
};

const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LOOP_SET_CAPACITY: libc::c_ulong = 0x4C07;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
/// `_IOWR('X', 121, struct fstrim_range)`
const FITRIM: libc::c_ulong = 0xC018_5879;

#[repr(C)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

#[repr(C)]
struct TrimRange {
    start: u64,
    len: u64,
    minlen: u64,
}

/// A loop device over a file. It detaches itself when the last opener, a mounted file system included, lets go of it.
#[derive(Debug)]
pub struct Loop {
    pub path: PathBuf,
    /// Keeps the device until something else holds it.
    pub device: File,
}

/// Attaches `file` (open for reading and writing) to a free loop device, with direct I/O where the file system below can do it.
pub fn attach(file: BorrowedFd<'_>) -> io::Result<Loop> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    loop {
        // SAFETY: takes no argument; returns the number of a free device or an error.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new().read(true).write(true).open(&path)?;
        match configure(&device, file, LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => configure(&device, file, LO_FLAGS_AUTOCLEAR)?,
            // Somebody else took the same free device between the two calls.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => continue,
            done => done?,
        }
        return Ok(Loop { path, device });
    }
}

fn configure(device: &File, file: BorrowedFd<'_>, flags: u32) -> io::Result<()> {
    // SAFETY: both structures are plain integers and byte arrays, for which zero is a value.
    let mut config: LoopConfig = unsafe { mem::zeroed() };
    config.fd = file.as_raw_fd() as u32;
    config.info.flags = flags;
    // SAFETY: `config` has the layout of struct loop_config (linux/loop.h) and lives across the call.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &config) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Device and inode number of the file behind a loop device, as `stat` has them. Errors: `ENXIO` where none is.
pub fn backing(device: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    // SAFETY: the structure is plain integers and byte arrays, for which zero is a value.
    let mut info: LoopInfo64 = unsafe { mem::zeroed() };
    // SAFETY: `info` has the layout of struct loop_info64 (linux/loop.h) and lives across the call, which writes to it.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, &mut info) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok((info.device, info.inode)) }
}

/// Makes a loop device as large as its file is now.
pub fn follow_size(device: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes no argument and touches no memory of ours.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_CAPACITY as _) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives the free blocks of the file system below `dir` back to its device, those between the bytes `start` and `start + len`; returns
/// the bytes. Errors: `EINVAL` where the file system has no block there.
pub fn trim(dir: BorrowedFd<'_>, start: u64, len: u64) -> io::Result<u64> {
    let mut range = TrimRange { start, len, minlen: 0 };
    // SAFETY: `range` has the layout of struct fstrim_range (linux/fs.h) and lives across the call, which writes to it.
    let done = unsafe { libc::ioctl(dir.as_raw_fd(), FITRIM as _, &mut range) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(range.len) }
}
