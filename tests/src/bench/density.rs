//! `deploy/bench density`: what many sleeping berths cost a host.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use super::{
    Progress, Settings, asleep,
    figures::Samples,
    process,
    table::{Report, Row, Table, Target, Unit},
};
use crate::{Berth, Host, Options, until};

const MOST: usize = 100;
/// In KiB, of the half of the memory that is free: a Docker that sleeps has some 60 MiB of its own.
const ROOM: f64 = 96.0 * 1024.0;
/// Daemons are watched for so long.
const REST: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(10);
const ASLEEP: Duration = Duration::from_secs(120);
const LISTS: usize = 20;

const SHIM: f64 = 4.0 * 1024.0;
const NODE: f64 = 40.0 * 1024.0;
/// Percent of a core.
const CPU: f64 = 1.0;
const LIST: f64 = 50e6;
const USAGE: &[&str] = &["memory.current", "memory.usage_in_bytes"];

/// Measures and takes everything away again.
#[track_caller]
pub fn run(settings: Settings) -> Report {
    let progress = Progress::new();
    progress.warn_of_load();
    let count = settings.count.unwrap_or_else(|| ((available_kib() / 2.0 / ROOM) as usize).clamp(1, MOST));
    let host = Host::with(Options { many_ids: true, ..super::options("") });
    host.berth(["profile", "set", "default", "--freeze-after", "10s"]).ok();
    let before = available_kib();
    progress.say(&format!("starting {count} berths"));
    let berths: Vec<Berth<'_>> = (0..count)
        .map(|number| {
            let berth = host.assign(&host.user(&format!("d{number}")), &["--disk", "1g"]);
            if (number + 1) % 20 == 0 {
                progress.say(&format!("{} run", number + 1));
            }
            berth
        })
        .collect();
    until("all berths are frozen", ASLEEP, || all_frozen(&host).then_some(()));
    thread::sleep(SETTLE);
    let asleep = Memory::now(&berths, before);
    progress.say(&format!("all asleep; watching the daemons for {} s", REST.as_secs()));
    let shims: Vec<u32> = berths.iter().map(Berth::shim_pid).collect();
    let daemons: Vec<u32> = shims.iter().copied().chain([host.node_pid(), host.server_pid()]).collect();
    let cpu = cpu_percent(&daemons, REST);
    let mut lists = Samples::default();
    for _ in 0..LISTS {
        let began = Instant::now();
        host.berth(["list"]).ok();
        lists.push_one(began.elapsed());
    }
    assert!(all_frozen(&host), "a berth woke while it was to sleep");
    let of_shims = |field: &str| {
        let mut samples = Samples::default();
        samples.push(shims.iter().map(|&shim| process::memory_kib(shim, field) as u64).collect());
        samples
    };
    let (resident, own) = (of_shims("VmRSS"), of_shims("RssAnon"));
    progress.say("taking the memory of all");
    for berth in &berths {
        asleep::reclaim(berth);
    }
    thread::sleep(SETTLE);
    let reclaimed = Memory::now(&berths, before);
    let found = Found {
        count,
        memory: [asleep, reclaimed],
        shim: [own.p50(), resident.p50(), resident.percentile(100.0)],
        node: process::memory_kib(host.node_pid(), "VmRSS"),
        server: process::memory_kib(host.server_pid(), "VmRSS"),
        cpu,
        list: lists.p50(),
    };
    progress.say("taking everything away again");
    let note = format!(
        "Density: {count} berths with dockerd up and no container, frozen. Memory of the host: what became unavailable since before the first, for each; \
         charged: its control group alone, pages of shared programs to the first who read them. Resident memory holds shared pages too. CPU of node, server \
         and all shims over {} s; list: median of {LISTS}.",
        REST.as_secs()
    );
    Report { tables: vec![found.table()], notes: vec![note] }
}

/// Of one berth in KiB.
#[derive(Clone, Copy)]
struct Memory {
    host: f64,
    charged: f64,
}

impl Memory {
    #[track_caller]
    fn now(berths: &[Berth<'_>], before: f64) -> Self {
        let count = berths.len() as f64;
        let charged: f64 = berths.iter().map(|berth| berth.group_number("payload", USAGE) as f64 / 1024.0).sum();
        Self { host: (before - available_kib()) / count, charged: charged / count }
    }
}

struct Found {
    count: usize,
    /// Asleep, and when their memory was taken.
    memory: [Memory; 2],
    /// What is a typical one's alone, all of it, and all of the largest.
    shim: [f64; 3],
    node: f64,
    server: f64,
    cpu: f64,
    list: f64,
}

impl Found {
    fn table(&self) -> Table {
        let memory = |name: &str, kib: f64, targets: Vec<Target>| Row::new(name, vec![Some(kib), None, None], targets);
        let [asleep, reclaimed] = self.memory;
        let [own, typical, largest] = self.shim;
        let rows = vec![
            memory("a berth, of the host's memory", asleep.host, vec![]),
            memory("a berth, charged to it", asleep.charged, vec![]),
            memory("reclaimed, of the host's memory", reclaimed.host, vec![]),
            memory("reclaimed, charged to it", reclaimed.charged, vec![]),
            memory("shim, its own pages", own, vec![]),
            memory("shim, typical", typical, vec![]),
            memory("shim, the largest", largest, vec![Target::at_most("resident", largest, SHIM, "4 MiB")]),
            memory("node", self.node, vec![Target::at_most("resident", self.node, NODE, "40 MiB")]),
            memory("server", self.server, vec![]),
            Row::new("all daemons at rest", vec![None, Some(self.cpu), None], vec![Target::at_most("CPU", self.cpu, CPU, "1 % of a core")]),
            Row::new("berth list", vec![None, None, Some(self.list)], vec![Target::at_most("median", self.list, LIST, "50 ms")]),
        ];
        let columns = vec![("memory", Unit::Kib), ("CPU", Unit::Percent), ("time", Unit::Millis)];
        Table { title: format!("density: {} berths asleep", self.count), columns, rows }
    }
}

#[track_caller]
fn all_frozen(host: &Host) -> bool {
    let list = host.node_api("GET", "/v1/berths", None).json();
    list.as_array().is_some_and(|berths| !berths.is_empty() && berths.iter().all(|berth| berth["state"] == "frozen"))
}

/// Of one processor, all of them together.
fn cpu_percent(pids: &[u32], window: Duration) -> f64 {
    let run = || pids.iter().map(|&pid| process::run_seconds(pid)).sum::<f64>();
    let (before, began) = (run(), Instant::now());
    thread::sleep(window);
    (run() - before) / began.elapsed().as_secs_f64() * 100.0
}

fn available_kib() -> f64 {
    let text = fs::read_to_string("/proc/meminfo").expect("read /proc/meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_else(|| panic!("no MemAvailable in {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_can_be_missed() {
        let memory = [Memory { host: 1.0, charged: 1.0 }; 2];
        let found =
            |shim: f64, node: f64, cpu: f64, list: f64| Found { count: 9, memory, shim: [1.0, 1.0, shim], node, server: 1.0, cpu, list };
        let met = |found: &Found| found.table().rows.iter().flat_map(|row| row.targets.clone()).map(|t| t.met).collect::<Vec<_>>();
        assert_eq!(met(&found(SHIM, NODE, CPU, LIST)), [true; 4]);
        assert_eq!(met(&found(SHIM + 1.0, NODE + 1.0, CPU + 0.1, LIST + 1.0)), [false; 4]);
    }

    #[test]
    fn this_host_has_memory() {
        assert!(available_kib() > 0.0);
    }
}
