//! The payload as someone without any right sees it: what it and the groups below it may use, and use.
//!
//! The groups below are the tenant's: he names, makes and removes them as he likes. So the way to each begins at a descriptor of the
//! payload and never leaves it, and a file that is not there, or not readable, is no error but nothing.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2};

use super::{Group, Part};
use crate::error::{Result, Step};

/// Levels below the payload that are looked at; what lies deeper has the limits of those.
const DEEPEST: usize = 32;
/// Longest file in bytes; the longest are lists of threads.
const LONGEST: u64 = 64 << 10;

/// The payload's directories, open.
#[derive(Debug)]
pub struct View {
    unified: OwnedFd,
    /// Controllers and directory of each v1 hierarchy.
    v1: Vec<(Vec<String>, OwnedFd)>,
    /// Path of the payload in every hierarchy.
    payload: PathBuf,
}

/// A group at or below the payload, by its way down from there in each hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    unified: PathBuf,
    /// As many as the view has; none says the payload.
    v1: Vec<PathBuf>,
}

impl Group {
    /// The payload for reading; the group must have been made.
    pub fn view(&self) -> Result<View> {
        let open =
            |dir: PathBuf| openat(CWD, &dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step("open", dir.display());
        // Not every hierarchy needs a group of the berth's.
        let v1 = self.hierarchy.v1.iter().filter_map(|h| {
            let controllers = h.options.split(',').map(str::to_owned).collect();
            Some((controllers, open(self.below(h, Part::Payload)).ok()?))
        });
        Ok(View {
            unified: open(self.unified(Part::Payload))?,
            v1: v1.collect(),
            payload: Path::new("/").join(&self.path).join(Part::Payload.name()),
        })
    }
}

impl View {
    /// True where the controllers are on v1 hierarchies.
    pub fn hybrid(&self) -> bool {
        !self.v1.is_empty()
    }

    /// Where a process is, by its `/proc/PID/cgroup`. Whatever is not below the payload counts as the payload.
    pub fn place(&self, cgroup: &str) -> Place {
        let mut place = Place { unified: PathBuf::new(), v1: vec![PathBuf::new(); self.v1.len()] };
        for line in cgroup.lines() {
            // `N:controllers:path`, cgroups(7); a path may hold colons.
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let Some(below) = self.below(path) else { continue };
            if controllers.is_empty() {
                place.unified = below;
            } else if let Some(index) = self.v1.iter().position(|(own, _)| controllers.split(',').any(|c| own.iter().any(|o| o == c))) {
                place.v1[index] = below;
            }
        }
        place
    }

    fn below(&self, path: &str) -> Option<PathBuf> {
        let rest = Path::new(path).strip_prefix(&self.payload).ok()?;
        rest.components().take(DEEPEST).map(|c| if let Component::Normal(name) = c { Some(name) } else { None }).collect()
    }

    /// The groups from the payload down to `place`, the payload first, where `controller` is. At least one.
    pub fn levels(&self, controller: &str, place: &Place) -> Vec<PathBuf> {
        let way = match self.v1.iter().position(|(own, _)| own.iter().any(|o| o == controller)) {
            Some(index) => place.v1.get(index).map(PathBuf::as_path).unwrap_or(Path::new("")),
            None => &place.unified,
        };
        let mut level = PathBuf::new();
        let mut levels = vec![level.clone()];
        for name in way {
            level.push(name);
            levels.push(level.clone());
        }
        levels
    }

    /// A file of a group: `level` as of [`View::levels`], for the controller that the file's name begins with. `None`: not there.
    pub fn read(&self, level: &Path, file: &str) -> Option<String> {
        let controller = file.split('.').next()?;
        let of_v1 = self.v1.iter().find(|(own, _)| own.iter().any(|o| o == controller));
        let dir = match of_v1 {
            Some((_, dir)) => dir.as_fd(),
            None if self.hybrid() => return None,
            None => self.unified.as_fd(),
        };
        read(dir, &level.join(file))
    }

