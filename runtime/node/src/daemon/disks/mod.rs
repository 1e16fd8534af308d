//! The disks of all berths against the file system that holds them: it never fills through berths (Q08), whatever was promised to them.
//!
//! A sparse image takes blocks of the host only when they are written. A host that is full then is an I/O error inside, and an aborted
//! journal. So each berth has no more room than the host can give to all of them at once ([`share`]), from before its first program
//! runs; ext4 itself refuses the rest (`reserved_clusters`), and `df` inside shows what can be had. What was set stays set when the node
//! dies. It looks again only to give room to who uses it, to notice what others write to the host's file system, and to trim:
//! seldom while all limits fit, some times a second while berths write in what does not ([`Disks::look`]).

mod change;
mod guard;
mod share;

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use berth_protocol::{BerthId, DiskUsage, Limits};
use berth_runtime::{
    Error,
    disk::{Backend, Disk, Limit, Mounted, Room, Space},
    error::{Result, Step, chain},
};
use tokio::sync::{Notify, watch};

pub(crate) use change::Plan;
pub(crate) use guard::serve;
use share::{Claim, Division};

const MIB: u64 = 1 << 20;
/// Rooms that differ by less are left as they are.
const STEP: u64 = MIB;
/// Looks while all limits fit, and how fast the host's file system may fill from elsewhere meanwhile.
const CALM: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
const RATE: u64 = 1 << 30;
/// Looks while they do not: when berths write, and when nothing happens.
const TIGHT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// A berth with less room is not worth being quick for.
const LITTLE: u64 = 64 * MIB;
/// So much deleted inside goes back to the host at once: while room is short, and otherwise.
const TRIM: (u64, u64) = (8 * MIB, 128 * MIB);

/// What is deleted can be trimmed once the journal is committed: every 5 s (ext4's `commit=`), a little later where the disk is busy.
const COMMIT: Duration = Duration::from_secs(6);
/// Longest time between two trims that gave little back.
const LONGEST: Duration = Duration::from_secs(600);

/// For a trim that somebody waits for.
const AT_STOP: Duration = Duration::from_secs(3);

/// The disk's part of a berth's limits.
pub(crate) fn limit(limits: &Limits) -> Limit {
    Limit { bytes: limits.disk_bytes, inodes: limits.inodes }
}

pub(crate) struct Disks {
    /// Where they lie.
    dir: PathBuf,
    /// In hundredths of a percent.
    low_water: u32,
    entries: Mutex<BTreeMap<BerthId, Entry>>,
    changed: Notify,
}

/// One berth's disk. Nothing in it waits for its tenant.
struct Entry {
    disk: Disk,
    limit: Limit,
    life: Life,
    /// As in [`Claim`], as far as was seen last.
    committed: u64,
    /// Its room, where that is less than its limit leaves.
    cut: Option<u64>,
    /// What it could take at the last look.
    seen: u64,
    /// What the host holds for it less what it uses, at the last trim: below 0 as long as its tables are not all written.
    trimmed: i64,
    trimming: bool,
    /// When the next trim is due, if one is worth it; and how long that waits.
    due: Option<Instant>,
    pause: Duration,
    /// Why it has less than its limit leaves; for people.
    low: watch::Sender<Option<String>>,
}

enum Life {
    /// Not mounted.
    Resting,
    /// Mounted, or about to be, with this room, and nobody here can look at it.
    Unseen(u64),
    Mounted(Arc<Mounted>),
}

/// What a look found.
struct Look {
    /// When to look again; `None` when nothing is mounted.
    next: Option<Duration>,
    /// Has deleted enough.
    trim: Vec<BerthId>,
}

