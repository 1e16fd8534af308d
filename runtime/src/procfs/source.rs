//! One berth's texts, made when they are asked for.

use std::{
    collections::HashMap,
    io::{self, Read},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use super::{
    File, cpuinfo, cpus,
    diskstats::{self, Disk},
    figures,
    load::{Averages, Look},
    loadavg, meminfo, stat, swaps,
    sysinfo::{self, Sysinfo, Words},
    tasks::{self, Tasks},
};
use crate::cgroup::{Place, View};

/// Longest text of the host in bytes: `/proc/cpuinfo` has two thousand for each CPU.
const LONGEST: u64 = 4 << 20;
/// For so long what the threads do is not looked at again.
const KEPT: Duration = Duration::from_millis(100);
/// Groups whose last times are kept; past that all are forgotten.
const MOST_SHOWN: usize = 64;
/// Major number of loop devices, Documentation/admin-guide/devices.txt.
const LOOP: u32 = 7;

/// The figures of one berth, and what of them only it can know: how its load was.
#[derive(Debug)]
pub struct Source {
    view: View,
    disk: Option<(u32, u32)>,
    /// Since the host's boot.
    started: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    averages: Averages,
    tasks: Option<(Duration, Tasks)>,
    /// Newest pid that was ever seen.
    made: u64,
    /// Times that groups were shown last: of a few, for there are as many as the tenant likes.
    shown: HashMap<Place, stat::Shown>,
}

impl Source {
    /// `disk`: major and minor number of the berth's disk; `started`: seconds from the host's boot to the berth's start.
    pub fn new(view: View, disk: Option<(u32, u32)>, started: u64) -> Self {
        let started = Duration::from_secs(started);
        Self {
            view,
            disk,
            started,
            state: Mutex::new(State { averages: Averages::begin(started), tasks: None, made: 0, shown: HashMap::new() }),
        }
    }

    /// The group of a process (host pid) that waits for an answer; the berth's own when that is not known.
    pub fn place(&self, pid: u32) -> Place {
        let text = std::fs::File::open(format!("/proc/{pid}/cgroup")).and_then(|file| {
            let mut text = String::new();
            file.take(64 << 10).read_to_string(&mut text).map(|_| text)
        });
        self.view.place(&text.unwrap_or_default())
    }

    /// What a process at `place` reads in this file now.
    pub fn text(&self, file: File, place: &Place) -> io::Result<String> {
        // Lists of CPUs and the load have nothing of the host's text.
        let host = || read(Path::new(file.path()));
        Ok(match file {
            File::Meminfo => meminfo::render(&host()?, &figures::memory(&self.view, place)),
            File::Swaps => {
                let memory = figures::memory(&self.view, place);
                swaps::render(&host()?, meminfo::totals(&read(Path::new(File::Meminfo.path()))?, &memory))
            }
            File::Cpuinfo => cpuinfo::render(&host()?, self.cpu(place)?.shown),
            File::CpusOnline | File::CpusPossible | File::CpusPresent => cpus::render(self.cpu(place)?.shown),
            File::Stat => {
                let (tasks, made) = self.tasks(now());
                let started = i64::try_from(self.started.as_secs()).unwrap_or(0);
                let counts = stat::Counts { started, made, running: tasks.running.max(1), blocked: tasks.blocked };
                let (host, cpu) = (host()?, self.cpu(place)?);
                // After what was used, which is then no more than there was.
                let uptime = u64::try_from(now().saturating_sub(self.started).as_micros()).unwrap_or(u64::MAX);
                let mut state = self.state();
                if state.shown.len() >= MOST_SHOWN && !state.shown.contains_key(place) {
                    state.shown.clear();
                }
                stat::render(&host, &cpu, uptime, &counts, state.shown.entry(place.clone()).or_default())
            }
            File::Loadavg => {
                let (loads, tasks, made) = self.load()?;
                loadavg::render(loads, tasks.running, tasks.threads, made)
            }
            File::Diskstats => diskstats::render(&host()?, self.disk()),
        })
    }

    /// What sysinfo(2) answers to a process at `place`, as it lies in its memory.
    pub fn sysinfo(&self, place: &Place, words: Words) -> io::Result<Vec<u8>> {
        let (loads, tasks, _) = self.load()?;
        let memory = figures::memory(&self.view, place);
        let info = Sysinfo {
            uptime: now().saturating_sub(self.started).as_secs(),
            loads,
            memory: meminfo::totals(&read(Path::new(File::Meminfo.path()))?, &memory),
            shared: memory.shared,
            threads: tasks.threads,
        };
        Ok(sysinfo::image(&info, words))
    }

    fn cpu(&self, place: &Place) -> io::Result<figures::Cpu> {
        let online = read(Path::new(File::CpusOnline.path()))?;
        Ok(figures::cpu(&self.view, place, cpus::count(&online).unwrap_or(1)))
    }

    /// Of the whole berth, whoever asks.
    fn load(&self) -> io::Result<([f64; 3], Tasks, u64)> {
        let now = now();
        let (tasks, made) = self.tasks(now);
        let cpu = self.cpu(&Place::default())?;
        let look = Look {
            at: now,
            active: tasks.running + tasks.blocked,
            used_usec: cpu.user_usec.saturating_add(cpu.system_usec),
            throttled_periods: cpu.throttled_periods,
            period_usec: cpu.period_usec,
        };
        Ok((self.state().averages.look(look), tasks, made))
    }

    /// A disk of loop is nobody else's.
    fn disk(&self) -> Option<Disk> {
        self.disk.map(|(major, minor)| match major {
            LOOP => Disk::Own(major, minor),
            _ => Disk::Shared(major, minor, figures::io(&self.view, (major, minor))),
        })
    }

    fn tasks(&self, now: Duration) -> (Tasks, u64) {
        let mut state = self.state();
        let tasks = match state.tasks {
            Some((at, tasks)) if now.saturating_sub(at) < KEPT => tasks,
            _ => {
                let tasks = tasks::look(&self.view, Path::new("/proc"));
                state.tasks = Some((now, tasks));
                tasks
            }
        };
        state.made = state.made.max(tasks.newest);
        (tasks, state.made)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Since the host's boot.
fn now() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::view::tests::payload;

    #[test]
    fn p02_every_file_has_a_text_with_the_quota_in_it() {
        let files = [
            ("memory.max", "1073741824\n"),
            ("memory.current", "1048576\n"),
            ("cpu.max", "50000 100000\n"),
            ("cpu.stat", "usage_usec 3000000\nuser_usec 2000000\nsystem_usec 1000000\n"),
            ("cgroup.threads", &format!("{}\n", std::process::id())),
            ("pids.current", "1\n"),
            ("c/memory.max", "67108864\n"),
        ];
        let (_dir, view) = payload(&files, &[]);
        let started = now().as_secs().saturating_sub(100);
        let source = Source::new(view, None, started);
        let payload = Place::default();
        let text = |file| source.text(file, &payload).unwrap();
        assert!(text(File::Meminfo).starts_with("MemTotal:        1048576 kB\n"));
        assert_eq!(text(File::Cpuinfo).matches("processor\t:").count(), 1);
        assert_eq!(File::ALL[6..].iter().map(|file| text(*file)).collect::<Vec<_>>(), ["0\n", "0\n", "0\n"]);
        assert_eq!((text(File::Swaps).lines().count(), text(File::Diskstats)), (1, String::new()));
        let stat = text(File::Stat);
        assert!(stat.starts_with("cpu  200 0 100 ") && !stat.contains("cpu1 "), "{stat}");
        let host: i64 = read(Path::new("/proc/stat")).unwrap().lines().find_map(|l| l.strip_prefix("btime ")?.parse().ok()).unwrap();
        assert!(stat.contains(&format!("btime {}\n", host + started as i64)), "{stat}");
        let load = text(File::Loadavg);
        assert_eq!(load.split_whitespace().count(), 5, "{load}");

        let inner = source.view.place("0::/berth/x/payload/c\n");
        assert!(source.text(File::Meminfo, &inner).unwrap().starts_with("MemTotal:          65536 kB\n"));
        // A process of somewhere else, and none at all.
        assert_eq!((source.place(std::process::id()), source.place(u32::MAX)), (source.view.place(""), source.view.place("")));
    }

    #[test]
    fn names_are_different_and_paths_are_absolute() {
        let mut names: Vec<&str> = File::ALL.iter().map(|file| file.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), File::ALL.len());
        assert!(File::ALL.iter().all(|file| file.path().ends_with(file.name()) && file.path().starts_with('/')));
    }
}
