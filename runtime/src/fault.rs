//! Failures on request: the tests' way to stop a create or delete at any of its changes of the host.
//!
//! Armed only when the daemon was started with `BERTH_FAULT=FILE`. The file's first line is `error` or `kill`; each further line names a
//! step that is let pass once, in whatever order (some are done side by side, in several processes). The first [`point`] that is not
//! among them fails or kills its own process, and FILE is then called `….struck` and holds its name.

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
        Some(file) => strike(Path::new(&file), step),
    }
}

fn strike(path: &Path, step: &'static str) -> Result<()> {
    // Locked: of what is done side by side, only one is struck.
    let Ok(mut file) = File::options().read(true).write(true).open(path) else { return Ok(()) };
    let mut text = String::new();
    if file.lock().and_then(|()| file.read_to_string(&mut text)).is_err() {
        return Ok(());
    }
    let mut lines: Vec<&str> = text.lines().collect();
    let Some(&mode @ ("error" | "kill")) = lines.first() else { return Ok(()) };
    if let Some(place) = lines.iter().position(|line| *line == step) {
        lines.remove(place);
        let _ = replace(&mut file, &(lines.join("\n") + "\n"));
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
