//! What is on the host and belongs to no record: found and removed when the node starts, before any berth is taken up.
//!
//! Only what cannot hold a tenant's data is removed by itself. A record is the first thing a create makes and the last a delete removes,
//! so a disk without one was never left by us; `doctor` names it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use berth_protocol::BerthId;
use berth_runtime::{
    cgroup::Group,
    error::{Result, chain},
    net,
};

use super::{
    host::{Host, end_group},
    listener::gone,
    record::{Corrupt, Record},
};

/// What records, corrupt ones included, account for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    ids: BTreeSet<BerthId>,
    uids: BTreeSet<u32>,
    users: BTreeSet<String>,
    indexes: BTreeSet<u32>,
    /// There are records of which not everything is known.
    vague: bool,
}

impl Known {
    pub(crate) fn new(records: &[Record], corrupt: &[Corrupt]) -> Self {
        Self {
            ids: records.iter().map(|r| r.id).chain(corrupt.iter().filter_map(|c| c.id)).collect(),
            uids: records.iter().map(|r| r.uid).chain(corrupt.iter().filter_map(|c| c.uid)).collect(),
            users: records.iter().map(|r| r.user.clone()).chain(corrupt.iter().filter_map(|c| c.user.clone())).collect(),
            indexes: records.iter().map(|r| r.index).chain(corrupt.iter().filter_map(|c| c.index)).collect(),
            vague: corrupt.iter().any(|c| c.id.is_none() || c.uid.is_none() || c.user.is_none() || c.index.is_none()),
        }
    }

    /// Names of control groups that are nobody's; what is not named as ours is left alone.
    fn stray_group(&self, name: &str) -> bool {
        let id = name.strip_prefix("berth-").and_then(|n| n.strip_suffix(".scope")).unwrap_or(name);
        let parsed = id.parse().ok().map(BerthId).filter(|parsed| parsed.to_string() == id);
        parsed.is_some_and(|id| !self.ids.contains(&id))
    }

    fn stray_link(&self, name: &str, prefix: &str) -> bool {
        let index = name.strip_prefix(prefix).and_then(|n| n.parse::<u32>().ok());
        !self.vague && index.is_some_and(|i| !self.indexes.contains(&i))
    }

    /// A directory `<uid>` or a symbolic link `<name>` among the users' sockets.
    fn stray_user(&self, name: &str) -> bool {
        let known = name.parse().is_ok_and(|uid| self.uids.contains(&uid)) || self.users.contains(name);
        !self.vague && !known
    }
}

/// Removes strays; what cannot be removed is logged, and keeps nobody else from starting.
pub(crate) fn remove_strays(host: &Host, known: &Known) {
    let report = |what: &Path, removed: Result<()>| match removed {
        Ok(()) => tracing::warn!(what = %what.display(), "removed what belongs to no berth"),
        Err(error) => tracing::error!(what = %what.display(), error = chain(&error), "belongs to no berth and cannot be removed"),
    };
    for path in groups(host) {
        let stray = path.file_name().and_then(|n| n.to_str()).is_some_and(|name| known.stray_group(name));
        if stray {
            report(&path, end_group(&Group { hierarchy: host.hierarchy.clone(), path: path.clone() }));
        }
    }
    for name in net::link::with_prefix(&host.config.link_prefix).unwrap_or_default() {
        let base = net::link::detour_of(&name).unwrap_or(&name);
        if known.stray_link(base, &host.config.link_prefix) {
            report(Path::new(&name), net::link::delete(base));
        }
    }
    for name in names(&host.layout.users()).into_iter().filter(|name| known.stray_user(name)) {
        let path = host.layout.users().join(name);
        report(&path, remove(&path));
    }
    for name in names(&host.layout.shims()).into_iter().filter(|name| known.stray_group(name)) {
        let path = host.layout.shims().join(name);
        report(&path, remove(&path));
    }
}

/// Every group below our parent, in any hierarchy, relative to each.
pub(crate) fn groups(host: &Host) -> BTreeSet<PathBuf> {
    let parent = host.group_parent();
    let mounts = host.hierarchy.v1.iter().map(|h| &h.mount).chain([&host.hierarchy.unified]);
    let below = |mount: &PathBuf| {
        let dir = mount.join(&parent);
        names(&dir).into_iter().filter(move |name| dir.join(name).is_dir())
    };
    mounts.flat_map(below).map(|name| parent.join(name)).collect()
}

/// Disks that no record tells of.
pub(crate) fn stray_disks(host: &Host, known: &Known) -> Vec<PathBuf> {
    names(&host.layout.berths()).into_iter().filter(|name| known.stray_group(name)).map(|name| host.layout.berths().join(name)).collect()
}

fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).map(|entries| entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect()).unwrap_or_default()
}

fn remove(path: &Path) -> Result<()> {
    use berth_runtime::error::Step;
    let is_dir = fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    gone(if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) }).step("remove", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::record::tests::record;

    #[test]
    fn only_what_is_named_as_ours_and_has_no_record_is_a_stray() {
        let alice = record("alice", 1000, 0);
        let known = Known::new(std::slice::from_ref(&alice), &[]);
        let other = record("bob", 1001, 1).id;
        for (name, stray) in [
            (alice.id.to_string(), false),
            (format!("berth-{}.scope", alice.id), false),
            (other.to_string(), true),
            (format!("berth-{other}.scope"), true),
            ("cgroup.procs".into(), false),
            ("somebody-elses".into(), false),
        ] {
            assert_eq!(known.stray_group(&name), stray, "{name}");
        }
        assert!(known.stray_link("bt1", "bt") && !known.stray_link("bt0", "bt") && !known.stray_link("btx", "bt"));
        assert!(known.stray_user("1001") && !known.stray_user("1000") && !known.stray_user("alice") && known.stray_user("bob"));
    }

    #[test]
    fn nothing_is_taken_from_a_berth_whose_record_is_not_readable() {
        let bob = record("bob", 1001, 1);
        let corrupt = Corrupt {
            file: "x".into(),
            id: Some(bob.id),
            user: None,
            uid: None,
            index: None,
            source_ports: None,
            image: None,
            reason: "cut".into(),
        };
        let known = Known::new(&[], &[corrupt]);
        assert!(!known.stray_group(&bob.id.to_string()));
        assert!(!known.stray_link("bt1", "bt") && !known.stray_user("1001") && !known.stray_user("bob"));
    }
}
