//! Strikes at steps of node and shim (`berth_runtime::fault`). What steps there are, the programs say themselves.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::programs;

/// One step of an operation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    pub name: String,
    /// `node`, `shim` or `stage`.
    pub who: String,
    /// Which one of that name, from 1.
    pub number: u32,
}

/// A step that was struck.
#[derive(Clone, Debug)]
pub struct Struck {
    pub pid: u32,
    pub who: String,
}

/// The file that arms the daemons of one instance; they are armed from its being written until it has struck.
pub struct Fault {
    dir: PathBuf,
    file: PathBuf,
}

impl Default for Fault {
    fn default() -> Self {
        Self::new()
    }
}

impl Fault {
    /// In a directory that shims, which are nobody, may write to as well.
    #[track_caller]
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        remove_stale();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = programs::root().join(format!("fault-{}-{number}", std::process::id()));
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&dir).expect("make directory");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("open directory");
        Self { file: dir.join("fault"), dir }
    }

    /// What the daemons have to be started with.
    pub fn env(&self) -> (String, String) {
        ("BERTH_FAULT".into(), self.file.display().to_string())
    }

    /// The steps that are done while `work` is, each as often as it is, in their order.
    pub fn note(&self, work: impl FnOnce()) -> Vec<Step> {
        self.write("note\n");
        work();
        let text = fs::read_to_string(&self.file).expect("read the noted steps");
        self.disarm();
        let mut seen = BTreeMap::new();
        let step = |line: &str| {
            let (name, who) = line.split_once('\t')?;
            let number: &mut u32 = seen.entry(name.to_owned()).or_default();
            *number += 1;
            Some(Step { name: name.into(), who: who.into(), number: *number })
        };
        text.lines().skip(1).filter_map(step).collect()
    }

    /// `mode` as in `berth_runtime::fault`.
    pub fn arm(&self, mode: &str, step: &Step) {
        let _ = fs::remove_file(self.told());
        self.write(&format!("{mode} {} {}\n", step.number, step.name));
    }

    fn write(&self, text: &str) {
        let new = self.dir.join("new");
        fs::write(&new, text).expect("write the fault");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o666)).expect("open the fault");
        fs::rename(new, &self.file).expect("arm the fault");
    }

    fn told(&self) -> PathBuf {
        self.file.with_extension("struck")
    }

    /// Who was struck, once somebody was.
    pub fn struck(&self) -> Option<Struck> {
        let text = fs::read_to_string(self.told()).ok()?;
        let mut words = text.strip_suffix('\n')?.split('\t').skip(1);
        Some(Struck { pid: words.next()?.parse().ok()?, who: words.next()?.into() })
    }

    /// Nothing is armed afterwards.
    pub fn disarm(&self) {
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_file(self.told());
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// What killed runs left.
fn remove_stale() {
    for entry in fs::read_dir(programs::root()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("fault-").and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

pub fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}

/// Every name of a step in the sources of the runtime, as it is written there.
#[track_caller]
pub fn names_in_sources() -> Vec<String> {
    let mut names = Vec::new();
    let mut open = vec![programs::repository().join("runtime")];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("list the sources").flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("read a source");
                let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                names.extend(literals_after(code, "fault::point("));
                names.extend(literals_after(code, "undo.step("));
            }
        }
    }
    names.sort();
    names.dedup();
    names
}

fn literals_after<'t>(text: &'t str, call: &str) -> impl Iterator<Item = String> + use<'t> {
    let parts: Vec<&str> = text.split(call).skip(1).collect();
    parts.into_iter().filter_map(|rest| rest.trim_start().strip_prefix('"')?.split_once('"')).map(|(name, _)| name.to_owned())
}
