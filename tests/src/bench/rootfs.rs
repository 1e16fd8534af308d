//! The root file system that all peers of a start share: a copy of the berth's image, and an init that starts what the berth starts.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Berth, Host, Run, until};

const PATIENCE: Duration = Duration::from_secs(60);
pub(super) const ID_COUNT: u32 = 65_536;
/// The program that is PID 1 of a peer, from inside; the shell executes it.
pub(super) const INIT: &str = "/sbin/bench-init";

/// Command lines of containerd and dockerd.
pub(super) type Daemons = [Vec<String>; 2];

/// The unpacked image of an instance.
#[track_caller]
pub(super) fn image(host: &Host) -> PathBuf {
    let images = || fs::read_dir(host.state_dir.join("images")).into_iter().flatten().flatten().map(|e| e.path().join("rootfs"));
    until("an image is there", PATIENCE, || images().find(|rootfs| rootfs.is_dir()))
}

/// How a running berth runs its own daemons, so that both start the same.
#[track_caller]
pub(super) fn daemons(berth: &Berth<'_>) -> Daemons {
    [command_line(berth, "containerd"), command_line(berth, "dockerd")]
}

/// A copy of `image` with [`INIT`] in it.
#[track_caller]
pub(super) fn copy(image: &Path, to: &Path, daemons: &Daemons) {
    Run::new("cp").arg("-a").arg(image).arg(to).limit(PATIENCE).ok();
    let init = to.join(INIT.trim_start_matches('/'));
    fs::write(&init, init_script(daemons)).expect("write init");
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).expect("make init executable");
}

/// Gives every file the ids that `map` makes of its own, modes kept.
#[track_caller]
pub(super) fn give(path: &Path, map: &dyn Fn(u32) -> u32) {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    lchown(path, Some(map(meta.uid())), Some(map(meta.gid()))).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if meta.is_symlink() {
        return;
    }
    // A change of owner takes set-user-ID away.
    fs::set_permissions(path, meta.permissions()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if meta.is_dir() {
        fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).flatten().for_each(|entry| give(&entry.path(), map));
    }
}

/// Of the last range of the slot, so that what stays of a peer is seen and swept with the slot.
pub(super) fn first_id(host: &Host) -> u32 {
    host.slot.ids().1 + 1 - ID_COUNT
}

/// PATH set, /run cleared, both daemons side by side: what berth-init does.
fn init_script(daemons: &Daemons) -> String {
    let [containerd, dockerd] = daemons;
    let mut script =
        String::from("#!/bin/sh\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nexport PATH\nrm -rf /run/*\n");
    for socket in dockerd.iter().filter_map(|word| word.strip_prefix("--host=unix://")) {
        let _ = writeln!(script, "mkdir -p {}", quoted(socket.rsplit_once('/').map_or("/run", |(dir, _)| dir)));
    }
    let line = |words: &Vec<String>| words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    let _ = writeln!(script, "{} &\nexec {}", line(containerd), line(dockerd));
    script
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// How the berth itself runs a daemon, so that both start the same.
#[track_caller]
fn command_line(berth: &Berth<'_>, name: &str) -> Vec<String> {
    let runs = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
    let pid = berth.group_pids("payload").into_iter().find(runs).unwrap_or_else(|| panic!("no {name} runs in the berth"));
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).expect("read a command line");
    without_config(String::from_utf8_lossy(&bytes).split_terminator('\0').map(str::to_owned))
}

/// A configuration that Berth wrote is no peer's: who starts the image otherwise has what the image brings.
fn without_config(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut words = words.peekable();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word == "--config" && words.peek().is_some_and(|file| file.starts_with("/run/berth/")) {
            true => drop(words.next()),
            false => kept.push(word),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_configuration_of_berth_is_left_out() {
        let kept = |text: &str| without_config(text.split(' ').map(str::to_owned)).join(" ");
        assert_eq!(kept("containerd --config /run/berth/c.toml --log-level warn"), "containerd --log-level warn");
        assert_eq!(kept("containerd --config /etc/c.toml --config"), "containerd --config /etc/c.toml --config");
    }

    #[test]
    fn the_script_clears_run_and_starts_both_with_their_own_words() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let script =
            init_script(&[words("/usr/bin/containerd --address /run/c.sock"), words("/usr/sbin/dockerd --host=unix:///run/b/it's/d.sock")]);
        let expected = "rm -rf /run/*\nmkdir -p '/run/b/it'\\''s'\n'/usr/bin/containerd' '--address' '/run/c.sock' &\n\
                        exec '/usr/sbin/dockerd' '--host=unix:///run/b/it'\\''s/d.sock'\n";
        assert!(script.ends_with(expected), "{script}");
    }
}
