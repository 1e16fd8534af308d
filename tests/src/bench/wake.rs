//! `deploy/bench wake`: what a user waits for who comes back to a frozen berth, and to a stopped one.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Progress, Settings,
    asleep::{let_sleep, reclaim},
    ends::Client,
    figures::Samples,
    ready, rootfs,
    table::{Report, Row, Table, Target, Unit},
};
use crate::{Berth, Host, Run};

/// Each frozen berth gives one time a round; half as many keep their memory as lose it.
const BERTHS: usize = 10;
const ROUNDS: usize = 10;
/// How long a berth is frozen before it is woken.
const FROZEN: Duration = Duration::from_secs(30);
/// Between two wakes: what the first sets off is over then.
const APART: Duration = Duration::from_millis(1200);
const LOOK: Duration = Duration::from_millis(100);
/// What comes next takes half a minute; what is past this will not come.
const PATIENCE: Duration = Duration::from_secs(180);

const MS: f64 = 1e6;
const MIB: f64 = (1 << 20) as f64;
/// Much less than a sleeping Docker has in pages of its programs.
const LEAST_TAKEN: f64 = 16.0 * MIB;

/// Measures and takes everything away again.
#[track_caller]
pub fn run(settings: Settings) -> Report {
    let progress = Progress::new();
    progress.warn_of_load();
    let rounds = settings.rounds.unwrap_or(ROUNDS);
    let start_rounds = settings.rounds.unwrap_or(ready::ROUNDS);
    let seconds = 60 + rounds * 35 + start_rounds * 6;
    progress.say(&format!(
        "{} berths frozen for {} s each, {rounds} times, then {start_rounds} starts against LXC and rootless Docker: takes about {} minutes",
        2 * BERTHS,
        FROZEN.as_secs(),
        seconds.div_ceil(60)
    ));
    let host = super::host();
    let image = rootfs::image(&host);
    let mut report = Report::default();
    ready::measure(&host, &image, start_rounds, &progress, &mut report);
    frozen(&host, &image, rounds, &progress, &mut report);
    progress.say("taking everything away again");
    report
}

/// A berth that is put to sleep again and again.
struct Sleeper<'h> {
    berth: Berth<'h>,
    client: Client,
    reclaimed: bool,
    asleep_since: Option<Instant>,
}

#[track_caller]
fn frozen(host: &Host, image: &std::path::Path, rounds: usize, progress: &Progress, report: &mut Report) {
    // An image of their own for those that lose their memory: pages of the programs are charged to whoever touched them first, and a
    // berth that keeps its memory would keep theirs as well.
    progress.say("a second image");
    let tar = host.slot.dir.join("second.tar");
    fs::write(host.slot.dir.join("second"), "").expect("write file");
    let tar_run = Run::new("tar").args(["--numeric-owner", "--xattrs", "-cf"]).arg(&tar).arg("-C").arg(image).arg(".");
    tar_run.arg("-C").arg(&host.slot.dir).arg("./second").limit(PATIENCE).ok();
    host.berth(["image", "import"]).arg(&tar).args(["--name", "second"]).limit(PATIENCE).ok();
    fs::remove_file(&tar).expect("remove the tar");
    rustix::fs::sync();
    forget(&host.state_dir.join("images"));

    progress.say(&format!("starting {} berths", 2 * BERTHS));
    let mut sleepers: Vec<Sleeper<'_>> = (0..2 * BERTHS)
        .map(|number| {
            let reclaimed = number % 2 == 1;
            let mut args = vec!["--disk", "1g"];
            args.extend(if reclaimed { ["--image", "second"].as_slice() } else { &[] });
            let berth = host.assign(&host.user(&format!("w{number}")), &args);
            let client = Client::of_user(&berth, None);
            Sleeper { berth, client, reclaimed, asleep_since: None }
        })
        .collect();
    // From here on nobody but this program tells the node what is wanted.
    host.stop_server();
    sleepers.iter().for_each(|sleeper| let_sleep(host, &sleeper.berth));

    let (mut kept, mut lost) = (Samples::default(), Samples::default());
    let (mut taken, mut told) = (Vec::new(), 0);
    let wanted = 2 * BERTHS * rounds;
    let mut last = Instant::now();
    while kept.count() + lost.count() < wanted {
        notice(host, &mut sleepers, &mut taken);
        assert!(last.elapsed() < PATIENCE, "no berth has been frozen for {} s: {}", FROZEN.as_secs(), list(host));
        // Of those that lose their memory only one is awake at a time, or it would bring the programs of the others back.
        let others_sleep = |own: usize| sleepers.iter().enumerate().all(|(n, s)| n == own || !s.reclaimed || s.asleep_since.is_some());
        let due = (0..sleepers.len())
            .filter(|&n| sleepers[n].asleep_since.is_some_and(|since| since.elapsed() >= FROZEN))
            .filter(|&n| !sleepers[n].reclaimed || others_sleep(n))
            .min_by_key(|&n| sleepers[n].asleep_since);
        let Some(due) = due.filter(|_| last.elapsed() >= APART) else {
            thread::sleep(LOOK);
            continue;
        };
        let sleeper = &mut sleepers[due];
        assert_eq!(sleeper.berth.state(), "frozen");
        let time = sleeper.client.times("new 1");
        sleeper.asleep_since = None;
        last = Instant::now();
        if sleeper.reclaimed {
            lost.push(time)
        } else {
            kept.push(time)
        }
        let done = (kept.count() + lost.count()) * 10 / wanted;
        if std::mem::replace(&mut told, done) != done {
            progress.say(&format!("{} of {wanted} wakes", kept.count() + lost.count()));
        }
    }
    let mean = taken.iter().sum::<f64>() / taken.len().max(1) as f64;
    report.tables.insert(0, table(&kept, &lost, mean));
    report.notes.push(format!(
        "Frozen: {} s each, one woken at a time; a new connection and `_ping` by the berth's user. Reclaimed: {:.0} MiB each on average, right after freezing.",
        FROZEN.as_secs(),
        mean / MIB
    ));
}

