//! Random conversations through a stream socket, whose every byte is known beforehand: noise, HTTP/1.1 in all its framings, and what is
//! neither, with half-closes and resets anywhere. The peer is `berth-probe echo`, which does what the program in the first bytes says.
//!
//! A [`Case`] is a function of its number and the seed of the run, so one that failed can be played again.

mod dice;
mod make;
mod play;
mod program;

pub use dice::Dice;
pub use make::Case;
pub use play::{Played, play};

/// FNV-1a, as the peer computes it.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
