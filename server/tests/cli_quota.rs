//! Limits, and what is used of them, by the program `berth`.

#![forbid(unsafe_code)]

mod support;

use std::process::Stdio;

use support::{
    DAEMON, ROOT, Server, problem,
    program::{Berth, program},
};
use tokio::process::Command;

#[tokio::test]
async fn q06_every_limit_is_set_shown_and_given_back_with_dockers_words() {
    let server = Server::start().await;
    let berth = Berth(server.listen_as(ROOT));
    berth.run(&["assign", "alice", "--memory", "2g", "--memory-swap", "3g", "--net-egress", "100mbit", "--egress", "none"]).await.ok();
    let line = ["set", "alice", "--cpu-shares", "2048", "--memory-high", "1g", "--inodes", "100000", "--io-read-bps", "10m"];
    let said = berth
        .run(&[&line[..], &["--io-write-iops", "500", "--net-ingress", "1.5gbit", "--egress", "10.0.0.0/8,192.0.2.7"]].concat())
        .await
        .ok();
    let quota = "alice has 2 CPUs, 2 GiB memory, 1024 processes, 10 GiB disk, 1 GiB swap, weight 200, slowed from 1 GiB memory, 100000 files, \
                 10 MiB/s read, 500 operations/s writing, 100 Mbit/s out, 1.5 Gbit/s in.\n";
    assert_eq!(said, quota);
    let shown = berth.run(&["show", "alice"]).await.ok();
    for part in [
        "2, weight 200 (own)\n",
        "2 GiB (own), slowed from 1 GiB (own), swap 1 GiB (own)\n",
        "10 GiB, 100000 files (own)\n",
        "read 10 MiB/s (own), write 500 operations/s (own)\n",
        "out 100 Mbit/s (own), in 1.5 Gbit/s (own)\n",
        "only 10.0.0.0/8, 192.0.2.7/32\n",
    ] {
        assert!(shown.contains(part), "{part:?} in {shown}");
    }
    let asked = server.node.inner.lock().unwrap().asked["alice"].clone();
    assert_eq!((asked.limits.swap_bytes, asked.limits.network.egress_bits), (1 << 30, Some(100_000_000)));
    assert_eq!(asked.policy.egress.networks().unwrap().len(), 2);
    let line = [
        "set",
        "alice",
        "--cpu-weight",
        "profile",
        "--memory-high",
        "none",
        "--swap",
        "none",
        "--inodes",
        "profile",
        "--egress",
        "profile",
    ];
    let rest = ["--io-read-bps", "profile", "--io-write-iops", "none", "--net-egress", "profile", "--net-ingress", "profile"];
    let said = berth.run(&[&line[..], &rest].concat()).await.ok();
    assert_eq!(said, "alice has 2 CPUs, 2 GiB memory, 1024 processes, 10 GiB disk.\n");
    let shown = berth.run(&["show", "alice", "--json"]).await.json();
    assert_eq!(shown["own_limits"], serde_json::json!(["memory_bytes", "swap_bytes", "memory_high_bytes", "io_write_iops"]));

    berth.run(&["profile", "create", "lab", "--io-read-iops", "300", "--swap", "1g", "--egress", "all"]).await.ok();
    let said = berth.run(&["profile", "set", "lab", "--io-read-iops", "none", "--net-ingress", "50mbit"]).await.ok();
    assert!(said.ends_with("1 GiB swap, 50 Mbit/s in.\n"), "{said}");
    let shown = berth.run(&["profile", "show", "lab"]).await.ok();
    assert!(shown.contains("in 50 Mbit/s\n") && shown.contains("everything that the host reaches\n"), "{shown}");

    for (line, code, part) in [
        (&["--io-read-bps", "1k"][..], 5, "io_read_bps is 1 KiB/s, the least is 1 MiB/s\nhint: ask for 1 MiB/s or more"),
        (&["--memory-high", "3g"], 5, "memory_high_bytes is 3 GiB, the most is the memory of the berth, 2 GiB"),
        (&["--memory", "1g", "--memory-swap", "512m"], 2, "it counts both"),
        (&["--net-egress", "100"], 2, "write for instance 500kbit, 100mbit"),
        (&["--egress", "10.0.0.1/8"], 5, "the network is 10.0.0.0/8"),
        (&["--egress", "some"], 2, "write all, internet, none"),
        (&["--cpu-shares", "1"], 2, "write 2 to 262144"),
    ] {
        let ran = berth.run(&[&["set", "alice"], line].concat()).await;
        assert_eq!((ran.code, ran.err.contains(part)), (code, true), "{line:?}: {}", ran.err);
    }
    let help = berth.run(&["set", "--help"]).await.ok();
    assert!(help.contains("--memory-swap") && help.contains("Memory and swap together, as Docker counts them"), "{help}");
}