/// `taken`: bytes that each reclaim brought, on average.
fn table(kept: &Samples, lost: &Samples, taken: f64) -> Table {
    let row = |name: &str, samples: &Samples, targets: Vec<Target>| {
        let figures = vec![Some(samples.p50()), Some(samples.p99()), Some(samples.percentile(100.0)), Some(samples.count() as f64)];
        Row::new(name, figures, targets)
    };
    let kept_targets =
        vec![Target::at_most("p50", kept.p50(), 10.0 * MS, "10 ms"), Target::at_most("p99", kept.p99(), 100.0 * MS, "100 ms")];
    // Where nothing was taken, the row is the other one again.
    let lost_targets =
        vec![Target::at_most("p99", lost.p99(), 300.0 * MS, "300 ms"), Target::at_least("reclaimed", taken, LEAST_TAKEN, "16 MiB each")];
    let columns = vec![("p50", Unit::Millis), ("p99", Unit::Millis), ("slowest", Unit::Millis), ("n", Unit::Count)];
    let rows = vec![row("memory kept", kept, kept_targets), row("memory reclaimed", lost, lost_targets)];
    Table { title: "frozen → _ping".into(), columns, rows }
}

/// Drops the page cache of all files below `dir`: the import has read them, and what the importer is charged for no berth can lose.
#[track_caller]
fn forget(dir: &std::path::Path) {
    for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())).flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => forget(&entry.path()),
            Ok(kind) if kind.is_file() => {
                // Advice: pages that somebody maps stay.
                if let Ok(file) = fs::File::open(entry.path()) {
                    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
                }
            }
            _ => {}
        }
    }
}

#[track_caller]
fn list(host: &Host) -> Value {
    host.node_api("GET", "/v1/berths", None).json()
}

/// Writes down who fell asleep, and takes their memory from those that are to lose it; `taken` gets the bytes.
#[track_caller]
fn notice(host: &Host, sleepers: &mut [Sleeper<'_>], taken: &mut Vec<f64>) {
    if sleepers.iter().all(|sleeper| sleeper.asleep_since.is_some()) {
        return;
    }
    let list = list(host);
    let state = |name: &str| list.as_array().into_iter().flatten().find(|b| b["user"] == name).map(|b| b["state"].clone());
    for sleeper in sleepers.iter_mut().filter(|sleeper| sleeper.asleep_since.is_none()) {
        if state(sleeper.berth.name()).is_some_and(|state| state == "frozen") {
            if sleeper.reclaimed {
                taken.push(reclaim(&sleeper.berth));
            }
            sleeper.asleep_since = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_can_be_missed_also_by_a_reclaim_that_brought_nothing() {
        let samples = |times: &[u64]| {
            let mut samples = Samples::default();
            times.iter().for_each(|&ms| samples.push_one(Duration::from_millis(ms)));
            samples
        };
        let met = |kept: &[u64], lost: &[u64], taken: f64| -> Vec<bool> {
            table(&samples(kept), &samples(lost), taken).rows.iter().flat_map(|row| &row.targets).map(|t| t.met).collect()
        };
        assert_eq!(met(&[2, 3, 100], &[120, 300], 20.0 * MIB), [true; 4]);
        assert_eq!(met(&[2, 11, 101], &[120, 301], 15.0 * MIB), [false; 4]);
    }
}
