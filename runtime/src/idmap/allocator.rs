//! Who has which ids. One JSON file, replaced atomically; a range is durable before it is handed out.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{COUNT, living, share::GiveBack};
use crate::{
    durable::replace_file,
    error::{Error, Result, Step},
    fault,
};

/// One range that is not free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub base: u32,
    /// Who has it, or had it last.
    pub owner: String,
    /// Milliseconds since the epoch until which nobody else may have it; `None` while it is in use.
    pub quarantined_until: Option<i64>,
    /// What of it is still to be given back; until then nobody else may have it, however long ago that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub give_back: Option<GiveBack>,
}

/// The ranges of one node.
#[derive(Debug)]
pub struct Allocator {
    file: PathBuf,
    first: u32,
    last: u32,
    ranges: BTreeMap<u32, Range>,
    /// Host files that name ids of others.
    foreign: Vec<PathBuf>,
    /// Finds what runs with ids of the pool, see [`living`].
    living: fn(u32, u32) -> Result<BTreeMap<u32, u32>>,
}

/// Why a range is not free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    InUse,
    /// Until then, milliseconds since the epoch.
    Quarantined(i64),
    /// Its quarantine is over, and files in its last user's directories have its ids.
    Files(GiveBack),
    /// Its quarantine is over, and this process has its ids.
    Process(u32),
}

