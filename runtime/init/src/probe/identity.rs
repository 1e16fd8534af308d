use std::{fs, fs::OpenOptions, path::Path};

use nix::{sys::signal, unistd::Pid};
use serde_json::{Map, Value, json};

use crate::{
    Failure,
    report::{Done, answer, need, outcome, parse, say},
};

pub(crate) fn caps() -> Done {
    let status = need("/proc/self/status", fs::read_to_string("/proc/self/status"))?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).unwrap_or_default();
    let ids = |name: &str| field(name).split_whitespace().filter_map(|n| n.parse::<u32>().ok()).collect::<Vec<_>>();
    say(&json!({
        "uid": ids("Uid"), "gid": ids("Gid"), "groups": ids("Groups"),
        "inheritable": field("CapInh"), "permitted": field("CapPrm"), "effective": field("CapEff"), "bounding": field("CapBnd"), "ambient": field("CapAmb"),
        "no_new_privs": field("NoNewPrivs") == "1", "seccomp": field("Seccomp"),
    }))
}

pub(crate) fn namespaces() -> Done {
    let mut found = Map::new();
    for entry in need("/proc/self/ns", fs::read_dir("/proc/self/ns"))?.flatten() {
        let target = need("/proc/self/ns", fs::read_link(entry.path()))?;
        found.insert(entry.file_name().to_string_lossy().into_owned(), json!(target.to_string_lossy()));
    }
    say(&Value::Object(found))
}

pub(crate) fn maps() -> Done {
    let lines = |file: &str| -> Result<Vec<Vec<u64>>, Failure> {
        let text = need(file, fs::read_to_string(file))?;
        Ok(text.lines().map(|line| line.split_whitespace().filter_map(|n| n.parse().ok()).collect()).collect())
    };
    say(&json!({ "uid_map": lines("/proc/self/uid_map")?, "gid_map": lines("/proc/self/gid_map")? }))
}

pub(crate) fn descriptors(pid: &str) -> Done {
    let dir = format!("/proc/{pid}/fd");
    let listing = match fs::read_dir(&dir) {
        Err(error) => return outcome(Err::<(), _>(error), json!({})),
        Ok(listing) => listing,
    };
    let mut found = Map::new();
    for entry in listing.flatten() {
        let target = fs::read_link(entry.path()).map(|t| t.to_string_lossy().into_owned()).unwrap_or_default();
        // The listing's own descriptor.
        if pid != "self" || !target.ends_with("/fd") {
            found.insert(entry.file_name().to_string_lossy().into_owned(), json!(target));
        }
    }
    outcome(Ok::<_, std::io::Error>(()), json!({ "descriptors": found }))
}

pub(crate) fn executable(pid: &str) -> Done {
    let proc = Path::new("/proc").join(pid);
    let link = |name: &str| match fs::read_link(proc.join(name)) {
        Ok(target) => json!(target.to_string_lossy()),
        Err(error) => Value::Object(answer(Err::<(), _>(error))),
    };
    let exe = proc.join("exe");
    let mounts = fs::read_to_string(proc.join("mountinfo")).unwrap_or_default();
    say(&json!({
        "exe": link("exe"), "cwd": link("cwd"), "root": link("root"),
        "open_read": answer(fs::File::open(&exe)), "open_write": answer(OpenOptions::new().write(true).open(&exe)),
        "mountinfo": mounts.lines().collect::<Vec<_>>(),
    }))
}

pub(crate) fn kill(pid: &str, name: &str) -> Done {
    let signal: signal::Signal = parse(&format!("SIG{}", name.trim_start_matches("SIG")))?;
    outcome(signal::kill(Pid::from_raw(parse(pid)?), signal), json!({}))
}
