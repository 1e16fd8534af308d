//! A Python of the tests' own, with Docker's clients for it from PyPI. Made once, in the cache.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::Duration,
};

use crate::{programs, run::Run};

/// Fixed, so that a run today and one next year try the same.
pub const PACKAGES: [&str; 2] = ["docker==7.2.0", "testcontainers==4.15.0"];

/// The interpreter; every user may run it.
#[track_caller]
pub fn python() -> PathBuf {
    let root = programs::root().join("cache");
    fs::create_dir_all(&root).expect("make the cache directory");
    let lock = File::create(root.join("python.lock")).expect("make the lock");
    lock.lock().expect("lock the cache");
    let dir = root.join(format!("python-{}", PACKAGES.join("-").replace("==", "-")));
    let done = dir.join("done");
    if !done.exists() {
        let _ = fs::remove_dir_all(&dir);
        // Debian's own: another one may lie in somebody's home.
        Run::new("/usr/bin/python3").args(["-m", "venv"]).arg(&dir).ok();
        let pip = Run::new(dir.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES);
        pip.limit(Duration::from_secs(240)).ok();
        Run::new("chmod").args(["-R", "a+rX"]).arg(&dir).ok();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).expect("open the cache");
        fs::write(done, "").expect("mark it as done");
    }
    dir.join("bin/python")
}
