//! What the superblock of an ext4 image says of it while it is not mounted. The kernel alone writes there, never a tenant.

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::Path,
};

use super::Space;
use crate::error::{Result, Step};

const OFFSET: u64 = 1024;
const LENGTH: usize = 1024;

/// Size and use; exact after an orderly unmount, and nearly so after a crash.
pub(super) fn space(file: &Path) -> Result<Space> {
    let mut block = [0; LENGTH];
    let read = File::open(file).and_then(|file| file.read_exact_at(&mut block, OFFSET));
    let parsed = read.and_then(|()| parse(&block).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "it does not begin like ext4")));
    parsed.step("read the superblock of", file.display())
}

/// `struct ext4_super_block`, ext4(5): little-endian, 64-bit counts in two halves.
fn parse(block: &[u8; LENGTH]) -> Option<Space> {
    let half = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    if block[0x38..0x3A] != [0x53, 0xEF] || half(0x18) > 6 {
        return None;
    }
    let block_size = 1024 << half(0x18);
    let wide = if half(0x60) & 0x80 != 0 { u64::MAX } else { u64::from(u32::MAX) };
    let count = |low: usize, high: usize| (u64::from(half(low)) | u64::from(half(high)) << 32) & wide;
    let bytes = |low, high| count(low, high).saturating_mul(block_size);
    Some(Space {
        size: bytes(0x04, 0x150),
        free: bytes(0x0C, 0x158),
        available: bytes(0x0C, 0x158),
        tables: 0,
        inodes: half(0x00).into(),
        free_inodes: half(0x10).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_ext4_has_no_size() {
        assert_eq!(parse(&[0; LENGTH]), None);
        let mut odd = [0xFF; LENGTH];
        odd[0x38..0x3A].copy_from_slice(&[0x53, 0xEF]);
        assert_eq!(parse(&odd), None, "a block size beyond any");
    }
}
