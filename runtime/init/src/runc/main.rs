//! `berth-runc`: what dockerd and containerd of a berth find as `runc`. It makes small changes to what is asked for, then becomes the
//! real one, found by `PATH` behind it.
//!
//! Everything here is the tenant's own and for his comfort: who takes it off, or runs another runtime, loses what it adds and gains
//! nothing. Whatever goes wrong, nothing is changed and the real runc runs with unchanged arguments.
//!
//! - `create` and `run`: containers that run as the user get his directories as himself ([`bundle`]), and all get the emulated files of
//!   `/proc` and `/sys` ([`emulated`]).
//! - `exec`: a user number too large for the berth becomes the one that stands for it.
#![forbid(unsafe_code)]

mod bundle;
mod command;
mod emulated;

use std::{
    env,
    ffi::OsString,
    fs,
    io::Read,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use serde_json::Value;

use bundle::Facts;
use command::Asked;

/// What the runtime wrote down for this program.
const FACTS: &str = "/run/berth/inner.json";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// More than any config of a container.
const MOST: u64 = 16 << 20;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    // Not said to anybody: what this prints would be taken for the real one's words.
    let _ = change(arguments.get(1..).unwrap_or_default());
    let Some(real) = real_runc(&env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.into())) else {
        eprintln!("runc: not found in the image behind the berth's own wrapper; install it (package runc)");
        return ExitCode::from(127);
    };
    let mut command = Command::new(&real);
    if let Some(name) = arguments.first() {
        command.arg0(name);
    }
    let error = command.args(arguments.get(1..).unwrap_or_default()).exec();
    eprintln!("runc: {}: {error}", real.display());
    ExitCode::from(126)
}

/// `None` says only that nothing was changed.
fn change(arguments: &[OsString]) -> Option<()> {
    let asked = command::parse(arguments)?;
    // A user without directories has none.
    let facts = read(Path::new(FACTS)).and_then(|text| Facts::parse(&text));
    match asked {
        Asked::Create { bundle } => {
            let file = bundle.join("config.json");
            let mut config = read(&file)?;
            let of_user = facts.is_some_and(|facts| bundle::create(&mut config, &facts, &|path| fs::canonicalize(path).ok()));
            let emulated = emulated::served() && emulated::add(&mut config);
            (of_user || emulated).then(|| replace(&file, &config))?
        }
        Asked::Exec { process } => {
            let mut text = read(&process)?;
            bundle::exec(&mut text, &facts?).then(|| replace(&process, &text))?
        }
    }
}

fn read(file: &Path) -> Option<Value> {
    let mut bytes = Vec::new();
    let file = fs::File::open(file).ok().filter(|f| f.metadata().is_ok_and(|m| m.is_file() && m.len() <= MOST))?;
    file.take(MOST).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Whole or not at all, with the old one's mode.
fn replace(file: &Path, value: &Value) -> Option<()> {
    let new = file.with_extension(format!("berth-{}", std::process::id()));
    let mode = fs::metadata(file).ok()?.permissions();
    let written = fs::write(&new, serde_json::to_vec(value).ok()?).and_then(|()| fs::set_permissions(&new, mode));
    let done = written.and_then(|()| fs::rename(&new, file));
    if done.is_err() {
        let _ = fs::remove_file(&new);
    }
    done.ok()
}

/// The first `runc` along `path` that is not this program.
fn real_runc(path: &str) -> Option<PathBuf> {
    let own = fs::metadata("/proc/self/exe").map(|m| (m.dev(), m.ino())).ok();
    let candidates =
        path.split(':').chain(DEFAULT_PATH.split(':')).filter(|dir| dir.starts_with('/')).map(|dir| Path::new(dir).join("runc"));
    let real = |file: &PathBuf| {
        fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0 && Some((m.dev(), m.ino())) != own)
    };
    candidates.into_iter().find(real)
}
