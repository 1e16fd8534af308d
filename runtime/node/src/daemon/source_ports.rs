//! Which berth leaves the host by which source ports (N05): chosen at create, kept in the record, and written down for good, so that an
//! address, a port and a time name a user also after his berth is gone.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::Context;
use berth_protocol::BerthId;
use berth_runtime::{
    error::{Result, Step},
    net::source_ports::{self, Block, Layout},
};
use serde::{Deserialize, Serialize};

use super::{
    config::Config,
    host::{Host, now_ms},
    record::{Corrupt, Phase, Record},
};

/// What the list of holders may grow to before it becomes the older list: some seven thousand berths each.
const MOST_BYTES: u64 = 1 << 20;

/// One line of the list: who got or gave back which ports, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Milliseconds since the epoch.
    pub at: i64,
    pub what: What,
    pub ports: (u16, u16),
    pub berth: BerthId,
    pub user: String,
    pub uid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Given,
    TakenBack,
}

impl Host {
    pub(crate) fn port_layout(&self) -> Layout {
        let network = &self.config.network;
        // Validated with the configuration.
        Layout::new(network.source_ports.parse().unwrap_or(Block(1024, 32_767)), network.source_ports_per_berth)
    }

    /// Ports that nobody has, for a berth that is to be made. The caller holds `taken` still.
    pub(crate) fn choose_ports(&self, taken: &[Block]) -> Result<Block> {
        self.port_layout().choose(taken, source_ports::host_range(), &source_ports::listening())
    }

    /// Gives ports to records that have none: they are of a version that knew of no blocks. One for whom there are none does not leave the host.
    pub(crate) fn complete_ports(&self, records: &mut [Record], corrupt: &[Corrupt]) -> Result<()> {
        let held = records.iter().filter_map(Record::block).chain(corrupt.iter().filter_map(|c| c.source_ports));
        let mut taken: Vec<Block> = held.collect();
        for record in records.iter_mut().filter(|r| r.source_ports.is_none() && r.phase == Phase::Present) {
            match self.choose_ports(&taken) {
                Ok(block) => {
                    taken.push(block);
                    record.source_ports = Some((block.0, block.1));
                    self.note_ports(record.id, &record.user, record.uid, block, What::Given)?;
                    self.records.save(record)?;
                }
                Err(error) => tracing::error!(user = record.user, %error, "no source ports: the berth reaches nothing outside"),
            }
        }
        Ok(())
    }

    /// Writes down who has which ports from now on, or no longer. On the disk when this returns.
    pub(crate) fn note_ports(&self, berth: BerthId, user: &str, uid: u32, block: Block, what: What) -> Result<()> {
        tracing::info!(user, uid, ports = %block, ?what, "source ports");
        let line = Line { at: now_ms(), what, ports: (block.0, block.1), berth, user: user.to_owned(), uid };
        let file = self.layout.port_holders();
        append(&file, &line).step("write", file.display())
    }
}

impl Record {
    pub(crate) fn block(&self) -> Option<Block> {
        self.source_ports.map(|(first, last)| Block(first, last))
    }
}

fn append(file: &Path, line: &Line) -> io::Result<()> {
    if fs::metadata(file).is_ok_and(|m| m.len() >= MOST_BYTES) {
        fs::rename(file, older(file))?;
    }
    // A line that a power loss cut short is not to spoil the one behind it.
    let text = format!("\n{}\n", serde_json::to_string(line)?);
    let mut out = OpenOptions::new().append(true).create(true).mode(0o600).open(file)?;
    out.write_all(text.as_bytes())?;
    out.sync_data()
}

fn older(file: &Path) -> std::path::PathBuf {
    file.with_extension("1.jsonl")
}

