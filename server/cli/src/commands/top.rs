//! `berth top`: what running berths use, again and again on a terminal, once otherwise.
//!
//! Counters come from the service, which has the node read them when asked; rates are what two answers differ by. Nobody reads anything
//! while nobody looks.

use std::{
    collections::HashMap,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use berth_api::{BerthState, BerthUsage};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{Context, words};
use crate::{
    Outcome,
    failure::Failure,
    output::{self, Rows},
    terminal, units,
};

/// Between the two looks of an answer that is given once.
const APART: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct TopArguments {
    /// Name of the host account [default: all that you may see]
    pub user: Option<String>,
    /// Show one table and end; so does output that is no terminal, and --json
    #[arg(long)]
    pub once: bool,
    /// What comes first: the most of it, or the names in order
    #[arg(long, value_enum, default_value_t = Sort::Cpu)]
    pub sort: Sort,
    /// Seconds between two looks
    #[arg(long, short = 'd', default_value_t = 2, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=60))]
    pub delay: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    Cpu,
    Memory,
    Pids,
    Disk,
    Io,
    Network,
    User,
}

/// What a berth did between two looks, per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Rates {
    /// Thousandths of a CPU.
    cpu_millis: u64,
    io_read_bps: u64,
    io_write_bps: u64,
    io_read_iops: u64,
    io_write_iops: u64,
    network_egress_bits: u64,
    network_ingress_bits: u64,
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    now: BerthUsage,
    /// Nothing after the first look, and when the berth has started anew between two.
    rates: Option<Rates>,
}

pub(super) async fn top(context: &Context, arguments: TopArguments) -> Outcome {
    let TopArguments { user, once, sort, delay } = arguments;
    let user = user.as_deref();
    let mut before = look(context, user).await?;
    if once || context.json || !io::stdout().is_terminal() {
        tokio::time::sleep(APART).await;
        let rows = sorted(rows(look(context, user).await?, &before), sort);
        match context.json {
            true => output::json(&json!({ "items": rows }))?,
            false if rows.is_empty() => output::line("No berth is up.")?,
            false => table(&rows).show()?,
        }
        return Ok(0);
    }
    let (mut end, mut killed) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let screen = Screen::enter()?;
    let mut pause = APART;
    screen.draw("", &[], "looking …")?;
    loop {
        tokio::select! {
            _ = end.recv() => return Ok(0),
            _ = killed.recv() => return Ok(0),
            () = tokio::time::sleep(pause) => {}
        }
        pause = Duration::from_secs(delay);
        match look(context, user).await {
            Ok(now) => {
                let rows = sorted(rows(now.clone(), &before), sort);
                let title = format!("{} up, by {}; every {delay} s; Ctrl-C ends", rows.len(), word(sort));
                screen.draw(&title, &rows, "")?;
                before = now;
            }
            // It is restarted now and then; what was last seen stays.
            Err(failure) if failure.is_passing() => screen.note("the service does not answer; trying on")?,
            Err(failure) => return Err(failure),
        }
    }
}

async fn look(context: &Context, user: Option<&str>) -> Result<Vec<BerthUsage>, Failure> {
    Ok(context.client.usage(user).await?.items)
}

fn listen(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|error| Failure::io("cannot wait for a signal", &error))
}

fn rows(now: Vec<BerthUsage>, before: &[BerthUsage]) -> Vec<Row> {
    let before: HashMap<_, _> = before.iter().map(|one| (one.id, one)).collect();
    let rates_of = |now: &BerthUsage| before.get(&now.id).and_then(|before| rates(before, now));
    now.into_iter().map(|now| Row { rates: rates_of(&now), now }).collect()
}

/// Nothing when a counter has gone back: the berth has started anew.
fn rates(before: &BerthUsage, now: &BerthUsage) -> Option<Rates> {
    let elapsed = u64::try_from(now.at - before.at).ok().filter(|elapsed| *elapsed > 0)?;
    let grown = |of: fn(&BerthUsage) -> u64| of(now).checked_sub(of(before));
    let per_second = |of: fn(&BerthUsage) -> u64| Some(grown(of)?.saturating_mul(1000) / elapsed);
    Some(Rates {
        // Microseconds of CPU in milliseconds of time are thousandths of a CPU.
        cpu_millis: grown(|one| one.usage.cpu_usec)? / elapsed,
        io_read_bps: per_second(|one| one.usage.io.read_bytes)?,
        io_write_bps: per_second(|one| one.usage.io.write_bytes)?,
        io_read_iops: per_second(|one| one.usage.io.read_ops)?,
        io_write_iops: per_second(|one| one.usage.io.write_ops)?,
        network_egress_bits: per_second(|one| one.usage.network.egress_bytes)?.saturating_mul(8),
        network_ingress_bits: per_second(|one| one.usage.network.ingress_bytes)?.saturating_mul(8),
    })
}

