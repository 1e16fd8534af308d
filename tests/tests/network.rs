//! What a berth reaches, what it does not, and what it cannot pretend to be.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    time::Duration,
};

use berth_tests::{
    Berth, Host, Options, Output, Outside, Run,
    berth::BUSYBOX,
    dns,
    outside::{Peers, reach, reach_from_container, reached},
    programs, until,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn n01_a_berth_reaches_the_outside_through_nat_and_neither_berths_nor_host_nor_metadata() {
    let host = Host::start();
    let outside = Outside::create(&host);
    let (a, b) = (host.new_berth("a"), host.new_berth("b"));
    a.load_busybox();
    let server = outside.serve_tcp(7000);
    let (there, host_address) = (outside.address.to_string(), outside.host_address.to_string());

    // The outside sees the host, not the berth.
    assert_eq!(reach(&a, &there, 7000), Some(format!("hello {host_address}")));
    assert_eq!(reach_from_container(&a, &there, 7000), Some(format!("hello {host_address}")));
    assert_eq!(server.seen().len(), 2);
    assert_eq!(reached(&a, std::slice::from_ref(&there), 7000).len(), 2, "the way of asking works");

    // Not each other: a service of B's on all its addresses, which B itself and root on the host reach.
    let (listener, told) = b.hold(&["listen", "tcp", "0.0.0.0:8080", "of B"]);
    assert_eq!(told["ok"], true, "{told}");
    let b_address = b.address();
    assert_eq!(reach(&b, &b_address, 8080).as_deref(), Some("of B"));
    let from_host = Run::new("timeout").args(["3", "bash", "-c", &format!("cat < /dev/tcp/{b_address}/8080")]).output();
    assert_eq!(from_host.stdout, "of B", "root on the host reaches a berth: {from_host:?}");
    assert_eq!(reached(&a, std::slice::from_ref(&b_address), 8080), [""; 0], "A reached B");
    drop(listener);

    // Not the host's own services, at whatever address of its.
    let service = Peers::serve(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("listen"));
    let port = service.address.port();
    let addresses = Run::new("ip").args(["-4", "-o", "addr", "show"]).ok();
    let mut all: Vec<String> = addresses.lines().filter_map(|l| Some(l.split_whitespace().nth(3)?.split('/').next()?.to_owned())).collect();
    all.push("169.254.1.1".to_owned());
    all.push("169.254.1.53".to_owned());
    assert!(all.contains(&host_address), "{all:?}");
    all.retain(|a| !a.starts_with("127."));
    assert_eq!(reached(&a, &all, port), [""; 0], "A reached the host");
    assert_eq!(service.seen(), [], "the host's service saw a client");

    // Not the metadata address, though the host has a route to it.
    let (namespace, link) = host.slot.outside();
    Run::new("ip").args(["-n", &namespace, "addr", "add", "169.254.169.254/32", "dev", "out"]).ok();
    Run::new("ip").args(["route", "add", "169.254.169.254/32", "via", &there, "dev", &link]).ok();
    let metadata = outside.inside(|| TcpListener::bind(("169.254.169.254", 80)).expect("listen"));
    let metadata = Peers::serve(metadata);
    let from_host = Run::new("timeout").args(["3", "bash", "-c", "cat < /dev/tcp/169.254.169.254/80"]).output();
    assert!(from_host.stdout.starts_with("hello"), "the host itself reaches it: {from_host:?}");
    let seen = metadata.seen().len();
    assert_eq!(reached(&a, &["169.254.169.254".to_owned()], 80), [""; 0]);
    assert_eq!(metadata.seen().len(), seen, "the metadata service saw a client");

    // The outside does not get in by itself.
    let way_in = format!("route add {b_address}/32 via {host_address}");
    Run::new("ip").args(["-n", &namespace]).args(way_in.split(' ')).ok();
    let (listener, _) = b.hold(&["listen", "tcp", "0.0.0.0:8080", "of B"]);
    let entered = outside.run("timeout").args(["3", "bash", "-c", &format!("cat < /dev/tcp/{b_address}/8080")]).output();
    assert!(!entered.success(), "the outside reached B: {entered:?}");
    drop(listener);
}

/// The datagrams that arrive until one that ends with `last`.
fn until_datagram(socket: &UdpSocket, last: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{last} did not arrive ({e}) after {all:?}"));
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        all.push((from.ip().to_string(), text.clone()));
        if text.ends_with(last) {
            return all;
        }
    }
}

