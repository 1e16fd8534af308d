//! L06: thirty berths made at once, used, and deleted at once, three times over. Nothing leaks, and the third round is as fast as the first.
//!
//! By itself, with its times: `sudo deploy/test l06_thirty` (or `cargo nextest run -p berth-tests l06_thirty --no-capture`).
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use berth_tests::{
    Host, Options, Run, User,
    snapshot::{Scope, Snapshot},
};

const BERTHS: usize = 30;
const ROUNDS: usize = 3;
/// For one of thirty, on two processors that all thirty want.
const LIMIT: Duration = Duration::from_secs(180);
/// How much longer than the first the last round may take: noise of a shared machine, no growth.
const NOISE: f64 = 1.5;

/// Runs one program for each user, all at once; every one must succeed. How long that took.
#[track_caller]
fn at_once(what: &str, users: &[User], program: impl Fn(&User) -> Run) -> Duration {
    let began = Instant::now();
    let running: Vec<_> = users.iter().map(|user| program(user).limit(LIMIT).spawn()).collect();
    for (user, running) in users.iter().zip(running) {
        let output = running.finish(LIMIT);
        assert!(output.success(), "{what} of {}: {output:?}", user.name);
    }
    began.elapsed()
}

#[test]
fn l06_thirty_berths_at_once_three_times_over() {
    let host = Host::with(Options { quarantine_days: 0, disk_overcommit: 1000.0, ..Options::default() });
    let users: Vec<User> = (0..BERTHS).map(|number| host.user(&format!("u{number}"))).collect();
    let scope = Scope::slot(&host.slot);
    // What the instance makes once is there before the listing; the homes hold what the users' own Docker clients write.
    host.assign(&users[0], &[]).delete().ok();
    at_once("first look", &users[..1], |user| host.berth_of(user).docker(&["--version"]));
    let before = Snapshot::take(&scope);
    let mut rounds = Vec::new();
    for round in 1..=ROUNDS {
        let made = at_once("assign", &users, |user| host.assign_command(user, &["--disk", "2g", "--memory", "512m"]));
        let used = at_once("docker", &users, |user| host.berth_of(user).docker(&["info", "--format", "{{.Containers}}"]));
        let listed = host.list();
        let items = listed.as_array().or_else(|| listed["items"].as_array()).expect("a list");
        let running = items.iter().filter(|berth| berth["state"] == "running").count();
        assert_eq!(running, BERTHS, "{listed}");
        let deleted = at_once("delete", &users, |user| host.berth_of(user).delete());
        before.assert_back_but(&scope, Duration::from_secs(60), "/home/");
        eprintln!("round {round}: made in {made:.1?}, used in {used:.1?}, deleted in {deleted:.1?}");
        rounds.push((made + used + deleted).as_secs_f64());
    }
    let (first, last) = (rounds[0], rounds[ROUNDS - 1]);
    assert!(last <= first * NOISE, "the rounds took {rounds:.1?} s");
}
