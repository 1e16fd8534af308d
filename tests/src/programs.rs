//! Where the programs under test are.

use std::{
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// The root of the repository.
///
/// Cargo and deploy/matrix name it at run time; what was compiled in may be another clone's, built into the same target directory.
pub fn repository() -> &'static Path {
    static REPOSITORY: OnceLock<PathBuf> = OnceLock::new();
    REPOSITORY.get_or_init(|| {
        let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let deploy = |dir: &&Path| dir.join("deploy/layout.sh").is_file();
        Path::new(&package).ancestors().find(deploy).expect("the tests lie in the repository").to_path_buf()
    })
}

/// Path of a program under test. `berth-init`, `berth-runc` and `berth-probe` are built static, for a target of their own.
#[track_caller]
pub fn find(program: &str) -> PathBuf {
    let path = match env::var_os("BERTH_TEST_PROGRAMS") {
        Some(dir) => Path::new(&dir).join(program),
        None => {
            let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
            let fixed = matches!(program, "berth-init" | "berth-runc" | "berth-probe");
            target.join(if fixed { "x86_64-unknown-linux-gnu/debug" } else { "debug" }).join(program)
        }
    };
    assert!(path.is_file(), "{} is missing: build it (deploy/test does), or name its directory in BERTH_TEST_PROGRAMS", path.display());
    path
}

/// Where instances and the cache lie. Short, on a real file system: disks are loop devices.
pub fn root() -> PathBuf {
    env::var_os("BERTH_TEST_ROOT").map_or_else(|| "/var/tmp/berth-tests".into(), PathBuf::from)
}
