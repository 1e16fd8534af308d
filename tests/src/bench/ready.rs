//! `deploy/bench ready`: from nothing to Docker's whole answer: a stopped berth that is connected to, against LXC and rootless Docker with
//! the same image and the same daemons.

use std::{path::Path, time::Instant};

use super::{
    Progress, Settings,
    compare::{self, Limit, Own, Peer, had},
    ends::Client,
    figures::nanoseconds,
    lxc::Lxc,
    pid1, rootfs,
    rootless::Rootless,
    table::{Report, Unit},
};
use crate::{Berth, Host};

/// What a client asks, and how long it tries.
const INFO: &str = "get /info 60000";
/// For a first start of rootless Docker, which may wait for something that this host does not have.
const FIRST: &str = "get /info 20000";
pub(super) const ROUNDS: usize = 12;

/// The part of [`super::wake`] that takes no sleep: measures and takes everything away again.
#[track_caller]
pub fn run(settings: Settings) -> Report {
    let progress = Progress::new();
    progress.warn_of_load();
    let host = super::host();
    let mut report = Report::default();
    measure(&host, &rootfs::image(&host), settings.rounds.unwrap_or(ROUNDS), &progress, &mut report);
    progress.say("taking everything away again");
    report
}

/// Adds what it finds to `report`. `image`: the unpacked root file system that the berth stands on.
#[track_caller]
pub(super) fn measure(host: &Host, image: &Path, rounds: usize, progress: &Progress, report: &mut Report) {
    let berth = host.new_berth("ready");
    progress.say("unpacking the image for LXC and rootless Docker");
    let lxc = had(|| Lxc::create(host, image, &berth));
    let rootless = had(|| Rootless::create(host, image, &rootfs::daemons(&berth), "rootless"));
    progress.say(&format!("stopped → /info, {rounds} rounds"));
    let mut client = Client::of_user(&berth, None);
    let own = Own {
        name: "Berth",
        limits: vec![Limit::AtMost(0.9); 2],
        measure: Box::new(move || {
            stop(&berth);
            let time = vec![client.time(INFO)];
            stop(&berth);
            time
        }),
    };
    let lxc = Peer::new("LXC", "× LXC", &lxc, |lxc| {
        let mut client = Client::of_root(host, &lxc.socket(), None);
        let mut starting = None;
        let time = timed(|| {
            starting = Some(lxc.start().spawn());
            client.time(INFO);
        });
        starting.into_iter().for_each(pid1::finish);
        lxc.stop();
        time
    });
    let rootless = Peer::new("rootless Docker", "× rootless", &rootless, |rootless| {
        let mut client = Client::of_root(host, &rootless.socket(), None);
        let mut running = None;
        let time = timed(|| {
            running = Some(rootless.start());
            client.time(FIRST);
        });
        running.into_iter().for_each(|running| rootless.stop(running));
        time
    });
    report.tables.push(compare::run("ready: stopped → /info", Unit::Millis, rounds, vec![lxc, rootless], vec![own]));
    report.notes.push(
        "Ready: Berth from connect(2) as its user, LXC from the start of lxc-start, rootless Docker from that of rootlesskit (slirp4netns); the same dockerd and \
         containerd with the same flags, side by side; containerd with Berth's configuration here, with the image's there; no containers; all stopped in order."
            .into(),
    );
}

fn timed(act: impl FnOnce()) -> Vec<u64> {
    let began = Instant::now();
    act();
    nanoseconds(began.elapsed())
}

#[track_caller]
fn stop(berth: &Berth<'_>) {
    berth.stop().ok();
    berth.await_state("stopped");
}
