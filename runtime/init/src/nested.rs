//! `berth-init --nested`: what `berth doctor --deep` runs in a container of a throw-away berth. Says in a line of JSON how it is in there.

use std::{env, fs, process::ExitCode};

use serde_json::json;

/// Where a limit of memory is, on cgroup v2 and on v1.
const LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

pub(crate) fn is_asked_for() -> bool {
    env::args_os().nth(1).is_some_and(|first| first == "--nested")
}

pub(crate) fn run() -> ExitCode {
    let written = fs::write("/written", "nested").and_then(|()| fs::read("/written")).map_err(|e| e.to_string());
    let memory = LIMITS.iter().find_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
    let links: Vec<String> = fs::read_dir("/sys/class/net")
        .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    let told = json!({
        "pid": rustix::process::getpid().as_raw_nonzero().get(),
        "not_written": written.err(),
        "memory_bytes": memory,
        "links": links,
    });
    println!("{told}");
    ExitCode::SUCCESS
}