#[test]
fn n04_the_hosts_own_ipv6_begins_connections_as_before() {
    let host = Host::with(Options { images: false, network: true, ..Options::default() });
    let script =
        "import socket; l = socket.create_server(('::1', 0), family=socket.AF_INET6); socket.create_connection(l.getsockname()[:2], 5)";
    host.run("python3").args(["-c", script]).ok();
}

#[test]
fn n02_a_berth_cannot_send_from_another_address() {
    let host = Host::start();
    let outside = Outside::create(&host);
    let (a, b) = (host.new_berth("a"), host.new_berth("b"));
    let socket = outside.udp(7001);
    let there = outside.address.to_string();
    let own = a.address();
    let send = |source: &str| {
        let told = a.tells(&["send-raw", "eth0", source, &there, "7001"]);
        assert_eq!(told["ok"], true, "{told}");
    };
    // The frame itself is good: from the berth's own address it arrives.
    send(&own);
    let arrived = until_datagram(&socket, "berth-probe");
    assert_eq!(arrived, [(outside.host_address.to_string(), "berth-probe".to_owned())]);

    let b_address = b.address();
    let neighbour = Ipv4Addr::from(u32::from(own.parse::<Ipv4Addr>().expect("an address")) + 77).to_string();
    for source in [b_address.as_str(), &neighbour, "203.0.113.1", "192.0.2.7", "127.0.0.1", "0.0.0.0"] {
        send(source);
    }
    // With the address on the link, as a tenant would do it.
    a.sh(&format!("ip addr add {b_address}/32 dev eth0")).ok();
    let bound = a.exec(&["bash", "-c", &format!("ip route replace {there}/32 via 169.254.1.1 dev eth0 src {b_address} onlink && echo forged > /dev/udp/{there}/7001; ip route del {there}/32")]).output();
    assert!(bound.success(), "{bound:?}");
    a.sh(&format!("ip addr del {b_address}/32 dev eth0")).ok();
    a.exec(&["bash", "-c", &format!("echo last > /dev/udp/{there}/7001")]).ok();
    let arrived = until_datagram(&socket, "last\n");
    assert_eq!(arrived.len(), 1, "forged packets arrived: {arrived:?}");
    assert_eq!(b.address(), b_address);
}

/// The host's neighbours on a link: address and hardware address, without states that change by themselves.
fn neighbours() -> Vec<String> {
    let all: Value = Run::new("ip").args(["-j", "neigh", "show", "nud", "all"]).json();
    let text = |entry: &Value| format!("{} {} {}", entry["dst"], entry["dev"], entry["lladdr"]);
    let mut list: Vec<String> =
        all.as_array().expect("a list").iter().filter(|e| e["dev"].as_str().is_some_and(|d| d.starts_with("bq"))).map(text).collect();
    list.retain(|l| !l.contains("ff02::") && !l.contains("33:33"));
    list.sort();
    list
}

#[test]
fn n02_forged_arp_and_router_advertisements_change_nothing_on_the_host() {
    let host = Host::start();
    let outside = Outside::create(&host);
    let (a, b) = (host.new_berth("a"), host.new_berth("b"));
    let before = neighbours();
    let routes_before = Run::new("ip").args(["-6", "route", "show", "table", "all"]).ok();
    let (own, b_address) = (a.address(), b.address());
    for _ in 0..3 {
        for (sender, target) in
            [(b_address.as_str(), "169.254.1.1"), ("169.254.1.1", own.as_str()), (&own, "169.254.1.1"), ("10.99.99.99", "169.254.1.1")]
        {
            let told = a.tells(&["send-arp", "eth0", sender, target, "02:de:ad:be:ef:01"]);
            assert_eq!(told["ok"], true, "{told}");
        }
        let told = a.tells(&["send-ra", "eth0"]);
        assert_eq!(told["ok"], true, "{told}");
    }
    // What came after them on the same link has been dealt with, so they have too.
    outside.serve_tcp(7000);
    assert!(reach(&a, &outside.address.to_string(), 7000).is_some(), "A's own link still works");
    assert!(reach(&b, &outside.address.to_string(), 7000).is_some(), "B's link still works");
    assert_eq!(neighbours(), before);
    let routes = Run::new("ip").args(["-6", "route", "show", "table", "all"]).ok();
    assert!(!routes.contains("proto ra") || routes_before.contains("proto ra"), "{routes}");
    assert!(!routes.contains("fe80::bad"), "{routes}");
}