impl Allocator {
    /// Reads `file` (absent: nothing is allocated). Ranges come from `first..=last`.
    ///
    /// Errors: an unreadable file is never taken for an empty one.
    pub fn open(file: &Path, first: u32, last: u32) -> Result<Self> {
        if first == 0 || last < first || last - first < COUNT - 1 {
            return Err(Error::Invalid(format!("id pool {first}–{last} holds no range of {COUNT}; widen [ids] in node.toml")));
        }
        let ranges: Vec<Range> = match fs::read(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).step("read", file.display()),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| Error::Record { path: file.to_path_buf(), source })?,
        };
        let foreign = ["/etc/subuid", "/etc/subgid", "/etc/passwd", "/etc/group"].map(PathBuf::from).to_vec();
        Ok(Self { file: file.to_path_buf(), first, last, ranges: ranges.into_iter().map(|r| (r.base, r)).collect(), foreign, living })
    }

    /// A range for `owner`: the one he has, else the one he had while its quarantine runs, else the lowest that nobody has, had lately,
    /// or is named for in `/etc/subuid`, `/etc/subgid`, `/etc/passwd`, `/etc/group`, and whose ids no process has.
    pub fn allocate(&mut self, owner: &str, now_ms: i64) -> Result<u32> {
        let own = self.ranges.values().find(|r| r.owner == owner).map(|r| r.base);
        let base = match own {
            Some(base) if self.ranges[&base].quarantined_until.is_none() => return Ok(base),
            Some(base) => base,
            None => self.free(now_ms)?,
        };
        fault::point("allocate ids")?;
        let before = self.ranges.insert(base, Range { base, owner: owner.to_owned(), quarantined_until: None, give_back: None });
        self.save().inspect_err(|_| {
            match before {
                Some(range) => self.ranges.insert(base, range),
                None => self.ranges.remove(&base),
            };
        })?;
        Ok(base)
    }

    /// Puts the range of `owner` into quarantine, with what is to be given back of it; without one: success.
    pub fn release(&mut self, owner: &str, now_ms: i64, quarantine_ms: i64, give_back: Option<GiveBack>) -> Result<()> {
        let Some(range) = self.ranges.values_mut().find(|r| r.owner == owner && r.quarantined_until.is_none()) else { return Ok(()) };
        fault::point("release ids")?;
        range.quarantined_until = Some(now_ms.saturating_add(quarantine_ms));
        range.give_back = give_back;
        self.save()
    }

    /// What is still to be given back.
    pub fn to_give_back(&self) -> Vec<GiveBack> {
        self.ranges.values().filter(|r| r.quarantined_until.is_some()).filter_map(|r| r.give_back.clone()).collect()
    }

    /// It was given back.
    pub fn given_back(&mut self, done: &GiveBack) -> Result<()> {
        let Some(range) = self.ranges.get_mut(&done.id_base).filter(|r| r.give_back.as_ref() == Some(done)) else { return Ok(()) };
        range.give_back = None;
        self.save()
    }

    /// Ends the quarantine of one range, or of all (an administrator's word); what is held for another reason stays so. Returns how many.
    pub fn purge(&mut self, base: Option<u32>, now_ms: i64) -> Result<usize> {
        let wanted = |r: &&mut Range| base.is_none_or(|base| r.base == base) && r.quarantined_until.is_some_and(|until| until > now_ms);
        let purged = self.ranges.values_mut().filter(wanted).map(|range| range.quarantined_until = Some(now_ms)).count();
        if purged > 0 {
            self.save()?;
        }
        Ok(purged)
    }

    /// Why each range is not free that is not; the rest of the pool is, but for what [`Allocator::allocate`] finds others named for.
    pub fn held(&self, now_ms: i64) -> Result<Vec<(&Range, Held)>> {
        let living = (self.living)(self.first, self.last)?;
        Ok(self.ranges.values().filter_map(|range| Some((range, why(range, &living, now_ms)?))).collect())
    }

    /// All ranges that are in use, were, or are held.
    pub fn ranges(&self) -> impl Iterator<Item = &Range> {
        self.ranges.values()
    }

    /// First and last id of the pool.
    pub fn span(&self) -> (u32, u32) {
        (self.first, self.last)
    }

    /// Ranges that the pool can hold.
    pub fn capacity(&self) -> u32 {
        (self.last - self.first + 1) / COUNT
    }

    fn free(&self, now_ms: i64) -> Result<u32> {
        let taken = self.foreign_ids()?;
        let living = (self.living)(self.first, self.last)?;
        let (mut in_use, mut quarantined, mut kept, mut others) = (0, 0, 0, 0);
        let mut base = self.first;
        while base <= self.last - (COUNT - 1) {
            let held = match self.ranges.get(&base) {
                Some(range) => why(range, &living, now_ms),
                None => living.get(&base).map(|pid| Held::Process(*pid)),
            };
            let end = u64::from(base) + u64::from(COUNT);
            let foreign = taken.iter().any(|&(start, count)| start < end && u64::from(base) < start + count);
            match held {
                None if !foreign => return Ok(base),
                None => others += 1,
                Some(Held::InUse) => in_use += 1,
                Some(Held::Quarantined(_)) => quarantined += 1,
                Some(Held::Files(_) | Held::Process(_)) => kept += 1,
            }
            base = match base.checked_add(COUNT) {
                Some(next) => next,
                None => break,
            };
        }
        Err(Error::NoRange { capacity: self.capacity(), in_use, quarantined, held: kept, foreign: others })
    }

    /// Start and length of every id span that somebody else is named for.
    fn foreign_ids(&self) -> Result<Vec<(u64, u64)>> {
        let mut spans = Vec::new();
        for file in &self.foreign {
            let text = match fs::read(file) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                text => text.step("read", file.display())?,
            };
            let subordinate = file.file_name().is_some_and(|n| n.to_string_lossy().starts_with("sub"));
            for line in String::from_utf8_lossy(&text).lines() {
                let fields: Vec<&str> = line.split(':').collect();
                match subordinate {
                    true => spans.extend(number(&fields, 1).zip(number(&fields, 2))),
                    false => spans.extend(number(&fields, 2).map(|id| (id, 1)).into_iter().chain(number(&fields, 3).map(|id| (id, 1)))),
                }
            }
        }
        Ok(spans)
    }

    fn save(&self) -> Result<()> {
        let ranges: Vec<&Range> = self.ranges.values().collect();
        let text = serde_json::to_vec_pretty(&ranges).map_err(|source| Error::Record { path: self.file.clone(), source })?;
        replace_file(&self.file, &text)
    }
}

fn why(range: &Range, living: &BTreeMap<u32, u32>, now_ms: i64) -> Option<Held> {
    match (range.quarantined_until, &range.give_back) {
        (None, _) => Some(Held::InUse),
        (Some(until), _) if until > now_ms => Some(Held::Quarantined(until)),
        (_, Some(files)) => Some(Held::Files(files.clone())),
        _ => living.get(&range.base).map(|pid| Held::Process(*pid)),
    }
}

