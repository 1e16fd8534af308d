//! From nothing to Docker's whole answer: a stopped berth that is connected to, against LXC with the same image.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    Progress, Settings,
    ends::Client,
    figures::Samples,
    lxc::Lxc,
    table::{Report, Row, Table, Target, Unit},
};
use crate::{Berth, Host, until};

/// What a client asks, and how long it tries.
const INFO: &str = "get /info 60000";
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_micros(300);
pub(super) const ROUNDS: usize = 12;

/// The part of [`super::wake`] that takes no sleep: measures and takes everything away again.
#[track_caller]
pub fn run(settings: Settings) -> Report {
    let progress = Progress::new();
    progress.warn_of_load();
    let host = super::host();
    let mut report = Report::default();
    measure(&host, &image(&host), settings.rounds.unwrap_or(ROUNDS), &progress, &mut report);
    progress.say("taking everything away again");
    report
}

/// Adds what it finds to `report`. `image`: the unpacked root file system that the berth stands on.
#[track_caller]
pub(super) fn measure(host: &Host, image: &Path, rounds: usize, progress: &Progress, report: &mut Report) {
    let berth = host.new_berth("start");
    progress.say("unpacking the image for LXC");
    let lxc = Lxc::create(host, image, &berth);
    fs::create_dir_all(lxc.socket().parent().expect("a directory")).expect("make /run");
    let mut berth_client = Client::of_user(&berth, None);
    let mut lxc_client = Client::of_root(host, &lxc.socket(), None);

    progress.say(&format!("stopped → /info, {rounds} rounds of Berth and LXC"));
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    for round in 0..=rounds {
        stop(&berth);
        let began = Instant::now();
        berth_client.time(INFO);
        let time = began.elapsed();
        stop(&berth);

        let began = Instant::now();
        let starting = lxc.start().spawn();
        lxc_client.time(INFO);
        let their_time = began.elapsed();
        assert!(starting.finish(PATIENCE).success());
        lxc.stop();
        // The first makes what later starts find, on both sides.
        if round > 0 {
            ours.push_one(time);
            theirs.push_one(their_time);
        }
    }

    progress.say(&format!("Berth {:.0} ms, LXC {:.0} ms; now their parts", ours.p50() / 1e6, theirs.p50() / 1e6));

    let (mut pid_1, mut running) = (Samples::default(), Samples::default());
    for _ in 0..rounds.min(5) {
        pid_1.push_one(to_pid_1(&berth, &mut berth_client));
        stop(&berth);
        let began = Instant::now();
        lxc.start().ok();
        running.push_one(began.elapsed());
        // Before it has answered, the script may not heed a signal yet.
        lxc_client.time(INFO);
        lxc.stop();
    }
    report.tables.push(table(&ours, &theirs));
    let row = |name: &str, samples: &Samples| Row {
        name: name.into(),
        figures: vec![Some(samples.p50()), Some(samples.p99()), Some(samples.count() as f64)],
        targets: vec![],
    };
    report.tables.push(Table {
        title: "for orientation".into(),
        columns: vec![("p50", Unit::Millis), ("slowest", Unit::Millis), ("n", Unit::Count)],
        rows: vec![row("Berth: connect → PID 1 runs", &pid_1), row("LXC: lxc-start → it says RUNNING", &running)],
    });
    report.notes.push(
        "Start: Berth from connect(2) as its user, LXC from the start of lxc-start; the same dockerd and containerd with the same flags, side by side; \
         containerd with Berth's configuration here, with the image's there; no containers; both stopped in order."
            .into(),
    );
}

fn table(ours: &Samples, theirs: &Samples) -> Table {
    let ratio = ours.ratio_to(theirs);
    let figures =
        |samples: &Samples, ratio| vec![Some(samples.p50()), Some(samples.percentile(100.0)), Some(samples.count() as f64), ratio];
    let berth =
        Row { name: "Berth".into(), figures: figures(ours, Some(ratio)), targets: vec![Target::at_most("p50", ratio, 1.0, "1.0 × LXC")] };
    let lxc = Row { name: "LXC".into(), figures: figures(theirs, None), targets: vec![] };
    let columns = vec![("p50", Unit::Millis), ("slowest", Unit::Millis), ("n", Unit::Count), ("p50 × LXC", Unit::Ratio)];
    Table { title: "stopped → /info".into(), columns, rows: vec![lxc, berth] }
}

#[track_caller]
fn stop(berth: &Berth<'_>) {
    berth.stop().ok();
    berth.await_state("stopped");
}

/// From a connection to the first moment at which PID 1 is berth-init.
#[track_caller]
fn to_pid_1(berth: &Berth<'_>, client: &mut Client) -> Duration {
    let id = berth.id();
    let groups = berth.host.slot.groups();
    let payload = |group: &PathBuf| [id.clone(), format!("berth-{id}.scope")].map(|name| group.join(name).join("payload"));
    let payloads: Vec<PathBuf> = groups.iter().flat_map(payload).collect();
    let began = Instant::now();
    let waiter = thread::scope(|scope| {
        let looking = scope.spawn(|| {
            while began.elapsed() < PATIENCE {
                if payloads.iter().any(|dir| init_runs(dir)) {
                    return Some(began.elapsed());
                }
                thread::sleep(LOOK);
            }
            None
        });
        client.time(INFO);
        looking.join().expect("look for PID 1")
    });
    waiter.expect("berth-init runs")
}

/// It moves to a group below once it runs. Executed from a sealed memfd, it has no name of its own in `comm`.
fn init_runs(payload: &Path) -> bool {
    [payload.to_owned(), payload.join("init")].iter().any(|dir| {
        let pids = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        pids.lines()
            .any(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.to_string_lossy().starts_with("/memfd:berth-init")))
    })
}

/// The unpacked image of an instance.
#[track_caller]
pub(super) fn image(host: &Host) -> PathBuf {
    let images = || fs::read_dir(host.state_dir.join("images")).into_iter().flatten().flatten().map(|e| e.path().join("rootfs"));
    until("an image is there", PATIENCE, || images().find(|rootfs| rootfs.is_dir()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slower_than_lxc_is_missed() {
        let samples = |times: [u64; 3]| {
            let mut samples = Samples::default();
            times.iter().for_each(|&ms| samples.push_one(Duration::from_millis(ms)));
            samples
        };
        let lxc = samples([370, 380, 390]);
        assert!(table(&samples([360, 375, 392]), &lxc).rows[1].targets[0].met, "two of three rounds are faster");
        assert!(!table(&samples([371, 381, 300]), &lxc).rows[1].targets[0].met);
    }
}
