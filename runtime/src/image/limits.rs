//! What an import may cost at most. Everything that comes from an archive is compared with one of these before it is acted upon.

use std::fmt;

/// Bytes of an archive as given.
pub const INPUT_BYTES: u64 = 32 << 30;
/// Bytes of all files of an image, and of a decompressed archive.
pub const UNPACKED_BYTES: u64 = 64 << 30;
/// Entries of all layers together.
pub const ENTRIES: u64 = 4_000_000;
/// Layers of an image; Docker itself stops at 127.
pub const LAYERS: usize = 128;
/// Members of an archive that holds an image layout: blobs, documents and their directories.
pub const MEMBERS: usize = 4096;
/// Bytes of a path or of a link's target, as the kernel has it (`PATH_MAX` with its NUL is 4096).
pub const PATH_BYTES: usize = 4095;
/// Bytes of one component of a path (`NAME_MAX`).
pub const NAME_BYTES: usize = 255;
/// Directories above a file; symlinks of the image resolved.
pub const DEPTH: usize = 200;
/// How much larger than its compressed form something may become, once it is larger than [`RATIO_FREE_BYTES`].
pub const RATIO: u64 = 100;
/// Output that is never too much, whatever its ratio.
pub const RATIO_FREE_BYTES: u64 = 64 << 20;
/// Bytes of one JSON document of an image layout.
pub const DOCUMENT_BYTES: u64 = 4 << 20;
/// Bytes of one extension header of a tar entry (long names, extended attributes).
pub const EXTENSION_BYTES: u64 = 1 << 20;
/// Symlinks followed on the way to one path, as many as the kernel follows.
pub const LINKS: usize = 40;
/// Characters of an image's name.
pub const IMAGE_NAME_CHARS: usize = 128;

/// A bound was met; travels inside an [`std::io::Error`] where a reader finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exceeded(pub(super) String);

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Exceeded {}
