//! Failures on request: the tests' way to stop a create or delete at its n-th change of the host.
//!
//! Armed only when the daemon was started with `BERTH_FAULT=FILE`. The file holds `N MODE`, MODE one of `error`, `kill`; every
//! [`point`] counts N down, across processes, and the one that reaches zero fails or kills its own process. The file is gone once
//! that has happened, so a run that leaves the file was untouched.

use std::{
    env,
    fs::{self, File},
    io::{self, Read, Seek, Write},
    path::Path,
};

use nix::sys::signal::{Signal, raise};

use crate::{Error, error::Result};

/// Name of the variable that arms this module.
pub const VARIABLE: &str = "BERTH_FAULT";

/// Called before each change of the host.
pub fn point(step: &'static str) -> Result<()> {
    match env::var_os(VARIABLE) {
        None => Ok(()),
        Some(file) => count_down(Path::new(&file), step),
    }
}

fn count_down(path: &Path, step: &'static str) -> Result<()> {
    // Locked: what is done side by side counts one after the other, and only one is struck.
    let Ok(mut file) = File::options().read(true).write(true).open(path) else { return Ok(()) };
    let mut text = String::new();
    if file.lock().and_then(|()| file.read_to_string(&mut text)).is_err() {
        return Ok(());
    }
    let mut words = text.split_whitespace();
    let (Some(count), Some(mode)) = (words.next().and_then(|n| n.parse::<u32>().ok()), words.next()) else { return Ok(()) };
    if count > 1 {
        let _ = replace(&mut file, &format!("{} {mode}\n", count - 1));
        return Ok(());
    }
    let _ = replace(&mut file, &format!("{step}\n")).and_then(|()| fs::rename(path, path.with_extension("struck")));
    if mode == "kill" {
        let _ = raise(Signal::SIGKILL);
    }
    Err(Error::Injected { step })
}

fn replace(file: &mut File, text: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}
