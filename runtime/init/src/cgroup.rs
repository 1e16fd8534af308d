//! The berth's own control groups, seen from the root of its cgroup namespace.
//!
//! cgroup v2 allows no process beside child groups with controllers, and `docker run -m` needs them: every process moves to the group
//! `init`, then all controllers are enabled. Version 1 hierarchies (hybrid hosts) have no such rule; there the runtime has prepared
//! what dockerd needs, and nothing is done here.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

/// `CGROUP2_SUPER_MAGIC`, statfs(2)
const CGROUP2: i64 = 0x6367_7270;
/// A fork may slip between reading the list and moving; each round moves what the last one missed.
const ROUNDS: usize = 8;

/// True for an entry point that manages control groups itself and expects to stand at the root of its namespace.
pub(crate) fn wants_root(entry: &Path) -> bool {
    let real = fs::canonicalize(entry).unwrap_or_else(|_| entry.to_path_buf());
    [entry, &real].iter().any(|path| path.file_name().is_some_and(|name| name == "systemd" || name == "init"))
}

/// Makes limits of inner containers possible. With `stay` only the empty group `init` is made, for processes that enter later.
pub(crate) fn prepare(root: &Path, stay: bool) -> io::Result<()> {
    // The type of the field differs between architectures.
    #[allow(clippy::unnecessary_cast)]
    if rustix::fs::statfs(root)?.f_type as i64 != CGROUP2 {
        return Ok(());
    }
    let group = root.join("init");
    match fs::create_dir(&group) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        done => done?,
    }
    if stay {
        return Ok(());
    }
    for _ in 0..ROUNDS {
        let there = fs::read_to_string(root.join("cgroup.procs"))?;
        let pids = movable(&there);
        if pids.is_empty() {
            break;
        }
        for pid in pids {
            match fs::write(group.join("cgroup.procs"), pid) {
                // Ended meanwhile.
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32) => {}
                done => done?,
            }
        }
    }
    enable(root)
}

fn enable(root: &Path) -> io::Result<()> {
    let available = fs::read_to_string(root.join("cgroup.controllers"))?;
    let control = root.join("cgroup.subtree_control");
    let missing = missing(&available, &fs::read_to_string(&control)?);
    if missing.is_empty() || fs::write(&control, missing.join(" ")).is_ok() {
        return Ok(());
    }
    // One that cannot be handed down must not take the others with it.
    let each: Vec<io::Result<()>> = missing.iter().map(|one| fs::write(&control, one)).collect();
    each.into_iter().collect()
}

/// What to write to `cgroup.subtree_control`.
fn missing(available: &str, enabled: &str) -> Vec<String> {
    let enabled: Vec<&str> = enabled.split_whitespace().collect();
    available.split_whitespace().filter(|one| !enabled.contains(one)).map(|one| format!("+{one}")).collect()
}

/// Pids of a `cgroup.procs`; 0 stands for a process outside the pid namespace, which cannot be named here.
fn movable(procs: &str) -> Vec<&str> {
    procs.lines().filter(|pid| !pid.is_empty() && *pid != "0").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_available_and_off_is_enabled() {
        assert_eq!(missing("cpuset cpu io memory pids\n", "cpu pids\n"), ["+cpuset", "+io", "+memory"]);
        assert_eq!(missing("cpu\n", "cpu\n"), [""; 0]);
        assert_eq!(missing("\n", "\n"), [""; 0]);
    }

    #[test]
    fn processes_of_other_namespaces_are_not_moved() {
        assert_eq!(movable("0\n1\n17\n0\n"), ["1", "17"]);
    }

    #[test]
    fn a_hierarchy_of_version_1_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path(), false).unwrap();
        assert!(!dir.path().join("init").exists());
    }

    #[test]
    fn an_init_stands_at_the_root() {
        assert!(wants_root(Path::new("/lib/systemd/systemd")) && wants_root(Path::new("/sbin/init")));
        assert!(!wants_root(Path::new("/usr/local/bin/dockerd-entrypoint.sh")));
    }
}
