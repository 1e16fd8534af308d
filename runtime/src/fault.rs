//! Failures on request: the tests' way to strike at any change of the host that create, start, set, sleep, stop and delete make.
//!
//! Armed only when the daemon was started with `BERTH_FAULT=FILE`. While FILE is there, every [`point`] looks into it:
//!
//! - `note`: the point adds a line with its step and who does it (`node`, `shim`, `stage`); so the programs themselves say what steps an
//!   operation has.
//! - `MODE N STEP`: the N-th STEP from now on, counted from 1, is struck. FILE is then called `….struck` and holds step, pid and who.
//!   `error` fails it by EIO, `full` by ENOSPC, `missing` by ENOSYS; `kill` kills its process; `halt` stops its process (SIGSTOP), so that
//!   somebody else can be killed just then: let go on by SIGCONT, the step is done.
//!
//! Shim and stage look into it with the berth's base id once they have it, and the stage after the host's tree is out of its sight: where
//! their steps are to be seen, the tests let everybody write to FILE and its directory, which an armed process keeps open.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    process,
    sync::OnceLock,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, raise},
};
use rustix::fs::{Mode as Bits, OFlags, open, openat, renameat};

use crate::{Error, error::Result};

/// Name of the variable that arms this module.
pub const VARIABLE: &str = "BERTH_FAULT";

/// Called before each change of the host.
pub fn point(step: &'static str) -> Result<()> {
    static ARMED: OnceLock<Option<(OwnedFd, OsString)>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let file = PathBuf::from(env::var_os(VARIABLE)?);
        Some((directory(file.parent()?).ok()?, file.file_name()?.to_owned()))
    });
    match armed {
        None => Ok(()),
        Some((dir, name)) => strike(dir.as_fd(), name, step),
    }
}

fn directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Bits::empty())
}

/// What is to happen at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Fail(Errno),
    Signal(Signal),
}

fn strike(dir: BorrowedFd<'_>, name: &OsStr, step: &'static str) -> Result<()> {
    // Locked: of what is done side by side, only one is struck.
    let Ok(file) = openat(dir, name, OFlags::RDWR | OFlags::CLOEXEC, Bits::empty()) else { return Ok(()) };
    let mut file = File::from(file);
    let mut text = String::new();
    if file.lock().and_then(|()| file.read_to_string(&mut text)).is_err() {
        return Ok(());
    }
    if text.starts_with("note\n") {
        let _ = file.seek(SeekFrom::End(0)).and_then(|_| writeln!(file, "{step}\t{}", who()));
        return Ok(());
    }
    let mut words = text.trim_end().splitn(3, ' ');
    let (Some(mode), Some(Ok(count)), Some(wanted)) = (words.next(), words.next().map(str::parse::<u32>), words.next()) else {
        return Ok(());
    };
    let Some(known) = parse(mode).filter(|_| wanted == step) else { return Ok(()) };
    if count > 1 {
        let _ = replace(&mut file, &format!("{mode} {} {wanted}\n", count - 1));
        return Ok(());
    }
    let struck = Path::new(name).with_extension("struck");
    let told = replace(&mut file, &format!("{step}\t{}\t{}\n", process::id(), who()));
    let _ = told.and_then(|()| Ok(renameat(dir, name, dir, &struck)?));
    drop(file);
    match known {
        Mode::Fail(errno) => Err(Error::Injected { step, source: errno.into() }),
        Mode::Signal(signal) => {
            let _ = raise(signal);
            Ok(())
        }
    }
}

fn parse(mode: &str) -> Option<Mode> {
    match mode {
        "error" => Some(Mode::Fail(Errno::EIO)),
        "full" => Some(Mode::Fail(Errno::ENOSPC)),
        "missing" => Some(Mode::Fail(Errno::ENOSYS)),
        "kill" => Some(Mode::Signal(Signal::SIGKILL)),
        "halt" => Some(Mode::Signal(Signal::SIGSTOP)),
        _ => None,
    }
}

/// The program, or what it is executed as.
fn who() -> String {
    let mut arguments = env::args();
    let program = arguments.next().unwrap_or_default();
    match arguments.next().as_deref() {
        Some("stage") => "stage".into(),
        _ if program.ends_with("berth-node") => "node".into(),
        _ => "shim".into(),
    }
}

fn replace(file: &mut File, text: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_nth_of_a_step_is_struck_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fault");
        fs::write(&file, "full 2 make disk\n").unwrap();
        let at = directory(dir.path()).unwrap();
        let strike = |step| strike(at.as_fd(), OsStr::new("fault"), step);
        strike("make log").unwrap();
        strike("make disk").unwrap();
        let error = strike("make disk").unwrap_err();
        assert_eq!(crate::error::chain(&error), "injected failure at step make disk: No space left on device (os error 28)");
        assert!(fs::read_to_string(dir.path().join("fault.struck")).unwrap().starts_with("make disk\t"));
        strike("make disk").unwrap();
    }

    #[test]
    fn steps_are_noted_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fault");
        fs::write(&file, "note\n").unwrap();
        let at = directory(dir.path()).unwrap();
        strike(at.as_fd(), OsStr::new("fault"), "one").unwrap();
        strike(at.as_fd(), OsStr::new("fault"), "two").unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let steps: Vec<_> = text.lines().skip(1).filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(steps, ["one", "two"]);
    }
}
