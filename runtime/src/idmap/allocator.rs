//! Who has which ids. One JSON file, replaced atomically; a range is durable before it is handed out.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{COUNT, share::GiveBack};
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
        Ok(Self { file: file.to_path_buf(), first, last, ranges: ranges.into_iter().map(|r| (r.base, r)).collect(), foreign })
    }

    /// A range for `owner`: the one he has, else the one he had while its quarantine runs, else the lowest that nobody has, had lately,
    /// or is named for in `/etc/subuid`, `/etc/subgid`, `/etc/passwd`, `/etc/group`.
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

    /// All ranges that are not free.
    pub fn ranges(&self) -> impl Iterator<Item = &Range> {
        self.ranges.values()
    }

    /// Ranges that the pool can hold.
    pub fn capacity(&self) -> u32 {
        (self.last - self.first + 1) / COUNT
    }

    fn free(&self, now_ms: i64) -> Result<u32> {
        let taken = self.foreign_ids()?;
        let mut base = self.first;
        while base <= self.last - (COUNT - 1) {
            let waits = |r: &Range| r.give_back.is_some() || r.quarantined_until.is_none_or(|until| until > now_ms);
            let held = self.ranges.get(&base).is_some_and(waits);
            let end = u64::from(base) + u64::from(COUNT);
            let foreign = taken.iter().any(|&(start, count)| start < end && u64::from(base) < start + count);
            if !held && !foreign {
                return Ok(base);
            }
            base = match base.checked_add(COUNT) {
                Some(next) => next,
                None => break,
            };
        }
        let quarantined = self.ranges.values().filter(|r| r.quarantined_until.is_some()).count();
        Err(Error::Invalid(format!(
            "no free id range: {} of {} are in use, {quarantined} in quarantine; widen [ids] in node.toml or shorten quarantine_days",
            self.ranges.len() - quarantined,
            self.capacity(),
        )))
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

fn number(fields: &[&str], index: usize) -> Option<u64> {
    fields.get(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocator(dir: &Path) -> Allocator {
        let mut allocator = Allocator::open(&dir.join("ids.json"), 1_000_000, 1_000_000 + 4 * COUNT - 1).unwrap();
        allocator.foreign = vec![dir.join("subuid"), dir.join("passwd")];
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
        assert!(refused.contains("2 of 4 are in use"), "{refused}");
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
    fn a_damaged_file_is_an_error_and_not_an_empty_pool() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ids.json"), "[{").unwrap();
        assert!(matches!(Allocator::open(&dir.path().join("ids.json"), 1, COUNT), Err(Error::Record { .. })));
    }
}
