//! The durable record of each berth: `state_dir/node/berths/<id>.json`, replaced atomically.
//!
//! A record is the first thing that a create makes and the last that a delete removes, so whatever exists on the host has one:
//! `creating` when the daemon starts means "undo", `deleting` means "go on". A file that cannot be read as a record is left where it is,
//! reported, and what can still be made out in it (user, uid, index) stays reserved.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    net::Ipv4Addr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use berth_protocol::{BerthId, Limits, Policy, Rebuild, Sleep};
use berth_runtime::{
    Error,
    disk::Backend,
    error::{Result, Step},
    fault,
    net::source_ports::Block,
};
use serde::{Deserialize, Serialize};

use super::share::NotShared;

/// Version of the file format.
pub(crate) const VERSION: u32 = 1;

/// Whose berth the doctor's throw-away one is: no account can have this name ([`super::nss::valid_name`]).
pub(crate) const DOCTOR: &str = "@doctor";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) id: BerthId,
    pub(crate) user: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: PathBuf,
    pub(crate) image: String,
    pub(crate) limits: Limits,
    /// Size of the disk: less than `limits.disk_bytes` while growing waits for a start, more once that was lowered.
    pub(crate) disk_bytes: u64,
    /// Inodes that the disk was made with, where a number was wanted.
    #[serde(default)]
    pub(crate) disk_inodes: Option<u64>,
    /// How the disk is kept, for good.
    #[serde(default)]
    pub(crate) disk_backend: Backend,
    /// First host id of the range; 0 while creating.
    pub(crate) id_base: u32,
    /// Which address of the pool, and which link name.
    pub(crate) index: u32,
    pub(crate) link: String,
    pub(crate) address: Ipv4Addr,
    /// First and last of the ports that it leaves the host by.
    #[serde(default)]
    pub(crate) source_ports: Option<(u16, u16)>,
    pub(crate) allow_system: bool,
    pub(crate) phase: Phase,
    pub(crate) intent: Intent,
    pub(crate) last_exit: Option<LastExit>,
    #[serde(default)]
    pub(crate) policy: Policy,
    /// What `policy` was when the present run began.
    #[serde(default)]
    pub(crate) started: Option<Policy>,
    /// Why an administrator barred it; `intent` stays what it was, and is taken up again afterwards.
    #[serde(default)]
    pub(crate) suspended: Option<String>,
    /// When and why it was stopped for being idle; gone at the next start.
    #[serde(default)]
    pub(crate) sleep: Option<Sleep>,
    /// Directories of the host that its current or last run does not have, and why.
    #[serde(default)]
    pub(crate) not_shared: Vec<NotShared>,
    /// Directories in which its ids may own files, and whether that is the home: to be given back at delete.
    #[serde(default)]
    pub(crate) writable: Vec<(PathBuf, bool)>,
    /// A fresh root file system that was begun with: no run begins before it is done.
    #[serde(default)]
    pub(crate) rebuild: Option<Rebuild>,
    /// The wish for one that was last carried out, by its time.
    #[serde(default)]
    pub(crate) rebuilt: Option<i64>,
    /// Milliseconds since the epoch.
    pub(crate) created_at: i64,
}

impl Record {
    /// Nobody's: it is taken away by whatever node finds it.
    pub(crate) fn throw_away(&self) -> bool {
        self.user == DOCTOR
    }

    /// The same once what was begun to be rebuilt is.
    pub(crate) fn rebuilt(&self) -> Self {
        let at = self.rebuild.map(|rebuild| rebuild.at);
        Self { rebuild: None, rebuilt: at.max(self.rebuilt), ..self.clone() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    Creating,
    Present,
    Deleting,
}

/// What becomes of the berth when the node starts and finds it not running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Intent {
    /// It was started (by an administrator or by a connection) and nobody stopped it: it is started again.
    Running,
    /// It sleeps until a connection comes.
    Stopped,
}

/// How the last run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastExit {
    /// Milliseconds since the epoch.
    pub(crate) at: i64,
    pub(crate) status: String,
}

/// A file among the records that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Corrupt {
    pub(crate) file: PathBuf,
    /// From the file's name.
    pub(crate) id: Option<BerthId>,
    /// What can still be made out.
    pub(crate) user: Option<String>,
    pub(crate) uid: Option<u32>,
    pub(crate) index: Option<u32>,
    pub(crate) source_ports: Option<Block>,
    pub(crate) image: Option<String>,
    pub(crate) reason: String,
}