/// The most first; names decide between equals.
fn sorted(mut rows: Vec<Row>, sort: Sort) -> Vec<Row> {
    let rate = |row: &Row, of: fn(Rates) -> u64| row.rates.map_or(0, of);
    let key = |row: &Row| match sort {
        Sort::Cpu => rate(row, |rates| rates.cpu_millis),
        Sort::Memory => row.now.usage.memory_bytes,
        Sort::Pids => row.now.usage.pids,
        Sort::Disk => used_disk(row).0,
        Sort::Io => rate(row, |rates| rates.io_read_bps.saturating_add(rates.io_write_bps)),
        Sort::Network => rate(row, |rates| rates.network_egress_bits.saturating_add(rates.network_ingress_bits)),
        Sort::User => 0,
    };
    rows.sort_by(|one, other| key(other).cmp(&key(one)).then_with(|| one.now.user.cmp(&other.now.user)));
    rows
}

fn word(sort: Sort) -> &'static str {
    match sort {
        Sort::Cpu => "CPU",
        Sort::Memory => "memory",
        Sort::Pids => "processes",
        Sort::Disk => "disk",
        Sort::Io => "disk traffic",
        Sort::Network => "network traffic",
        Sort::User => "name",
    }
}

/// Used and of how much: as `df` says inside, else what the disk occupies on the host.
fn used_disk(row: &Row) -> (u64, u64) {
    match row.now.usage.disk {
        Some(disk) => (disk.used_bytes, disk.limit_bytes),
        None => (row.now.usage.disk_bytes, row.now.limits.disk_bytes),
    }
}

fn table(rows: &[Row]) -> Rows {
    let mut table = Rows::new(&["USER", "CPU %", "MEMORY", "SWAP", "PIDS", "DISK", "READ", "WRITE", "OUT", "IN", "WAIT %"]);
    let of = |used: u64, limit: u64| format!("{} / {}", units::bytes(used), units::bytes(limit));
    for row in rows {
        let (usage, limits) = (&row.now.usage, &row.now.limits);
        let rate = |of: fn(Rates) -> u64, show: fn(u64) -> String| row.rates.map_or_else(|| "-".to_owned(), |rates| show(of(rates)));
        let (disk, most) = used_disk(row);
        let stalls =
            usage.pressure.map(|pressure| [pressure.cpu, pressure.memory, pressure.io].map(|one| words::hundredths(one.some_avg10)));
        table.push([
            match row.now.state {
                BerthState::Frozen => format!("{} (frozen)", row.now.user),
                _ => row.now.user.clone(),
            },
            format!("{} / {}", rate(|rates| rates.cpu_millis, percent), limits.cpu_millis / 10),
            of(usage.memory_bytes, limits.memory_bytes),
            if limits.swap_bytes == 0 && usage.swap_bytes == 0 { "-".to_owned() } else { of(usage.swap_bytes, limits.swap_bytes) },
            format!("{} / {}", usage.pids, limits.pids),
            of(disk, most),
            rate(|rates| rates.io_read_bps, words::per_second),
            rate(|rates| rates.io_write_bps, words::per_second),
            rate(|rates| rates.network_egress_bits, units::bits),
            rate(|rates| rates.network_ingress_bits, units::bits),
            // CPU, memory, disk.
            stalls.map_or_else(|| "-".to_owned(), |stalls| stalls.join(" / ")),
        ]);
    }
    table
}

/// Of one CPU, as `docker stats` counts.
fn percent(millis: u64) -> String {
    format!("{:.1}", millis as f64 / 10.0)
}

/// The terminal's other screen, until dropped.
struct Screen;

impl Screen {
    fn enter() -> Result<Self, Failure> {
        write("\x1b[?1049h\x1b[?25l")?;
        Ok(Self)
    }

