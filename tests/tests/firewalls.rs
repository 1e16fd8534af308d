//! Other firewalls on the host, and the host's forwarding switch: both in a network of the test's own.
#![forbid(unsafe_code)]

use std::{fs, time::Duration};

use berth_runtime::net::forwarding::{self, Restored};
use berth_tests::{Berth, Host, Options, Output, Outside, Run, outside::reach, programs, until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

fn world() -> (Host, Outside) {
    // Few source ports, and so few chains: all tables are listed again and again.
    let host = Host::with(Options { network: true, node_config: "source_ports = \"31744-32767\"\n".into(), ..Options::default() });
    let outside = Outside::create(&host);
    (host, outside)
}

#[track_caller]
fn nft(host: &Host, text: &str) {
    host.run("nft").args(["-f", "-"]).input(text.to_owned()).ok();
}

#[track_caller]
fn iptables(host: &Host, program: &str, rule: &str) -> String {
    host.run(program).args(rule.split(' ')).ok()
}

/// Every rule of ours in other tables: its text and the chain.
fn marked(host: &Host) -> Vec<String> {
    let table = format!("berth{}", host.slot.instance());
    let mut found = Vec::new();
    let (mut place, mut chain) = (String::new(), String::new());
    for line in host.run("nft").args(["list", "ruleset"]).ok().lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["table", family, name, "{"] => place = format!("{family} {name}"),
            ["chain", name, "{"] => chain = name.to_owned(),
            _ if line.ends_with(&format!("accept comment \"{table}\"")) => found.push(format!("{place} {chain}")),
            _ => {}
        }
    }
    for program in ["iptables-nft", "iptables-legacy"] {
        let rules = host.run(program).args(["-t", "filter", "-S", "FORWARD"]).output().stdout;
        found.extend(rules.lines().filter(|l| l.contains(&format!("--comment {table} "))).map(|_| program.to_owned()));
    }
    found
}

fn hello(berth: &Berth, outside: &Outside) -> Option<()> {
    reach(berth, &outside.address.to_string(), 7000).map(drop)
}

fn doctor(host: &Host) -> String {
    let checks: Value = serde_json::from_str(&host.berth(["doctor", "--json"]).output().stdout).expect("JSON");
    let named = |checks: &Value| checks.as_array()?.iter().find(|c| c["name"] == "other firewalls").cloned();
    let check = named(&checks).or_else(|| named(&checks["checks"])).unwrap_or_else(|| panic!("no such check: {checks}"));
    format!("{}: {}", check["level"].as_str().unwrap_or_default(), check["detail"].as_str().unwrap_or_default())
}

fn teardown(host: &Host) -> Output {
    host.stop_server();
    host.kill_node();
    let teardown = host.run(programs::find("berth-node")).args(["teardown", "--all", "--yes", "--config"]).arg(host.slot.node_config());
    teardown.limit(Duration::from_secs(60)).output()
}