#[test]
fn n02_addresses_and_inner_networks_do_not_collide_with_the_hosts_routes() {
    let host = Host::start();
    let outside = Outside::create(&host);
    let a = host.new_berth("a");
    let address: Ipv4Addr = a.address().parse().expect("an address");
    let routes: Value = Run::new("ip").args(["-4", "-j", "route", "show"]).json();
    let networks: Vec<(Ipv4Addr, u32, String)> = routes
        .as_array()
        .expect("a list")
        .iter()
        .filter(|r| r["dst"] != "default")
        .map(|r| {
            let dst = r["dst"].as_str().expect("a destination");
            let (base, prefix) = dst.split_once('/').unwrap_or((dst, "32"));
            (base.parse().expect("an address"), prefix.parse().expect("a prefix"), r["dev"].as_str().unwrap_or_default().to_owned())
        })
        .collect();
    let holds = |(base, prefix, _): &(Ipv4Addr, u32, String), address: Ipv4Addr| {
        let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
        u32::from(*base) & mask == u32::from(address) & mask
    };
    let owners: Vec<_> = networks.iter().filter(|n| holds(n, address)).collect();
    assert!(matches!(owners[..], [(_, 32, dev)] if dev.starts_with("bq")), "routes that hold {address}: {owners:?}");

    // An inner network would hide what the host routes to.
    for name in ["one", "two", "three"] {
        a.docker(&["network", "create", name]).ok();
    }
    let inner =
        a.docker(&["network", "inspect", "--format", "{{range .IPAM.Config}}{{.Subnet}}{{end}}", "bridge", "one", "two", "three"]).ok();
    for subnet in inner.lines() {
        let (base, prefix) = subnet.split_once('/').expect("a network");
        let inner = (base.parse().expect("an address"), prefix.parse().expect("a prefix"), String::new());
        for network in &networks {
            assert!(!holds(network, inner.0) && !holds(&inner, network.0), "{subnet} collides with {network:?}");
        }
        assert!(!holds(&inner, address) && !holds(&inner, outside.address), "{subnet}");
    }
}

#[test]
fn n03_names_are_resolved_inside_and_in_inner_containers_through_a_resolver_on_the_hosts_loopback() {
    let host = Host::start();
    let a = host.new_berth("a");
    a.load_busybox();
    assert!(host.dns.address.ip().is_loopback());
    let name = |what: &str| format!("{what}.{}", dns::ZONE);
    let known = dns::ADDRESS.to_string();

    let found = a.exec(&["getent", "ahostsv4", &name("berth")]).ok();
    assert!(found.starts_with(&known), "{found}");
    let ran = a.docker_run(&[], &format!("nslookup -type=a {}", name("container")));
    assert!(ran.stdout.contains(&known), "{ran:?}");
    a.docker(&["network", "create", "net"]).ok();
    let ran = a.docker_run(&["--network", "net"], &format!("nslookup -type=a {}", name("network")));
    assert!(ran.stdout.contains(&known), "{ran:?}");
    let ran = a.docker_run(&["--network", "host"], &format!("nslookup -type=a {}", name("host")));
    assert!(ran.stdout.contains(&known), "{ran:?}");
    // A build resolves too.
    let dockerfile = format!("FROM busybox\nRUN nslookup -type=a {} | grep {known}\n", name("build"));
    a.docker(&["build", "--no-cache", "-"]).input(dockerfile).limit(Duration::from_secs(120)).ok();

    let asked = host.dns.asked();
    for what in ["berth", "container", "network", "host", "build"] {
        assert!(asked.contains(&name(what)), "{what} was not asked for: {asked:?}");
    }
    let missing = a.exec(&["getent", "hosts", "nothing.invalid"]).output();
    assert_eq!(missing.status, 2, "a name that does not exist: {missing:?}");

    // A container is not given a public resolver behind the tenant's back.
    let file = a.docker_run(&[], "cat /etc/resolv.conf").stdout;
    let servers: Vec<&str> = file.lines().filter_map(|l| l.strip_prefix("nameserver ")).collect();
    let inside = a.exec(&["cat", "/etc/resolv.conf"]).ok();
    assert!(!servers.is_empty() && servers.iter().all(|s| inside.contains(s)), "{file}\n{inside}");

    // After a new start as well, and for several at once.
    a.restart().ok();
    a.await_docker();
    until("names are resolved after a restart", SOON, || {
        a.exec(&["getent", "ahostsv4", &name("again")]).output().stdout.starts_with(&known).then_some(())
    });
    let many = a.sh(&format!("for i in $(seq 40); do getent ahostsv4 m$i.{} > /dev/null & done; wait; echo done", dns::ZONE)).ok();
    assert_eq!(many, "done");
    let asked = host.dns.asked();
    assert!((1..=40).all(|i| asked.contains(&name(&format!("m{i}")))), "{asked:?}");
}

