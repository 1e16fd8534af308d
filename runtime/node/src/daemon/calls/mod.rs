//! Spools of Docker API calls: what shims wrote and the server has not stored yet.
//!
//! A spool is a row of segments, one file for each run of its berth; the shim of the run appends lines to the newest. A *position* is a
//! segment's base plus an offset in its file. Bases are readings of the clock in nanoseconds, never below the end of the segment before, so
//! that no position comes twice for a berth, whatever is lost: a server asks for what lies behind the last position that *it* stored, and
//! gets each line that it lacks, once. That holds when either side is killed between any two steps, when the host loses power and the end of
//! a file with it, and when the node's state is made anew. A server whose database comes from an older backup goes on behind what was taken.
//!
//! What was taken is not noted down but punched out of the file, so that the file itself tells where the rest begins, to a block; what the
//! server is told once too often it knows by its position. A segment that no shim appends to goes when all of it was taken.
//!
//! Bounds: the shim keeps what was not taken of its segment below 16 MiB and records what it drops; a spool has at most [`SEGMENTS`] of
//! them, then the newest is gone on with. Spools of deleted berths stay until they were taken, at most [`ORPHANS_KEPT`], and altogether at
//! most [`ORPHANS_BYTES`]; what is beyond goes, oldest first, and the log says so.

mod segment;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use berth_protocol::{BerthId, Call, CallPage, CallRecord, CallsAt};
use tokio::sync::watch;

use segment::Segment;

/// Files of one spool.
const SEGMENTS: usize = 4;
/// How long, and how many bytes, spools of deleted berths wait for a server.
const ORPHANS_KEPT: Duration = Duration::from_secs(30 * 86_400);
const ORPHANS_BYTES: u64 = if cfg!(test) { 1 << 20 } else { 1 << 30 };
/// What the node itself may add to a spool that nobody takes, and keep in memory while a shim appends.
const NOTED_BYTES: u64 = 16 << 20;
const HELD_BYTES: usize = 64 << 10;

/// All spools of this node.
#[derive(Debug)]
pub(crate) struct Calls {
    dir: PathBuf,
    spools: Mutex<BTreeMap<BerthId, Spool>>,
    news: watch::Sender<()>,
}

#[derive(Debug)]
struct Spool {
    /// By base.
    segments: Vec<Segment>,
    /// Everything before this position was stored elsewhere.
    taken: u64,
    /// A shim appends to the last segment.
    live: bool,
    /// The berth was deleted.
    orphan: bool,
    /// Lines of the node that wait for the end of a run.
    held: Vec<u8>,
    /// Lines that found no room, and when the first did not, in milliseconds since the epoch.
    lost: u64,
    lost_at: i64,
    /// `taken` as an offset in the last segment, for the shim.
    told: watch::Sender<u64>,
}

