//! Directories of the host for a berth: opened with the user's own rights, id-mapped, handed over as detached mounts; and given back
//! to him when the berth is gone.
//!
//! Both run as `berth-shim share` and `berth-shim give-back`: freshly executed single-threaded root processes. What the user can name he
//! opens himself, in a child with his own ids and groups and no capability, so that root follows no path of his; what root gets is a
//! descriptor, and whatever it leads to is cloned without what is mounted below, id-mapped and stripped of setuid and devices before
//! any berth sees it.
//!
//! Files whose owner or group is not mapped, those of other users among them, can be read as far as the user may, and never written: the
//! kernel refuses that through an id-mapped mount (`HAS_UNMAPPED_ID` in fs/namei.c). So a directory of somebody else's in which a group
//! writes is for reading inside.
//!
//! The rights inside are the user's, as owner, as member of his groups, and as one of the others; a mode that gives members of a group
//! *less* than others is the one thing that does not hold, because root inside may leave groups.

mod give_back;
mod open;
mod rules;

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    time::{Duration, Instant},
};

use berth_sys::process::exit_now;
use nix::sys::{prctl, signal::Signal};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{AtFlags, FileType, StatxFlags, statx},
    mount::{OpenTreeFlags, open_tree},
};
use serde::{Deserialize, Serialize};

pub use give_back::{GivenBack, give_back};
pub use rules::refusal;

use crate::{
    error::{Error, Result, Step, chain},
    idmap::{
        self,
        share::{Account, As},
    },
    packet::{receive, send},
};

/// For opening all of them.
pub const DEADLINE: Duration = Duration::from_millis(3500);
/// Directories of one berth, the home included.
pub const MOST_SHARES: usize = 16;

/// The request: one packet on descriptor 0.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups of the user.
    pub groups: Vec<u32>,
    /// First id of the berth's range.
    pub id_base: u32,
    pub wanted: Vec<Wanted>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    pub path: PathBuf,
    pub read_only: bool,
    /// The user's home: symbolic links in its path are followed, and it must belong to him.
    pub home: bool,
}

/// The answer: one packet, an outcome for each wanted directory, in order; and with each that is mounted
/// [`MOUNTS_OF_A_SHARE`](crate::container::MOUNTS_OF_A_SHARE) descriptors of detached mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Mounted,
    /// A sentence.
    Refused {
        reason: String,
    },
}

/// Entry of `berth-shim share`. Does not return.
pub fn share() -> ! {
    let status = match serve() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("berth-shim share: {}", chain(&error));
            1
        }
    };
    exit_now(status)
}

fn serve() -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).step("follow", "the node's death")?;
    let socket = berth_sys::descriptor::inherited(0).step("take", "descriptor 0")?;
    let (request, _): (Request, _) = receive(socket.as_fd())?;
    let mut outcomes = Vec::new();
    let mut mounts = Vec::new();
    for made in all(&request)? {
        outcomes.push(match made {
            Ok(made) => {
                mounts.extend(made);
                Outcome::Mounted
            }
            Err(reason) => Outcome::Refused { reason },
        });
    }
    let mounts: Vec<BorrowedFd<'_>> = mounts.iter().map(AsFd::as_fd).collect();
    send(socket.as_fd(), &outcomes, &mounts)
}

type Made = std::result::Result<Vec<OwnedFd>, String>;

fn all(request: &Request) -> Result<Vec<Made>> {
    if request.wanted.len() > MOST_SHARES {
        return Err(Error::Invalid(format!("{} directories, the limit is {MOST_SHARES}", request.wanted.len())));
    }
    let end = Instant::now() + DEADLINE;
    let account = Account::new(request.uid, request.gid, &request.groups, request.id_base);
    for id in [request.uid, request.gid] {
        if idmap::share::in_range(id, request.id_base) {
            return Err(Error::Invalid(format!("{id} is an id of the account and of its berth")));
        }
    }
    // All at once: they hang together, not one after the other.
    let mut openers = Vec::new();
    for wanted in &request.wanted {
        openers.push(match refusal(&wanted.path) {
            Some(reason) => Err(reason),
            None => open::start(request, wanted).map_err(|e| chain(&e)),
        });
    }
    let maps = [As::Root, As::Own, As::OwnInRootsGroup].map(|role| idmap::namespace_of(&account, request.id_base, role));
    let [root, own, roots_group] = maps;
    let maps = [root?, own?, roots_group?];
    let finished = request.wanted.iter().zip(openers).map(|(wanted, opener)| {
        let directory = opener.and_then(|opener| opener.wait(end))?;
        mount(&directory, wanted, request.uid, &maps)
    });
    Ok(finished.collect())
}

/// The detached mounts of an opened directory. What is asked of the file system here it must know without its server.
fn mount(directory: &OwnedFd, wanted: &Wanted, uid: u32, maps: &[OwnedFd; 3]) -> Made {
    let clones: Result<Vec<OwnedFd>> = maps
        .iter()
        .map(|_| {
            // Not recursive: what else is mounted below stays outside.
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
            open_tree(directory, "", flags).step("clone the mount of", wanted.path.display())
        })
        .collect();
    let clones = clones.map_err(|e| chain(&e))?;
    for clone in &clones {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let stat = statx(clone, "", flags, StatxFlags::TYPE | StatxFlags::UID).map_err(|e| format!("it cannot be looked at: {e}"))?;
        if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::Directory {
            return Err("it is no directory".into());
        }
        if wanted.home && stat.stx_uid != uid {
            return Err(format!("it belongs to uid {}, not to the user", stat.stx_uid));
        }
    }
    use berth_sys::mount::{NODEV, NOSUID, RDONLY, set_attributes};
    let flags = NOSUID | NODEV | if wanted.read_only { RDONLY } else { 0 };
    for (clone, map) in clones.iter().zip(maps) {
        set_attributes(clone.as_fd(), flags, Some(map.as_fd())).map_err(|error| {
            let kind = file_system(directory).unwrap_or_else(|| "unknown".into());
            match error.raw_os_error() {
                Some(nix::libc::EINVAL) => format!("its file system ({kind}) has no id-mapped mounts"),
                _ => format!("its file system ({kind}) cannot be id-mapped: {error}"),
            }
        })?;
    }
    Ok(clones)
}

/// Type of the file system below a descriptor, from the mount table: asking the file system itself could take for ever.
fn file_system(directory: &OwnedFd) -> Option<String> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let id = statx(directory, "", flags, StatxFlags::MNT_ID).ok()?.stx_mnt_id.to_string();
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = table.lines().find(|line| line.split(' ').next() == Some(&id))?;
    line.split_once(" - ")?.1.split(' ').next().map(str::to_owned)
}

/// True when `socket` has something to read before `end`.
fn readable_by(socket: BorrowedFd<'_>, end: Instant) -> bool {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::from_borrowed_fd(socket, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            done => return done.is_ok_and(|n| n > 0),
        }
    }
}
