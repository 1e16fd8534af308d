//! How fast a berth's network is, each way, and that a change is felt at once.
#![forbid(unsafe_code)]

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use berth_tests::{Berth, Host, Options, Outside, Run, Running, until};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
const MBIT: u64 = 1_000_000;

/// The far ends of bulk transfers, outside: one counts what comes, the other sends as much as is taken and counts that.
struct Bulk {
    address: Ipv4Addr,
    sink: u16,
    source: u16,
    sunk: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    /// How often all connections were ended.
    over: Arc<AtomicU64>,
}

impl Bulk {
    fn serve(outside: &Outside, sink: u16, source: u16) -> Self {
        let at = |port| outside.inside(move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("listen"));
        let bulk = Self { address: outside.address, sink, source, sunk: Arc::default(), sent: Arc::default(), over: Arc::default() };
        bulk.each(at(sink), &bulk.sunk, |stream, buffer| stream.read(buffer));
        bulk.each(at(source), &bulk.sent, |stream, buffer| stream.write(buffer));
        bulk
    }

    /// Moves bytes at every connection until either side ends it.
    fn each(&self, listener: TcpListener, count: &Arc<AtomicU64>, step: fn(&mut TcpStream, &mut [u8]) -> std::io::Result<usize>) {
        let (count, over) = (Arc::clone(count), Arc::clone(&self.over));
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (count, over) = (Arc::clone(&count), Arc::clone(&over));
                // What is written has nearly arrived.
                rustix::net::sockopt::set_socket_send_buffer_size(&stream, 128 << 10).expect("set up a socket");
                thread::spawn(move || {
                    let (mut buffer, begun) = (vec![0; 64 << 10], over.load(Ordering::Relaxed));
                    while let Ok(moved @ 1..) = step(&mut stream, &mut buffer) {
                        count.fetch_add(moved as u64, Ordering::Relaxed);
                        if over.load(Ordering::Relaxed) != begun {
                            break;
                        }
                    }
                });
            }
        });
    }

    /// Ends all connections.
    fn end(&self) {
        self.over.fetch_add(1, Ordering::Relaxed);
    }

    /// From the berth, until dropped or for a minute.
    fn send(&self, berth: &Berth) -> Running {
        let script = format!("exec timeout 60 dd if=/dev/zero bs=64k > /dev/tcp/{}/{}", self.address, self.sink);
        berth.exec(&["bash", "-c", &script]).spawn()
    }

    /// To the berth.
    fn fetch(&self, berth: &Berth) -> Running {
        let script = format!("exec timeout 60 dd of=/dev/null bs=64k < /dev/tcp/{}/{}", self.address, self.source);
        berth.exec(&["bash", "-c", &script]).spawn()
    }
}

/// Bits per second of the next three seconds.
fn rate(count: &AtomicU64) -> f64 {
    let (begun, before) = (Instant::now(), count.load(Ordering::Relaxed));
    thread::sleep(Duration::from_secs(3));
    (count.load(Ordering::Relaxed) - before) as f64 * 8.0 / begun.elapsed().as_secs_f64()
}

#[track_caller]
fn holds(what: &str, count: &AtomicU64, bits: u64) {
    let measured = rate(count);
    let share = measured / bits as f64;
    eprintln!("{what}: {:.2} of {} Mbit/s ({:.1} %)", measured / 1e6, bits / MBIT, share * 100.0);
    assert!((0.9..=1.1).contains(&share), "{what}: {measured:.0} bit/s of {bits}");
}

/// Both, in bits per second; nothing takes a rate off.
fn set_command(berth: &Berth, egress: Option<u64>, ingress: Option<u64>) -> Run {
    let rate = |bits: Option<u64>| bits.map_or_else(|| "none".to_owned(), |bits| format!("{}mbit", bits / MBIT));
    berth.host.berth(["set", berth.name(), "--net-egress", &rate(egress), "--net-ingress", &rate(ingress)])
}

#[track_caller]
fn set_rates(berth: &Berth, egress: Option<u64>, ingress: Option<u64>) {
    set_command(berth, egress, ingress).ok();
}

/// Links of the node's network that begin with its prefix, and each one's queue: `tbf 8001:`.
fn queues(host: &Host) -> Vec<(String, String)> {
    let all: Value = host.run("tc").args(["-j", "qdisc", "show"]).json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |q: &Value| (text(&q["dev"]), format!("{} {}", text(&q["kind"]), text(&q["handle"])));
    let ours = all.as_array().expect("a list").iter().map(of).filter(|(dev, _)| dev.starts_with(&host.slot.link_prefix()));
    ours.filter(|(_, queue)| !queue.starts_with("noqueue")).collect()
}