impl Disks {
    pub(crate) fn new(dir: PathBuf, low_water: u32) -> Self {
        Self { dir, low_water, entries: Mutex::default(), changed: Notify::new() }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<BerthId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a disk from now on, as a mounted one where there is one, until [`Disks::rest`] or [`Disks::attach`] tell. Blocking.
    pub(crate) fn know(&self, id: BerthId, disk: Disk, limit: Limit) -> watch::Receiver<Option<String>> {
        let space = disk.space().ok();
        let committed = space.map_or(0, |space| outstanding(&disk, &space));
        let life = space.map_or(Life::Resting, |space| Life::Unseen(own(&disk, &space, limit)));
        let mut entries = self.entries();
        let low = entries.remove(&id).map_or_else(|| watch::channel(None).0, |entry| entry.low);
        let told = low.subscribe();
        let (trimmed, trimming, due, pause) = (i64::MAX, false, None, COMMIT);
        entries.insert(id, Entry { disk, limit, life, committed, cut: None, seen: 0, trimmed, trimming, due, pause, low });
        told
    }

    pub(crate) fn forget(&self, id: BerthId) {
        self.entries().remove(&id);
        self.changed.notify_one();
    }

    /// Room for a berth that is about to mount its disk; others make place for it. Nothing has it mounted. Blocking.
    pub(crate) fn admit(&self, id: BerthId) -> Result<Room> {
        let mut entries = self.entries();
        let entry = entries.get_mut(&id).ok_or_else(|| Error::Invalid(format!("{id} has no disk")))?;
        let space = entry.disk.space()?;
        let wanted = own(&entry.disk, &space, entry.limit);
        (entry.committed, entry.cut) = (outstanding(&entry.disk, &space), None);
        entry.trimmed = entry.held_unused(&space);
        entry.life = Life::Unseen(wanted);
        let limit = entry.limit;
        let (division, _) = self.divide(&mut entries, Some(id))?;
        let room = entries.keys().position(|other| *other == id).map_or(0, |place| division.rooms[place]);
        let Some(entry) = entries.get_mut(&id) else { return Ok(Room { limit, free: Some(0) }) };
        entry.life = Life::Unseen(room);
        entry.cut = (room < wanted).then_some(room);
        Ok(Room { limit, free: entry.cut })
    }

    /// Looks at a disk itself from now on; `dir` as in [`Disk::mounted`]. Blocking.
    pub(crate) fn attach(&self, id: BerthId, dir: Option<OwnedFd>) -> Result<()> {
        let missing = || Error::Invalid(format!("{id} has no disk"));
        let disk = self.entries().get(&id).map(|entry| entry.disk.clone()).ok_or_else(missing)?;
        let mounted = Arc::new(disk.mounted(dir)?);
        let mut entries = self.entries();
        let entry = entries.get_mut(&id).ok_or_else(missing)?;
        // A node that died may have left another limit, and any room.
        let space = mounted.space()?;
        if space.available.abs_diff(own(&disk, &space, entry.limit)) > STEP && entry.cut.is_none() {
            entry.cut = Some(space.available);
        }
        if entry.trimmed == i64::MAX {
            entry.trimmed = entry.held_unused(&space);
        }
        entry.life = Life::Mounted(mounted);
        drop(entries);
        self.changed.notify_one();
        Ok(())
    }

    pub(crate) fn is_attached(&self, id: BerthId) -> bool {
        self.entries().get(&id).is_some_and(|entry| matches!(entry.life, Life::Mounted(_)))
    }

    /// Nothing of the berth runs any more: lets go of its disk. Blocking.
    pub(crate) fn rest(&self, id: BerthId) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&id) else { return };
        let last = std::mem::replace(&mut entry.life, Life::Resting);
        let space = match &last {
            // Seen from here: what is on its way to the image is in use already.
            Life::Mounted(mounted) => mounted.space().ok(),
            _ => entry.disk.space().ok(),
        };
        entry.committed = space.map_or(0, |space| outstanding(&entry.disk, &space));
        entry.cut = None;
        entry.low.send_if_modified(|told| told.take().is_some());
        drop(entries);
        self.changed.notify_one();
    }

    /// Bytes that it occupies on the host; `None` where there is no disk. Blocking.
    pub(crate) fn occupied(&self, id: BerthId) -> Option<u64> {
        let disk = self.entries().get(&id)?.disk.clone();
        disk.occupied().ok()
    }

    /// What `df` says inside; `None` while it is not mounted. Blocking.
    pub(crate) fn usage(&self, id: BerthId) -> Option<DiskUsage> {
        let space = self.space(id)?;
        let used_bytes = space.used().saturating_sub(space.tables);
        Some(DiskUsage {
            used_bytes,
            limit_bytes: used_bytes + space.available,
            used_inodes: space.inodes.saturating_sub(space.free_inodes),
            limit_inodes: space.inodes,
        })
    }

    fn space(&self, id: BerthId) -> Option<Space> {
        self.mounted(id)?.space().ok()
    }

    fn mounted(&self, id: BerthId) -> Option<Arc<Mounted>> {
        match &self.entries().get(&id)?.life {
            Life::Mounted(mounted) => Some(Arc::clone(mounted)),
            _ => None,
        }
    }

    /// Gives what it deleted back to the host, until the berth ends. Blocking.
    pub(crate) fn trim(&self, id: BerthId) {
        self.trim_while(id, || self.is_attached(id));
    }

    fn trim_while(&self, id: BerthId, go_on: impl FnMut() -> bool) {
        let mounted = {
            let mut entries = self.entries();
            let Some(entry) = entries.get_mut(&id).filter(|entry| !entry.trimming) else { return };
            let Life::Mounted(mounted) = &entry.life else { return };
            entry.trimming = true;
            Arc::clone(mounted)
        };
        let before = mounted.space().unwrap_or_default();
        let held = self.entries().get(&id).map_or(0, |entry| entry.held_unused(&before));
        match mounted.trim(go_on) {
            Ok(bytes) => tracing::debug!(%id, bytes, "trimmed"),
            Err(error) => tracing::warn!(%id, error = chain(&error), "not trimmed"),
        }
        let space = mounted.space().unwrap_or_default();
        drop(mounted);
        if let Some(entry) = self.entries().get_mut(&id) {
            // What was deleted meanwhile may have come too late for it.
            let late = before.used().saturating_sub(space.used()).cast_signed();
            entry.trimming = false;
            entry.has_trimmed(held, entry.held_unused(&space) - late, Instant::now());
        }
        self.changed.notify_one();
    }

    /// Trims a berth that stops, where that is worth its time. Blocking.
    pub(crate) fn trim_at_stop(&self, id: BerthId) {
        let Some(space) = self.space(id) else { return };
        if self.entries().get(&id).is_some_and(|entry| entry.is_worth_a_trim(&space, TRIM.0)) {
            let end = Instant::now() + AT_STOP;
            self.trim_while(id, || Instant::now() < end);
        }
    }

    /// Looks at the host and at all that is mounted, and divides anew. Blocking, but for no tenant.
    fn look(&self) -> Result<Look> {
        let mut entries = self.entries();
        let (division, moved) = self.divide(&mut entries, None)?;
        let tight = entries.values().filter_map(|entry| entry.cut).min();
        let mut look = Look { next: None, trim: Vec::new() };
        let mut soonest = Duration::MAX;
        for (id, entry) in entries.iter_mut() {
            let Life::Mounted(mounted) = &entry.life else { continue };
            let Ok(space) = mounted.space() else { continue };
            let wait = entry.wait_for_trim(&space, if tight.is_some() { TRIM.0 } else { TRIM.1 }, Instant::now());
            if wait == Some(Duration::ZERO) {
                look.trim.push(*id);
            }
            soonest = soonest.min(wait.filter(|wait| !wait.is_zero()).unwrap_or(soonest));
            look.next = Some(match tight {
                Some(_) if moved => TIGHT.0,
                // Whoever begins to write is to get more before it is at the end.
                Some(room) if room >= LITTLE => time_for(room / 2).clamp(CALM.0, TIGHT.1),
                Some(_) => TIGHT.1,
                None => time_for(division.budget.saturating_sub(division.rooms.iter().sum())).clamp(CALM.0, CALM.1),
            });
        }
        look.next = look.next.map(|next| next.min(soonest));
        Ok(look)
    }

    /// The one place that sets rooms: first of those who lose, then of those who win. `fresh` waits for its room and has none yet. True
    /// when some berth has taken or given up room since.
    fn divide(&self, entries: &mut BTreeMap<BerthId, Entry>, fresh: Option<BerthId>) -> Result<(Division, bool)> {
        let stat = rustix::fs::statvfs(&self.dir).step("look at", self.dir.display())?;
        let free = stat.f_bavail * stat.f_frsize;
        // As df counts: what is kept from everybody is no part of it.
        let total = (stat.f_blocks - stat.f_bfree) * stat.f_frsize + free;
        let mut seen = Vec::with_capacity(entries.len());
        for (id, entry) in entries.iter_mut() {
            seen.push(entry.look(fresh == Some(*id)));
        }
        let claims: Vec<Claim> = seen.iter().map(|(claim, _)| *claim).collect();
        let division = share::divide(total, free, self.low_water, &claims);
        let mut moved = false;
        for raise in [false, true] {
            for ((entry, (claim, available)), room) in entries.values_mut().zip(&seen).zip(&division.rooms) {
                let Life::Mounted(mounted) = &entry.life else { continue };
                let mounted = Arc::clone(mounted);
                if !raise {
                    moved |= entry.seen.abs_diff(*available) > STEP;
                    entry.seen = *available;
                }
                if let Some(free) = entry.to_set(*claim, *available, *room).filter(|_| raise == (room > available)) {
                    match mounted.bind(Room { limit: entry.limit, free }) {
                        Ok(()) => {
                            entry.cut = free;
                            entry.seen = *room;
                        }
                        Err(error) => tracing::error!(disk = %entry.disk.path.display(), error = chain(&error), "its room cannot be set"),
                    }
                }
            }
        }
        for (entry, ((claim, _), room)) in entries.values_mut().zip(seen.iter().zip(&division.rooms)) {
            entry.tell(&division, total, claim.own, *room);
        }
        Ok((division, moved))
    }
}