fn number(fields: &[&str], index: usize) -> Option<u64> {
    fields.get(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocator(dir: &Path) -> Allocator {
        let mut allocator = Allocator::open(&dir.join("ids.json"), 1_000_000, 1_000_000 + 4 * COUNT - 1).unwrap();
        allocator.foreign = vec![dir.join("subuid"), dir.join("passwd")];
        allocator.living = |_, _| Ok(BTreeMap::new());
        allocator
    }

    #[test]
    fn i02_ranges_never_overlap_each_other_or_foreign_ids() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("subuid"), format!("bob:{}:1\n", 1_000_000 + COUNT)).unwrap();
        fs::write(dir.path().join("passwd"), format!("eve:x:{}:9::/:/bin/sh\n", 1_000_000 + 3 * COUNT - 1)).unwrap();
        let mut ids = allocator(dir.path());
        assert_eq!(ids.allocate("a", 0).unwrap(), 1_000_000);
        assert_eq!(ids.allocate("a", 0).unwrap(), 1_000_000);
        assert_eq!(ids.allocate("b", 0).unwrap(), 1_000_000 + 3 * COUNT);
        let refused = ids.allocate("c", 0).unwrap_err().to_string();
        assert!(refused.contains("of 4, 2 are in use, 0 in quarantine") && refused.contains("2 named for somebody else"), "{refused}");
    }

    #[test]
    fn i07_a_released_range_waits_out_its_quarantine_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let mut ids = allocator(dir.path());
        let base = ids.allocate("a", 0).unwrap();
        ids.release("a", 1000, 500, None).unwrap();
        let mut ids = allocator(dir.path());
        assert_ne!(ids.allocate("b", 1499).unwrap(), base);
        assert_eq!(ids.allocate("c", 1501).unwrap(), base);
    }

    #[test]
    fn i07_a_range_whose_files_are_not_given_back_stays_in_quarantine() {
        let dir = tempfile::tempdir().unwrap();
        let mut ids = allocator(dir.path());
        let base = ids.allocate("a", 0).unwrap();
        let give_back = GiveBack { uid: 7, gid: 7, id_base: base, directories: vec![("/home/a".into(), true)] };
        ids.release("a", 1000, 500, Some(give_back.clone())).unwrap();
        let mut ids = allocator(dir.path());
        assert_eq!(ids.to_give_back(), std::slice::from_ref(&give_back));
        assert_ne!(ids.allocate("b", 9000).unwrap(), base);
        ids.given_back(&give_back).unwrap();
        let mut ids = allocator(dir.path());
        assert_eq!(ids.to_give_back(), []);
        assert_eq!(ids.allocate("c", 9000).unwrap(), base);
    }

    #[test]
    fn i07_a_range_whose_ids_a_process_has_is_not_handed_out_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut ids = allocator(dir.path());
        let base = ids.allocate("a", 0).unwrap();
        ids.release("a", 1000, 500, None).unwrap();
        ids.living = |_, _| Ok(BTreeMap::from([(1_000_000, 77), (1_000_000 + COUNT, 78)]));
        assert_eq!(ids.held(9000).unwrap().first().map(|(_, held)| held.clone()), Some(Held::Process(77)));
        assert_eq!(ids.allocate("b", 9000).unwrap(), base + 2 * COUNT, "nor is one that nobody had before");
        assert_eq!(ids.allocate("c", 9000).unwrap(), base + 3 * COUNT);
        let refused = ids.allocate("d", 9000).unwrap_err();
        assert!(matches!(refused, Error::NoRange { capacity: 4, in_use: 2, quarantined: 0, held: 2, foreign: 0 }), "{refused}");
        ids.living = |_, _| Ok(BTreeMap::new());
        assert_eq!(ids.allocate("d", 9000).unwrap(), base);
    }

    #[test]
    fn i07_a_purge_ends_quarantines_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut ids = allocator(dir.path());
        let (first, second, third) = (ids.allocate("a", 0).unwrap(), ids.allocate("b", 0).unwrap(), ids.allocate("c", 0).unwrap());
        let give_back = GiveBack { uid: 7, gid: 7, id_base: first, directories: vec![("/home/a".into(), true)] };
        ids.release("a", 0, 50_000, Some(give_back)).unwrap();
        ids.release("b", 0, 50_000, None).unwrap();
        assert_eq!(ids.purge(Some(third), 10).unwrap(), 0, "it is in use");
        assert_eq!(ids.purge(None, 10).unwrap(), 2);
        let mut ids = allocator(dir.path());
        assert_eq!(ids.allocate("d", 10).unwrap(), second, "files of the first are still to be given back");
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_an_empty_pool() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ids.json"), "[{").unwrap();
        assert!(matches!(Allocator::open(&dir.path().join("ids.json"), 1, COUNT), Err(Error::Record { .. })));
    }
}
