//! Files that inner containers left in the user's directories under ids of the range become the user's own, before anybody else can get
//! the range. Only owner ids of the range are changed, and only to the user's: wherever a walk is led, it can do no other harm.

use std::{
    io::Read,
    os::fd::{AsRawFd, OwnedFd},
    time::Instant,
};

use berth_sys::process::exit_now;
use nix::sys::{prctl, signal::Signal};
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, StatxFlags, Uid, chmod, chownat, fstat, openat2, statx},
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use serde::{Deserialize, Serialize};

use super::{DEADLINE, Request, Wanted, open};
use crate::{
    error::{Error, Result, Step, chain},
    idmap::share::{GiveBack, in_range},
};

/// Levels below a directory that are walked; each holds a descriptor.
const DEEPEST: usize = 8192;

/// What was done; a JSON text on standard output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenBack {
    /// Files whose owner changed.
    pub changed: u64,
    /// What could not be looked at or changed; empty: all is done.
    pub left: Vec<String>,
}

/// Of the many things that can stay in a tree whose file system fails, the first are enough.
const MOST_LEFT: usize = 8;

/// Entry of `berth-shim give-back`. Does not return; the exit status says only whether the answer was written.
pub fn give_back() -> ! {
    let status = match serve() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("berth-shim give-back: {}", chain(&error));
            1
        }
    };
    exit_now(status)
}

fn serve() -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).step("follow", "the node's death")?;
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).step("read", "the request")?;
    let request: GiveBack = serde_json::from_str(&text).map_err(|e| Error::Invalid(format!("the request is not understood: {e}")))?;
    let mut done = GivenBack::default();
    for (path, home) in &request.directories {
        match root_of(&request, *home, path) {
            Ok(Some(root)) => walk(&root, &request, &mut done),
            Ok(None) => {}
            Err(reason) => done.leave(format!("{}: {reason}", path.display())),
        }
    }
    let text = serde_json::to_string(&done).map_err(|e| Error::Invalid(e.to_string()))?;
    println!("{text}");
    Ok(())
}

/// Opened as when it was mapped; `None` when it is not there any more.
fn root_of(request: &GiveBack, home: bool, path: &std::path::Path) -> std::result::Result<Option<OwnedFd>, String> {
    let user = Request { uid: request.uid, gid: request.gid, groups: Vec::new(), id_base: request.id_base, wanted: Vec::new() };
    let wanted = Wanted { path: path.to_owned(), read_only: false, home };
    let opener = open::start(&user, &wanted).map_err(|e| chain(&e))?;
    match opener.wait(Instant::now() + DEADLINE) {
        Ok(directory) => Ok(Some(directory)),
        // Root may look where the user may not (any more); a symbolic link it does not follow.
        Err(reason) => {
            match openat2(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
                Ok(directory) => Ok(Some(directory)),
                Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
                Err(_) => Err(reason),
            }
        }
    }
}

impl GivenBack {
    fn leave(&mut self, what: String) {
        if self.left.len() < MOST_LEFT {
            self.left.push(what);
        }
    }
}

/// Depth first, by descriptors: what is renamed meanwhile leads nowhere else.
fn walk(root: &OwnedFd, request: &GiveBack, done: &mut GivenBack) {
    if let Err(error) = take(root, request, done) {
        done.leave(format!("the directory itself: {error}"));
    }
    let mut open: Vec<(OwnedFd, Dir)> = Vec::new();
    match entries(root) {
        Ok(level) => open.push(level),
        Err(error) => return done.leave(format!("the directory itself cannot be read: {error}")),
    }
    while let Some((dir, entries_left)) = open.last_mut() {
        let name = match entries_left.read() {
            None => {
                open.pop();
                continue;
            }
            Some(Ok(entry)) => entry.file_name().to_owned(),
            Some(Err(error)) => {
                done.leave(format!("a directory cannot be read: {error}"));
                open.pop();
                continue;
            }
        };
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        // One component, no symbolic link, no other mount.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat2(&*dir, name.as_c_str(), flags, Mode::empty(), resolve) {
            Ok(file) => file,
            // Gone meanwhile; or another mount.
            Err(Errno::NOENT | Errno::XDEV) => continue,
            // A symbolic link: it has an owner too.
            Err(Errno::LOOP) => {
                match openat2(&*dir, name.as_c_str(), flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_XDEV) {
                    Ok(link) => link,
                    Err(_) => continue,
                }
            }
            Err(error) => {
                done.leave(format!("{}: {error}", name.to_string_lossy()));
                continue;
            }
        };
        match take(&file, request, done) {
            Err(error) => done.leave(format!("{}: {error}", name.to_string_lossy())),
            Ok(FileType::Directory) if open.len() >= DEEPEST => done.leave(format!("more than {DEEPEST} levels of directories")),
            Ok(FileType::Directory) => match entries(&file) {
                Ok(level) => open.push(level),
                Err(error) => done.leave(format!("{}: {error}", name.to_string_lossy())),
            },
            Ok(_) => {}
        }
    }
}

fn entries(directory: &OwnedFd) -> std::result::Result<(OwnedFd, Dir), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let readable = openat2(directory, ".", flags, Mode::empty(), ResolveFlags::BENEATH)?;
    let entries = Dir::read_from(&readable)?;
    Ok((readable, entries))
}

/// Gives one file to the user if its ids are of the range.
fn take(file: &OwnedFd, request: &GiveBack, done: &mut GivenBack) -> std::result::Result<FileType, Errno> {
    let stat = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    let kind = FileType::from_raw_mode(stat.stx_mode.into());
    let theirs = |id: u32| in_range(id, request.id_base);
    let uid = theirs(stat.stx_uid).then(|| Uid::from_raw(request.uid));
    let gid = theirs(stat.stx_gid).then(|| Gid::from_raw(request.gid));
    if uid.is_none() && gid.is_none() {
        return Ok(kind);
    }
    chownat(file, c"", uid, gid, AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)?;
    done.changed += 1;
    // The kernel takes setuid away with the owner, and setgid where the group may execute; what is left of them goes too.
    let mode = fstat(file)?.st_mode;
    if kind == FileType::RegularFile && mode & 0o6000 != 0 {
        // A descriptor without access takes no fchmod; its name in proc leads to the very file.
        chmod(format!("/proc/self/fd/{}", file.as_raw_fd()), Mode::from_raw_mode(mode & 0o1777))?;
    }
    Ok(kind)
}
