//! An image whose entry point is systemd, built by `deploy/image/sandbox` and kept in the cache until that recipe changes.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    time::Duration,
};

use crate::{programs, run::Run};

/// The archive, for `berth image import`.
#[track_caller]
pub fn systemd_image() -> PathBuf {
    let cache = programs::root().join("cache");
    fs::create_dir_all(&cache).expect("make the cache directory");
    let lock = File::create(cache.join("systemd.lock")).expect("make the image's lock");
    lock.lock().expect("lock the image");
    let recipe = programs::repository().join("deploy/image/sandbox");
    let mut hasher = DefaultHasher::new();
    fs::read(&recipe).expect("read the recipe").hash(&mut hasher);
    let tar = cache.join(format!("sandbox-{:016x}.tar", hasher.finish()));
    if !tar.is_file() {
        Run::new(&recipe).arg("trixie").arg(&tar).limit(Duration::from_secs(900)).ok();
    }
    tar
}
