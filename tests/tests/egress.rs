//! What of the network a profile lets a berth reach, and that a change of it holds at once.
#![forbid(unsafe_code)]

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use berth_tests::{
    Berth, Host, Options, Outside,
    berth::BUSYBOX,
    dns,
    outside::{Peers, reach, reached},
    until,
};

const SOON: Duration = Duration::from_secs(20);

/// Private, shared by carriers, link-local with the metadata address, and reserved addresses; all of them outside.
const NOT_THE_INTERNET: [&str; 6] = ["10.250.0.1", "172.16.250.1", "192.168.250.1", "100.64.250.1", "169.254.169.254", "198.18.0.1"];

#[track_caller]
fn set_egress(berth: &Berth, egress: &str) {
    berth.host.berth(["set", berth.name(), "--egress", egress]).ok();
}

/// A node in a network of its own, an outside that is at many addresses, and a berth.
fn world() -> (Host, Outside) {
    let host = Host::with(Options { network: true, ..Options::default() });
    let outside = Outside::create(&host);
    NOT_THE_INTERNET.into_iter().for_each(|address| outside.also_at(&host, address));
    (host, outside)
}

/// The addresses of `all` that were answered from, once by the berth and once by a container in it.
fn answered(berth: &Berth, all: &[String], port: u16) -> Vec<String> {
    let lines = reached(berth, all, port);
    let answered: Vec<String> = all.iter().filter(|a| lines.iter().any(|l| l.starts_with(&format!("{a}: ")))).cloned().collect();
    let inner: Vec<String> = all.iter().filter(|a| lines.iter().any(|l| l.starts_with(&format!("container: {a}: ")))).cloned().collect();
    assert_eq!(answered, inner, "a container reaches what its berth reaches");
    answered
}

#[test]
fn n01_each_egress_policy_reaches_what_it_says_and_changes_at_once() {
    let (host, outside) = world();
    let (a, b) = (host.new_berth("a"), host.new_berth("b"));
    a.load_busybox();
    let listener = outside.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 7000)).expect("listen"));
    Peers::serve(listener);
    let (_listening, told) = b.hold(&["listen", "tcp", "0.0.0.0:7000", "of B"]);
    assert_eq!(told["ok"], true, "{told}");
    // A service of the host at all its addresses.
    let service = host_service(&host);

    let (there, here) = (outside.address.to_string(), outside.host_address.to_string());
    let mut all = vec![there.clone(), here.clone(), b.address(), "169.254.1.1".to_owned()];
    all.extend(NOT_THE_INTERNET.map(str::to_owned));
    let private: Vec<String> = NOT_THE_INTERNET.map(str::to_owned).to_vec();

    assert_eq!(answered(&a, &all, 7000), std::slice::from_ref(&there), "the default is internet");
    assert_eq!(service.seen(), []);

    set_egress(&a, "all");
    let mut everything = vec![there.clone(), here.clone()];
    everything.extend(private);
    assert_eq!(answered(&a, &all, 7000), everything, "all: the host too, no other berth");
    let seen = service.seen();
    assert!(!seen.is_empty() && seen.iter().all(|peer| peer.ip().to_string() == a.address()), "{seen:?}");
    // Not from a port that means something there.
    let told = a.tells(&["connect-from", "tcp", "1023", &format!("{here}:7000")]);
    assert_eq!(told["ok"], false, "{told}");

    set_egress(&a, "none");
    assert_eq!(answered(&a, &all, 7000), [""; 0]);

    set_egress(&a, &format!("10.250.0.0/16,10.250.0.0/24,169.254.169.254,{here}/32"));
    assert_eq!(answered(&a, &all, 7000), [here.clone(), "10.250.0.1".to_owned(), "169.254.169.254".to_owned()]);

    // After a new start, and in a node that knows it only from the record, as well.
    host.kill_node();
    host.start_node();
    assert_eq!(answered(&a, &all, 7000).len(), 3);
    a.stop().ok();
    a.await_state("stopped");
    set_egress(&a, "0.0.0.0/0");
    a.start().ok();
    a.await_docker();
    assert_eq!(answered(&a, &all, 7000), everything, "a list of everything is all");

    set_egress(&a, "internet");
    assert_eq!(answered(&a, &all, 7000), [there]);

    let refused = host.berth(["set", a.name(), "--egress", "10.0.0.1/8"]).output();
    assert!(!refused.success() && refused.text().contains("10.0.0.0/8"), "{refused:?}");
    assert_eq!(answered(&a, &all, 7000).len(), 1, "and the old one holds");
}