/// The directory of records.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    dir: PathBuf,
    /// Room that is taken while there is some, for the records of deletes: these give room back, and must not fail for want of it.
    reserve: PathBuf,
}

/// Enough for the record of a delete, and for the file of ranges after it.
const RESERVE: usize = 128 * 1024;

impl Records {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { reserve: dir.with_file_name("reserve"), dir }
    }

    /// Takes the room for deletes, where it is not taken; a file system without any has to do without.
    pub(crate) fn keep_reserve(&self) {
        if fs::metadata(&self.reserve).is_ok_and(|m| m.len() >= RESERVE as u64) {
            return;
        }
        // No zeros: some file systems keep none of those.
        if let Err(error) = write_and_sync(&self.reserve, &[0xB5; RESERVE]) {
            tracing::warn!(%error, file = %self.reserve.display(), "no room is kept for deletes");
            let _ = fs::remove_file(&self.reserve);
        }
    }

    fn file(&self, id: BerthId) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    /// All records, and all files that should be one and are not. Half-written temporary files are removed.
    pub(crate) fn load(&self) -> Result<(Vec<Record>, Vec<Corrupt>)> {
        let (mut records, mut corrupt) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.dir).step("list", self.dir.display())? {
            let file = entry.step("list", self.dir.display())?.path();
            match file.extension().and_then(|e| e.to_str()) {
                Some("json") => match read(&file) {
                    Ok(record) => records.push(record),
                    Err(found) => corrupt.push(*found),
                },
                Some("new") => fs::remove_file(&file).step("remove", file.display())?,
                _ => {}
            }
        }
        records.sort_by_key(|r| r.index);
        Ok((records, corrupt))
    }

    /// The old record or the new one, never half.
    pub(crate) fn save(&self, record: &Record) -> Result<()> {
        fault::point("write record")?;
        let file = self.file(record.id);
        let temporary = file.with_extension("new");
        let bytes = serde_json::to_vec_pretty(record).map_err(|source| Error::Record { path: file.clone(), source })?;
        let mut written = write_and_sync(&temporary, &bytes);
        if record.phase == Phase::Deleting && written.as_ref().is_err_and(|e| e.kind() == ErrorKind::StorageFull) {
            written = fs::remove_file(&self.reserve).and_then(|()| write_and_sync(&temporary, &bytes));
        }
        let written = written.step("write", temporary.display());
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        fs::rename(&temporary, &file).step("replace", file.display())?;
        sync_dir(&self.dir)
    }

    /// Gone already is success.
    pub(crate) fn remove(&self, id: BerthId) -> Result<()> {
        fault::point("remove record")?;
        let file = self.file(id);
        match fs::remove_file(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done.step("remove", file.display()),
        }?;
        sync_dir(&self.dir)
    }
}

fn write_and_sync(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    out.write_all(bytes)?;
    out.sync_all()
}

/// Makes a rename or removal in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).step("sync", dir.display())
}

fn read(file: &Path) -> std::result::Result<Record, Box<Corrupt>> {
    let name = file.file_stem().and_then(|n| n.to_str()).unwrap_or_default();
    let id = name.parse().ok().map(BerthId).filter(|id| id.to_string() == name);
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            let reason = format!("cannot be read: {error}");
            return Err(Box::new(Corrupt {
                file: file.into(),
                id,
                user: None,
                uid: None,
                index: None,
                source_ports: None,
                image: None,
                reason,
            }));
        }
    };
    parse(&bytes, id).map_err(|reason| {
        let text = String::from_utf8_lossy(&bytes);
        let number = |key| salvage(&text, key).and_then(|n| n.parse().ok());
        let user = salvage(&text, "user").filter(|u| known_name(u)).map(str::to_owned);
        let image = salvage(&text, "image").map(str::to_owned);
        let (uid, index, source_ports) = (number("uid"), number("index"), salvage_ports(&text));
        Box::new(Corrupt { file: file.into(), id, user, uid, index, source_ports, image, reason })
    })
}

