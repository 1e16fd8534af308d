//! `/proc/stat`, proc_stat(5).

use std::fmt::Write;

use super::figures::Cpu;

/// Length of a tick there: USER_HZ is 100 on every architecture that runs this.
pub(super) const TICK_USEC: u64 = 10_000;

/// What is not a time of a CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Seconds between the host's boot and the berth's start.
    pub(super) started: i64,
    pub(super) made: u64,
    pub(super) running: u64,
    pub(super) blocked: u64,
}

/// Idle and stolen ticks that were shown last, of so many CPUs: the kernel counts used and denied time of each of its CPUs by itself and a
/// little late, so what is left of the whole may shrink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    cpus: u32,
    idle: u64,
    stolen: u64,
}

/// `uptime` in microseconds, the berth's; read after the figures of `cpu`.
pub(super) fn render(host: &str, cpu: &Cpu, uptime: u64, counts: &Counts, shown: &mut Shown) -> String {
    let mut text = String::with_capacity(host.len());
    let times = times(cpu, uptime, shown);
    for line in host.lines() {
        let (key, rest) = line.split_once(' ').unwrap_or((line, ""));
        let _ = match key {
            "cpu" => cpus(&mut text, &times, u64::from(cpu.shown.max(1))),
            _ if key.strip_prefix("cpu").is_some_and(|n| n.parse::<u32>().is_ok()) => Ok(()),
            "btime" => writeln!(text, "btime {}", rest.trim().parse::<i64>().unwrap_or(0).saturating_add(counts.started)),
            "processes" => writeln!(text, "processes {}", counts.made),
            "procs_running" => writeln!(text, "procs_running {}", counts.running),
            "procs_blocked" => writeln!(text, "procs_blocked {}", counts.blocked),
            _ => writeln!(text, "{line}"),
        };
    }
    text
}

/// Ticks of all CPUs together: user, system, idle, steal. Of as many CPUs as before none is less than it was shown.
fn times(cpu: &Cpu, uptime: u64, shown: &mut Shown) -> [u64; 4] {
    let whole = uptime.saturating_mul(u64::from(cpu.shown.max(1)));
    let used = cpu.user_usec.saturating_add(cpu.system_usec);
    // Counted per CPU of the host, of which there may be more than are shown.
    let stolen = cpu.throttled_usec.min(whole.saturating_sub(used));
    let idle = whole.saturating_sub(used).saturating_sub(stolen);
    let [user, system, idle, stolen] = [cpu.user_usec, cpu.system_usec, idle, stolen].map(|usec| usec / TICK_USEC);
    *shown = match shown.cpus == cpu.shown {
        true => Shown { cpus: cpu.shown, idle: idle.max(shown.idle), stolen: stolen.max(shown.stolen) },
        false => Shown { cpus: cpu.shown, idle, stolen },
    };
    [user, system, shown.idle, shown.stolen]
}

/// The line of all, and one for each.
fn cpus(text: &mut String, times: &[u64; 4], shown: u64) -> std::fmt::Result {
    let line = |[user, system, idle, steal]: [u64; 4]| format!("{user} 0 {system} {idle} 0 0 0 {steal} 0 0");
    writeln!(text, "cpu  {}", line(*times))?;
    // The first get what does not divide: like this each only ever grows.
    (0..shown).try_for_each(|n| writeln!(text, "cpu{n} {}", line(times.map(|ticks| ticks / shown + u64::from(n < ticks % shown)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = include_str!("recorded/stat.txt");

    fn numbers(text: &str, key: &str) -> Vec<u64> {
        let line = text.lines().find(|line| line.split(' ').next() == Some(key)).unwrap_or_default();
        line.split_whitespace().skip(1).map(|word| word.parse().unwrap()).collect()
    }

    #[test]
    fn p02_cpu_times_are_the_groups_own_and_fill_the_time_since_its_start() {
        let cpu = Cpu { shown: 1, user_usec: 30_000_000, system_usec: 20_000_000, throttled_usec: 10_000_000, ..Cpu::default() };
        let counts = Counts { started: 100, made: 77, running: 2, blocked: 1 };
        let text = render(HOST, &cpu, 100_000_000, &counts, &mut Shown::default());
        assert_eq!(numbers(&text, "cpu"), [3000, 0, 2000, 4000, 0, 0, 0, 1000, 0, 0]);
        assert_eq!(numbers(&text, "cpu0"), numbers(&text, "cpu"));
        assert!(numbers(&text, "cpu1").is_empty(), "{text}");
        assert_eq!(numbers(&text, "btime"), [numbers(HOST, "btime")[0] + 100]);
        assert_eq!(
            (numbers(&text, "processes"), numbers(&text, "procs_running"), numbers(&text, "procs_blocked")),
            (vec![77], vec![2], vec![1])
        );
        for passed in ["ctxt", "intr", "softirq"] {
            assert_eq!(numbers(&text, passed), numbers(HOST, passed), "{passed}");
        }
    }

    #[test]
    fn the_shown_cpus_add_up_and_only_grow() {
        let at = |usec: u64| {
            let cpu = Cpu { shown: 3, user_usec: usec, throttled_usec: usec * 50, ..Cpu::default() };
            let text = render(HOST, &cpu, usec, &Counts::default(), &mut Shown::default());
            let each: Vec<Vec<u64>> = ["cpu0", "cpu1", "cpu2"].iter().map(|key| numbers(&text, key)).collect();
            let sum: Vec<u64> = (0..10).map(|n| each.iter().map(|cpu| cpu[n]).sum()).collect();
            assert_eq!(sum, numbers(&text, "cpu"));
            assert_eq!(sum[0] + sum[3] + sum[7], 3 * usec / TICK_USEC, "nothing is lost, and quota time is no more than there was");
            each
        };
        let mut before = at(0);
        for step in 1..50 {
            let now = at(step * TICK_USEC);
            for (old, new) in before.iter().flatten().zip(now.iter().flatten()) {
                assert!(old <= new, "{before:?} {now:?}");
            }
            before = now;
        }
    }
    #[test]
    fn p02_what_is_idle_or_denied_never_shrinks_while_the_cpus_stay() {
        let mut shown = Shown::default();
        let mut at = |cpus, uptime: u64, used: u64, denied: u64| {
            let cpu = Cpu { shown: cpus, user_usec: used * TICK_USEC, throttled_usec: denied * TICK_USEC, ..Cpu::default() };
            let [_, _, idle, stolen] = times(&cpu, uptime * TICK_USEC, &mut shown);
            (idle, stolen)
        };
        assert_eq!(at(1, 100, 20, 30), (50, 30));
        // More was used and denied meanwhile than there was time.
        assert_eq!(at(1, 110, 27, 36), (50, 36));
        assert_eq!(at(1, 112, 90, 36), (50, 36));
        assert_eq!(at(1, 200, 91, 36), (73, 36));
        assert_eq!(at(2, 200, 91, 36), (273, 36));
        assert_eq!(at(1, 200, 91, 36), (73, 36), "another number of CPUs begins anew");
    }
}
