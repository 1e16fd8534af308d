//! Real host users.

use std::{fs, path::PathBuf, thread, time::Duration};

use nix::unistd;

use crate::run::{Output, Run};

/// A host account that the harness made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
}

impl User {
    /// Makes the account, in no group but its own.
    #[track_caller]
    pub fn create(name: &str, home: PathBuf) -> Self {
        let home_text = home.to_string_lossy().into_owned();
        retried(&["useradd", "--create-home", "--home-dir", &home_text, "--user-group", "--shell", "/bin/sh", name]);
        Self::find(name)
    }

    /// Makes a system account without a home.
    #[track_caller]
    pub fn create_system(name: &str) -> Self {
        retried(&[
            "useradd",
            "--system",
            "--user-group",
            "--no-create-home",
            "--home-dir",
            "/nonexistent",
            "--shell",
            "/usr/sbin/nologin",
            name,
        ]);
        Self::find(name)
    }

    #[track_caller]
    pub fn find(name: &str) -> Self {
        let found = unistd::User::from_name(name).expect("look up account").unwrap_or_else(|| panic!("useradd made no {name}"));
        Self { name: found.name, uid: found.uid.as_raw(), gid: found.gid.as_raw(), home: found.dir }
    }

    /// Runs a program on the host as this user: his ids, no group but his own, no capability, a clean environment.
    pub fn run(&self, program: &str) -> Run {
        Run::new("setpriv")
            .args(["--reuid", &self.uid.to_string(), "--regid", &self.gid.to_string(), "--clear-groups", "--inh-caps=-all", "--"])
            .arg(program)
            .env_clear()
            .env("HOME", &self.home)
            .env("USER", &self.name)
            .env("LC_ALL", "C.UTF-8")
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .current_dir(&self.home)
    }
}

/// Removes accounts and their homes: those whose name begins with `prefix`.
pub fn remove_all(prefix: &str) {
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    for name in text.lines().filter_map(|l| l.split(':').next()).filter(|n| n.starts_with(prefix)) {
        let uid = text.lines().find_map(|l| l.strip_prefix(&format!("{name}:"))?.split(':').nth(1)?.parse::<u32>().ok());
        if let Some(uid) = uid {
            end_processes(uid);
        }
        retried(&["userdel", "--remove", name]);
    }
}

/// Kills what still runs with an id that only the tests use.
pub(crate) fn end_processes(uid: u32) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let real = status.lines().find_map(|l| l.strip_prefix("Uid:")).and_then(|l| l.split_whitespace().next()?.parse::<u32>().ok());
        if real == Some(uid) {
            let _ = nix::sys::signal::kill(unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// The account files are locked by whoever changes them; useradd and userdel give up at once.
#[track_caller]
fn retried(command: &[&str]) {
    let run = || -> Output { Run::new(command[0]).args(&command[1..]).output() };
    for _ in 0..50 {
        let output = run();
        match output.status {
            0 => return,
            // 10: cannot update the group file, 1: cannot update the password file, 8: userdel, a process still ends.
            1 | 8 | 10 => thread::sleep(Duration::from_millis(100)),
            // userdel: the account is gone, or its home was not his.
            6 | 12 if command[0] == "userdel" => return,
            _ => panic!("{output:?}"),
        }
    }
    panic!("{:?}", run());
}