#[test]
fn h03_ports_that_docker_chooses_are_others_in_each_berth() {
    let host = Host::start();
    let chosen = ["a", "b"].map(|name| {
        let berth = host.new_berth(name);
        berth.load_busybox();
        berth.docker(&["run", "-d", "--name", "web", "--expose", "80", "-P", BUSYBOX, "sleep", "300"]).ok();
        let port = berth.docker(&["port", "web", "80/tcp"]).ok();
        port.rsplit(':').next().unwrap().parse::<u16>().unwrap()
    });
    assert_ne!(chosen[0], chosen[1]);
    assert!(chosen.iter().all(|port| (32_768..=60_999).contains(port)), "{chosen:?}");
}

/// First and last of the ports by which a berth leaves.
fn source_ports(berth: &Berth) -> (u16, u16) {
    let shown = berth.show()["source_ports"].clone();
    let port = |name: &str| shown[name].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or_else(|| panic!("no ports: {shown}"));
    (port("first"), port("last"))
}

/// Who had a source port at some time, as the host's administrator asks.
fn whose(host: &Host, port: u16, at: Option<&str>) -> Output {
    let program = programs::find("berth-node");
    let run = host.run(program).arg("--config").arg(host.slot.node_config()).args(["whose", &port.to_string()]);
    run.args(at.map(|at| format!("--at={at}"))).output()
}

