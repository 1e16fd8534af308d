//! `deploy/bench exec`: `docker exec true` through the user's socket, against the inner socket itself.

use std::path::Path;

use super::{
    Progress, Settings,
    compare::{self, Limit, Own, Peer},
    ends::Client,
    table::{Report, Unit},
};
use crate::berth::BUSYBOX;

const ROUNDS: usize = 10;
const EXECS: usize = 10;

/// Measures and takes everything away again.
#[track_caller]
pub fn run(settings: Settings) -> Report {
    let progress = Progress::new();
    progress.warn_of_load();
    let host = super::host();
    let berth = host.new_berth("exec");
    berth.load_busybox();
    berth.docker(&["run", "-d", "--name", "bench", BUSYBOX, "sleep", "86400"]).ok();
    let rounds = settings.rounds.unwrap_or(ROUNDS);
    progress.say(&format!("{rounds} rounds of {EXECS} at each side"));
    let command = format!("exec {EXECS}");
    let inner = format!("/proc/{}/root/run/docker.sock", berth.pid());
    let (mut direct, mut user) = (Client::of_root(&host, Path::new(&inner), None), Client::of_user(&berth, None));
    let peer = Peer { name: "direct", ratio: "× direct", measure: Ok(Box::new(|| direct.times(&command))) };
    let own = Own { name: "Berth", limits: vec![Limit::AtMost(1.1)], measure: Box::new(|| user.times(&command)) };
    let table = compare::run("docker exec true", Unit::Millis, rounds, vec![peer], vec![own]);
    drop((direct, user));
    progress.say("taking everything away again");
    let note = "Exec: create, start with its streams attached, inspect, by the same program at both sockets; without the start of the Docker client, which would \
                make the ratio better.";
    Report { tables: vec![table], notes: vec![note.into()] }
}