/// A service in the network of the node, and who came.
fn host_service(host: &Host) -> Peers {
    let namespace = std::fs::File::open(format!("/run/netns/{}", host.slot.network())).expect("open the network");
    let listener = thread::spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("enter the network");
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 7000)).expect("listen")
    });
    Peers::serve(listener.join().expect("listen"))
}

#[test]
fn n01_a_stricter_policy_ends_what_is_open() {
    let (host, outside) = world();
    let a = host.new_berth("a");
    let (listener, lines) = (outside.inside(|| TcpListener::bind(("0.0.0.0", 7000)).expect("listen")), Arc::new(AtomicU32::new(0)));
    let counted = Arc::clone(&lines);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            BufReader::new(stream).lines().map_while(Result::ok).for_each(|_| {
                counted.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    let there = outside.address;
    let _talking = a.exec(&["bash", "-c", &format!("exec 3>/dev/tcp/{there}/7000; while sleep 0.05; do echo still >&3; done")]).spawn();
    let count = || lines.load(Ordering::SeqCst);
    until("the connection is in use", SOON, || (count() > 5).then_some(()));
    set_egress(&a, "10.250.0.1");
    let at_change = count();
    // As long as five lines take and one more, if they still came.
    assert_eq!(reach(&a, &there.to_string(), 7000), None, "a new one is refused");
    a.sh("sleep 1").ok();
    assert!(count() <= at_change + 1, "{} lines after the change", count() - at_change);
    // TCP has kept what it could not send.
    set_egress(&a, "internet");
    until("the connection goes on", SOON, || (count() > at_change + 5).then_some(()));
}

#[test]
fn n01_names_resolve_and_the_user_gets_in_where_nothing_gets_out() {
    let host = Host::start();
    let outside = Outside::create(&host);
    let a = host.new_berth("a");
    a.load_busybox();
    outside.serve_tcp(7000);
    set_egress(&a, "none");
    assert_eq!(reach(&a, &outside.address.to_string(), 7000), None);

    let name = |what: &str| format!("{what}.{}", dns::ZONE);
    let found = a.exec(&["getent", "ahostsv4", &name("berth")]).ok();
    assert!(found.starts_with(&dns::ADDRESS.to_string()), "{found}");
    let ran = a.docker_run(&[], &format!("nslookup -type=a {}", name("container")));
    assert!(ran.stdout.contains(&dns::ADDRESS.to_string()), "{ran:?}");

    let port = 21_000 + host.slot.number * 20;
    let script = "mkdir -p /w && echo hello > /w/index.html && exec httpd -f -p 80 -h /w";
    a.docker(&["run", "-d", "--name", "web", "-p", &format!("{port}:80"), BUSYBOX, "sh", "-c", script]).ok();
    let get = |at: &str| {
        let url = format!("http://{at}:{port}/");
        a.user.run("curl").args(["-sS", "--noproxy", "*", "--max-time", "10", &url]).output().stdout
    };
    for at in [a.address().as_str(), "127.0.0.1"] {
        until(&format!("the user reaches the container at {at}"), SOON, || (get(at).trim() == "hello").then_some(()));
    }
    // Containers reach each other, which is inside.
    let ran = a.docker_run(&["--link", "web"], "wget -qO- http://web/");
    assert_eq!(ran.stdout.trim(), "hello", "{ran:?}");
}
