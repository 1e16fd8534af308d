//! What goes in at one end of the user's socket comes out at the other, byte for byte.
#![forbid(unsafe_code)]

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    time::{Duration, SystemTime},
};

use berth_tests::{Berth, Host, Running};
use serde_json::Value;

/// A copy of the driver that every user may execute.
fn driver(host: &Host) -> PathBuf {
    let program = host.slot.dir.join("exact");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_berth-tests-exact"), &program).unwrap();
    }
    program
}

/// The echo peer in Docker's place inside.
fn echo(berth: &Berth<'_>) -> Running {
    let (running, told) = berth.hold(&["echo", "/run/docker.sock"]);
    assert_eq!(told["ok"], true, "{told}");
    running
}

/// `BERTH_TEST_SEED`, or another one each time; it is in every message.
fn seed() -> u64 {
    let given = std::env::var("BERTH_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    given.unwrap_or(since.as_secs() << 16 ^ u64::from(process::id()))
}

/// A memory figure of a process in bytes: `RssAnon` and so on.
fn memory(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn x03_x07_what_goes_in_comes_out_through_random_pieces_half_closes_and_resets() {
    let host = Host::start();
    let a = host.new_berth("a");
    let _peer = echo(&a);
    let long = std::env::var_os("BERTH_TEST_LONG").is_some();
    let (cases, limit) = if long { (1_000_000_u32, 6 * 3600) } else { (10_000, 240) };
    let seed = seed();
    let program: &Path = &driver(&host);
    let run = a.user.run(&program.to_string_lossy()).arg(a.socket()).args([cases.to_string(), seed.to_string()]);
    let done = run.limit(Duration::from_secs(limit)).output();
    assert!(done.success(), "seed {seed}: {done:?}");
    let told: Value = serde_json::from_str(&done.stdout).unwrap();
    let shim = a.shim_pid();
    let own = memory(shim, "RssAnon") + memory(shim, "RssShmem");
    println!("{told}; shim: own {own}, VmHWM {}, VmRSS {}", memory(shim, "VmHWM"), memory(shim, "VmRSS"));
    assert_eq!(told["cases"], cases, "{told}");
    // Each kind did happen, or nothing was shown.
    for what in ["cut", "vanished", "spoken_for"] {
        assert!(told[what].as_u64().unwrap() > u64::from(cases) / 400, "{what}: {told}");
    }
    assert!(told["received"].as_u64().unwrap() > 100 << 20, "{told}");
    assert!(own < 8 << 20, "the shim's own memory is {own} bytes");
    // Every place was given back.
    let answer = a.user.run(&program.to_string_lossy()).arg(a.socket()).args(["1", "1"]).ok();
    assert!(answer.contains("\"failures\":0"), "{answer}");
}
