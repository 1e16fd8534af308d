//! The two root-started programs of a host: the node daemon ([`daemon`]) and the shim that stands by each running berth ([`shim`]).
#![forbid(unsafe_code)]

pub mod daemon;
mod descriptor;
pub mod link;
pub mod shim;