#[test]
fn n04_each_chain_that_drops_what_is_forwarded_gets_one_marked_rule_which_comes_back_and_goes_at_the_end() {
    let (host, outside) = world();
    let a = host.new_berth("a");
    outside.serve_tcp(7000);
    assert_eq!(hello(&a, &outside), Some(()));
    assert_eq!(marked(&host), [""; 0], "nobody drops, so nobody is touched");
    assert_eq!(doctor(&host), "ok: none drops what is forwarded");

    // As Docker has it.
    for rule in ["-P FORWARD DROP", "-N DOCKER-USER", "-A DOCKER-USER -j RETURN", "-A FORWARD -j DOCKER-USER"] {
        iptables(&host, "iptables-nft", rule);
    }
    until("A is let through iptables", SOON, || hello(&a, &outside));
    assert_eq!(marked(&host), ["iptables-nft"]);
    // As firewalld has it.
    let firewalld = "table inet firewalld {\n chain filter_FORWARD {\n type filter hook forward priority filter + 10; policy accept;\n \
                     ct state established,related accept\n jump filter_FORWARD_POLICIES\n reject with icmpx admin-prohibited\n }\n \
                     chain filter_FORWARD_POLICIES {\n }\n chain filter_INPUT {\n type filter hook input priority filter + 10; policy drop;\n }\n}\n";
    nft(&host, firewalld);
    until("A is let through firewalld", SOON, || hello(&a, &outside));
    assert_eq!(marked(&host), ["inet firewalld filter_FORWARD", "iptables-nft"]);
    let told = doctor(&host);
    assert!(
        told.starts_with("ok: an accept rule") && told.contains("filter FORWARD of iptables-nft, inet firewalld filter_FORWARD"),
        "{told}"
    );

    // Both reload; somebody puts a rule in front.
    nft(&host, &format!("delete table inet firewalld\n{firewalld}"));
    iptables(&host, "iptables-nft", "-F FORWARD");
    until("A is let through after reloads", SOON, || hello(&a, &outside));
    until("once each", SOON, || (marked(&host) == ["inet firewalld filter_FORWARD", "iptables-nft"]).then_some(()));
    nft(&host, "insert rule inet firewalld filter_FORWARD ct state new drop\n");
    iptables(&host, "iptables-nft", "-I FORWARD 1 -j REJECT");
    until("A is let through in front of others", SOON, || hello(&a, &outside));
    until("still once each", SOON, || (marked(&host) == ["inet firewalld filter_FORWARD", "iptables-nft"]).then_some(()));
    // It opens nothing else: the program that owns the table still reads it, and strangers are dropped as before.
    let rules = iptables(&host, "iptables-nft", "-S FORWARD");
    assert_eq!(rules.lines().count(), 3, "{rules}");
    assert!(rules.contains(&format!("--ctorigsrc {}", host.slot.pool())), "{rules}");

    // The same while no node runs, and for a firewall that tells nobody: the next start of a berth looks.
    host.kill_node();
    iptables(&host, "iptables-nft", "-F FORWARD");
    host.start_node();
    until("A is let through by a new node", SOON, || hello(&a, &outside));
    iptables(&host, "iptables-legacy", "-P FORWARD DROP");
    // The node may still be looking after the last change that it heard of.
    until("A is dropped, and nobody hears of it", SOON, || {
        iptables(&host, "iptables-legacy", "-F FORWARD");
        hello(&a, &outside).is_none().then_some(())
    });
    a.restart().ok();
    a.await_docker();
    assert_eq!(hello(&a, &outside), Some(()));
    iptables(&host, "iptables-legacy", "-F FORWARD");
    assert!(doctor(&host).contains("FORWARD of iptables-legacy"));
    assert_eq!(hello(&a, &outside), Some(()), "the doctor has put it back");

    let gone = teardown(&host);
    assert!(gone.success(), "{gone:?}");
    assert_eq!(marked(&host), [""; 0]);
    assert_eq!(iptables(&host, "iptables-legacy", "-S FORWARD").trim(), "-P FORWARD DROP", "what was there stays");
    assert_eq!(iptables(&host, "iptables-nft", "-S FORWARD").trim(), "-P FORWARD DROP");
    let left = host.run("nft").args(["list", "table", "inet", "firewalld"]).ok();
    assert!(left.contains("reject with icmpx") && left.contains("ct state new drop"), "{left}");
}

fn forwards(host: &Host) -> String {
    host.run("sysctl").args(["-n", "net.ipv4.ip_forward"]).ok().trim().to_owned()
}

