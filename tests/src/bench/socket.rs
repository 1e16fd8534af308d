//! `deploy/bench socket`: the user's socket against a direct connection, HAProxy and socat, all in front of one inner Docker.

use std::path::Path;

use super::{
    Progress, Settings,
    ends::{Client, replace_docker},
    figures::Samples,
    flow::Framing,
    process,
    proxies::Proxy,
    table::{Report, Row, Table, Target, Unit},
};
use crate::berth::BUSYBOX;

/// Names of the ways, the peers behind the two that the targets speak of.
const WAYS: [&str; 4] = ["direct", "Berth", "HAProxy", "socat"];
const DIRECT: usize = 0;
const BERTH: usize = 1;
const PEERS: [usize; 2] = [2, 3];

/// Of each round and way.
const KEEP: usize = 1000;
const NEW: usize = 200;
const ROUNDS: usize = 10;
/// In each framing, each way and each direction, over all rounds.
const BYTES: u64 = 2 << 30;
const FLOW_ROUNDS: usize = 8;

const GIB: f64 = (1_u64 << 30) as f64;
/// Most of the shim's memory, in KiB.
const SHIM: f64 = 8.0 * 1024.0;
/// All clients run here and nothing else is pinned.
const CPU: usize = 0;

/// Measures and takes everything away again.
#[track_caller]
pub fn run(settings: Settings) -> Report {
    let progress = Progress::new();
    progress.warn_of_load();
    let rounds = settings.rounds.unwrap_or(ROUNDS);
    let flow_rounds = settings.rounds.unwrap_or(FLOW_ROUNDS);
    progress.say(&format!("_ping {rounds} rounds, 2 GiB in {flow_rounds} rounds, four ways: takes about two minutes; starting a berth"));
    let host = super::host();
    let berth = host.new_berth("a");
    let inner = format!("/proc/{}/root/run", berth.pid());
    let inner = Path::new(&inner);
    let shim = berth.shim_pid();
    let haproxy = Proxy::haproxy(&host, inner);
    let socat = Proxy::socat(&host, inner);
    let root = |socket: &Path| Client::of_root(&host, socket, Some(CPU));
    let mut clients = [root(&inner.join("docker.sock")), Client::of_user(&berth, Some(CPU)), root(&haproxy.socket), root(&socat.socket)];

    let mut keep: [Samples; 4] = Default::default();
    let mut new: [Samples; 4] = Default::default();
    // One round to warm up what is warm in a host that runs for days.
    for round in 0..=rounds {
        for way in order(round) {
            let client = &mut clients[way];
            let (kept, fresh) = (client.times(&format!("keep {KEEP}")), client.times(&format!("new {NEW}")));
            if round > 0 {
                keep[way].push(kept);
                new[way].push(fresh);
            }
        }
    }
    let mut tables = vec![
        ping_table("_ping, one connection kept", &keep, 1.25, "1.25 × direct"),
        ping_table("_ping, a new connection each", &new, 1.6, "1.6 × direct"),
    ];

    let cpu = |way: usize| match way {
        BERTH => process::cpu_seconds(shim),
        2 => haproxy.cpu_seconds(),
        3 => socat.cpu_seconds(),
        _ => 0.0,
    };
    let bytes = BYTES / flow_rounds as u64;
    let mut flow = |title: String, command: &str| {
        progress.say(&title);
        let mut flows: [Flow; 4] = Default::default();
        for round in 0..flow_rounds {
            for way in order(round) {
                let before = cpu(way);
                let time = clients[way].time(&format!("{command} {bytes}"));
                flows[way].cpu += cpu(way) - before;
                flows[way].times.push(vec![time]);
            }
        }
        tables.push(flow_table(title, &flows, bytes));
    };
    berth.load_busybox();
    berth.docker(&["create", "--name", "bench", BUSYBOX, "sleep", "1000"]).ok();
    flow("2 GiB up, docker cp into a container".into(), "put");
    flow("2 GiB down, docker cp out of a container".into(), "fetch");
    berth.docker(&["rm", "bench"]).ok();
    // Ends that do nothing but write and read: the way itself.
    let peer = replace_docker(&berth);
    for direction in ["up", "down"] {
        for framing in Framing::ALL {
            flow(format!("2 GiB {direction}, {framing}, between bare ends"), &format!("{direction} {framing}"));
        }
    }
    tables.push(memory_table(shim));
    drop((peer, clients, haproxy, socat));
    progress.say("taking everything away again");
    let notes = vec![
        format!("One inner dockerd; n = {} _pings on kept and {} on new connections each way, rounds interleaved, each behind each other as often.", keep[0].count(), new[0].count()),
        "Ratios are medians over the rounds of a round's median to that of direct in the same round. Clients are pinned to one processor, all to the same.".into(),
        "docker cp: Docker writes the file and reads it, through one container; what a user can have.".into(),
        "Bare ends: 32 KiB writes and reads at both ends, as Go's io.Copy; chunked as Go's net/http writes it. CPU is the proxy's alone, per GiB.".into(),
        "HAProxy in TCP mode (attach and exec need it), splice-auto allowed; socat with 64 KiB buffers and a process for each connection.".into(),
    ];
    Report { tables, notes }
}

/// The ways in the order of a round: in four rounds each comes first once, and once behind each of the others, for Docker does not answer
/// the same behind an idle while and behind a storm (a Williams square).
fn order(round: usize) -> [usize; 4] {
    [0, 1, 3, 2].map(|way| (way + round) % 4)
}

