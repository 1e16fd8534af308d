//! `berth set`, `berth show` and `berth top` on running berths: what is asked for is in force inside, what is refused is nowhere, what is
//! shown is so now.
#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use berth_tests::{Berth, Host, Need, Output, until};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;

/// Memory, processes and hundred-thousandths of CPU, as root inside reads them.
#[track_caller]
fn inside(berth: &Berth) -> [u64; 3] {
    let script = "cd /sys/fs/cgroup; for files in 'memory/memory.limit_in_bytes memory.max' 'pids/pids.max pids.max' \
                  'cpu/cpu.cfs_quota_us cpu.max'; do for f in $files; do test -f $f && cut -d' ' -f1 $f && break; done; done";
    let text = berth.sh(script).ok();
    let numbers: Vec<u64> = text.lines().map(|line| line.parse().unwrap_or_else(|_| panic!("no number: {text}"))).collect();
    numbers.try_into().unwrap_or_else(|_| panic!("not three numbers: {text}"))
}

#[track_caller]
fn problem(output: &Output) -> Value {
    serde_json::from_str(output.stderr.trim()).unwrap_or_else(|e| panic!("no problem document ({e}): {output:?}"))
}

#[test]
fn q06_what_is_raised_and_lowered_is_read_inside_at_once_and_goes_back_to_the_profile() {
    let host = Host::start();
    let a = host.new_berth("a");
    let pid = a.pid();
    let profile = host.berth(["profile", "show", "default", "--json"]).json()["limits"].clone();
    let of = |field: &str| profile[field].as_u64().expect("a number");
    let profile = [of("memory_bytes"), of("pids"), of("cpu_millis") * 100];
    for (line, expected) in [
        (["--memory=900m", "--pids-limit=300", "--cpus=0.7"], [900 * MIB, 300, 70_000]),
        (["--memory=2g", "--pids-limit=3000", "--cpus=1.9"], [2048 * MIB, 3000, 190_000]),
        (["--memory=profile", "--pids-limit=profile", "--cpus=profile"], profile),
    ] {
        host.berth(["set", a.name()]).args(line).ok();
        assert_eq!(inside(&a), expected, "{line:?}");
    }
    assert_eq!((a.pid(), &a.show()["conditions"]), (pid, &json!([])));
    assert!(!a.show()["own_limits"].to_string().contains("memory_bytes"), "{}", a.show());
    // A profile's change reaches its berths too.
    host.berth(["profile", "create", "set-lab", "--memory", "700m", "--pids-limit", "400", "--cpus", "0.5", "--disk", "2g"]).ok();
    host.berth(["set", a.name(), "--profile", "set-lab"]).ok();
    assert_eq!(inside(&a), [700 * MIB, 400, 50_000]);
    host.berth(["profile", "set", "set-lab", "--memory", "800m"]).ok();
    until("the profile's memory is in force", SOON, || (inside(&a)[0] == 800 * MIB).then_some(()));
    assert_eq!(a.pid(), pid);
}

#[test]
fn q06_a_dry_run_tells_what_would_be_so_and_changes_nothing() {
    let host = Host::start();
    let a = host.assign(&host.user("a"), &["--disk", "2g"]);
    a.sh("dd if=/dev/urandom of=/root/f bs=1M count=1200 conv=fsync").ok();
    let (before, limits, shown) = (inside(&a), a.status()["limits"].clone(), a.show()["limits"].clone());
    host.berth(["profile", "create", "dry-lab", "--home", "none"]).ok();
    let line = ["set", a.name(), "--dry-run", "--memory", "700m", "--disk", "3g", "--profile", "dry-lab", "--json"];
    let preview = host.berth(line).json();
    let change = |field: &str| {
        let found = preview["changes"].as_array().expect("changes").iter().find(|change| change["field"] == field);
        found.unwrap_or_else(|| panic!("no {field} in {preview}")).clone()
    };
    let memory = change("memory_bytes");
    assert_eq!((&memory["before"], &memory["after"], memory.get("waits")), (&shown["memory_bytes"], &json!(700 * MIB), None));
    assert_eq!(change("disk_bytes")["waits"].is_string(), !Need::SysResource.is_here(), "{preview}");
    assert!(change("home")["waits"].is_string(), "{preview}");
    // What the change itself would be told.
    let mut told = Vec::new();
    for extra in [&["--dry-run"][..], &[]] {
        let refused = host.berth(["set", a.name(), "--disk", "1g", "--pids-limit", "99", "--json"]).args(extra).output();
        assert_eq!((refused.status, problem(&refused)["code"].as_str()), (5, Some("disk_below_use")), "{refused:?}");
        told.push(problem(&refused)["detail"].as_str().expect("a detail").to_owned());
        assert_eq!((inside(&a), &a.status()["limits"], &a.show()["limits"]), (before, &limits, &shown));
    }
    assert!(told.iter().all(|told| told.contains(&(1024 * MIB).to_string())), "the figure wanted: {told:?}");
    let used = told[1].split_whitespace().find_map(|word| word.parse::<u64>().ok().filter(|n| *n > 1200 * MIB));
    assert!(used.is_some(), "the figure used: {told:?}");
    // For a person.
    let refused = host.berth(["set", a.name(), "--disk", "1g"]).fails();
    assert!(refused.status == 5 && refused.stderr.contains("hint: "), "{refused:?}");
    let table = host.berth(["set", a.name(), "--dry-run", "--memory", "700m"]).ok();
    assert!(table.lines().any(|line| line.starts_with("memory_bytes") && line.contains("700 MiB") && line.ends_with("at once")), "{table}");
    assert_eq!(a.show()["conditions"], json!([]));
}

