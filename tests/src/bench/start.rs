//! `deploy/bench start` and `deploy/bench assign`: from the request to the first moment at which PID 1 runs, for a berth that is there
//! and for one that is not yet, against LXC and runc with the same image.

use super::{
    Progress, Settings,
    compare::{self, Limit, Own, Peer, had},
    figures::nanoseconds,
    lxc::Lxc,
    pid1::{self, ByNode},
    rootfs,
    runc::Runc,
    table::{Report, Table, Unit},
};
use crate::{Berth, Host};

const ROUNDS: usize = 12;
/// Each takes a range of ids, and the slot has forty.
const MOST_ASSIGNED: usize = 30;

/// An existing berth; measures and takes everything away again.
#[track_caller]
pub fn run(settings: Settings) -> Report {
    let progress = Progress::new();
    progress.warn_of_load();
    let host = super::host();
    let berth = host.new_berth("start");
    progress.say("unpacking the image for LXC and runc");
    let image = rootfs::image(&host);
    let lxc = had(|| Lxc::create(&host, &image, &berth));
    let runc = had(|| Runc::create(&host, &image, &rootfs::daemons(&berth)));
    // From here on nobody but this program tells the node what is wanted.
    host.stop_server();
    let rounds = settings.rounds.unwrap_or(ROUNDS);
    progress.say(&format!("request → PID 1, {rounds} rounds"));
    let table = existing(&host, &berth, &lxc, &runc, rounds);
    progress.say("taking everything away again");
    let note = "Start: Berth from a request at the node, the others from the start of lxc-start and `runc run`, to the first look (each 0.3 ms) at which PID 1 \
                executes its program. LXC with a veth pair, runc with an empty network of its own, no seccomp filter in either.";
    Report { tables: vec![table], notes: vec![note.into()] }
}

#[track_caller]
fn existing(host: &Host, berth: &Berth<'_>, lxc: &Result<Lxc, String>, runc: &Result<Runc<'_>, String>, rounds: usize) -> Table {
    let by_node = ByNode::new(berth);
    let own = Own { name: "Berth", limits: vec![Limit::AtMost(1.0); 2], measure: Box::new(|| nanoseconds(by_node.start())) };
    let runc = Peer::new("runc with a user namespace", "× runc", runc, move |runc| {
        let time = pid1::time(runc.start(), || Runc::groups(host), pid1::is_shell);
        runc.kill();
        nanoseconds(time)
    });
    compare::run("start: request → PID 1", Unit::Millis, rounds, vec![lxc_peer(lxc), runc], vec![own])
}

/// A berth that is assigned and deleted again each time; measures and takes everything away again.
#[track_caller]
pub fn run_assign(settings: Settings) -> Report {
    let progress = Progress::new();
    progress.warn_of_load();
    let host = super::host();
    let berth = host.new_berth("model");
    progress.say("unpacking the image for LXC");
    let lxc = had(|| Lxc::create(&host, &rootfs::image(&host), &berth));
    berth.delete().ok();
    let rounds = settings.rounds.unwrap_or(ROUNDS).min(MOST_ASSIGNED);
    progress.say(&format!("assign → PID 1, {rounds} rounds"));
    let mut number = 0;
    let assign = || {
        number += 1;
        let user = host.user(&format!("n{number}"));
        let time = pid1::time(host.assign_command(&user, &[]), || pid1::payloads(&host), pid1::is_berth_init);
        let berth = host.berth_of(&user);
        berth.await_docker();
        berth.delete().ok();
        nanoseconds(time)
    };
    let own = Own { name: "Berth", limits: vec![Limit::AtMost(2.0)], measure: Box::new(assign) };
    let table = compare::run("assign → PID 1", Unit::Millis, rounds, vec![lxc_peer(&lxc)], vec![own]);
    progress.say("taking everything away again");
    let note = "Assign: from the start of `berth assign` for a user without a berth, disk and network made in it; LXC starts a container that is there.";
    Report { tables: vec![table], notes: vec![note.into()] }
}

fn lxc_peer(lxc: &Result<Lxc, String>) -> Peer<'_> {
    Peer::new("LXC", "× LXC", lxc, |lxc| {
        let time = pid1::time(lxc.start(), Lxc::groups, pid1::is_shell);
        lxc.kill();
        nanoseconds(time)
    })
}