/// A moment in milliseconds since the epoch, from its seconds or from a date of UTC: `1764000000`, `2026-05-03T02:10:00Z`, `2026-05-03`.
pub fn moment(text: &str) -> std::result::Result<i64, String> {
    let error = || format!("{text:?} is no time; write 2026-05-03T02:10:00Z (UTC), or seconds since the epoch");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(i64::from(seconds) * 1000);
    }
    let (date, clock) = text.strip_suffix('Z').unwrap_or(text).split_once(['T', ' ']).unwrap_or((text, "0:0:0"));
    let numbers = |part: &str, by: char| part.split(by).map(|n| n.parse::<u32>().ok().map(i64::from)).collect::<Option<Vec<i64>>>();
    let (date, clock) = (numbers(date, '-').ok_or_else(error)?, numbers(clock, ':').ok_or_else(error)?);
    let (&[year, month, day], [hour, minute, second @ ..]) = (date.as_slice(), clock.as_slice()) else { return Err(error()) };
    let second = second.first().copied().unwrap_or(0);
    let valid = (1970..10_000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !valid || *hour > 24 || *minute > 59 || second > 60 || clock.len() > 3 {
        return Err(error());
    }
    // Years from March on have their leap day last: days before a month are then 30.6 for each, rounded.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Ok((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

/// What `berth-node whose` says.
pub fn whose(config: Config, port: u16, at: Option<i64>) -> anyhow::Result<String> {
    let at = at.unwrap_or_else(now_ms);
    let file = super::layout::Layout::new(&config)?.port_holders();
    let found = holder(&file, port, at).with_context(|| format!("cannot read {}", file.display()))?;
    let Some(Line { ports: (first, last), user, uid, berth, at: since, .. }) = found else {
        anyhow::bail!("no berth had port {port} then, as far back as {} goes", file.display());
    };
    Ok(format!("{user} (uid {uid}), berth {berth}, has had ports {first}-{last} since @{}", since / 1000))
}

/// Who had `port` at `at` (milliseconds since the epoch), as far back as the list goes. `file` is that of the node's layout.
pub fn holder(file: &Path, port: u16, at: i64) -> io::Result<Option<Line>> {
    let read = |file: &Path| match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => text,
    };
    let text = read(&older(file))? + "\n" + &read(file)?;
    Ok(find(&text, port, at))
}

/// The last line about the port up to that time counts. A line cut short by a power loss is none.
fn find(text: &str, port: u16, at: i64) -> Option<Line> {
    let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let last = lines.rfind(|line| (line.ports.0..=line.ports.1).contains(&port) && line.at <= at)?;
    (last.what == What::Given).then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n05_times_are_read_as_reports_of_abuse_write_them() {
        for (text, seconds) in [
            ("0", 0),
            ("1970-01-01", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-05-03 02:10", 1_777_774_200),
            ("2027-01-01T00:00:01Z", 1_798_761_601),
            ("1767225600", 1_767_225_600),
        ] {
            assert_eq!(moment(text), Ok(seconds * 1000), "{text}");
        }
        for text in ["", "yesterday", "2026-13-01", "2026-05", "2026-05-03T", "2026-05-03T25:00", "1.2", "2026-05-03T01:02:03:04Z"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }
    use crate::daemon::record::tests::record;

    fn line(user: &str, what: What, at: i64) -> Line {
        Line { at, what, ports: (2000, 2015), berth: record(user, 1000, 0).id, user: user.into(), uid: 1000 }
    }

    #[test]
    fn n05_address_port_and_time_name_the_user_also_of_a_berth_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("source-ports.jsonl");
        let lines = [line("alice", What::Given, 100), line("alice", What::TakenBack, 200), line("bob", What::Given, 300)];
        for line in &lines {
            append(&file, line).unwrap();
        }
        OpenOptions::new().append(true).open(&file).unwrap().write_all(b"{\"at\":400,\"wh").unwrap();
        let who = |port, at| holder(&file, port, at).unwrap().map(|line| line.user);
        assert_eq!(who(2007, 99), None);
        assert_eq!(who(2007, 150).as_deref(), Some("alice"));
        assert_eq!(who(2007, 250), None);
        assert_eq!(who(2015, 1000).as_deref(), Some("bob"));
        assert_eq!(who(2016, 1000), None);

        // The list is bounded, and what was in it is still known for as long again.
        OpenOptions::new().write(true).open(&file).unwrap().set_len(MOST_BYTES).unwrap();
        append(&file, &line("carol", What::Given, 500)).unwrap();
        OpenOptions::new().append(true).open(&file).unwrap().write_all(b"{\"at\":550").unwrap();
        append(&file, &line("carol", What::TakenBack, 700)).unwrap();
        assert_eq!(who(2007, 800), None);
        assert!(fs::metadata(&file).unwrap().len() < 1000);
        assert_eq!(who(2007, 600).as_deref(), Some("carol"));
        assert_eq!(who(2007, 150).as_deref(), Some("alice"));
    }
}
