//! A listing of what Berth can leave on a host, to be taken before and after and compared line by line.
//!
//! [`Scope::slot`] looks at one instance of the tests and sees nothing of the others; [`Scope::installation`] looks at the whole host, as
//! `deploy/up` changes it (`berth-tests-snapshot`). Sizes, times, pids and counters are left out: they differ without anything being left.

use std::{
    collections::BTreeMap,
    fmt, fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{run::Run, slot::Slot, wait::within};

/// Programs that belong to Berth or run inside berths.
const PROGRAMS: [&str; 11] = [
    "berth",
    "berth-node",
    "berth-server",
    "berth-shim",
    "berth-init",
    "dockerd",
    "containerd",
    "containerd-shim",
    "docker-proxy",
    "runc",
    "buildkitd",
];

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Suffix of control groups and nft table; `None`: the whole host.
    instance: Option<String>,
    links: String,
    ids: (u32, u32),
    accounts: String,
    dirs: Vec<PathBuf>,
    pool: String,
}

impl Scope {
    /// One instance of the tests.
    pub fn slot(slot: &Slot) -> Self {
        let pool = slot.pool();
        Self {
            instance: Some(slot.instance()),
            links: slot.link_prefix(),
            ids: slot.ids(),
            accounts: slot.account_prefix(),
            dirs: vec![slot.run_dir(), slot.dir.clone()],
            // The first two numbers and a part of the third: enough to know our own.
            pool: pool.rsplit_once('.').map_or(pool.clone(), |(head, _)| head.to_owned()),
        }
    }

    /// The whole host.
    pub fn installation() -> Self {
        let dirs = [
            "/run/berth",
            "/run/berth-forwarding",
            "/var/lib/berth",
            "/var/log/berth",
            "/etc/berth",
            "/etc/profile.d",
            "/etc/sysusers.d",
            "/etc/modules-load.d",
            "/etc/sysctl.d",
            "/etc/systemd/system",
            "/etc/apparmor.d",
            "/usr/local",
            "/run/lock",
            "/run/netns",
            "/home",
        ];
        Self {
            instance: None,
            links: String::new(),
            ids: (0, u32::MAX),
            accounts: String::new(),
            dirs: dirs.iter().map(PathBuf::from).collect(),
            pool: String::new(),
        }
    }

    fn whole(&self) -> bool {
        self.instance.is_none()
    }
}

/// Sorted lines by section; a line may occur several times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    sections: BTreeMap<String, Vec<String>>,
}

/// Lines that are in one snapshot only: `+` in the later, `-` in the earlier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference(pub Vec<String>);

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

impl Snapshot {
    pub fn take(scope: &Scope) -> Self {
        let mut sections = BTreeMap::new();
        let mut put = |name: &str, mut lines: Vec<String>| {
            lines.sort();
            sections.insert(name.to_owned(), lines);
        };
        put("process", processes(scope));
        put("account", accounts(scope));
        put("mount", mounts(scope));
        put("loop device", loops(scope));
        put("control group", groups(scope));
        put("link", links(scope));
        put("route", routes(scope));
        put("nft", nft(scope));
        put("file", files(scope));
        put("socket", sockets(scope));
        if scope.whole() {
            put("sysctl", sysctls());
            put("listener", lines(&["ss", "-Hlntu"]).iter().map(|line| columns(line, &[0, 4])).collect());
            put("AppArmor profile", read("/sys/kernel/security/apparmor/profiles"));
        }
        Self { sections }
    }

    /// What came and what went since `before`.
    pub fn since(&self, before: &Self) -> Difference {
        let mut lines = Vec::new();
        for (name, now) in &self.sections {
            let mut then: BTreeMap<&str, i32> = BTreeMap::new();
            for line in before.sections.get(name).into_iter().flatten() {
                *then.entry(line).or_default() -= 1;
            }
            for line in now {
                *then.entry(line).or_default() += 1;
            }
            for (line, count) in then {
                let sign = if count > 0 { "+" } else { "-" };
                lines.extend((0..count.abs()).map(|_| format!("{sign} {name}: {line}")));
            }
        }
        Difference(lines)
    }

