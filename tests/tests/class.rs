//! The guide's transcript: a class from a table to its archives, with 200 accounts of the host, 20 of them started.
#![forbid(unsafe_code)]

use std::{fs, os::unix::fs::symlink, thread, time::Duration};

use berth_tests::{Host, Options, Run, programs};

const ALL: usize = 200;
const STARTED: usize = 20;
/// The one whose name is in the guide.
const NAMED: &str = "s001";

/// Commands (`# …` lines) of the transcript below `## A class, from a table to archives`, each with what it prints there.
#[track_caller]
fn transcript() -> Vec<(String, Vec<String>)> {
    let readme = fs::read_to_string(programs::repository().join("README.md")).expect("read the README");
    let (_, section) = readme.split_once("## A class, from a table to archives").expect("the section");
    let block = section.split("```").nth(1).expect("the transcript");
    let mut steps: Vec<(String, Vec<String>)> = Vec::new();
    for line in block.lines().filter(|line| !line.trim().is_empty()) {
        match (line.strip_prefix("# "), steps.last_mut()) {
            (Some(command), _) => steps.push((command.to_owned(), Vec::new())),
            (None, Some((_, output))) => output.push(line.to_owned()),
            (None, None) => panic!("the transcript begins with {line}"),
        }
    }
    assert!(steps.len() >= 8, "{steps:?}");
    steps
}

/// Without what differs from host to host: the beginning of its accounts' names, the spaces of columns.
fn comparable(text: &str, prefix: &str) -> String {
    text.replace(prefix, "").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn l05_a_class_of_two_hundred_from_a_table_to_its_archives() {
    let host = Host::with(Options { disk_overcommit: 1000.0, many_ids: true, ..Options::default() });
    let prefix = host.slot.account_prefix();
    let mut table = "user,profile,disk\n".to_owned();
    for number in 1..=ALL {
        let name = format!("s{number:03}");
        table.push_str(&format!("{prefix}{name},course,1g\n"));
        match number <= STARTED {
            true => drop(host.user(&name)),
            false => useradd(&format!("{prefix}{name}")),
        }
    }
    let dir = host.slot.dir.join("class");
    fs::create_dir(&dir).expect("make directory");
    fs::write(dir.join("users.csv"), table).expect("write the table");
    symlink(programs::find("berth"), dir.join("berth")).expect("link the program");
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", dir.display());
    let named = format!("{prefix}{NAMED}");
    for (command, shown) in transcript() {
        let real = command.replace(NAMED, &named);
        let run = Run::new("bash").args(["-euo", "pipefail", "-c", &real]).current_dir(&dir);
        let output = run.env("PATH", &path).env("BERTH_SOCKET", host.api_socket()).limit(Duration::from_secs(180)).output();
        assert!(output.success(), "{command}: {output:?}");
        // `…` in the guide stands for anything.
        let told = comparable(&output.stdout, &prefix);
        let mut rest = told.as_str();
        for part in shown.iter().flat_map(|line| line.split('…')).map(|part| comparable(part, &prefix)).filter(|part| !part.is_empty()) {
            let at = rest.find(&part).unwrap_or_else(|| panic!("{command} does not say {part:?}: {output:?}"));
            rest = &rest[at + part.len()..];
        }
    }
    // All are gone but the one that was restored, and that works.
    let left = host.list();
    assert_eq!(left["items"].as_array().map(Vec::len), Some(1), "{left}");
    let restored = host.berth_of(&berth_tests::User::find(&named));
    restored.await_docker();
    restored.docker(&["info"]).ok();
    assert_eq!(fs::read_dir(host.state_dir.join("archives")).expect("list").count(), ALL);
}

/// Without a home, which most of the class never needs here.
#[track_caller]
fn useradd(name: &str) {
    for _ in 0..50 {
        let output = Run::new("useradd")
            .args(["--no-create-home", "--home-dir", "/nonexistent", "--no-user-group", "--shell", "/bin/sh", name])
            .output();
        match output.status {
            0 => return,
            1 | 10 => thread::sleep(Duration::from_millis(100)),
            _ => panic!("{output:?}"),
        }
    }
    panic!("the account files stay locked");
}