impl Entry {
    /// What it claims, and what it could take just now.
    fn look(&mut self, fresh: bool) -> (Claim, u64) {
        let space = match &self.life {
            Life::Resting => return (Claim { committed: self.committed, ..Claim::default() }, 0),
            Life::Unseen(room) => return (Claim { own: *room, committed: self.committed, fixed: !fresh }, *room),
            Life::Mounted(mounted) => mounted.space(),
        };
        match space {
            Ok(space) => {
                self.committed = outstanding(&self.disk, &space);
                (Claim { own: own(&self.disk, &space, self.limit), committed: self.committed, fixed: false }, space.available)
            }
            Err(error) => {
                tracing::error!(disk = %self.disk.path.display(), error = chain(&error), "cannot be looked at");
                (Claim { own: self.cut.unwrap_or(self.limit.bytes), committed: self.committed, fixed: true }, 0)
            }
        }
    }

    fn held_unused(&self, space: &Space) -> i64 {
        self.disk.occupied().unwrap_or(0).cast_signed() - space.used().cast_signed()
    }

    /// Whether it has deleted so much since its last trim, or in this run.
    fn is_worth_a_trim(&self, space: &Space, worth: u64) -> bool {
        let deleted = self.held_unused(space).saturating_sub(self.trimmed);
        matches!(self.disk.backend, Backend::Loop) && !self.trimming && deleted >= worth.cast_signed()
    }

