//! Processes of the host that have ids of a range, whatever control group they are in: a setuid program that a berth left in a home, run by
//! its user after the berth was deleted, has the range's ids. Whoever got the range next would be its owner (I07).

use std::{collections::BTreeMap, fs, path::Path};

use super::COUNT;
use crate::error::{Result, Step};

/// The first id of each range, counted from `first` up to `last`, that a process has, and one such process (its pid).
///
/// Threads are looked at too: credentials belong to the thread (credentials(7)), and only the C library keeps those of a process alike.
pub fn living(first: u32, last: u32) -> Result<BTreeMap<u32, u32>> {
    living_in(Path::new("/proc"), first, last)
}

fn living_in(proc: &Path, first: u32, last: u32) -> Result<BTreeMap<u32, u32>> {
    let mut found = BTreeMap::new();
    for process in fs::read_dir(proc).step("list", proc.display())?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process that ends meanwhile has no ids any more.
        for thread in fs::read_dir(process.path().join("task")).into_iter().flatten().flatten() {
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            if ended(&status) {
                continue;
            }
            for id in ids(&status).filter(|id| (first..=last).contains(id)) {
                found.entry(first + (id - first) / COUNT * COUNT).or_insert(pid);
            }
        }
    }
    Ok(found)
}

/// Whether the thread waits only for its parent to take note, as those of a killed berth do for the host's init: it runs no more.
fn ended(status: &str) -> bool {
    status.lines().find_map(|line| line.strip_prefix("State:")).is_some_and(|state| state.trim_start().starts_with(['Z', 'X']))
}

/// Every id that a thread has: real, effective, saved, file system, groups (proc_pid_status(5)).
fn ids(status: &str) -> impl Iterator<Item = u32> {
    let keys = ["Uid:", "Gid:", "Groups:"];
    status
        .lines()
        .filter_map(move |line| keys.iter().find_map(|key| line.strip_prefix(key)))
        .flat_map(str::split_whitespace)
        .filter_map(|id| id.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(proc: &Path, pid: u32, tid: u32, status: &str) {
        let dir = proc.join(format!("{pid}/task/{tid}"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("status"), status).unwrap();
    }

    #[test]
    fn i07_a_process_with_any_id_of_a_range_is_found_in_any_of_its_threads() {
        let proc = tempfile::tempdir().unwrap();
        let proc = proc.path();
        fs::create_dir_all(proc.join("sys")).unwrap();
        thread(proc, 10, 10, "Name:\tsh\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nGroups:\t1000 27\n");
        assert_eq!(living_in(proc, 1_000_000, 1_000_000 + 3 * COUNT - 1).unwrap(), BTreeMap::new());
        thread(proc, 11, 12, &format!("Name:\tx\nUid:\t1000\t{0}\t{0}\t1000\nGid:\t1\t1\t1\t1\nGroups:\t\n", 1_000_000 + COUNT + 7));
        thread(proc, 13, 13, &format!("Uid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\nGroups:\t4 {}\n", 1_000_000 + 3 * COUNT - 1));
        // A process whose first thread ended while another runs on.
        let ids = "Uid:\t1000000\t1000000\t1000000\t1000000\n";
        thread(proc, 14, 14, &format!("Name:\tx\nState:\tZ (zombie)\n{ids}"));
        assert_eq!(living_in(proc, 1_000_000, 1_000_000).unwrap(), BTreeMap::new());
        thread(proc, 14, 15, &format!("Name:\tx\nState:\tS (sleeping)\n{ids}"));
        assert_eq!(living_in(proc, 1_000_000, 1_000_000).unwrap(), BTreeMap::from([(1_000_000, 14)]));
        fs::remove_dir_all(proc.join("14")).unwrap();
        let found = living_in(proc, 1_000_000, 1_000_000 + 3 * COUNT - 1).unwrap();
        assert_eq!(found, BTreeMap::from([(1_000_000 + COUNT, 11), (1_000_000 + 2 * COUNT, 13)]));
    }

    #[test]
    fn i07_this_process_has_its_own_ids() {
        let own = nix::unistd::getuid().as_raw();
        let found = living(own, own).unwrap();
        assert!(found.contains_key(&own), "{found:?}");
    }
}
