//! `deploy/bench fsync`: what a berth's fsync costs beside berths that write and fsync without a pause, for both kinds of disk.
//!
//! A disk in an image has a journal of its own; directories of one file system share one, and wait for each other's. The figures are for
//! choosing between the two (`disk.backend` in node.toml), so no row has a target.

use std::time::Duration;

use super::{
    Progress, Settings,
    figures::Samples,
    table::{Report, Row, Table, Unit},
};
use crate::{Berth, Need, Running};

const ROUNDS: usize = 8;
const FSYNCS: usize = 50;
const BUSY: usize = 4;
/// For what is still on its way when the busy ones are told to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures and takes everything away again.
#[track_caller]
pub fn run(settings: Settings) -> Report {
    let progress = Progress::new();
    progress.warn_of_load();
    let rounds = settings.rounds.unwrap_or(ROUNDS);
    let quota = Need::ProjectQuota.is_here();
    let (directory, config) = match quota {
        true => ("directory", "[disk]\nbackend = \"directory\"\n"),
        // What a quota adds to each block cannot be measured on a kernel without.
        false => ("directory, no quota here", "[disk]\nbackend = \"directory\"\nwithout_quota = true\n"),
    };
    let mut rows = Vec::new();
    for (name, config) in [("image on loop", "[disk]\nbackend = \"loop\"\n"), (directory, config)] {
        let (alone, beside, synced) = measure(name, config, rounds, &progress);
        rows.extend(rows_of(name, &alone, &beside, synced));
    }
    let columns = vec![
        ("p50", Unit::Millis),
        ("p99", Unit::Millis),
        ("slowest", Unit::Millis),
        ("n", Unit::Count),
        ("p50 × alone", Unit::Ratio),
        ("p99 × alone", Unit::Ratio),
    ];
    let note = format!(
        "{FSYNCS} times 4 KiB written and synced a round, {rounds} rounds, alone and beside in turns; each of the {BUSY} others writes 1 MiB and syncs it, over and over."
    );
    Report { tables: vec![Table { title: "fsync".into(), columns, rows }], notes: vec![note] }
}

/// Times alone, times beside the busy ones, and how often these synced a MiB.
#[track_caller]
fn measure(name: &str, config: &str, rounds: usize, progress: &Progress) -> (Samples, Samples, u64) {
    let host = super::host_with(config);
    progress.say(&format!("{name}: {} berths", BUSY + 1));
    let berths: Vec<Berth<'_>> = (0..=BUSY).map(|number| host.assign(&host.user(&format!("f{number}")), &["--disk", "2g"])).collect();
    let (probe, busy) = berths.split_first().expect("berths");
    berths.iter().for_each(Berth::copy_probe);
    let (mut alone, mut beside, mut synced) = (Samples::default(), Samples::default(), 0);
    for round in 0..=rounds {
        let quiet = fsyncs(probe);
        let held: Vec<Running> = busy.iter().map(|berth| berth.hold(&["fsync-busy", "/root/busy"]).0).collect();
        let loud = fsyncs(probe);
        for running in held {
            let ended = running.finish(PATIENCE);
            let told: serde_json::Value = serde_json::from_str(ended.stdout.trim()).unwrap_or_else(|e| panic!("no JSON ({e}): {ended:?}"));
            synced += told["synced"].as_u64().expect("how often it synced");
        }
        // The first makes what later ones find.
        if round > 0 {
            alone.push(quiet);
            beside.push(loud);
        }
    }
    progress.say(&format!("{name}: alone {:.1} ms, beside {:.1} ms", alone.p50() / 1e6, beside.p50() / 1e6));
    (alone, beside, synced)
}

#[track_caller]
fn fsyncs(berth: &Berth<'_>) -> Vec<u64> {
    let told = berth.tells(&["fsync", "/root/probe", &FSYNCS.to_string()]);
    let times: Vec<u64> = told["nanoseconds"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_u64).collect();
    assert_eq!(times.len(), FSYNCS, "{told}");
    times
}

fn rows_of(name: &str, alone: &Samples, beside: &Samples, synced: u64) -> [Row; 2] {
    assert!(synced > 0, "{name}: the busy ones did nothing");
    let row = |what: &str, samples: &Samples, ratios: [Option<f64>; 2]| {
        let figures = [samples.p50(), samples.p99(), samples.percentile(100.0), samples.count() as f64];
        Row::new(format!("{name}: {what}"), figures.into_iter().map(Some).chain(ratios).collect(), vec![])
    };
    let ratios = [Some(beside.ratio_to(alone)), Some(beside.p99() / alone.p99())];
    [row("alone", alone, [None, None]), row("beside four", beside, ratios)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_told_beside_the_times() {
        let samples = |times: &[u64]| {
            let mut samples = Samples::default();
            samples.push(times.to_vec());
            samples
        };
        let rows = rows_of("x", &samples(&[2, 4, 4, 8]), &samples(&[8, 12, 40, 80]), 1);
        assert_eq!(rows[1].figures, [Some(12.0), Some(80.0), Some(80.0), Some(4.0), Some(3.0), Some(10.0)]);
        assert_eq!(rows[0].figures[4], None);
    }

    #[test]
    #[should_panic(expected = "did nothing")]
    fn figures_beside_idle_berths_are_none() {
        let mut samples = Samples::default();
        samples.push(vec![1]);
        rows_of("x", &samples, &samples, 0);
    }
}