#[test]
fn q04_network_rates_hold_each_way_change_at_once_and_go_with_the_link() {
    let host = Host::with(Options { network: true, ..Options::default() });
    let outside = Outside::create(&host);
    let (bulk, other) = (Bulk::serve(&outside, 7001, 7002), Bulk::serve(&outside, 7011, 7012));
    let (a, b) = (host.new_berth("a"), host.new_berth("b"));
    assert_eq!(queues(&host), [], "no rate, no queue");

    set_rates(&a, Some(40 * MBIT), Some(80 * MBIT));
    let before = queues(&host);
    assert_eq!(before.iter().filter(|(_, q)| q.starts_with("tbf ")).count(), 2, "{before:?}");
    let fetching = bulk.fetch(&a);
    until("bytes come", SOON, || (bulk.sent.load(Ordering::Relaxed) > 8 << 20).then_some(()));
    holds("to the berth", &bulk.sent, 80 * MBIT);
    // Felt by the connection that is open, by the same queue.
    set_rates(&a, Some(40 * MBIT), Some(20 * MBIT));
    holds("to the berth, lowered", &bulk.sent, 20 * MBIT);
    bulk.end();
    drop(fetching);

    let sending = bulk.send(&a);
    until("bytes leave", SOON, || (bulk.sunk.load(Ordering::Relaxed) > 1 << 20).then_some(()));
    holds("from the berth", &bulk.sunk, 40 * MBIT);
    set_rates(&a, Some(80 * MBIT), Some(20 * MBIT));
    until("the new rate is felt", SOON, || (rate(&bulk.sunk) > 60e6).then_some(()));
    holds("from the berth, raised", &bulk.sunk, 80 * MBIT);
    assert_eq!(queues(&host), before, "a change makes no queue anew");

    // Nobody else's, and the tenant cannot put it off.
    let others = other.send(&b);
    until("B is faster", SOON, || (rate(&other.sunk) > 200e6).then_some(()));
    other.end();
    drop(others);
    a.sh("ip link set eth0 txqueuelen 10000; tc qdisc del dev eth0 root 2>/dev/null; true").ok();
    holds("from the berth, whose tenant tried", &bulk.sunk, 80 * MBIT);

    set_rates(&a, None, None);
    until("no rate holds any more", SOON, || (rate(&bulk.sunk) > 200e6).then_some(()));
    assert_eq!(queues(&host), before, "what is queued is not dropped");
    bulk.end();
    drop(sending);

    // From the first packet of a start on, and also where the node knows it from the record only.
    a.stop().ok();
    assert_eq!(queues(&host), [], "the queues went with the link");
    assert!(!host.run("ip").args(["-o", "link"]).ok().contains(&format!("{}0", host.slot.link_prefix())));
    set_rates(&a, Some(40 * MBIT), None);
    a.start().ok();
    a.await_docker();
    host.kill_node();
    host.start_node();
    let _sending = bulk.send(&a);
    let begun = bulk.sunk.load(Ordering::Relaxed);
    until("bytes leave", SOON, || (bulk.sunk.load(Ordering::Relaxed) > begun + (1 << 20)).then_some(()));
    holds("from the berth, started anew", &bulk.sunk, 40 * MBIT);
}

#[test]
fn q04_a_rate_that_the_kernel_refuses_leaves_the_old_one() {
    let host = Host::with(Options { network: true, ..Options::default() });
    let a = host.new_berth("a");
    set_rates(&a, None, Some(20 * MBIT));
    let before = queues(&host);
    // Another link has the name that ours would get.
    let name = |verb: &str| host.run("ip").args(["link", "property", verb, "dev", "lo", "altname", &format!("{}i", before[0].0)]).ok();
    name("add");
    let refused = set_command(&a, Some(40 * MBIT), Some(10 * MBIT)).output();
    assert!(!refused.success() && refused.text().contains("network_egress_bits"), "{refused:?}");
    assert_eq!(a.status()["limits"]["network"], json!({ "egress_bits": null, "ingress_bits": 20 * MBIT }));
    let shown = host.run("tc").args(["-j", "qdisc", "show", "dev", &before[0].0]).ok();
    assert!(shown.contains("2500000"), "{shown}");
    name("del");
    set_rates(&a, Some(40 * MBIT), Some(10 * MBIT));
}
