//! The embedded container runtime: from a validated [`container::Bundle`] to a running system container and back to nothing.
//!
//! Synchronous throughout (netlink runs on a private current-thread executor). The caller of [`container::start`] must be a freshly
//! executed single-threaded process: it is the parent of the container's PID 1, and the berth ends with it. Every change of the host
//! goes through [`undo::Undo`], so a failed start leaves nothing, and [`container::sweep`] removes what a killed process left.
#![forbid(unsafe_code)]

pub mod account;
pub mod archive;
pub mod cgroup;
pub mod container;
pub mod disk;
mod durable;
pub mod error;
pub mod fault;
pub mod haste;
pub mod idmap;
pub mod image;
pub mod net;
mod packet;
pub mod procfs;
mod rootfs;
pub mod seccomp;
pub mod share;
pub mod spec;
pub mod tuning;
pub mod undo;

pub use error::Error;