    /// The same without what each run of a berth has anew: its loop device, and the number in the name of its spool.
    #[must_use]
    pub fn of_any_run(mut self) -> Self {
        self.sections.remove("loop device");
        for line in self.sections.values_mut().flatten() {
            if let Some((name, _)) = line.strip_suffix(".jsonl").and_then(|spool| spool.rsplit_once('.')) {
                *line = format!("{name}.jsonl");
            }
        }
        self
    }

    /// Waits until nothing differs from `self`; panics with the difference after `limit`. Loop devices and control groups go a moment
    /// after their last holder.
    #[track_caller]
    pub fn assert_back(&self, scope: &Scope, limit: Duration) {
        self.assert_back_but(scope, limit, "\n");
    }

    /// The same; lines that hold `but` may differ.
    #[track_caller]
    pub fn assert_back_but(&self, scope: &Scope, limit: Duration, but: &str) {
        let mut last = Difference::default();
        let same = within(limit, || {
            last = Self::take(scope).since(self);
            last.0.retain(|line| !line.contains(but));
            last.0.is_empty().then_some(())
        });
        assert!(same.is_some(), "the host is not as it was:\n{last}");
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(&self.sections).expect("a map of strings")
    }

    pub fn from_json(text: &str) -> serde_json::Result<Self> {
        Ok(Self { sections: serde_json::from_str(text)? })
    }
}

/// Lines that a program prints; none when there is no such program.
fn lines(command: &[&str]) -> Vec<String> {
    if !["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|dir| Path::new(dir).join(command[0]).exists()) {
        return Vec::new();
    }
    let output = Run::new(command[0]).args(&command[1..]).output();
    output.stdout.lines().map(str::to_owned).collect()
}

fn read(file: impl AsRef<Path>) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn columns(line: &str, wanted: &[usize]) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    wanted.iter().filter_map(|&index| words.get(index).copied()).collect::<Vec<_>>().join(" ")
}

fn within_dirs(scope: &Scope, path: &str) -> bool {
    scope.dirs.iter().any(|dir| Path::new(path).starts_with(dir))
}

fn processes(scope: &Scope) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let dir = entry.path();
        if !entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let status = fs::read_to_string(dir.join("status")).unwrap_or_default();
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_owned();
        let (name, state) = (field("Name:"), field("State:"));
        let uid: u32 = field("Uid:").split_whitespace().next().and_then(|uid| uid.parse().ok()).unwrap_or(0);
        if name.is_empty() || state.starts_with('Z') {
            continue;
        }
        let ours = match &scope.instance {
            None => PROGRAMS.contains(&name.as_str()) || name.starts_with("containerd-shim"),
            Some(instance) => {
                let group = fs::read_to_string(dir.join("cgroup")).unwrap_or_default();
                let mark = format!("/berth{instance}");
                let inside = group.lines().any(|line| line.contains(&format!("{mark}/")) || line.contains(&format!("{mark}.slice")));
                inside || (scope.ids.0..=scope.ids.1).contains(&uid)
            }
        };
        if ours {
            found.push(format!("{name} (uid {uid})"));
        }
    }
    found
}

fn accounts(scope: &Scope) -> Vec<String> {
    let mut found = Vec::new();
    for file in ["/etc/passwd", "/etc/group", "/etc/subuid", "/etc/subgid"] {
        let ours = read(file).into_iter().filter(|line| line.starts_with(&scope.accounts));
        found.extend(ours.map(|line| format!("{file}: {line}")));
    }
    found
}

fn mounts(scope: &Scope) -> Vec<String> {
    let mut found: Vec<String> = read("/proc/self/mountinfo")
        .iter()
        .filter_map(|line| {
            let (head, tail) = line.split_once(" - ")?;
            let (point, kind) = (head.split_whitespace().nth(4)?, tail.split_whitespace().next()?);
            (scope.whole() || within_dirs(scope, point)).then(|| format!("{point} ({kind})"))
        })
        .collect();
    // A network namespace kept by name is a mount as well, in whatever mount namespace it was made.
    if scope.whole() {
        found.extend(
            fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|e| format!("netns {}", e.file_name().to_string_lossy())),
        );
    }
    found
}

