//! System calls that nix and rustix lack, each in a small safe wrapper. The only crate of Berth that may hold `unsafe`.

pub mod code;
pub mod descriptor;
pub mod ext4;
pub mod keyring;
pub mod keys;
pub mod locked_memory;
pub mod loopdev;
pub mod mount;
pub mod packet;
pub mod pam;
pub mod process;
pub mod quota;
pub mod shadow;
pub mod signal;
pub mod socket;
