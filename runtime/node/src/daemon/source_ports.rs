//! Which berth leaves the host by which source ports (N05): chosen at create, kept in the record, and written down for good, so that an
//! address, a port and a time name a user also after his berth is gone.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use berth_protocol::BerthId;
use berth_runtime::{
    error::{Result, Step},
    net::source_ports::{self, Block, Layout},
};
use serde::{Deserialize, Serialize};

use super::{
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
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    let mut out = OpenOptions::new().append(true).create(true).mode(0o600).open(file)?;
    out.write_all(text.as_bytes())?;
    out.sync_data()
}

fn older(file: &Path) -> std::path::PathBuf {
    file.with_extension("1.jsonl")
}

/// Who had `port` at `at` (milliseconds since the epoch), as far back as the list goes. `file` is that of the node's layout.
pub fn holder(file: &Path, port: u16, at: i64) -> io::Result<Option<Line>> {
    let read = |file: &Path| match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => text,
    };
    let text = read(&older(file))? + &read(file)?;
    Ok(find(&text, port, at))
}

/// The last line about the port up to that time counts. A line cut short by a power loss is none.
fn find(text: &str, port: u16, at: i64) -> Option<Line> {
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let last = lines.filter(|line| (line.ports.0..=line.ports.1).contains(&port) && line.at <= at).last()?;
    (last.what == What::Given).then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert!(fs::metadata(&file).unwrap().len() < 1000);
        assert_eq!(who(2007, 600).as_deref(), Some("carol"));
        assert_eq!(who(2007, 150).as_deref(), Some("alice"));
    }
}