/// Inodes of the files behind all loop devices of the host.
pub fn loop_inodes() -> Vec<u64> {
    listed_loops("BACK-INO").iter().filter_map(|line| line.trim().parse().ok()).collect()
}

fn listed_loops(columns: &str) -> Vec<String> {
    let mut devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    // There only while something is attached; programs take long to start in an emulated machine.
    if !devices.any(|device| device.path().join("loop").exists()) {
        return Vec::new();
    }
    lines(&["losetup", "--list", "--noheadings", "--raw", "--output", columns])
}

/// The disks of other instances come and go with their own tests; what is deleted and still attached belongs to nobody.
fn loops(scope: &Scope) -> Vec<String> {
    let listed = listed_loops("NAME,BACK-INO,BACK-FILE");
    let mut foreign = Vec::new();
    if !scope.whole() {
        let others = fs::read_dir(crate::programs::root()).into_iter().flatten().flatten().map(|entry| entry.path());
        for dir in others.filter(|dir| !scope.dirs.contains(dir)).map(|dir| dir.join("state")).chain([PathBuf::from("/var/lib/berth")]) {
            let disks = fs::read_dir(dir.join("berths")).into_iter().flatten().flatten().map(|entry| entry.path().join("disk.img"));
            foreign.extend(disks.filter_map(|disk| fs::metadata(disk).ok()).map(|metadata| metadata.ino().to_string()));
        }
    }
    let inode = |line: &str| line.split_whitespace().nth(1).unwrap_or_default().to_owned();
    listed
        .iter()
        .filter(|line| !foreign.contains(&inode(line)))
        .map(|line| format!("{} inode {}", columns(line, &[2, 3]), inode(line)))
        .collect()
}

fn groups(scope: &Scope) -> Vec<String> {
    let base = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    let mut found = Vec::new();
    for hierarchy in hierarchies.chain([base.to_owned()]) {
        for entry in fs::read_dir(&hierarchy).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = match &scope.instance {
                None => name.starts_with("berth"),
                Some(instance) => name == format!("berth{instance}") || name == format!("berth{instance}.slice"),
            };
            if ours && entry.path().is_dir() {
                walk(&entry.path(), &mut |path, metadata| {
                    let dir = metadata.is_dir();
                    if dir {
                        found.push(path.display().to_string());
                    }
                    dir
                });
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

fn links(scope: &Scope) -> Vec<String> {
    let names =
        fs::read_dir("/sys/class/net").into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&scope.links)).collect()
}

fn routes(scope: &Scope) -> Vec<String> {
    let asked = "route show table all\nrule show\nneighbour show nud permanent\n";
    let told = Run::new("ip").args(["-batch", "-"]).input(asked).output().stdout;
    let mut found: Vec<String> = told.lines().map(str::to_owned).collect();
    // Destination, source, gateway and link; the rest counts.
    found.extend(
        read("/proc/net/ipv6_route").iter().map(|line| format!("dev {} from {}", columns(line, &[9, 0, 1, 4]), columns(line, &[2, 3]))),
    );
    found.retain(|line| {
        scope.whole() || line.contains(&format!("dev {}", scope.links)) || line.split([' ', '/']).any(|word| word.starts_with(&scope.pool))
    });
    found
}

fn nft(scope: &Scope) -> Vec<String> {
    // By numbers: nft looks up the names of protocols for each rule anew, and a table has hundreds of them.
    let text = match &scope.instance {
        None => lines(&["nft", "-n", "list", "ruleset"]),
        Some(instance) => lines(&["nft", "-n", "list", "table", "inet", &format!("berth{instance}")]),
    };
    text.iter().map(|line| without_counters(line.trim())).filter(|line| !line.is_empty() && line != "}").collect()
}

/// `packets 12 bytes 900` says what passed, and `expires 3s` when: not what is there.
fn without_counters(line: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    for word in line.split_whitespace() {
        let counted = matches!(out.last(), Some(&("packets" | "bytes" | "expires")));
        out.push(if counted { "_" } else { word });
    }
    out.join(" ")
}

fn sysctls() -> Vec<String> {
    let mut found = Vec::new();
    for dir in
        ["net/ipv4/conf/all", "net/ipv4/conf/default", "net/ipv6/conf/all", "net/ipv6/conf/default", "fs/inotify", "kernel/keys", "user"]
    {
        for entry in fs::read_dir(Path::new("/proc/sys").join(dir)).into_iter().flatten().flatten() {
            let value = fs::read_to_string(entry.path()).unwrap_or_default();
            found.push(format!("{dir}/{} = {}", entry.file_name().to_string_lossy(), value.trim()));
        }
    }
    for file in ["net/ipv4/ip_forward", "net/ipv4/ip_local_port_range", "net/netfilter/nf_conntrack_max", "vm/max_map_count"] {
        if let Ok(value) = fs::read_to_string(Path::new("/proc/sys").join(file)) {
            found.push(format!("{file} = {}", value.trim()));
        }
    }
    found
}

fn files(scope: &Scope) -> Vec<String> {
    let mut found = Vec::new();
    for dir in &scope.dirs {
        walk(dir, &mut |path, metadata| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // SQLite keeps these two while somebody has the database open; an unpacked image has ten thousand files of its own.
            // The mark of a haste is there for some seconds of each start (limits.rs looks for its end).
            if name.ends_with("-wal") || name.ends_with("-shm") || name == "expedited" {
                return false;
            }
            let kind = match metadata.file_type() {
                kind if kind.is_dir() => 'd',
                kind if kind.is_symlink() => 'l',
                kind if kind.is_socket() => 's',
                kind if kind.is_file() => '-',
                _ => '?',
            };
            found.push(format!("{kind}{:04o} {}:{} {}", metadata.mode() & 0o7777, metadata.uid(), metadata.gid(), path.display()));
            let unpacked = path.parent().and_then(Path::parent).is_some_and(|above| above.ends_with("images"));
            kind == 'd' && !unpacked
        });
    }
    found
}