impl Calls {
    /// Finds what a former node left.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        let mut spools: BTreeMap<BerthId, Spool> = BTreeMap::new();
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let Some((id, base)) = entry.file_name().to_str().and_then(Segment::parse) else { continue };
            spools.entry(id).or_default().segments.push(Segment { base, size: entry.metadata()?.len() });
        }
        for (id, spool) in &mut spools {
            spool.segments.sort_by_key(|segment| segment.base);
            // Until its owner knows better: its shim may have outlived the former node.
            spool.live = true;
            for segment in &spool.segments {
                let data = segment.data(&dir, *id)?;
                spool.taken = segment.base.saturating_add(data);
                if data < segment.size {
                    break;
                }
            }
        }
        Ok(Self { dir, spools: Mutex::new(spools), news: watch::Sender::new(()) })
    }

    fn spools(&self) -> MutexGuard<'_, BTreeMap<BerthId, Spool>> {
        self.spools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All other spools are those of deleted berths.
    pub(crate) fn retain(&self, known: &BTreeSet<BerthId>) {
        let mut spools = self.spools();
        for (id, spool) in spools.iter_mut().filter(|(id, _)| !known.contains(id)) {
            (spool.live, spool.orphan) = (false, true);
            spool.settle(&self.dir, *id);
        }
        spools.retain(|_, spool| !spool.is_over());
        self.bound(&mut spools);
    }

    /// A file for the shim that is about to start, and the offset in it before which all was taken. What a former run left stays apart.
    pub(crate) fn begin(&self, id: BerthId) -> io::Result<(File, u64)> {
        let mut spools = self.spools();
        let spool = spools.entry(id).or_default();
        (spool.live, spool.orphan) = (false, false);
        spool.look(&self.dir, id);
        spool.settle(&self.dir, id);
        if spool.segments.len() < SEGMENTS {
            spool.grow();
        }
        let last = spool.segments[spool.segments.len() - 1];
        let file = last.open(&self.dir, id)?;
        spool.live = true;
        spool.tell();
        Ok((file, spool.taken.clamp(last.base, last.end()) - last.base))
    }

    /// A shim that was there before this node appends to the last segment.
    pub(crate) fn adopt(&self, id: BerthId) {
        let mut spools = self.spools();
        let spool = spools.entry(id).or_default();
        spool.live = true;
        spool.look(&self.dir, id);
        spool.tell();
        drop(spools);
        self.news.send_replace(());
    }

    /// No shim appends any more: what is there is all of it.
    pub(crate) fn ended(&self, id: BerthId) {
        let mut spools = self.spools();
        let Some(spool) = spools.get_mut(&id) else { return };
        spool.live = false;
        spool.look(&self.dir, id);
        let held = std::mem::take(&mut spool.held);
        if !held.is_empty()
            && let Err(error) = spool.append(&self.dir, id, &held)
        {
            tracing::error!(berth = %id, %error, "calls that the node answered were not written down");
        }
        spool.settle(&self.dir, id);
        drop(spools);
        self.news.send_replace(());
    }

    /// A call that the node itself answered, for want of a shim. Should one append by now, the line waits for the end of its run; what
    /// finds no room is counted, and told by the next that does. Blocking.
    pub(crate) fn note(&self, id: BerthId, record: &CallRecord) {
        let (CallRecord::Call(Call { at, user, uid, .. }) | CallRecord::Lost { at, user, uid, .. }) = record;
        let mut spools = self.spools();
        let spool = spools.entry(id).or_default();
        let mut lines = Vec::new();
        if spool.lost > 0 {
            let lost = CallRecord::Lost { at: spool.lost_at, user: user.clone(), uid: *uid, count: spool.lost };
            lines.extend(serde_json::to_vec(&lost).into_iter().flatten().chain([b'\n']));
        }
        lines.extend(serde_json::to_vec(record).into_iter().flatten().chain([b'\n']));
        spool.look(&self.dir, id);
        let written = match spool.live {
            true if spool.held.len() + lines.len() <= HELD_BYTES => {
                spool.held.extend_from_slice(&lines);
                true
            }
            false if spool.end() - spool.taken + lines.len() as u64 <= NOTED_BYTES => spool.append(&self.dir, id, &lines).is_ok(),
            _ => false,
        };
        if written {
            spool.lost = 0;
        } else {
            if spool.lost == 0 {
                spool.lost_at = *at;
            }
            spool.lost += 1;
        }
        drop(spools);
        self.news.send_replace(());
    }

    /// The shim has appended something.
    pub(crate) fn grown(&self, id: BerthId) {
        if let Some(spool) = self.spools().get_mut(&id) {
            spool.look(&self.dir, id);
        }
        self.news.send_replace(());
    }

    /// The berth is deleted; its spool goes with its last line.
    pub(crate) fn orphan(&self, id: BerthId) {
        let mut spools = self.spools();
        let Some(spool) = spools.get_mut(&id) else { return };
        (spool.live, spool.orphan) = (false, true);
        spool.look(&self.dir, id);
        spool.settle(&self.dir, id);
        if spool.is_over() {
            spools.remove(&id);
        }
        self.bound(&mut spools);
        drop(spools);
        self.news.send_replace(());
    }

    /// What the shim of the berth may forget: an offset in its file, whenever that changes.
    pub(crate) fn taken_of(&self, id: BerthId) -> watch::Receiver<u64> {
        self.spools().entry(id).or_default().told.subscribe()
    }

    /// Changes whenever a spool has grown.
    pub(crate) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Every spool that holds something.
    pub(crate) fn waiting(&self) -> Vec<CallsAt> {
        let spools = self.spools();
        let at = spools.iter().filter_map(|(id, spool)| {
            let taken = spool.behind(spool.taken)?.base.max(spool.taken);
            Some(CallsAt { id: *id, taken, end: spool.end() })
        });
        at.collect()
    }

    /// The lines behind `after`, as many as make a page. Blocking.
    pub(crate) fn page(&self, id: BerthId, after: u64) -> io::Result<CallPage> {
        let mut page = CallPage { id, next: after, more: false, records: Vec::new() };
        let mut foreign = 0;
        while let Some((segment, position, closed)) = self.behind(id, page.next) {
            let lines = match segment.read(&self.dir, id, position - segment.base, closed) {
                // All of it was taken meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                lines => lines?,
            };
            page.next = segment.base + lines.next;
            foreign += lines.foreign;
            if !lines.records.is_empty() || page.next == position {
                page.more = page.next > position && self.behind(id, page.next).is_some();
                page.records = lines.records;
                break;
            }
        }
        if foreign > 0 {
            tracing::warn!(berth = %id, lines = foreign, "lines of a spool of calls are not understood and were passed over");
        }
        Ok(page)
    }

    /// The segment that holds something behind `position`, where that begins, and whether nobody appends to it.
    fn behind(&self, id: BerthId, position: u64) -> Option<(Segment, u64, bool)> {
        let mut spools = self.spools();
        let spool = spools.get_mut(&id)?;
        spool.look(&self.dir, id);
        let position = position.max(spool.taken);
        let segment = spool.behind(position)?;
        let newest = spool.segments.last() == Some(&segment);
        Some((segment, position.max(segment.base), !(newest && spool.live)))
    }

    /// Everything before `position` is stored elsewhere. Blocking.
    pub(crate) fn take(&self, id: BerthId, position: u64) {
        let mut spools = self.spools();
        let Some(spool) = spools.get_mut(&id) else { return };
        spool.look(&self.dir, id);
        // A host that lost power may have less of a file than the server took.
        spool.taken = spool.taken.max(position.min(spool.end()));
        spool.settle(&self.dir, id);
        spool.tell();
        if spool.is_over() {
            spools.remove(&id);
        }
    }

    /// Drops what waits for too long or is too much, of deleted berths, oldest first.
    fn bound(&self, spools: &mut BTreeMap<BerthId, Spool>) {
        let mut orphans: Vec<_> = spools.iter().filter(|(_, s)| s.orphan).map(|(id, s)| (s.end(), *id, s.end() - s.taken)).collect();
        orphans.sort_unstable();
        let mut total: u64 = orphans.iter().map(|(_, _, bytes)| bytes).sum();
        let oldest = now_ns().saturating_sub(u64::try_from(ORPHANS_KEPT.as_nanos()).unwrap_or(u64::MAX));
        for (end, id, bytes) in orphans {
            if end >= oldest && total <= ORPHANS_BYTES {
                break;
            }
            tracing::error!(berth = %id, bytes, "records of calls of a deleted berth are lost: no server took them");
            if let Some(mut spool) = spools.remove(&id) {
                spool.taken = u64::MAX;
                spool.settle(&self.dir, id);
            }
            total -= bytes;
        }
    }
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            segments: Vec::new(),
            taken: 0,
            live: false,
            orphan: false,
            held: Vec::new(),
            lost: 0,
            lost_at: 0,
            told: watch::Sender::new(0),
        }
    }
}