#[test]
fn top_and_show_read_what_is_so_now() {
    let host = Host::start();
    let a = host.assign(&host.user("a"), &["--cpus", "0.5", "--memory", "800m"]);
    let b = host.new_berth("b");
    host.assign(&host.user("c"), &["--no-start"]);
    let of = |name: &str| {
        let told = host.berth(["top", "--json"]).json();
        let items = told["items"].as_array().expect("items").clone();
        assert_eq!(items.len(), 2, "one that is not up uses nothing: {told}");
        items.into_iter().find(|item| item["user"] == name).unwrap_or_else(|| panic!("no {name} in {told}"))
    };
    let idle = of(a.name());
    assert!(idle["usage"]["memory_bytes"].as_u64() > Some(10 * MIB) && idle["usage"]["pids"].as_u64() > Some(5), "{idle}");
    let mut burning = a.sh("echo burning; while :; do :; done").spawn();
    burning.line_with("burning", SOON);
    // A busy host gives it less than its quota, so that only the kernel's own count says what is true.
    until("top shows what the kernel counts", SOON, || {
        let before = a.cpu().usage_usec;
        let told = of(a.name());
        let counted = told["usage"]["cpu_usec"].as_u64().expect("a number");
        assert!((before..=a.cpu().usage_usec).contains(&counted), "{told}");
        let millis = told["rates"]["cpu_millis"].as_u64().expect("a rate");
        assert!(millis <= 600, "above the quota of half a CPU: {told}");
        (millis >= 100).then_some(())
    });
    let table = host.berth(["top"]).ok();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("USER ") && lines[1].starts_with(a.name()) && lines[1].contains(" / 50 "), "the busiest first: {table}");
    assert_eq!(lines.len(), 3, "{table}");
    drop(burning);

    // No figure is older than two seconds: memory that was taken a moment ago is there.
    let mut holding = b.exec(&["perl", "-e", "my $x = 'a' x (300 << 20); $| = 1; print qq(held\\n); sleep 100000"]).spawn();
    holding.line_with("held", SOON);
    let held = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_millis();
    let now = of(b.name());
    assert!(now["at"].as_u64().map(u128::from) >= Some(held), "{now} was read before {held}");
    assert!(now["usage"]["memory_bytes"].as_u64() > Some(300 * MIB), "{now}");
    let shown = b.show();
    assert!(shown["usage"]["memory_bytes"].as_u64() > Some(300 * MIB), "{shown}");
    let shown = host.berth(["show", b.name()]).ok();
    for fact in ["used ", " memory, ", " disk of ", " processes, ", "passed ", "reaches "] {
        assert!(shown.contains(fact), "{fact} in {shown}");
    }
    // What was written and read has gone through.
    let written = |berth: &Berth| of(berth.name())["usage"]["io"]["write_bytes"].as_u64().expect("a number");
    let before = written(&b);
    b.sh("dd if=/dev/zero of=/root/f bs=1M count=50 oflag=direct").ok();
    until("the bytes are counted", SOON, || (written(&b) >= before + 50 * MIB).then_some(()));
    // A user sees his own, and nothing of the other.
    let own = host.berth_as(&a.user, ["top", "--json"]).json();
    assert_eq!((own["items"].as_array().map(Vec::len), &own["items"][0]["user"]), (Some(1), &json!(a.name())));
    assert_eq!(host.berth_as(&a.user, ["top", b.name()]).fails().status, 3);
}
