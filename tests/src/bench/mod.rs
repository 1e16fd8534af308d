//! What `deploy/bench` measures: figures that are ratios to a peer in the same run, in interleaved rounds.
//!
//! [`socket`] holds the user's socket against a direct connection, HAProxy and socat, [`exec`] a command in a container against the inner
//! socket, [`start`] a berth against LXC and runc, [`ready`] its Docker against that in LXC and rootless Docker, [`wake`] a sleeping one
//! against what the project wants; [`fsync`] a berth's fsync beside busy berths against the same alone, [`disk`] and [`net`] what a berth
//! gets of the host against the host itself, [`proc`] its /proc against lxcfs. [`density`] and [`footprint`] say what berths cost; [`api`]
//! holds the server's answers against what the project wants of them, on either database, without a host. The others run on a
//! [`crate::Host`] of their own, beside an installation. What is held against a peer is measured in turns ([`compare`]), and all peers of a
//! start share one root file system ([`rootfs`]). The measuring ends are a static program ([`client`], [`peer`]): one at work as whoever
//! may use a way, the other inside the berth. No timed test of the suite asserts any of it.
#![allow(clippy::cast_precision_loss, reason = "figures are shown with four digits")]

pub mod api;
mod asleep;
pub mod client;
mod compare;
pub mod density;
pub mod disk;
mod ends;
pub mod exec;
mod figures;
mod flow;
pub mod footprint;
pub mod fsync;
mod lxc;
pub mod machine;
pub mod net;
pub mod peer;
mod pid1;
pub mod proc;
mod process;
mod proxies;
pub mod ready;
mod rootfs;
mod rootless;
mod runc;
pub mod socket;
pub mod start;
mod table;
mod tcp;
pub mod wake;

use std::{fs, time::Instant};

pub use table::Report;

use crate::{Host, Options};

/// What the caller of `deploy/bench` may choose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Rounds of every interleaved measurement; `None`: as many as each is worth.
    pub rounds: Option<usize>,
    /// Berths of [`density`]; `None`: as many as memory has room for, a hundred at most.
    pub count: Option<usize>,
}

/// An instance whose daemons log and work as installed ones do; but for memory, which [`wake`] takes back itself where it wants to.
#[track_caller]
fn host() -> Host {
    host_with("")
}

/// The same with more sections of node.toml.
#[track_caller]
fn host_with(node_config: &str) -> Host {
    Host::with(options(node_config))
}

fn options(node_config: &str) -> Options {
    let env = vec![("BERTH_LOG".into(), "info".into())];
    Options { env, node_config: format!("[sleep]\nreclaim = \"never\"\n{node_config}"), ..Options::default() }
}

/// Says on standard error where the run is; standard output is the report's.
struct Progress {
    began: Instant,
}

impl Progress {
    fn new() -> Self {
        Self { began: Instant::now() }
    }

    fn say(&self, text: &str) {
        let seconds = self.began.elapsed().as_secs();
        eprintln!("bench: [{}:{:02}] {text}", seconds / 60, seconds % 60);
    }

    /// Others who compute meanwhile are measured too.
    fn warn_of_load(&self) {
        let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = text.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
        if load > 0.5 {
            self.say(&format!("warning: the load of this host is {load} before the start; figures taken beside other work mislead"));
        }
    }
}
