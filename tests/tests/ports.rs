//! Published container ports on the host, and who may reach them.
#![forbid(unsafe_code)]

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use berth_tests::{Berth, Host, Output, Run, User, berth::BUSYBOX, image, programs, until};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

/// Ports of this instance, below the ephemeral ones.
fn port(host: &Host, number: u32) -> u16 {
    u16::try_from(21_000 + host.slot.number * 20 + number).expect("a port")
}

/// A web server in a container that says `text`.
fn serve(berth: &Berth, name: &str, publish: &str, text: &str) {
    let script = format!("mkdir -p /w && echo {text} > /w/index.html && exec httpd -f -p 80 -h /w");
    berth.docker(&["run", "-d", "--name", name, "-p", publish, BUSYBOX, "sh", "-c", &script]).ok();
}

/// A UDP service in a container that answers `text`; `publish` without `:5000/udp`.
fn serve_udp(berth: &Berth, name: &str, publish: &str, text: &str) {
    berth.copy_probe();
    let (publish, probe) = (format!("{publish}:5000/udp"), "/usr/local/bin/berth-probe:/probe:ro");
    let run = ["run", "-d", "-i", "--name", name, "-p", &publish, "-v", probe, BUSYBOX, "/probe", "listen", "udp", "0.0.0.0:5000", text];
    berth.docker(&run).ok();
}

/// `web` says hello at the port `tcp`, `dns` answers datagram at `udp`, both published `at` an address with a colon or anywhere, and open.
#[track_caller]
fn serve_both(berth: &Berth, at: &str, tcp: u16, udp: u16) {
    serve(berth, "web", &format!("{at}{tcp}:80"), "hello");
    serve_udp(berth, "dns", &format!("{at}{udp}"), "datagram");
    await_standing(berth, "tcp", tcp, "open");
    await_standing(berth, "udp", udp, "open");
}

/// Ends `web` and `dns`; nothing of their ports stays.
#[track_caller]
fn remove_both(berth: &Berth, tcp: u16, udp: u16) {
    berth.docker(&["rm", "-f", "web", "dns"]).ok();
    await_gone(berth, "tcp", tcp);
    await_gone(berth, "udp", udp);
    refused(&berth.user, "127.0.0.1", tcp);
    assert_eq!(datagram(Some(&berth.user), "127.0.0.1", udp), "");
    until("nothing is guarded any more", SOON, || guards(berth.host).is_empty().then_some(()));
}

/// How a published port stands on the host: `open`, `pending`, `taken`, `not_allowed`, with the detail.
fn standing(berth: &Berth, protocol: &str, port: u16) -> Option<(String, String)> {
    let status = berth.status();
    let found = status["ports"].as_array()?.iter().find(|p| p["protocol"] == protocol && p["port"] == port)?.clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some((text(&found["host"]["state"]), text(&found["host"]["detail"])))
}

#[track_caller]
fn await_standing(berth: &Berth, protocol: &str, port: u16, wanted: &str) -> String {
    until(&format!("{port}/{protocol} is {wanted}"), SOON, || standing(berth, protocol, port).filter(|(state, _)| state == wanted)).1
}

#[track_caller]
fn await_gone(berth: &Berth, protocol: &str, port: u16) {
    until(&format!("{port}/{protocol} is gone"), SOON, || standing(berth, protocol, port).is_none().then_some(()));
}

fn has_condition(berth: &Berth, kind: &str) -> Option<String> {
    let status = berth.status();
    let found = status["conditions"].as_array()?.iter().find(|c| c["kind"] == kind)?.clone();
    found["message"].as_str().map(str::to_owned)
}

fn curl(user: Option<&User>, args: &[&str], address: &str, port: u16) -> Output {
    let run = user.map_or_else(|| Run::new("curl"), |user| user.run("curl"));
    run.args(["-sS", "--noproxy", "*", "--max-time", "10"]).args(args).arg(format!("http://{address}:{port}/")).output()
}

#[track_caller]
fn gets(user: Option<&User>, address: &str, port: u16, text: &str) {
    let answer = curl(user, &[], address, port);
    assert_eq!(answer.stdout.trim(), text, "{answer:?}");
}

