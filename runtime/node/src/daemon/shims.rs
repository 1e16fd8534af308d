//! Which shims run an older program than the one that is installed. They go on with it until their berths next sleep or stop.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

use berth_protocol::BerthId;

use super::host::Host;

/// Blocking. What cannot be looked at is not told to be old: replacing it would end a berth's sleep for nothing.
pub(crate) fn outdated(host: &Host, id: BerthId) -> bool {
    let group = host.group(id);
    let members = group.hierarchy.unified.join(&group.path).join("shim/cgroup.procs");
    let installed = host.layout.shim_program();
    let pids = fs::read_to_string(members).unwrap_or_default();
    pids.lines().any(|pid| same_program(&Path::new("/proc").join(pid).join("exe"), &installed).is_ok_and(|same| !same))
}

/// The same file, or one with the same content: a package that is installed anew puts another file in its place.
fn same_program(running: &Path, installed: &Path) -> io::Result<bool> {
    let (ours, theirs) = (fs::metadata(running)?, fs::metadata(installed)?);
    if (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()) {
        return Ok(true);
    }
    if ours.len() != theirs.len() {
        return Ok(false);
    }
    let (mut running, mut installed) = (File::open(running)?, File::open(installed)?);
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let length = running.read(&mut left)?;
        if length == 0 {
            return Ok(true);
        }
        installed.read_exact(&mut right[..length])?;
        if left[..length] != right[..length] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_the_same_program_and_a_changed_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("a"), vec![7; 200_000]).unwrap();
        fs::copy(path("a"), path("copy")).unwrap();
        assert!(same_program(&path("a"), &path("a")).unwrap() && same_program(&path("a"), &path("copy")).unwrap());
        let mut bytes = vec![7; 200_000];
        bytes[199_999] = 8;
        fs::write(path("b"), &bytes).unwrap();
        assert!(!same_program(&path("a"), &path("b")).unwrap());
        fs::write(path("b"), [7]).unwrap();
        assert!(!same_program(&path("a"), &path("b")).unwrap());
        assert!(same_program(&path("a"), &path("none")).is_err());
    }
}