    /// As much of the table as there is room for.
    fn draw(&self, title: &str, rows: &[Row], note: &str) -> Result<(), Failure> {
        let (columns, lines) = terminal::output_size().unwrap_or((80, 24));
        let mut text = vec![title.to_owned(), note.to_owned()];
        if !rows.is_empty() {
            text.extend(table(rows).lines());
        }
        let shown = text.iter().take(usize::from(lines).saturating_sub(1));
        let frame: String = shown.map(|line| format!("{}\x1b[K\n", cut(line, columns.into()))).collect();
        write(&format!("\x1b[H{frame}\x1b[J"))
    }

    /// On the second line, below the title.
    fn note(&self, note: &str) -> Result<(), Failure> {
        write(&format!("\x1b[2;1H{note}\x1b[K"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone.
        let _ = write("\x1b[?25h\x1b[?1049l");
    }
}

fn write(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| Failure::io("cannot write to the terminal", &error))
}

/// The first `columns` characters; the table is plain text in this place.
fn cut(line: &str, columns: usize) -> &str {
    line.char_indices().nth(columns).map_or(line, |(end, _)| &line[..end])
}

#[cfg(test)]
mod tests {
    use berth_api::{IoUsage, Limits, NetworkUsage, Usage};

    use super::*;

    fn sample(user: &str, at: i64, usage: Usage) -> BerthUsage {
        let limits = Limits {
            cpu_millis: 1500,
            cpu_weight: 100,
            memory_bytes: 1 << 30,
            memory_high_bytes: None,
            swap_bytes: 0,
            pids: 512,
            disk_bytes: 1 << 30,
            inodes: None,
            io_read_bps: None,
            io_write_bps: None,
            io_read_iops: None,
            io_write_iops: None,
            network_egress_bits: None,
            network_ingress_bits: None,
        };
        let id = format!("{:032x}", user.bytes().map(u64::from).sum::<u64>()).parse().unwrap();
        BerthUsage { user: user.to_owned(), id, state: BerthState::Running, at, limits, usage }
    }

    #[test]
    fn rates_are_what_two_looks_differ_by() {
        let first = Usage { cpu_usec: 1_000_000, ..Usage::default() };
        let io = IoUsage { read_bytes: 4096, write_bytes: 2_000_000, read_ops: 4, write_ops: 20 };
        let network = NetworkUsage { egress_bytes: 1000, ingress_bytes: 2_000_000 };
        let then = Usage { cpu_usec: 4_000_000, io, network, ..Usage::default() };
        let rates_of = |first, then, apart: i64| rates(&sample("a", 10_000, first), &sample("a", 10_000 + apart, then));
        let found = rates_of(first, then, 2_000).unwrap();
        assert_eq!((found.cpu_millis, found.io_read_bps, found.io_write_iops), (1500, 2048, 10));
        assert_eq!((found.network_egress_bits, found.network_ingress_bits), (4_000, 8_000_000));
        assert_eq!(rates_of(then, first, 2_000), None, "it has started anew");
        assert_eq!(rates_of(first, then, 0), None, "the same look");
    }

    #[test]
    fn the_most_comes_first_and_what_is_new_has_no_rate() {
        let before = [sample("a", 0, Usage::default()), sample("b", 0, Usage::default())];
        let now = vec![
            sample("a", 1_000, Usage { cpu_usec: 100_000, memory_bytes: 9, ..Usage::default() }),
            sample("b", 1_000, Usage { cpu_usec: 900_000, memory_bytes: 5, ..Usage::default() }),
            sample("c", 1_000, Usage { cpu_usec: 5_000_000, memory_bytes: 7, ..Usage::default() }),
        ];
        let order = |sort| -> String { sorted(rows(now.clone(), &before), sort).iter().map(|row| row.now.user.as_str()).collect() };
        assert_eq!((order(Sort::Cpu), order(Sort::Memory), order(Sort::User)), ("bac".to_owned(), "acb".to_owned(), "abc".to_owned()));
        let shown = table(&sorted(rows(now, &before), Sort::Cpu)).lines();
        assert!(shown[1].starts_with("b") && shown[1].contains("90.0 / 150") && shown[3].contains("- / 150"), "{shown:?}");
        assert_eq!((cut("äöü", 2), cut("ab", 5)), ("äö", "ab"));
    }
}