#[test]
fn n04_forwarding_that_we_switched_on_is_for_berths_only_and_ends_with_us() {
    let (host, outside) = world();
    assert_eq!(forwards(&host), "1", "it was 0 before the node");
    // A stranger on another link of the host.
    let stranger = format!("{}s", host.slot.network());
    let ip = |args: String| drop(Run::new("ip").args(args.split(' ')).ok());
    ip(format!("netns add {stranger}"));
    let _stranger = Namespace(stranger.clone());
    host.run("ip").args(["link", "add", "xs", "type", "veth", "peer", "name", "out", "netns", &stranger]).ok();
    host.run("ip").args(["addr", "add", "198.51.100.1/24", "dev", "xs"]).ok();
    host.run("ip").args(["link", "set", "xs", "up"]).ok();
    ip(format!("-n {stranger} addr add 198.51.100.2/24 dev out"));
    ip(format!("-n {stranger} link set out up"));
    ip(format!("-n {stranger} route add default via 198.51.100.1"));
    outside.run("ip").args(["route", "add", "198.51.100.0/24", "via", &outside.host_address.to_string()]).ok();
    let server = outside.serve_tcp(7000);
    let script = format!("cat < /dev/tcp/{}/7000", outside.address);
    let passes = || Run::new("ip").args(["netns", "exec", &stranger, "timeout", "2", "bash", "-c", &script]).output().success();
    let a = host.new_berth("a");
    assert_eq!(hello(&a, &outside), Some(()), "a berth's packets are forwarded");
    assert!(!passes(), "a stranger's are not");
    assert_eq!(server.seen().len(), 1);
    // Somebody loads a rule set of his own, as nftables.service does: everything is gone, and ours comes back.
    nft(&host, "flush ruleset\ntable inet filter {\n chain forward {\n type filter hook forward priority filter; policy accept;\n }\n}\n");
    until("a berth's packets are translated again", SOON, || hello(&a, &outside));
    assert!(!passes(), "and a stranger's dropped");
    // The way as such is there: without node and table he gets through. What takes the berths away does not need the table.
    host.kill_node();
    host.run("nft").args(["delete", "table", "inet", &format!("berth{}", host.slot.instance())]).ok();
    assert!(passes(), "the stranger has a way");

    let gone = teardown(&host);
    assert!(gone.success(), "{gone:?}");
    assert_eq!(forwards(&host), "0");
}

struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Run::new("ip").args(["netns", "delete", &self.0]).output_within();
    }
}

#[test]
fn n04_the_last_of_several_nodes_switches_forwarding_off_unless_others_need_it() {
    let (host, outside) = world();
    let switch = || fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("read").trim().to_owned();
    // In the outside's namespace, where no node is.
    outside.inside(move || {
        let step = |done: berth_runtime::error::Result<Restored>| done.expect("restore");
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("write");
        assert!(forwarding::enable("one").expect("enable"));
        assert!(forwarding::enable("two").expect("enable"), "the second uses what the first switched on");
        assert!(forwarding::enable("one").expect("enable"), "a restart of the first");
        assert_eq!(step(forwarding::restore("one", || Ok(false))), Restored::OtherNode);
        assert_eq!(switch(), "1");
        assert_eq!(step(forwarding::restore("two", || Ok(false))), Restored::Off);
        assert_eq!(switch(), "0");
        assert_eq!(step(forwarding::restore("two", || Ok(false))), Restored::Untouched, "again");

        forwarding::enable("one").expect("enable");
        assert_eq!(step(forwarding::restore("one", || Ok(true))), Restored::Others);
        assert_eq!(switch(), "1");
        assert!(!forwarding::enable("one").expect("enable"), "it was on before");
        assert_eq!(step(forwarding::restore("one", || Ok(false))), Restored::Untouched);
        assert_eq!(switch(), "1");
    });
    // Another user of it, who came after the node: his rules say so.
    assert!(!host.run("nft").args(["list", "tables"]).ok().contains("table ip nat"));
    iptables(&host, "iptables-nft", "-t nat -A POSTROUTING -s 172.30.0.0/16 -j MASQUERADE");
    let gone = teardown(&host);
    assert!(gone.success() && gone.text().contains("stays 1"), "{gone:?}");
    assert_eq!(forwards(&host), "1");
}
