//! Small images made of programs of the host: a tree with busybox, the programs, and the libraries that they name.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::{host::Host, run::Run};

/// Makes the tar of a root file system. `files`: what of the host lies where; an executable brings its libraries.
#[track_caller]
pub fn tar(host: &Host, name: &str, files: &[(&Path, &str)], texts: &[(&str, &str)]) -> PathBuf {
    let root = host.slot.dir.join(format!("tree-{name}"));
    let place = |from: &Path, to: &str| {
        let to = root.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a file")).expect("make directory");
        fs::copy(from, &to).unwrap_or_else(|e| panic!("copy {}: {e}", from.display()));
    };
    for dir in ["tmp", "etc", "proc", "sys", "dev", "root", "var", "run"] {
        fs::create_dir_all(root.join(dir)).expect("make directory");
    }
    symlink("/run", root.join("var/run")).expect("link");
    place(Path::new("/bin/busybox"), "/bin/busybox");
    for applet in Run::new("/bin/busybox").arg("--list").ok().lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).expect("link");
    }
    for (from, to) in files {
        place(from, to);
        // A static program names none, and ldd says so by failing.
        for library in Run::new("ldd").arg(from).output().stdout.split_whitespace().filter(|word| word.starts_with('/')) {
            place(Path::new(library), library);
        }
    }
    for (to, text) in [("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("/etc/group", "root:x:0:\n")].iter().chain(texts) {
        let to = root.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a file")).expect("make directory");
        fs::write(to, text).expect("write");
    }
    let tar = host.slot.dir.join(format!("{name}.tar"));
    Run::new("tar").arg("-C").arg(&root).args(["--numeric-owner", "--owner=0", "--group=0", "-cf"]).arg(&tar).arg(".").ok();
    fs::remove_dir_all(root).expect("remove the tree");
    tar
}
