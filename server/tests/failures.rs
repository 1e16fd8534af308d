//! A server that is killed, and a second one: the real program, on either database. What was acknowledged stays.

#![forbid(unsafe_code)]

mod support;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use support::{
    Database,
    daemon::{Daemon, send},
};

const WRITERS: usize = 4;

/// What was answered with 2xx: names that were made, and for each writer's own profile the number last written to it.
#[derive(Default)]
struct Acknowledged {
    made: Vec<String>,
    counted: [u64; WRITERS],
}

fn write(writer: usize, socket: PathBuf, round: usize, ending: &AtomicBool, acknowledged: &Mutex<Acknowledged>) {
    let own = format!("own{writer}");
    for number in 1.. {
        let name = format!("w{writer}-{round}-{number}");
        let made = send(&socket, "POST", "/api/v1/profiles", Some(&json!({ "name": name })));
        let count = (round * 1_000_000 + number) as u64;
        let counted = send(&socket, "PATCH", &format!("/api/v1/profiles/{own}"), Some(&json!({ "description": count.to_string() })));
        let mut acknowledged = acknowledged.lock().unwrap();
        match made {
            Ok((201, _)) => acknowledged.made.push(name),
            Ok((status, body)) => panic!("{status}: {body}"),
            Err(_) => assert!(ending.load(Ordering::SeqCst), "the server ended by itself"),
        }
        match counted {
            Ok((200, _)) => acknowledged.counted[writer] = count,
            Ok((status, body)) => panic!("{status}: {body}"),
            Err(_) => return assert!(ending.load(Ordering::SeqCst), "the server ended by itself"),
        }
    }
}

/// 200 kills with `BERTH_TEST_LONG=1`.
#[test]
fn no_acknowledged_write_is_lost_however_often_the_server_is_killed() {
    let kills = if std::env::var_os("BERTH_TEST_LONG").is_some() { 200 } else { 20 };
    let database = Database::fresh();
    let mut daemon = Daemon::on(&database);
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    daemon.start();
    for writer in 0..WRITERS {
        let made = send(&daemon.socket(), "POST", "/api/v1/profiles", Some(&json!({ "name": format!("own{writer}") })));
        assert_eq!(made.unwrap().0, 201);
    }
    let mut checked = 0;
    for round in 1..=kills {
        let ending = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (socket, ending, acknowledged) = (daemon.socket(), Arc::clone(&ending), Arc::clone(&acknowledged));
                std::thread::spawn(move || write(writer, socket, round, &ending, &acknowledged))
            })
            .collect();
        // Every kill meets another instant of the writes.
        std::thread::sleep(Duration::from_millis(40 + (round as u64 * 37) % 160));
        ending.store(true, Ordering::SeqCst);
        daemon.kill();
        for writer in writers {
            writer.join().unwrap();
        }
        daemon.start();
        let acknowledged = acknowledged.lock().unwrap();
        for name in &acknowledged.made[checked..] {
            let (status, body) = send(&daemon.socket(), "GET", &format!("/api/v1/profiles/{name}"), None).unwrap();
            assert_eq!(status, 200, "{name} was acknowledged before kill {round}: {body}");
        }
        checked = acknowledged.made.len();
        for (writer, count) in acknowledged.counted.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (_, body) = send(&daemon.socket(), "GET", &format!("/api/v1/profiles/own{writer}"), None).unwrap();
            let found: u64 = body["description"].as_str().unwrap().parse().unwrap();
            assert!(found >= *count, "own{writer} is at {found} after kill {round}, {count} was acknowledged");
        }
    }
    assert!(checked >= kills, "only {checked} writes in {kills} rounds");
    println!("{checked} profiles acknowledged over {kills} kills, all there");
}

#[test]
fn a_second_server_says_that_another_one_works_on_the_database_and_ends() {
    let database = Database::fresh();
    let mut first = Daemon::on(&database);
    first.start();
    let second = Daemon::on(&database);
    if !support::database::POSTGRES {
        // The same file from another state directory.
        let text = std::fs::read_to_string(second.path("server.toml")).unwrap();
        let url = format!("[database]\nurl = \"sqlite:{}\"\n", first.path("state/berth.db").display());
        std::fs::write(second.path("server.toml"), text + &url).unwrap();
    }
    let started = Instant::now();
    let refused = second.command(&[]).output().unwrap();
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("another berth-server works on the database"), "{text}");
    assert!(started.elapsed() < Duration::from_secs(30));
    // What was asked without the lock is answered: there is nothing to do.
    let plan = second.command(&["migrate", "--plan"]).output().unwrap();
    let text = String::from_utf8(plan.stdout).unwrap();
    assert!(plan.status.success() && text.contains("up to date"), "{text}{}", String::from_utf8_lossy(&plan.stderr));
    // And it goes on as before, also when the first was killed.
    assert_eq!(send(&first.socket(), "GET", "/api/v1/profiles", None).unwrap().0, 200);
    first.kill();
    first.start();
}

#[test]
fn migrate_shows_what_it_will_do_then_does_it_once() {
    let database = Database::fresh();
    let daemon = Daemon::on(&database);
    let run = |words: &[&str]| {
        let done = daemon.command(words).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let plan = run(&["migrate", "--plan"]);
    assert!(plan.contains("0001 users") && plan.contains("0015 audit kinds"), "{plan}");
    let done = run(&["migrate"]);
    assert!(done.contains("0015 audit kinds"), "{done}");
    assert!(run(&["migrate"]).contains("up to date"));
    assert!(run(&["migrate", "--plan"]).contains("up to date"));
}