    /// Threads of the whole payload, in host numbers; at most `most`, from at most so many groups.
    pub fn threads(&self, most: usize, most_groups: usize) -> Vec<u32> {
        let mut threads = Vec::new();
        let mut groups = vec![PathBuf::new()];
        let mut looked_at = 0;
        while let Some(group) = groups.pop() {
            let text = read(self.unified.as_fd(), &group.join("cgroup.threads")).unwrap_or_default();
            threads.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
            looked_at += 1;
            if threads.len() >= most || looked_at >= most_groups {
                break;
            }
            if group.components().count() < DEEPEST {
                groups.extend(children(self.unified.as_fd(), &group, most_groups));
            }
        }
        threads.truncate(most);
        threads
    }
}

/// Nothing but the tree of the control groups itself: no mount, no link.
fn inside() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

fn read(dir: BorrowedFd<'_>, path: &Path) -> Option<String> {
    let file = openat2(dir, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty(), inside()).ok()?;
    let mut text = String::new();
    File::from(file).take(LONGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

fn children(dir: BorrowedFd<'_>, group: &Path, most: usize) -> Vec<PathBuf> {
    let path = if group.as_os_str().is_empty() { Path::new(".") } else { group };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(entries) = openat2(dir, path, flags, Mode::empty(), inside()).and_then(Dir::new) else { return Vec::new() };
    let groups = entries.filter_map(|entry| {
        let entry = entry.ok().filter(|e| e.file_type() == FileType::Directory)?;
        let name = entry.file_name().to_str().ok()?;
        (name != "." && name != "..").then(|| group.join(name))
    });
    groups.take(most).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::cgroup::{Hierarchy, V1};

    /// A payload of ordinary files: path below the payload (with the hierarchy before it on v1), content.
    pub(crate) fn payload(files: &[(&str, &str)], v1: &[&str]) -> (tempfile::TempDir, View) {
        let dir = tempfile::tempdir().unwrap();
        let mount = |name: &str| dir.path().join(name);
        let hierarchies = v1.iter().map(|name| V1 { options: (*name).to_owned(), mount: mount(name) }).collect();
        let group = Group { hierarchy: Hierarchy { unified: mount("unified"), v1: hierarchies }, path: "berth/x".into() };
        for hierarchy in v1.iter().chain(["unified"].iter()) {
            fs::create_dir_all(mount(hierarchy).join("berth/x/payload")).unwrap();
        }
        for (path, text) in files {
            let (hierarchy, path) = path.split_once(':').unwrap_or(("unified", path));
            let path = mount(hierarchy).join("berth/x/payload").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let view = group.view().unwrap();
        (dir, view)
    }

    #[test]
    fn a_place_is_below_the_payload_or_the_payload_itself() {
        let (_dir, view) = payload(&[], &[]);
        let levels = |text: &str| view.levels("memory", &view.place(text)).iter().map(|l| l.display().to_string()).collect::<Vec<_>>();
        assert_eq!(levels("0::/berth/x/payload/docker/abc\n"), ["", "docker", "docker/abc"]);
        assert_eq!(levels("0::/berth/x/payload/a:b\n"), ["", "a:b"]);
        for other in ["0::/berth/x/payload\n", "0::/berth/x/payload2/a\n", "0::/berth/y/payload/a\n", "0::/\n", "0::/../../x\n", "", "7\n"]
        {
            assert_eq!(levels(other), [""], "{other:?}");
        }
        assert_eq!(levels("0::/berth/x/payload/a/../../../y\n"), [""]);
        let deep = format!("0::/berth/x/payload{}\n", "/d".repeat(1000));
        assert_eq!(levels(&deep).len(), DEEPEST + 1);
    }

    #[test]
    fn each_controller_of_version_1_has_its_own_way_down() {
        let files =
            [("memory:memory.usage_in_bytes", "7\n"), ("memory:docker/a/memory.usage_in_bytes", "3\n"), ("cpu,cpuacct:cpu.stat", "x")];
        let (_dir, view) = payload(&files, &["memory", "cpu,cpuacct", "name=systemd"]);
        let place =
            view.place("9:name=systemd:/\n4:cpuacct,cpu:/berth/x/payload/c\n3:memory:/berth/x/payload/docker/a\n0::/berth/x/payload\n");
        assert_eq!(view.levels("cpuacct", &place), [Path::new(""), Path::new("c")]);
        let levels = view.levels("memory", &place);
        assert_eq!(levels.len(), 3);
        assert_eq!(view.read(&levels[2], "memory.usage_in_bytes").as_deref(), Some("3\n"));
        assert_eq!(view.read(&levels[0], "cpu.stat").as_deref(), Some("x"));
        assert_eq!((view.read(&levels[1], "memory.usage_in_bytes"), view.read(&levels[0], "pids.max")), (None, None));
        assert_eq!(view.levels("memory", &Place::default()), [Path::new("")]);
    }

    #[test]
    fn nothing_leads_out_of_the_payload_and_everything_is_bounded() {
        let files =
            [("cgroup.threads", "1\n2\n"), ("a/cgroup.threads", "3\n"), ("a/b/cgroup.threads", "4\n"), ("long", &"x".repeat(100_000))];
        let (dir, view) = payload(&files, &[]);
        fs::write(dir.path().join("secret"), "s").unwrap();
        symlink(dir.path(), dir.path().join("unified/berth/x/payload/out")).unwrap();
        assert_eq!(view.read(Path::new("out"), "secret"), None);
        assert_eq!(view.read(Path::new("../../../.."), "secret"), None);
        assert_eq!(view.read(Path::new(""), "long").map(|t| t.len()), Some(LONGEST as usize));
        let mut all = view.threads(100, 100);
        all.sort_unstable();
        assert_eq!(all, [1, 2, 3, 4]);
        assert_eq!((view.threads(3, 100).len(), view.threads(100, 1)), (3, vec![1, 2]));
    }
}