/// Visits `path` and, where `visit` says so, what is below it; never through a symbolic link.
fn walk(path: &Path, visit: &mut impl FnMut(&Path, &fs::Metadata) -> bool) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    if visit(path, &metadata) && metadata.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            walk(&entry.path(), visit);
        }
    }
}

/// Bound Unix sockets; one whose file is gone is still here as long as somebody holds it.
fn sockets(scope: &Scope) -> Vec<String> {
    let bound =
        read("/proc/net/unix").iter().skip(1).filter_map(|line| line.split_whitespace().nth(7).map(str::to_owned)).collect::<Vec<_>>();
    let mut ours: Vec<String> = bound.into_iter().filter(|path| within_dirs(scope, path)).collect();
    // Accepted connections carry the listener's path as well, and come and go.
    ours.sort();
    ours.dedup();
    ours
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(lines: &[&str]) -> Snapshot {
        Snapshot { sections: BTreeMap::from([("file".to_owned(), lines.iter().map(|&line| line.to_owned()).collect())]) }
    }

    #[test]
    fn a_difference_counts_what_came_and_what_went() {
        let (before, after) = (snapshot(&["a", "b", "b"]), snapshot(&["b", "c", "c"]));
        assert_eq!(after.since(&before).0, ["- file: a", "- file: b", "+ file: c", "+ file: c"]);
        assert_eq!(before.since(&before), Difference::default());
        assert_eq!(Snapshot::from_json(&after.to_json()).unwrap(), after);
    }

    #[test]
    fn a_new_file_and_a_new_socket_are_seen() {
        let dir = std::env::temp_dir().join(format!("berth-snapshot-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let scope = Scope {
            dirs: vec![dir.clone()],
            instance: Some("none".into()),
            links: "none".into(),
            ids: (1, 0),
            accounts: "none:".into(),
            pool: "none".into(),
        };
        let before = Snapshot::take(&scope);
        let listener = std::os::unix::net::UnixListener::bind(dir.join("s")).unwrap();
        let difference = Snapshot::take(&scope).since(&before);
        drop(listener);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(difference.0.len(), 2, "{difference}");
        assert!(difference.0[0].starts_with("+ file: s") && difference.0[1].starts_with("+ socket: "), "{difference}");
    }

    #[test]
    fn counters_are_no_difference() {
        assert_eq!(without_counters("ip saddr 1.2.3.4 counter packets 7 bytes 99 drop"), "ip saddr 1.2.3.4 counter packets _ bytes _ drop");
    }
}
