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
//! Shim and stage look into it with the berth's base id once they have it: where their steps are to be seen, the tests let everybody
//! write to FILE and its directory.

use std::{
    env,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    process,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, raise},
};

use crate::{Error, error::Result};

/// Name of the variable that arms this module.
pub const VARIABLE: &str = "BERTH_FAULT";

/// Called before each change of the host.
pub fn point(step: &'static str) -> Result<()> {
    match env::var_os(VARIABLE) {
        None => Ok(()),
        Some(file) => strike(Path::new(&file), step),
    }
}

/// What is to happen at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Fail(Errno),
    Signal(Signal),
}

fn strike(path: &Path, step: &'static str) -> Result<()> {
    // Locked: of what is done side by side, only one is struck.
    let Ok(mut file) = File::options().read(true).write(true).open(path) else { return Ok(()) };
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
    let struck = path.with_extension("struck");
    let _ = replace(&mut file, &format!("{step}\t{}\t{}\n", process::id(), who())).and_then(|()| fs::rename(path, struck));
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
    use super::*;

    #[test]
    fn the_nth_of_a_step_is_struck_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fault");
        fs::write(&file, "full 2 make disk\n").unwrap();
        strike(&file, "make log").unwrap();
        strike(&file, "make disk").unwrap();
        let error = strike(&file, "make disk").unwrap_err();
        assert_eq!(crate::error::chain(&error), "injected failure at step make disk: No space left on device (os error 28)");
        assert!(fs::read_to_string(dir.path().join("fault.struck")).unwrap().starts_with("make disk\t"));
        strike(&file, "make disk").unwrap();
    }

    #[test]
    fn steps_are_noted_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fault");
        fs::write(&file, "note\n").unwrap();
        strike(&file, "one").unwrap();
        strike(&file, "two").unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let steps: Vec<_> = text.lines().skip(1).filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(steps, ["one", "two"]);
    }
}