/// Refused, and at once.
#[track_caller]
fn refused(user: &User, address: &str, port: u16) {
    let began = Instant::now();
    let answer = curl(Some(user), &[], address, port);
    assert_eq!(answer.status, 7, "{answer:?}");
    assert!(answer.stderr.contains("refused") || answer.stderr.contains("connect to"), "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "refused after {:?}", began.elapsed());
}

/// What a datagram is answered by.
fn datagram(user: Option<&User>, address: &str, port: u16) -> String {
    let script = format!("exec 3<>/dev/udp/{address}/{port}; echo hello >&3; timeout 2 dd bs=100 count=1 <&3 2>/dev/null");
    let run = user.map_or_else(|| Run::new("bash"), |user| user.run("bash"));
    run.args(["-c", &script]).output().stdout
}

/// Whether a host user can listen there, and what the attempt said.
fn can_listen(user: &User, kind: &str, at: &str) -> bool {
    let mut attempt = user.run(&programs::find("berth-probe").to_string_lossy()).args(["listen", kind, at, "forged"]).spawn();
    let line = attempt.line(SOON).expect("the probe says how it went");
    serde_json::from_str::<Value>(&line).expect("JSON")["ok"] == true
}

/// Changes the policy behind the back of the server, which is stopped for that.
#[track_caller]
fn set_ports(berth: &Berth, ports: Value) {
    let answer = berth.ensure(|ensure| ensure["policy"] = json!({ "ports": ports }));
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Elements of the firewall's sets for published ports.
fn guards(host: &Host) -> String {
    let table = format!("berth{}", host.slot.instance());
    let sets = ["guarded", "guests", "servers"].map(|set| Run::new("nft").args(["list", "set", "inet", &table, set]).ok());
    sets.concat().lines().filter(|l| l.contains("elements") || l.contains(" . ") && !l.contains("typeof")).collect::<Vec<_>>().join("\n")
}

#[test]
fn h03_a_published_port_is_on_loopback_and_at_the_berths_address_until_its_container_goes() {
    let host = Host::start();
    let a = host.new_berth("a");
    a.load_busybox();
    let (tcp, udp) = (port(&host, 0), port(&host, 1));
    let address = a.address();
    serve(&a, "web", &format!("{tcp}:80"), "hello");
    await_standing(&a, "tcp", tcp, "open");
    for at in ["127.0.0.1", "localhost", &address] {
        gets(Some(&a.user), at, tcp, "hello");
    }
    let shown = a.status()["ports"][0].clone();
    assert_eq!((&shown["container"], &shown["container_port"]), (&json!("web"), &json!(80)), "{shown}");
    assert_eq!(a.status()["running_containers"], 1);

    serve_udp(&a, "dns", &udp.to_string(), "datagram");
    await_standing(&a, "udp", udp, "open");
    for at in ["127.0.0.1", &address] {
        assert_eq!(datagram(Some(&a.user), at, udp), "datagram", "at {at}");
    }

    // A restart of the container is the same port again; a removal closes it.
    a.docker(&["restart", "web"]).ok();
    until("the port is back", SOON, || (curl(Some(&a.user), &[], "127.0.0.1", tcp).stdout.trim() == "hello").then_some(()));
    remove_both(&a, tcp, udp);
    // The port is anybody's again.
    until("the port is free", SOON, || TcpListener::bind(("127.0.0.1", tcp)).ok().map(drop));
    until("no container runs", SOON, || (a.status()["running_containers"] == 0).then_some(()));
}

#[test]
fn h03_what_is_published_at_127_0_0_1_inside_is_at_127_0_0_1_of_the_host_and_nowhere_else() {
    let host = Host::start();
    let (a, b) = (host.new_berth("a"), host.user("b"));
    a.load_busybox();
    let (tcp, udp) = (port(&host, 0), port(&host, 1));
    let address = a.address();
    serve_both(&a, "127.0.0.1:", tcp, udp);
    for user in [Some(&a.user), None] {
        for at in ["127.0.0.1", "localhost"] {
            gets(user, at, tcp, "hello");
        }
        assert_eq!(datagram(user, "127.0.0.1", udp), "datagram", "{user:?}");
    }
    for at in ["127.0.0.1", &address] {
        refused(&b, at, tcp);
        assert_eq!(datagram(Some(&b), at, udp), "", "B at {at}");
    }
    refused(&a.user, &address, tcp);
    assert_eq!(datagram(Some(&a.user), &address, udp), "");

    // More clients, one after the other and all at once, than sockets are kept.
    let script = format!(
        "for i in $(seq 150); do exec 3<>/dev/udp/127.0.0.1/{udp}; echo x >&3; timeout 5 dd bs=100 count=1 <&3 2>/dev/null; echo; done;          for i in $(seq 150); do curl -sS --noproxy '*' --max-time 10 http://127.0.0.1:{tcp}/ & done; wait"
    );
    let answers = a.user.run("bash").args(["-c", &script]).output().stdout;
    assert_eq!((answers.matches("datagram").count(), answers.matches("hello").count()), (150, 150), "{answers}");

    // What the tenant does to his loopback, and to the door there, is his loss for that time.
    a.sh("ip link set lo down").ok();
    let began = Instant::now();
    assert_ne!(curl(Some(&a.user), &[], "127.0.0.1", tcp).status, 0);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    a.sh("ip link set lo up").ok();
    gets(Some(&a.user), "127.0.0.1", tcp, "hello");
    a.exec(&["bash", "-c", "for i in $(seq 300); do echo forged > /dev/tcp/127.169.254.1/53 & done; sleep 0.2; kill $(jobs -p); true"])
        .ok();
    gets(Some(&a.user), "127.0.0.1", tcp, "hello");

    remove_both(&a, tcp, udp);

    // The berth's address is no way round a taken port here, so it is not offered as one.
    let other = TcpListener::bind(("127.0.0.1", tcp)).expect("free");
    serve(&a, "web", &format!("127.0.0.1:{tcp}:80"), "again");
    let detail = await_standing(&a, "tcp", tcp, "taken");
    assert!(detail.contains("published without 127.0.0.1"), "{detail}");
    drop(other);
    a.docker(&["run", "--rm", BUSYBOX, "true"]).ok();
    await_standing(&a, "tcp", tcp, "open");
    gets(Some(&a.user), "127.0.0.1", tcp, "again");
}

#[test]
fn h03_a_taken_port_is_told_and_had_when_it_is_free() {
    let host = Host::start();
    let (a, b) = (host.new_berth("a"), host.new_berth("b"));
    a.load_busybox();
    b.load_busybox();
    let (mine, shared) = (port(&host, 0), port(&host, 1));
    let other = TcpListener::bind(("127.0.0.1", mine)).expect("free");
    serve(&a, "web", &format!("{mine}:80"), "hello");
    let detail = await_standing(&a, "tcp", mine, "taken");
    assert!(detail.starts_with("a process of root has it") && detail.contains(&a.address()), "{detail}");
    let told = until("the condition", SOON, || has_condition(&a, "PortTaken"));
    assert!(told.contains(&mine.to_string()), "{told}");
    gets(Some(&a.user), &a.address(), mine, "hello");
    drop(other);
    // Any change in the berth is a reason to try again.
    a.docker(&["run", "--rm", BUSYBOX, "true"]).ok();
    await_standing(&a, "tcp", mine, "open");
    gets(Some(&a.user), "127.0.0.1", mine, "hello");
    assert_eq!(has_condition(&a, "PortTaken"), None);

    // Two users, one port: the second is told, and has his own at his address.
    serve(&a, "first", &format!("{shared}:80"), "of-a");
    await_standing(&a, "tcp", shared, "open");
    serve(&b, "second", &format!("{shared}:80"), "of-b");
    let detail = await_standing(&b, "tcp", shared, "taken");
    assert!(detail.starts_with("another berth has it"), "{detail}");
    gets(Some(&b.user), &b.address(), shared, "of-b");
    gets(Some(&a.user), "127.0.0.1", shared, "of-a");
    refused(&b.user, "127.0.0.1", shared);
    a.docker(&["rm", "-f", "first"]).ok();
    await_gone(&a, "tcp", shared);
    b.docker(&["run", "--rm", BUSYBOX, "true"]).ok();
    await_standing(&b, "tcp", shared, "open");
    gets(Some(&b.user), "127.0.0.1", shared, "of-b");
    refused(&a.user, "127.0.0.1", shared);
}

#[test]
fn h03_the_profile_has_a_range_or_none_and_may_open_to_the_host() {
    let host = Host::start();
    let a = host.new_berth("a");
    let stranger = host.user("s");
    a.load_busybox();
    let (inside, outside) = (port(&host, 0), port(&host, 1));
    serve(&a, "one", &format!("{inside}:80"), "one");
    serve(&a, "two", &format!("{outside}:80"), "two");
    await_standing(&a, "tcp", outside, "open");
    host.stop_server();
    set_ports(&a, json!({ "range": [inside, inside], "open_to": "user" }));
    let detail = await_standing(&a, "tcp", outside, "not_allowed");
    assert!(detail.contains(&format!("{inside}-{inside}")), "{detail}");
    await_standing(&a, "tcp", inside, "open");
    gets(Some(&a.user), "127.0.0.1", inside, "one");
    refused(&a.user, "127.0.0.1", outside);
    gets(Some(&a.user), &a.address(), outside, "two");

    set_ports(&a, json!({ "range": null, "open_to": "user" }));
    await_standing(&a, "tcp", inside, "not_allowed");
    refused(&a.user, "127.0.0.1", inside);

    set_ports(&a, json!({ "range": [1024, 65535], "open_to": "host" }));
    await_standing(&a, "tcp", inside, "open");
    until("strangers are let in", SOON, || (curl(Some(&stranger), &[], "127.0.0.1", inside).stdout.trim() == "one").then_some(()));
    gets(Some(&stranger), &a.address(), inside, "one");

    set_ports(&a, json!({ "range": [1024, 65535], "open_to": "user" }));
    until("strangers are kept out again", SOON, || (curl(Some(&a.user), &[], "127.0.0.1", inside).status == 0).then_some(()));
    await_standing(&a, "tcp", inside, "open");
    refused(&stranger, "127.0.0.1", inside);
    refused(&stranger, &a.address(), inside);
    gets(Some(&a.user), "127.0.0.1", inside, "one");
}

#[test]
fn n06_a_published_port_is_its_users_and_roots_and_nobody_answers_in_his_place() {
    let host = Host::start();
    let (a, b) = (host.new_berth("a"), host.user("b"));
    a.load_busybox();
    let (tcp, udp) = (port(&host, 0), port(&host, 1));
    let address = a.address();
    serve_both(&a, "", tcp, udp);
    for at in ["127.0.0.1", &address] {
        gets(Some(&a.user), at, tcp, "hello");
        gets(None, at, tcp, "hello");
        refused(&b, at, tcp);
        assert_eq!(datagram(Some(&a.user), at, udp), "datagram", "A at {at}");
        assert_eq!(datagram(None, at, udp), "datagram", "root at {at}");
        assert_eq!(datagram(Some(&b), at, udp), "", "B at {at}");
    }
    // By other names of the same place too, and from a source port that the firewall saw A use a moment ago.
    for at in ["localhost", "0.0.0.0", "[::ffff:127.0.0.1]"] {
        assert_ne!(curl(Some(&b), &[], at, tcp).status, 0, "B at {at}");
    }
    let source = port(&host, 2).to_string();
    let from = ["--local-port", source.as_str()];
    assert_eq!(curl(Some(&a.user), &from, &address, tcp).stdout.trim(), "hello");
    assert_ne!(curl(Some(&b), &from, &address, tcp).status, 0, "B from the source port of A");

    // Nobody takes its place, at whatever address it would be found by.
    for at in ["127.0.0.1", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]"] {
        assert!(!can_listen(&b, "tcp", &format!("{at}:{tcp}")), "B listens at {at}");
        assert!(!can_listen(&b, "udp", &format!("{at}:{udp}")), "B has {at}");
    }
    assert!(can_listen(&b, "tcp", &format!("127.0.0.1:{source}")), "the attempts as such are good");
    let borrowed = curl(Some(&b), &["--interface", &address], "127.0.0.1", tcp);
    assert_ne!(borrowed.status, 0, "B took A's address: {borrowed:?}");
    gets(Some(&a.user), "127.0.0.1", tcp, "hello");

    // What runs in another berth is nobody special.
    let c = host.new_berth("c");
    for at in [address.as_str(), "127.0.0.1", "169.254.1.1"] {
        let tried = c.exec(&["timeout", "3", "bash", "-c", &format!("cat < /dev/tcp/{at}/{tcp}")]).output();
        assert!(!tried.success(), "{tried:?}");
    }
}

#[test]
fn l01_ports_outlive_the_node_and_end_with_the_shim() {
    let host = Host::start();
    let (a, b) = (host.new_berth("a"), host.user("b"));
    a.load_busybox();
    let (before, during) = (port(&host, 0), port(&host, 1));
    serve(&a, "before", &format!("{before}:80"), "before");
    await_standing(&a, "tcp", before, "open");
    host.kill_node();
    gets(Some(&a.user), "127.0.0.1", before, "before");
    refused(&b, "127.0.0.1", before);
    // Without the node nobody tells the firewall: it waits.
    serve(&a, "during", &format!("{during}:80"), "during");
    gets(Some(&a.user), &a_address(&host, &a), during, "during");
    refused(&a.user, "127.0.0.1", during);
    host.start_node();
    await_standing(&a, "tcp", during, "open");
    gets(Some(&a.user), "127.0.0.1", during, "during");
    for port in [before, during] {
        refused(&b, "127.0.0.1", port);
    }
    gets(Some(&a.user), "127.0.0.1", before, "before");
    assert_eq!(guards(&host).matches(" . ").count(), 2 * (1 + 2 + 2), "{}", guards(&host));

    Run::new("kill").args(["-KILL", &a.shim_pid().to_string()]).ok();
    until("the rules go with the shim", SOON, || guards(&host).is_empty().then_some(()));
    until("the port is free", SOON, || TcpListener::bind(("127.0.0.1", before)).ok().map(drop));

    // The same when nobody looked.
    until("a client is served again", SOON, || a.docker(&["start", "before"]).output().success().then_some(()));
    await_standing(&a, "tcp", before, "open");
    let shim = a.shim_pid();
    host.kill_node();
    Run::new("kill").args(["-KILL", &shim.to_string()]).ok();
    assert!(!guards(&host).is_empty());
    host.start_node();
    a.stop().ok();
    until("the rules of a berth that died meanwhile go", SOON, || guards(&host).is_empty().then_some(()));
}

/// An image as the tests have it, whose first process is its own and not Berth's.
#[track_caller]
fn import_with_own_init(host: &Host, name: &str) {
    let root = std::env::var("BERTH_TEST_IMAGE_TAR").expect("BERTH_TEST_IMAGE_TAR names the root of the test image");
    let entry = json!(["/bin/sh", "-c", "containerd & exec dockerd --containerd /run/containerd/containerd.sock"]);
    image::import(host, name, root.as_ref(), &json!({ "Entrypoint": entry }));
}

#[test]
fn h03_the_loopback_inside_needs_no_help_of_the_first_process() {
    let host = Host::start();
    import_with_own_init(&host, "own-init");
    let a = host.assign(&host.user("a"), &["--image", "own-init"]);
    assert_eq!(a.sh("cat /proc/1/comm").ok().trim(), "dockerd");
    a.load_busybox();
    let (tcp, udp) = (port(&host, 0), port(&host, 1));
    serve_both(&a, "127.0.0.1:", tcp, udp);
    gets(Some(&a.user), "127.0.0.1", tcp, "hello");
    assert_eq!(datagram(Some(&a.user), "127.0.0.1", udp), "datagram");
}

/// The berth's address while the node is away.
fn a_address(host: &Host, berth: &Berth) -> String {
    let routes = Run::new("ip").args(["-4", "route", "show"]).ok();
    let prefix = host.slot.link_prefix();
    let route = routes.lines().find(|l| l.contains(&format!("dev {prefix}"))).unwrap_or_else(|| panic!("no route of {}", berth.name()));
    route.split_whitespace().next().expect("an address").to_owned()
}
