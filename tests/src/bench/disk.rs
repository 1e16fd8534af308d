//! `deploy/bench disk`: fio on a berth's disk, against a directory of the file system that the disk lies on.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::{
    Progress, Settings,
    compare::{self, Limit, Own, Peer},
    table::{Report, Row, Table, Unit},
};
use crate::{Berth, Host, Run};

const ROUNDS: usize = 5;
const FIO: &str = "/usr/bin/fio";
/// Where fio and its libraries lie inside, and where it works: straight on the disk.
const INSIDE: &str = "/opt/fio";
const WORK: &str = "/var/lib/docker/bench";
const PATIENCE: Duration = Duration::from_secs(120);

/// Name for people and for fio, block size, depth, what is counted. Those that write in order come first: they make the file.
const JOBS: [Job; 4] = [
    Job { name: "sequential write, 1 MiB", rw: "write", block: "1M", depth: 4, unit: Unit::BytesPerSecond },
    Job { name: "sequential read, 1 MiB", rw: "read", block: "1M", depth: 4, unit: Unit::BytesPerSecond },
    Job { name: "random write, 4 KiB", rw: "randwrite", block: "4k", depth: 16, unit: Unit::PerSecond },
    Job { name: "random read, 4 KiB", rw: "randread", block: "4k", depth: 16, unit: Unit::PerSecond },
];

struct Job {
    name: &'static str,
    rw: &'static str,
    block: &'static str,
    depth: u32,
    unit: Unit,
}

/// Measures and takes everything away again.
#[track_caller]
pub fn run(settings: Settings) -> Report {
    let progress = Progress::new();
    progress.warn_of_load();
    let host = super::host();
    let note = "Disk: fio with libaio and O_DIRECT, 2 s a round, a file of 256 MiB; the same fio with the same libraries on both sides.";
    if !Path::new(FIO).exists() {
        let rows = vec![Row::absent("fio", "it is not installed")];
        return Report { tables: vec![Table { title: "disk".into(), columns: vec![], rows }], notes: vec![] };
    }
    let berth = host.new_berth("disk");
    progress.say("giving the berth fio");
    let bundle = bundle(&host);
    give(&berth, &bundle);
    let directory = host.slot.dir.join("disk");
    fs::create_dir(&directory).expect("make directory");
    let rounds = settings.rounds.unwrap_or(ROUNDS);
    let tables = JOBS.each_ref().map(|job| {
        progress.say(&format!("{}, {rounds} rounds", job.name));
        let on_host = || job.figure(&fio(Run::new(bundle.join("ld.so")), &bundle, &directory, job));
        let inside = || job.figure(&fio(berth.exec(&[&format!("{INSIDE}/ld.so")]), Path::new(INSIDE), Path::new(WORK), job));
        let peer = Peer { name: "directory of the host", ratio: "× host", measure: Ok(Box::new(on_host)) };
        let own = Own { name: "Berth", limits: vec![Limit::AtLeast(0.85)], measure: Box::new(inside) };
        compare::run(&format!("disk: {}", job.name), job.unit, rounds, vec![peer], vec![own])
    });
    progress.say("taking everything away again");
    Report { tables: tables.into(), notes: vec![note.into()] }
}

impl Job {
    /// Of what fio says: bytes or operations in a second.
    fn figure(&self, told: &Value) -> Vec<u64> {
        let side = &told["jobs"][0][if self.rw.ends_with("read") { "read" } else { "write" }];
        let figure = match self.unit {
            Unit::PerSecond => side["iops"].as_f64(),
            _ => side["bw_bytes"].as_f64(),
        };
        vec![figure.filter(|&figure| figure > 0.0).unwrap_or_else(|| panic!("fio tells no {}: {told}", self.rw)) as u64]
    }
}

/// `run` begins with the loader of the bundle at `bundle`.
#[track_caller]
fn fio(run: Run, bundle: &Path, work: &Path, job: &Job) -> Value {
    let run = run
        .arg("--library-path")
        .arg(bundle)
        .arg(bundle.join("fio"))
        .args(["--name=bench", "--size=256M", "--direct=1", "--ioengine=libaio", "--runtime=2", "--time_based", "--fallocate=none"])
        .args(["--output-format=json".to_owned(), format!("--filename={}", work.join("file").display())])
        .args([format!("--rw={}", job.rw), format!("--bs={}", job.block), format!("--iodepth={}", job.depth)]);
    let said = run.limit(PATIENCE).ok();
    // Notes come before the document.
    let json = said.find('{').map_or("", |begin| &said[begin..]);
    serde_json::from_str(json).unwrap_or_else(|e| panic!("no JSON ({e}): {said}"))
}

/// fio of the host, its loader and its libraries in one directory: the image has none of them, and maybe another C library.
#[track_caller]
fn bundle(host: &Host) -> PathBuf {
    let dir = host.slot.dir.join("fio");
    fs::create_dir(&dir).expect("make directory");
    let copy = |from: &str, name: &str| {
        fs::copy(from, dir.join(name)).unwrap_or_else(|e| panic!("{from}: {e}"));
    };
    copy(FIO, "fio");
    for line in Run::new("ldd").arg(FIO).ok().lines() {
        let path = line.split_whitespace().find(|word| word.starts_with('/'));
        let Some((path, name)) = path.and_then(|path| Some((path, path.rsplit_once('/')?.1))) else { continue };
        copy(path, if name.starts_with("ld-linux") { "ld.so" } else { name });
    }
    dir
}

#[track_caller]
fn give(berth: &Berth<'_>, bundle: &Path) {
    let tar = bundle.with_extension("tar");
    Run::new("tar").arg("-C").arg(bundle).args(["--owner=0", "--group=0", "-cf"]).arg(&tar).arg(".").ok();
    let bytes = fs::read(&tar).expect("read the tar");
    berth.exec_input(&["sh", "-c", &format!("mkdir -p {INSIDE} {WORK} && tar -C {INSIDE} -xf -")], bytes).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_finds_its_own_figure() {
        let told =
            serde_json::json!({ "jobs": [{ "read": { "iops": 10.5, "bw_bytes": 4096 }, "write": { "iops": 20.0, "bw_bytes": 8192 } }] });
        assert_eq!(JOBS.each_ref().map(|job| job.figure(&told)[0]), [8192, 4096, 20, 10]);
    }

    #[test]
    #[should_panic(expected = "fio tells no")]
    fn no_figure_is_no_zero() {
        JOBS[0].figure(&serde_json::json!({ "jobs": [{}] }));
    }
}