/// One way of one kind of flow.
#[derive(Default)]
struct Flow {
    times: Samples,
    /// Seconds, over all rounds.
    cpu: f64,
}

fn ping_table(title: &str, ways: &[Samples; 4], limit: f64, shown: &str) -> Table {
    let row = |(way, samples): (usize, &Samples)| {
        let ratio = (way != DIRECT).then(|| samples.ratio_to(&ways[DIRECT]));
        let targets = match ratio {
            Some(ratio) if way == BERTH => {
                let mut targets = vec![Target::at_most("p50", ratio, limit, shown)];
                targets.extend(PEERS.map(|peer| Target::ahead("p50", WAYS[peer], samples.ratio_to(&ways[peer]))));
                targets
            }
            _ => vec![],
        };
        Row::new(WAYS[way], vec![Some(samples.p50()), Some(samples.p99()), ratio], targets)
    };
    let columns = vec![("p50", Unit::Micros), ("p99", Unit::Micros), ("p50 × direct", Unit::Ratio)];
    Table { title: title.into(), columns, rows: ways.iter().enumerate().map(row).collect() }
}

fn flow_table(title: String, ways: &[Flow; 4], bytes: u64) -> Table {
    let gib = bytes as f64 / GIB;
    let row = |(way, flow): (usize, &Flow)| {
        let speed = gib / (flow.times.p50() / 1e9);
        let cpu = flow.cpu / (gib * flow.times.count() as f64);
        // Speed is the inverse of time.
        let ratio = (way != DIRECT).then(|| ways[DIRECT].times.ratio_to(&flow.times));
        let targets = match ratio {
            Some(ratio) if way == BERTH => {
                let mut targets = vec![Target::at_least("speed", ratio, 0.95, "0.95 × direct")];
                for peer in PEERS {
                    targets.push(Target::ahead("speed", WAYS[peer], flow.times.ratio_to(&ways[peer].times)));
                    targets.push(Target::ahead("CPU", WAYS[peer], flow.cpu / ways[peer].cpu));
                }
                targets
            }
            _ => vec![],
        };
        Row::new(WAYS[way], vec![Some(speed), ratio, (way != DIRECT).then_some(cpu)], targets)
    };
    let columns = vec![("speed", Unit::GibPerSecond), ("× direct", Unit::Ratio), ("CPU/GiB", Unit::CpuSecondsPerGib)];
    Table { title, columns, rows: ways.iter().enumerate().map(row).collect() }
}

fn memory_table(shim: u32) -> Table {
    let peak = process::memory_kib(shim, "VmHWM");
    let figures = vec![Some(peak), Some(process::memory_kib(shim, "VmRSS")), Some(process::memory_kib(shim, "RssAnon"))];
    let row = Row::new("shim", figures, vec![Target::at_most("peak", peak, SHIM, "8 MiB")]);
    let columns = vec![("peak", Unit::Kib), ("now", Unit::Kib), ("anonymous", Unit::Kib)];
    Table { title: "memory after all that".into(), columns, rows: vec![row] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(rounds: [u64; 3]) -> Samples {
        let mut samples = Samples::default();
        rounds.iter().for_each(|&time| samples.push(vec![time]));
        samples
    }

    #[test]
    fn each_way_is_measured_behind_each_other_one_equally_often() {
        let all: Vec<[usize; 4]> = (0..4).map(order).collect();
        for way in 0..4 {
            assert_eq!(all.iter().filter(|order| order[0] == way).count(), 1);
            let mut before: Vec<usize> = all.iter().flat_map(|o| o.windows(2)).filter(|pair| pair[1] == way).map(|pair| pair[0]).collect();
            before.sort_unstable();
            assert_eq!(before, (0..4).filter(|&other| other != way).collect::<Vec<_>>());
        }
    }

    #[test]
    fn only_berth_has_targets_and_each_of_them_can_be_missed() {
        let ways = [[100, 100, 100], [120, 120, 120], [140, 140, 140], [119, 119, 119]].map(samples);
        let table = ping_table("t", &ways, 1.25, "1.25 × direct");
        let met: Vec<bool> = table.rows[BERTH].targets.iter().map(|t| t.met).collect();
        assert_eq!(met, [true, true, false], "slower than socat");
        assert!([0, 2, 3].iter().all(|&way| table.rows[way].targets.is_empty()));
        assert!(!ping_table("t", &ways, 1.19, "").rows[BERTH].targets[0].met);
    }

    #[test]
    fn a_flow_that_takes_longer_is_slower() {
        let flow = |time: u64, cpu: f64| Flow { times: samples([time; 3]), cpu };
        let ways = [flow(1_000_000_000, 0.0), flow(1_050_000_000, 0.6), flow(2_000_000_000, 1.5), flow(1_500_000_000, 0.3)];
        let table = flow_table("t".into(), &ways, 1 << 30);
        let row = &table.rows[BERTH];
        assert!((row.figures[0].unwrap() - 0.952).abs() < 0.001, "GiB per second");
        assert!((row.figures[2].unwrap() - 0.2).abs() < 1e-9, "0.6 s for three rounds of a GiB");
        let met: Vec<bool> = row.targets.iter().map(|t| t.met).collect();
        assert_eq!(met, [true, true, true, true, false], "socat took less CPU");
    }
}
