//! What a berth's threads do just now: counted one by one, and no more than so many.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use crate::cgroup::View;

/// Looked at; of more the rest is taken to be like these.
const MOST: usize = 1024;
const MOST_GROUPS: usize = 256;
/// More than any thread's line or state.
const LONGEST: u64 = 8192;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tasks {
    pub(super) running: u64,
    /// In waits that nothing interrupts: mostly for a disk.
    pub(super) blocked: u64,
    pub(super) threads: u64,
    /// The newest pid inside, as the berth's own processes see it.
    pub(super) newest: u64,
}

/// `proc` is the host's.
pub(super) fn look(view: &View, proc: &Path) -> Tasks {
    let ids = view.threads(MOST, MOST_GROUPS);
    let (mut running, mut blocked) = (0, 0);
    for id in &ids {
        // Its own line: that at the top sums up all threads of a process.
        match read(proc.join(format!("{id}/task/{id}/stat"))).as_deref().and_then(state) {
            Some(b'R') => running += 1,
            Some(b'D') => blocked += 1,
            _ => {}
        }
    }
    let seen = ids.len() as u64;
    let all = view.read(Path::new(""), "pids.current").and_then(|text| text.trim().parse().ok()).unwrap_or(seen).max(seen);
    let of_all = |count: u64| if ids.len() < MOST { count } else { count * all / seen.max(1) };
    let newest = ids.iter().max().and_then(|id| inner_pid(&read(proc.join(format!("{id}/status")))?));
    Tasks { running: of_all(running), blocked: of_all(blocked), threads: all, newest: newest.unwrap_or(0) }
}

/// The letter after the name, proc_pid_stat(5); a name may hold anything, also brackets.
fn state(line: &str) -> Option<u8> {
    line.rsplit_once(") ")?.1.bytes().next()
}

/// The pid one pid namespace below the host's, proc_pid_status(5).
fn inner_pid(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().nth(1)?.parse().ok()
}

fn read(path: PathBuf) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cgroup::view::tests::payload;

    fn thread(proc: &Path, id: u32, state: char, inside: u32) {
        let dir = proc.join(format!("{id}/task/{id}"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("stat"), format!("{id} (a) R (x) {state} 1 1 1 0\n")).unwrap();
        fs::write(proc.join(format!("{id}/status")), format!("Name:\ta\nNSpid:\t{id}\t{inside}\t1\n")).unwrap();
    }

    #[test]
    fn p02_the_berths_own_threads_are_counted_and_the_newest_pid_is_the_inner_one() {
        let proc = tempfile::tempdir().unwrap();
        let (_dir, view) =
            payload(&[("cgroup.threads", "700\n701\n"), ("docker/a/cgroup.threads", "9000\n703\n704\n"), ("pids.current", "5\n")], &[]);
        for (id, state, inside) in [(700, 'S', 1), (701, 'R', 2), (703, 'D', 7), (9000, 'R', 41)] {
            thread(proc.path(), id, state, inside);
        }
        // 704 has ended meanwhile.
        assert_eq!(look(&view, proc.path()), Tasks { running: 2, blocked: 1, threads: 5, newest: 41 });
    }

    #[test]
    fn a_crowd_is_sampled() {
        let proc = tempfile::tempdir().unwrap();
        let ids: String = (1..=4000).map(|n| format!("{n}\n")).collect();
        let (_dir, view) = payload(&[("cgroup.threads", &ids), ("pids.current", "4096\n")], &[]);
        (1..=MOST as u32).for_each(|id| thread(proc.path(), id, if id % 2 == 0 { 'R' } else { 'S' }, id));
        let tasks = look(&view, proc.path());
        assert_eq!((tasks.running, tasks.threads, tasks.newest), (2048, 4096, MOST as u64));
    }

    #[test]
    fn the_state_is_found_behind_any_name() {
        assert_eq!(state("7 (x) S) R 1"), Some(b'R'));
        assert_eq!((state("7 (x"), state("")), (None, None));
        assert_eq!(inner_pid("NSpid:\t7\n"), None);
    }
}