#[tokio::test]
async fn q06_a_refused_change_prints_the_figures_and_a_dry_run_what_waits() {
    let server = Server::start().await;
    let berth = Berth(server.listen_as(ROOT));
    berth.run(&["assign", "alice"]).await.ok();
    let refusal = problem("disk_below_use", "alice uses 3 GiB of the disk, more than the 2 GiB wanted");
    server.node.refuse(409, refusal.clone());
    let ran = berth.run(&["set", "alice", "--disk", "2g", "--cpus", "1"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (5, "berth: alice uses 3 GiB of the disk, more than the 2 GiB wanted\n"));
    server.node.refuse(409, refusal);
    assert_eq!(berth.run(&["set", "alice", "--disk", "2g", "--dry-run"]).await.code, 5);
    let shown = berth.run(&["show", "alice", "--json"]).await.json();
    assert_eq!((&shown["limits"]["cpu_millis"], &shown["own_limits"]), (&serde_json::json!(2000), &serde_json::json!([])));

    let said = berth.run(&["set", "alice", "--dry-run", "--disk", "20g", "--pids-limit", "100", "--egress", "all"]).await.ok();
    let lines: Vec<_> = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines[0], "WHAT NOW THEN APPLIES");
    for line in
        ["disk_bytes 10 GiB 20 GiB later: this kernel grows no mounted disk", "pids 1024 100 at once", "egress internet all at once"]
    {
        assert!(lines.iter().any(|found| found == line), "{line} in {said}");
    }
    assert_eq!((lines.len(), lines[4].as_str()), (8, "OF THE HOST PROMISED THEN ALLOWED HAS"));
    assert_eq!(lines[7], "disk 10 GiB 20 GiB 100 GiB 100 GiB");
    let preview = berth.run(&["set", "alice", "--dry-run", "--pids-limit", "100", "--json"]).await.json();
    assert_eq!(preview["changes"], serde_json::json!([{ "field": "pids", "before": 1024, "after": 100 }]));
    let said = berth.run(&["set", "alice", "--dry-run", "--pids-limit", "1024"]).await.ok();
    assert_eq!(said, "Nothing would change: alice has that already.\n");
    assert_eq!(berth.run(&["show", "alice", "--json"]).await.json()["limits"], shown["limits"]);
    // What waits is said after the change too, with what helps.
    server.node.change("alice", |status| {
        let message = "the disk grows when the berth starts anew".to_owned();
        status.conditions.push(berth_protocol::Condition { kind: "PendingRestart".to_owned(), message, since: support::now() });
    });
    let said = berth.run(&["set", "alice", "--pids-limit", "100"]).await.ok();
    assert!(said.contains("PendingRestart: the disk grows") && said.contains("  next: berth restart alice\n"), "{said}");
}