    /// How long a trim that is worth it has to wait yet; `None` where none is.
    fn wait_for_trim(&mut self, space: &Space, worth: u64, now: Instant) -> Option<Duration> {
        if !self.is_worth_a_trim(space, worth) {
            self.due = None;
            return None;
        }
        Some(self.due.get_or_insert(now + self.pause).saturating_duration_since(now))
    }

    /// `before` and `after` as in [`Entry::held_unused`]. One that gave back less than half is tried again, later each time: the journal was
    /// not committed yet, or the host's file system takes nothing back.
    fn has_trimmed(&mut self, before: i64, after: i64, now: Instant) {
        let deleted = before.saturating_sub(self.trimmed);
        if deleted > 0 && before - after < deleted / 2 {
            self.pause = (self.pause * 2).min(LONGEST);
            self.due = Some(now + self.pause);
        } else {
            (self.trimmed, self.due, self.pause) = (after, None, COMMIT);
        }
    }

    /// The room to set, where it is another than what holds: `Some(None)` for what the limit leaves.
    fn to_set(&self, claim: Claim, available: u64, room: u64) -> Option<Option<u64>> {
        if room >= claim.own {
            return self.cut.map(|_| None);
        }
        let lower = available > room.saturating_add(STEP);
        let raise = room > available.saturating_add(STEP.max(room / 16));
        (self.cut.is_none() || lower || raise).then_some(Some(room))
    }

    /// Says why there is less than the limit leaves, once that matters: below the mark, or when little is left; and no more once it is well
    /// over that.
    fn tell(&mut self, division: &Division, total: u64, own: u64, room: u64) {
        let said = self.low.borrow().is_some();
        let (mark, little) = if said { (division.mark / 4 * 5, self.limit.bytes / 8) } else { (division.mark, self.limit.bytes / 16) };
        let low = self.cut.is_some() && (division.free < mark || room < little);
        if low == said {
            return;
        }
        let text = low.then(|| {
            format!(
                "{} are free of the {} that hold the berths' disks (mark: {}), what berths have yet to write not counted: so that it never \
                 fills, this berth may write {} more just now, of {} that its limit leaves. What is freed on the host, pruned or deleted \
                 in berths, is given out again by itself",
                shown(division.free),
                shown(total),
                shown(division.mark),
                shown(room),
                shown(own)
            )
        });
        self.low.send_replace(text);
    }
}

/// What the limit leaves. A directory shows the limit that is set, which may be lower.
fn own(disk: &Disk, space: &Space, limit: Limit) -> u64 {
    match disk.backend {
        Backend::Loop => space.left(limit),
        Backend::Directory { project: Some(_) } => limit.bytes.saturating_sub(space.used()),
        Backend::Directory { project: None } => 0,
    }
}

/// What is in use inside and has no block on the host. A directory takes its blocks at once.
fn outstanding(disk: &Disk, space: &Space) -> u64 {
    match disk.backend {
        Backend::Loop => space.used().saturating_sub(disk.occupied().unwrap_or(0)),
        Backend::Directory { .. } => 0,
    }
}

fn time_for(bytes: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / RATE)
}

fn shown(bytes: u64) -> String {
    let mib = bytes as f64 / MIB as f64;
    if mib < 1024.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}