#[test]
fn n05_each_berth_leaves_by_ports_of_its_own_that_name_its_user() {
    let node_config = "source_ports = \"20000-20039\"\nsource_ports_per_berth = 16\n[disk]\ntrim_interval_seconds = 1\n".to_owned();
    let host = Host::with(Options { network: true, node_config, ..Options::default() });
    let outside = Outside::create(&host);
    let (a, b) = (host.new_berth("a"), host.new_berth("b"));
    let server = outside.serve_tcp(7000);
    let datagrams = outside.udp(7001);
    let (of_a, of_b) = (source_ports(&a), source_ports(&b));
    assert_eq!([of_a, of_b], [(20_024, 20_039), (20_008, 20_023)], "from the top, none shared");
    let tcp = format!("{}:7000", outside.address);
    let mut buffer = [0; 64];
    for (berth, (first, last)) in [(&a, of_a), (&b, of_b)] {
        let before = server.seen().len();
        // Privileged ports, ports of the other's, any: none comes out as it went in unless it is the berth's own.
        for port in ["0", "22", "123", "1023", "20010", "20030", "40000"] {
            let told = berth.tells(&["connect-from", "tcp", port, &tcp]);
            assert_eq!(told["ok"], true, "from port {port}: {told}");
            let told = berth.tells(&["connect-from", "udp", port, &format!("{}:7001", outside.address), "x"]);
            assert_eq!(told["ok"], true, "from port {port}: {told}");
            let (_, from) = datagrams.recv_from(&mut buffer).expect("a datagram");
            assert!((first..=last).contains(&from.port()), "{from} from port {port}");
        }
        let seen: Vec<u16> = server.seen()[before..].iter().map(|peer| peer.port()).collect();
        assert!(seen.len() == 7 && seen.iter().all(|port| (first..=last).contains(port)), "{seen:?}");
    }
    // Where the block is used up for one address and port, there is no other port, but other addresses are still reached.
    outside.also_at(&host, "203.0.113.250");
    Peers::serve(outside.inside(|| TcpListener::bind("203.0.113.250:7000").expect("listen")));
    let server = outside.serve_tcp(7002);
    let script =
        format!("for i in $(seq 24); do exec {{fd}}<>/dev/tcp/{}/7002 || break; done 2>/dev/null; echo $fd; sleep 20", outside.address);
    let _holding = a.exec(&["bash", "-c", &script]).spawn();
    until("all ports are in use", SOON, || (server.seen().len() >= 16).then_some(()));
    let seen: BTreeSet<u16> = server.seen().iter().map(|peer| peer.port()).collect();
    assert!(seen.iter().all(|port| (of_a.0..=of_a.1).contains(port)), "{seen:?}");
    assert!(reach(&a, "203.0.113.250", 7000).is_some());

    // No third block, which is said; a deleted berth's is free again, and the list knows who had it.
    let refused = host.assign_command(&host.user("c"), &[]).output();
    assert!(!refused.success() && refused.text().contains("network.source_ports"), "{refused:?}");
    let told = whose(&host, of_b.0, None).stdout;
    assert!(told.starts_with(&format!("{} (uid {}), berth {}", b.name(), b.user.uid, b.id())), "{told}");
    let then = Run::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).ok();
    let name = b.name().to_owned();
    b.delete().ok();
    assert!(!whose(&host, of_b.0, None).success());
    let c = host.new_berth("d");
    assert_eq!(source_ports(&c), of_b);
    assert!(whose(&host, of_b.1, None).stdout.starts_with(c.name()));
    assert!(whose(&host, of_b.1, Some(then.trim())).stdout.starts_with(&format!("{name} ")));
    assert!(!whose(&host, 20_000, None).success(), "what is left of the range is nobody's");
}

#[test]
fn n07_a_berth_fills_neither_the_hosts_neighbours_nor_its_connections() {
    let host = Host::with(Options { network: true, ..Options::default() });
    let outside = Outside::create(&host);
    let (a, b) = (host.new_berth("a"), host.new_berth("b"));
    outside.serve_tcp(7000);
    let there = outside.address.to_string();
    // A wide network that the host has no router to: it asks for each address itself.
    let link = host.slot.outside().1;
    host.run("ip").args(["addr", "add", "100.99.0.1/16", "dev", &link]).ok();
    host.berth(["set", a.name(), "--egress", "all"]).ok();
    let neighbours = || host.run("ip").args(["-4", "neigh", "show", "nud", "all", "dev", &link]).ok().lines().count();
    let before = neighbours();
    let (flooding, told) = a.hold(&["flood", "100.99.1.0", "5000", "1"]);
    assert!(told["sent"].as_u64() > Some(4000), "{told}");
    let now = neighbours() - before;
    assert!((10..=150).contains(&now), "{now} neighbours for 5000 addresses");
    assert!(reach(&a, &there, 7000).is_some(), "even A itself gets where it was before");
    assert!(reach(&b, &there, 7000).is_some());
    drop(flooding);

    // A few more flows than one may have, to ports where none listens.
    let count = || host.run("sysctl").args(["-n", "net.netfilter.nf_conntrack_count"]).ok().trim().parse::<u32>().expect("a number");
    let most: u32 = host.run("sysctl").args(["-n", "net.netfilter.nf_conntrack_max"]).ok().trim().parse().expect("a number");
    let bound = (most / 16).min(16_384);
    let (_flooding, told) = a.hold(&["flood", &there, "1", &(bound + 2048).to_string()]);
    let counted = count();
    assert!(told["sent"].as_u64() > Some(u64::from(bound)), "{told}");
    assert!((bound - bound / 8..=bound + 500).contains(&counted), "{counted} connections, the bound is {bound}");
    assert!(reach(&b, &there, 7000).is_some(), "B connects while A cannot");
    assert_eq!(reach(&a, &there, 7000), None);
}