impl Spool {
    fn end(&self) -> u64 {
        self.segments.last().map_or(self.taken, |last| last.end().max(self.taken))
    }

    /// Where the next lines go, when no shim has the last segment.
    fn grow(&mut self) -> Segment {
        let base = self.end().max(now_ns());
        if self.segments.is_empty() {
            self.taken = base;
        }
        let segment = Segment { base, size: 0 };
        self.segments.push(segment);
        segment
    }

    /// Adds lines while no shim appends.
    fn append(&mut self, dir: &std::path::Path, id: BerthId, lines: &[u8]) -> io::Result<()> {
        let last = self.segments.last().copied().unwrap_or_else(|| self.grow());
        let mut file = last.open(dir, id)?;
        let before = file.metadata()?.len();
        let written = file.write_all(lines).and_then(|()| file.sync_data());
        if written.is_err() {
            // Half a line would be ended and passed over by the next.
            let _ = file.set_len(before);
        }
        self.look(dir, id);
        written
    }

    /// The first segment that holds something behind `position`.
    fn behind(&self, position: u64) -> Option<Segment> {
        self.segments.iter().copied().find(|segment| segment.size > 0 && segment.end() > position)
    }

    /// Only the last one grows.
    fn look(&mut self, dir: &std::path::Path, id: BerthId) {
        if let Some(last) = self.segments.last_mut() {
            last.look(dir, id);
        }
    }

    /// Takes away what was taken. What cannot be taken away is offered again after a restart, and known to the server.
    fn settle(&mut self, dir: &std::path::Path, id: BerthId) {
        let (taken, last, live) = (self.taken, self.segments.last().map(|last| last.base), self.live);
        self.segments.retain(|segment| {
            let appended = live && Some(segment.base) == last;
            let done = match () {
                () if (segment.size == 0 || taken >= segment.end()) && !appended => fs::remove_file(segment.path(dir, id)),
                () if taken > segment.base => segment.punch(dir, id, taken - segment.base),
                () => return true,
            };
            if let Err(error) = &done
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(berth = %id, %error, "what was taken of a spool of calls stays");
            }
            appended || (segment.size > 0 && taken < segment.end())
        });
    }

    fn tell(&self) {
        let base = self.segments.last().map_or(0, |last| last.base);
        let offset = self.taken.saturating_sub(base);
        self.told.send_if_modified(|told| std::mem::replace(told, offset) != offset);
    }

    fn is_over(&self) -> bool {
        self.orphan && self.segments.is_empty()
    }
}

fn now_ns() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}