fn parse(bytes: &[u8], id: Option<BerthId>) -> std::result::Result<Record, String> {
    let record: Record = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if record.version > VERSION {
        return Err(format!("format {} is newer than this program's {VERSION}", record.version));
    }
    if Some(record.id) != id {
        return Err(format!("it is the record of {}, under another's name", record.id));
    }
    if !known_name(&record.user) || record.uid == 0 {
        return Err(format!("its user {:?} with uid {} cannot have a berth", record.user, record.uid));
    }
    if record.phase != Phase::Creating && record.id_base < berth_runtime::idmap::COUNT {
        return Err(format!("its id range begins at {}", record.id_base));
    }
    Ok(record)
}

fn known_name(user: &str) -> bool {
    super::nss::valid_name(user) || user == DOCTOR
}

/// The value after `"key":` in what may be only part of a JSON text, quotes taken off.
fn salvage<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("\"{key}\":"))?;
    let rest = rest.trim_start();
    match rest.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').map(|(value, _)| value),
        None => rest.split(|c: char| !c.is_ascii_digit()).next().filter(|n| !n.is_empty()),
    }
}

/// The two numbers after `"source_ports":`, both whole and followed by the end of the list.
fn salvage_ports(text: &str) -> Option<Block> {
    let (_, rest) = text.split_once("\"source_ports\":")?;
    let (list, _) = rest.trim_start().strip_prefix('[')?.split_once(']')?;
    let (first, last) = list.split_once(',')?;
    format!("{}-{}", first.trim(), last.trim()).parse().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(user: &str, uid: u32, index: u32) -> Record {
        Record {
            version: VERSION,
            id: BerthId(uuid::Uuid::from_u128(u128::from(index) + 1)),
            user: user.into(),
            uid,
            gid: uid,
            home: format!("/home/{user}").into(),
            image: format!("sha256:{:064}", 1),
            limits: Limits::LEAST,
            disk_bytes: Limits::LEAST.disk_bytes,
            disk_inodes: None,
            disk_backend: Backend::Loop,
            id_base: 2_000_224_256,
            index,
            link: format!("bt{index}"),
            address: Ipv4Addr::new(10, 213, 0, 2),
            source_ports: Some((32_640, 32_767)),
            allow_system: false,
            phase: Phase::Present,
            intent: Intent::Stopped,
            last_exit: None,
            policy: Policy::default(),
            started: None,
            suspended: None,
            sleep: None,
            not_shared: Vec::new(),
            writable: Vec::new(),
            rebuild: None,
            rebuilt: None,
            created_at: 0,
        }
    }

    #[test]
    fn a_record_survives_the_round_trip_and_a_half_written_one_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().into());
        let mut alice = record("alice", 1000, 0);
        records.save(&alice).unwrap();
        alice.phase = Phase::Deleting;
        records.save(&alice).unwrap();
        fs::write(dir.path().join("x.new"), "{").unwrap();
        assert_eq!(records.load().unwrap(), (vec![alice.clone()], vec![]));
        records.remove(alice.id).unwrap();
        records.remove(alice.id).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_cut_record_still_names_its_user_and_is_not_fatal_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().into());
        let (alice, bob) = (record("alice", 1000, 0), record("bob", 1001, 1));
        records.save(&alice).unwrap();
        records.save(&bob).unwrap();
        let file = dir.path().join(format!("{}.json", bob.id));
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, &text[..text.find("\"allow_system\"").unwrap()]).unwrap();
        let (whole, corrupt) = records.load().unwrap();
        assert_eq!(whole, [alice]);
        assert_eq!(
            (corrupt[0].id, corrupt[0].user.as_deref(), corrupt[0].uid, corrupt[0].index),
            (Some(bob.id), Some("bob"), Some(1001), Some(1))
        );
        assert_eq!(corrupt[0].source_ports, Some(Block(32_640, 32_767)));
    }

    #[test]
    fn a_record_under_anothers_name_or_of_root_is_corrupt() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path().into());
        records.save(&record("alice", 1000, 0)).unwrap();
        let from = dir.path().join(format!("{}.json", record("alice", 1000, 0).id));
        fs::rename(from, dir.path().join(format!("{}.json", record("bob", 1, 7).id))).unwrap();
        records.save(&record("root", 0, 2)).unwrap();
        let (whole, corrupt) = records.load().unwrap();
        assert_eq!((whole.len(), corrupt.len()), (0, 2));
    }
}
