//! What `deploy/bench` measures: figures that are ratios to a peer in the same run, in interleaved rounds.
//!
//! [`socket`] holds the user's socket against a direct connection, HAProxy and socat, [`wake`] a sleeping and a stopped berth against LXC
//! ([`start`] the latter alone), [`fsync`] a berth's fsync beside busy berths against the same alone; [`api`] holds the server's answers
//! against what the project wants of them, on either database, without a host. The others run on a [`crate::Host`] of their own, beside an installation. The ends of a measured connection are a static program
//! ([`client`], [`peer`]): one at work as whoever may use a way, the other inside the berth. No timed test of the suite asserts any of it.
#![allow(clippy::cast_precision_loss, reason = "figures are shown with four digits")]

pub mod api;
pub mod client;
mod ends;
mod figures;
mod flow;
pub mod fsync;
mod lxc;
pub mod peer;
mod process;
mod proxies;
pub mod socket;
pub mod start;
mod table;
pub mod wake;

use std::{fs, time::Instant};

pub use table::Report;

use crate::{Host, Options};

/// What the caller of `deploy/bench` may choose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Rounds of every interleaved measurement; `None`: as many as each is worth.
    pub rounds: Option<usize>,
}

/// An instance whose daemons log and work as installed ones do; but for memory, which [`wake`] takes back itself where it wants to.
#[track_caller]
fn host() -> Host {
    host_with("")
}

/// The same with more sections of node.toml.
#[track_caller]
fn host_with(node_config: &str) -> Host {
    let env = vec![("BERTH_LOG".into(), "info".into())];
    Host::with(Options { env, node_config: format!("[sleep]\nreclaim = \"never\"\n{node_config}"), ..Options::default() })
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
