//! What a test needs of its host that not every host has. Where something is missing the test does not run here, and never passes by that:
//! it is written down, `deploy/test` reports it as one that runs in the virtual machine, runs it there (`deploy/vm test`), and fails unless
//! it finds it among what passed there.
//!
//! ```no_run
//! # use berth_tests::{Need, elsewhere};
//! if elsewhere(&[Need::CgroupV2]) {
//!     return;
//! }
//! ```

use std::{
    env,
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
};

use crate::programs;

/// A thing of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// All controllers on cgroup2, no v1 hierarchy.
    CgroupV2,
    /// Project quota on the file system that holds the instances' state.
    ProjectQuota,
    AppArmor,
    /// systemd as PID 1 of the host.
    Systemd,
    /// `CAP_SYS_RESOURCE`: growing a mounted ext4, raising hard limits.
    SysResource,
    /// Swap that is on.
    Swap,
}

impl Need {
    fn words(self) -> &'static str {
        match self {
            Self::CgroupV2 => "cgroup v2",
            Self::ProjectQuota => "project quota",
            Self::AppArmor => "AppArmor",
            Self::Systemd => "systemd",
            Self::SysResource => "CAP_SYS_RESOURCE",
            Self::Swap => "swap",
        }
    }

    /// True when this host has it.
    pub fn is_here(self) -> bool {
        match self {
            Self::CgroupV2 => Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
            Self::ProjectQuota => {
                let _ = fs::create_dir_all(programs::root());
                quota_of(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(), &programs::root())
            }
            Self::AppArmor => fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.trim() == "Y"),
            Self::Systemd => Path::new("/run/systemd/system").is_dir(),
            Self::SysResource => {
                const CAP_SYS_RESOURCE: u32 = 24;
                let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
                let set = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
                u64::from_str_radix(set.trim(), 16).is_ok_and(|set| set >> CAP_SYS_RESOURCE & 1 == 1)
            }
            Self::Swap => fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1),
        }
    }
}

/// Whether the file system that holds `path` was mounted with project quota.
fn quota_of(mountinfo: &str, path: &Path) -> bool {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        Some((left.split(' ').nth(4)?, right.split(' ').nth(2)?))
    });
    // Of equally long ones the last, which lies over the others.
    let holder = mounts.filter(|(place, _)| path.starts_with(place)).max_by_key(|(place, _)| place.len());
    holder.is_some_and(|(_, options)| options.split(',').any(|option| option == "prjquota" || option == "pquota"))
}

/// True when this host lacks something that the calling test needs: the test returns at once then.
///
/// Panics when nobody writes down that it did not run (`BERTH_TEST_ELSEWHERE` names no file).
#[track_caller]
#[must_use = "a test that needs what is not here has to return"]
pub fn elsewhere(needs: &[Need]) -> bool {
    let lacking: Vec<&str> = needs.iter().filter(|need| !need.is_here()).map(|need| need.words()).collect();
    if lacking.is_empty() {
        return false;
    }
    let lacking = lacking.join(", ");
    let Some(file) = env::var_os("BERTH_TEST_ELSEWHERE") else {
        panic!(
            "this host lacks {lacking}: the test runs in the virtual machine (deploy/vm test); deploy/test sees to it, and BERTH_TEST_ELSEWHERE=FILE takes its name down"
        );
    };
    let mut file = OpenOptions::new().create(true).append(true).open(&file).expect("open the list of tests that run elsewhere");
    file.write_all(format!("{} {} {lacking}\n", suite(), name()).as_bytes()).expect("write the list of tests that run elsewhere");
    true
}

/// Name of the test program without the hash that cargo gives it.
fn suite() -> String {
    let stem = env::current_exe().ok().and_then(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).unwrap_or_default();
    stem.rsplit_once('-').map_or(stem.clone(), |(name, _)| name.to_owned())
}

/// Name of the calling test: of its thread, or what it was asked for where it runs on the first one.
fn name() -> String {
    match std::thread::current().name() {
        Some(name) if name != "main" => name.to_owned(),
        _ => env::args().skip_while(|arg| arg != "--exact").nth(1).or_else(|| env::args().nth(1)).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_quota_is_that_of_the_file_system_that_holds_the_path() {
        let mounts =
            "1 0 259:0 / / rw - ext4 /dev/a rw\n2 1 259:1 / /data rw - ext4 /dev/b rw,prjquota\n3 2 259:2 / /data/in rw - ext4 /dev/c rw\n";
        for (path, quota) in [("/data", true), ("/data/x", true), ("/data/in/x", false), ("/database", false), ("/", false)] {
            assert_eq!(quota_of(mounts, Path::new(path)), quota, "{path}");
        }
    }

    #[test]
    fn a_test_knows_its_own_name() {
        assert_eq!(name(), "needs::tests::a_test_knows_its_own_name");
        assert_eq!(suite(), "berth_tests");
    }
}
