//! Berths whose accounts vanish, are locked, expire or become another's; and a directory that is out (L05).
#![forbid(unsafe_code)]

use std::{fs, time::Duration};

use berth_tests::{Host, Options, Run, User, programs, until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
/// Seconds instead of hours.
const RULES: &str = "[accounts]\ncheck_seconds = 1\ngone_checks = 3\ngone_seconds = 2\ngrace_seconds = 2\n";

fn options() -> Options {
    Options { server_config: RULES.into(), ..Options::default() }
}

#[track_caller]
fn accounts(host: &Host) -> Value {
    let answer = host.api("GET", "/api/v1/accounts", None);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[track_caller]
fn of(host: &Host, user: &User) -> Value {
    let all = accounts(host);
    let found = all["items"].as_array().and_then(|items| items.iter().find(|one| one["user"] == user.name.as_str()).cloned());
    found.unwrap_or_else(|| panic!("{} is not in {all}", user.name))
}

#[track_caller]
fn await_suspended(host: &Host, user: &User, state: &str) -> String {
    until(&format!("{} is {state} and suspended", user.name), SOON, || {
        let account = of(host, user);
        (account["state"] == state).then(|| account["suspended"].as_str().map(str::to_owned)).flatten()
    })
}

#[track_caller]
fn await_free(host: &Host, user: &User) {
    until(&format!("{} is let go", user.name), SOON, || {
        let account = of(host, user);
        (account["state"] == "present" && account["suspended"].is_null()).then_some(())
    });
}

#[test]
fn l05_an_emptied_directory_suspends_nobody_and_one_deleted_account_is_handled() {
    let host = Host::with(Options { nss_users: vec!["w", "x", "y", "z"], ..options() });
    let service = host.name_service.clone().expect("a name service");
    let users = &service.users;
    for user in users {
        host.assign(user, &["--no-start"]);
    }
    let passwd = host.slot.dir.join("passwd");
    let full = fs::read_to_string(&passwd).expect("read the directory");
    let without = |names: &[&User]| -> String {
        full.lines()
            .filter(|line| !names.iter().any(|user| line.starts_with(&format!("{}:", user.name))))
            .map(|line| format!("{line}\n"))
            .collect()
    };
    let replace = |text: &str| {
        fs::write(passwd.with_extension("new"), text).expect("write the directory");
        fs::rename(passwd.with_extension("new"), &passwd).expect("replace the directory");
    };
    for user in users {
        until("all are known", SOON, || (of(&host, user)["state"] == "present").then_some(()));
    }

    // One is deleted: suspended with the reason at his socket; back, he goes on.
    let [w, x, y, z] = &users[..] else { panic!("four users") };
    replace(&without(&[y]));
    let reason = await_suspended(&host, y, "vanished");
    assert!(reason.contains(&y.name), "{reason}");
    let answer = host.berth_of(y).socket_request("GET", "/_ping").expect("the socket answers");
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.json()["message"].as_str().is_some_and(|text| text.contains("suspended") && text.contains(&reason)), "{answer:?}");
    for other in [w, x, z] {
        assert!(of(&host, other)["suspended"].is_null(), "{}", other.name);
    }
    replace(&full);
    await_free(&host, y);

    // All at once: nobody is suspended, however long, and it is told.
    replace(&without(&[w, x, y, z]));
    let alarmed =
        || accounts(&host)["alarms"].as_array().is_some_and(|alarms| alarms.iter().any(|alarm| alarm["code"] == "directory_empty"));
    until("the alarm", SOON, || alarmed().then_some(()));
    // Rounds enough to be gone by, if they counted.
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(8) {
        for user in users {
            let account = of(&host, user);
            assert!(account["suspended"].is_null(), "{account}");
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    let doctor = host.berth(["doctor", "--json"]).output();
    assert!(doctor.stdout.contains("it may be empty or out of reach"), "{doctor:?}");
    let audit = host.berth(["audit", "--json"]).output();
    assert!(audit.stdout.contains("account_alarm"), "{audit:?}");
    let refused = host.berth(["offboard", "--vanished", "--yes", "--json"]).fails();
    assert!(refused.stderr.contains("accounts_in_doubt"), "{refused:?}");
    replace(&full);
    until("the alarm is over", SOON, || (!alarmed()).then_some(()));

    // A uid under a new name is suspended at once, and the newcomer does not inherit the socket.
    let renamed: String = full.lines().map(|line| line.replace(&format!("{}:", x.name), &format!("{}new:", x.name)) + "\n").collect();
    replace(&renamed);
    let reason = await_suspended(&host, x, "renamed");
    assert!(reason.contains(&format!("{}new", x.name)), "{reason}");
    assert_eq!(host.berth_of(x).socket_request("GET", "/_ping").expect("the socket answers").status, 403);
    // For good: offboarded without an archive, by one command with a report first.
    let dry = host.berth(["offboard", "--vanished", "--dry-run"]).ok();
    assert!(dry.contains(&x.name) && !dry.contains(&w.name), "{dry}");
    host.berth(["offboard", "--vanished", "--no-archive", "--yes"]).ok();
    let left = host.list();
    assert!(
        left["items"].as_array().is_some_and(|items| items.len() == 3 && items.iter().all(|one| one["user"] != x.name.as_str())),
        "{left}"
    );
}

#[test]
fn l05_expired_and_locked_accounts_are_suspended_and_come_back() {
    let dir = programs::root().join(format!("pam-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("make a directory");
    let pam = dir.join("berth");
    fs::write(&pam, "account required pam_unix.so\n").expect("write the service");
    let node_config = format!("[accounts]\npam = {:?}\n", pam.display().to_string());
    let host = Host::with(Options { node_config, ..options() });
    let users = [host.user("a"), host.user("b"), host.user("c")];
    for user in &users {
        host.assign(user, &["--no-start"]);
    }
    let [a, b, c] = &users;
    let change = |user: &User, args: &[&str]| {
        // useradd of another test may hold the lock of the files.
        until("usermod", SOON, || Run::new("usermod").args(args).arg(&user.name).output().success().then_some(()));
    };
    // Never a password: that is no lock.
    until("all are known", SOON, || (of(&host, c)["state"] == "present").then_some(()));

    change(a, &["--expiredate", "1"]);
    let reason = await_suspended(&host, a, "expired");
    assert!(reason.contains("expired"), "{reason}");
    change(b, &["--password", "$6$salt$notahash"]);
    change(b, &["--lock"]);
    await_suspended(&host, b, "locked");
    let told = host.berth(["show", &b.name]).ok();
    assert!(told.contains("locked"), "{told}");
    change(a, &["--expiredate", ""]);
    change(b, &["--unlock"]);
    await_free(&host, a);
    await_free(&host, b);

    // What PAM says counts, too: an access rule of the host's.
    fs::write(&pam, "account required pam_deny.so\n").expect("write the service");
    until("too many at once", SOON, || {
        let all = accounts(&host);
        all["items"].as_array().is_some_and(|items| items.iter().all(|one| one["state"] == "locked")).then_some(())
    });
    // Without the file shadow entries serve.
    fs::remove_file(&pam).expect("remove the service");
    for user in &users {
        until("as shadow says", SOON, || (of(&host, user)["state"] == "present").then_some(()));
    }
    let doctor = host.berth(["doctor"]).output();
    assert!(doctor.text().contains("pam"), "{doctor:?}");

    // Deleted for good.
    until("userdel", SOON, || Run::new("userdel").arg(&c.name).output().success().then_some(()));
    await_suspended(&host, c, "vanished");
    let done = host.berth(["offboard", "--vanished", "--yes", "--json"]).json();
    let archive = done["operations"][0]["result"].as_str().expect("an archive").to_owned();
    assert!(archive.starts_with(&c.name) && host.state_dir.join("archives").join(&archive).exists(), "{done}");
    // Whom it was is not there any more; another account can have it.
    host.berth(["restore", &archive, "--no-start", "--json"]).fails();
    let d = host.user("d");
    host.berth(["restore", &archive, "--user", &d.name]).ok();
    host.berth_of(&d).await_docker();
    let _ = fs::remove_dir_all(dir);
}