#[tokio::test]
async fn top_shows_rates_against_limits_the_busiest_first() {
    let server = Server::start().await;
    let berth = Berth(server.listen_as(ROOT));
    assert_eq!(berth.run(&["top", "--once"]).await.ok(), "No berth is up.\n");
    for user in ["alice", "bob"] {
        berth.run(&["assign", user, "--cpus", "1.5"]).await.ok();
    }
    let node = server.node.clone();
    // bob burns half a CPU and sends; the counters grow with the clock.
    let began = support::now();
    let growing = tokio::spawn(async move {
        loop {
            let elapsed = u64::try_from(support::now() - began).unwrap();
            let usage = berth_protocol::Usage {
                memory_bytes: 512 << 20,
                pids: 30,
                cpu_usec: elapsed * 500,
                disk_bytes: 1 << 30,
                disk: Some(berth_protocol::DiskUsage { used_bytes: 1 << 30, limit_bytes: 8 << 30, used_inodes: 1, limit_inodes: 2 }),
                io: berth_protocol::IoUsage { write_bytes: elapsed * 1000, ..Default::default() },
                network: berth_protocol::NetworkUsage { egress_bytes: elapsed * 125, ..Default::default() },
                pressure: Some(berth_protocol::Pressure {
                    cpu: berth_protocol::Stall { some_avg10: 250, ..Default::default() },
                    ..Default::default()
                }),
                ..Default::default()
            };
            node.inner.lock().unwrap().berths.get_mut("bob").unwrap().usage = Some(usage);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    let table = berth.run(&["top"]).await.ok();
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>().join(" "), "USER CPU % MEMORY SWAP PIDS DISK READ WRITE OUT IN WAIT %");
    assert_eq!((lines.len(), lines[1].starts_with("bob "), lines[2].starts_with("alice ")), (3, true, true), "{table}");
    for part in ["512 MiB / 2 GiB", "30 / 1024", "1 GiB / 8 GiB", "2.5 / 0 / 0", "/ 150"] {
        assert!(lines[1].contains(part), "{part} in {table}");
    }
    let told = berth.run(&["top", "bob", "--json"]).await.json();
    assert_eq!(told["items"].as_array().unwrap().len(), 1);
    let bob = &told["items"][0];
    let near = |field: &str, wanted: u64| {
        let found = bob["rates"][field].as_u64().unwrap();
        assert!((wanted * 9 / 10..=wanted * 11 / 10).contains(&found), "{field} {found}, not {wanted}: {bob}");
    };
    near("cpu_millis", 500);
    near("io_write_bps", 1_000_000);
    near("network_egress_bits", 1_000_000);
    assert_eq!((&bob["user"], &bob["rates"]["io_read_bps"], &bob["limits"]["cpu_millis"]), (&"bob".into(), &0.into(), &1500.into()));
    let table = berth.run(&["top", "--sort", "user"]).await.ok();
    assert!(table.lines().nth(1).unwrap().starts_with("alice "), "{table}");
    growing.abort();
    // show reads it anew as well.
    let shown = berth.run(&["show", "bob"]).await.ok();
    assert!(
        shown.contains("512 MiB memory, 1 GiB disk of 8 GiB (1 GiB on the host), 30 processes, ") && shown.contains("2.5 % for CPU"),
        "{shown}"
    );
    assert_eq!(berth.run(&["top", "carol"]).await.code, 3);
    let user = Berth(server.listen_as(DAEMON));
    assert_eq!((user.run(&["top"]).await.ok().as_str(), user.run(&["top", "bob"]).await.code), ("No berth is up.\n", 3));
}

#[tokio::test]
async fn top_draws_on_the_terminals_other_screen_and_leaves_it_as_it_was() {
    let server = Server::start().await;
    let socket = server.listen_as(ROOT);
    Berth(socket.clone()).run(&["assign", "alice"]).await.ok();
    let line = format!("stty cols 60 rows 10; timeout --preserve-status -s INT 3 {} top -d 1; echo ended $?", program().display());
    let mut script = Command::new("script");
    script.args(["-qefc", &line, "/dev/null"]).env("BERTH_SOCKET", &socket).stdin(Stdio::null());
    let output = script.output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (before, rest) = text.split_once("\x1b[?1049h").unwrap_or_else(|| panic!("{text:?}"));
    let (drawn, after) = rest.split_once("\x1b[?1049l").unwrap_or_else(|| panic!("{text:?}"));
    assert!(before.trim().is_empty() && drawn.contains("1 up, by CPU; every 1 s; Ctrl-C ends"), "{text:?}");
    let row = drawn.split(['\n', '\r']).rfind(|line| line.starts_with("alice ")).unwrap_or_else(|| panic!("{drawn:?}"));
    assert!(row.contains("0.0 / 200") && row.trim_end_matches("\x1b[K").chars().count() <= 60, "{row:?}");
    assert!(after.contains("ended 0"), "{after:?}");
}
