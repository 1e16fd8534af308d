//! The user's home and further directories for one run of a berth: `berth-shim share` opens and id-maps them, with the user's own rights
//! and within a deadline. Whatever cannot be brought in is a condition with its reason, never a failed start: an empty read-only cover
//! stands at its path, and the shim names the reason to whoever mounts from there.

use std::{
    collections::BTreeSet,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use berth_protocol::HomeAccess;
use berth_runtime::{
    container::{MOUNTS_OF_A_SHARE, Share},
    idmap::share::{Account, inside},
    share::{MOST_SHARES, Outcome, Request, Wanted, refusal},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{process::Command, time::timeout};

use super::{channel::Channel, node::Node, record::Record};

/// For looking up groups and opening everything.
const DEADLINE: Duration = Duration::from_secs(5);
/// Where the wrapper of the inner runc finds what it needs to know, `runtime/init/src/runc`.
const FACTS: &str = "/run/berth/inner.json";

/// A directory that is not in the berth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NotShared {
    pub(crate) path: String,
    /// A sentence.
    pub(crate) reason: String,
    pub(crate) home: bool,
}

/// What one run gets.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) shares: Vec<Share>,
    /// [`MOUNTS_OF_A_SHARE`] detached mounts for each share that is mounted.
    pub(crate) mounts: Vec<OwnedFd>,
    /// Conditions.
    pub(crate) not_shared: Vec<NotShared>,
    /// Covers and why they are there, for the shim.
    pub(crate) covers: Vec<(String, String)>,
    /// A small file for the inside.
    pub(crate) facts: (PathBuf, String),
    /// Directories in which the berth's ids can own files from now on, and whether that is the home.
    pub(crate) writable: Vec<(PathBuf, bool)>,
}

/// Opens and maps everything that the policy of `record` names.
pub(crate) async fn share(node: &Node, record: &Record) -> Shared {
    let wanted = wanted(record);
    let groups = node.accounts.groups(&record.user, record.gid).await.unwrap_or_else(|why| {
        tracing::warn!(user = record.user, why, "the berth starts without the user's supplementary groups");
        Vec::new()
    });
    let (mut allowed, mut outcomes) = (Vec::new(), Vec::new());
    for wanted in wanted {
        match refusal(&wanted.path) {
            None => allowed.push(wanted),
            Some(why) => outcomes.push((wanted, Err(why))),
        }
    }
    let account = Account::new(record.uid, record.gid, &groups, record.id_base);
    let beyond = allowed.split_off(allowed.len().min(MOST_SHARES));
    outcomes.extend(beyond.into_iter().map(|w| (w, Err(format!("more than {MOST_SHARES} directories are asked for")))));
    if !allowed.is_empty() {
        let request = Request { uid: record.uid, gid: record.gid, groups, id_base: record.id_base, wanted: allowed.clone() };
        match timeout(DEADLINE, ask(node, &request)).await.unwrap_or_else(|_| Err("it did not open in time".into())) {
            Ok(mounts) => outcomes.extend(allowed.into_iter().zip(mounts)),
            Err(why) => outcomes.extend(allowed.into_iter().map(|w| (w, Err(why.clone())))),
        }
    }
    let home = (record.policy.home == HomeAccess::None).then(|| home_of(record));
    assemble(record, &account, outcomes, home)
}

/// The home first, then the paths of the profile; each path once.
fn wanted(record: &Record) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    let read_only = record.policy.home == HomeAccess::Ro;
    if record.policy.home != HomeAccess::None {
        wanted.push(Wanted { path: home_of(record), read_only, home: true });
    }
    let mut seen: BTreeSet<PathBuf> = wanted.iter().map(|w| w.path.clone()).collect();
    for path in &record.policy.paths {
        let own = PathBuf::from(&path.path);
        if seen.insert(own.clone()) {
            wanted.push(Wanted { path: own, read_only: path.read_only, home: false });
        }
    }
    wanted
}

/// As the account names it, but for a slash at its end.
fn home_of(record: &Record) -> PathBuf {
    let text = record.home.to_string_lossy();
    PathBuf::from(match text.trim_end_matches('/') {
        "" => "/",
        rest => rest,
    })
}

/// Executes `berth-shim share` and takes its answer: three mounts for each wanted directory, or why not.
async fn ask(node: &Node, request: &Request) -> Result<Vec<Result<Vec<OwnedFd>, String>>, String> {
    let program = node.host.layout.shim_program();
    let (channel, theirs) = Channel::pair().map_err(|e| format!("no socket pair: {e}"))?;
    let mut command = Command::new(&program);
    command.arg("share").env_clear().stdin(Stdio::from(theirs)).stdout(Stdio::null()).current_dir("/");
    // Whatever hangs is left to the kernel; nobody waits for it here.
    let mut child = command.kill_on_drop(true).spawn().map_err(|e| format!("cannot execute {}: {e}", program.display()))?;
    drop(command);
    channel.send_value(request, &[]).await.map_err(|e| format!("the request was not taken: {e}"))?;
    let answer = channel.receive_value::<Vec<Outcome>>().await.map_err(|e| format!("the answer is not understood: {e}"))?;
    tokio::spawn(async move { timeout(DEADLINE, child.wait()).await });
    let (outcomes, descriptors) = answer.ok_or("opening it failed; the node's log says why")?;
    let mut descriptors = descriptors.into_iter();
    let answer = outcomes.into_iter().map(|outcome| match outcome {
        Outcome::Refused { reason } => Ok(Err(reason)),
        Outcome::Mounted => {
            let mounts: Vec<OwnedFd> = descriptors.by_ref().take(MOUNTS_OF_A_SHARE).collect();
            if mounts.len() == MOUNTS_OF_A_SHARE { Ok(Ok(mounts)) } else { Err("mounts are missing in the answer".to_owned()) }
        }
    });
    let answer: Vec<_> = answer.collect::<Result<_, _>>()?;
    if answer.len() == request.wanted.len() { Ok(answer) } else { Err("the answer does not fit the question".into()) }
}

/// `home`: where a cover stands for a home that the profile leaves out.
fn assemble(
    record: &Record,
    account: &Account,
    mut outcomes: Vec<(Wanted, Result<Vec<OwnedFd>, String>)>,
    home: Option<PathBuf>,
) -> Shared {
    // The shallower first: what lies deeper is attached on top of it.
    outcomes.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    let mut shared = Shared {
        shares: Vec::new(),
        mounts: Vec::new(),
        not_shared: Vec::new(),
        covers: Vec::new(),
        facts: (FACTS.into(), String::new()),
        writable: Vec::new(),
    };
    for (wanted, outcome) in outcomes {
        let path = wanted.path.to_string_lossy().into_owned();
        match outcome {
            Ok(mounts) => {
                shared.mounts.extend(mounts);
                if !wanted.read_only {
                    shared.writable.push((wanted.path.clone(), wanted.home));
                }
                shared.shares.push(Share { path: wanted.path, mounted: true });
            }
            Err(reason) => {
                if refusal(&wanted.path).is_none() {
                    shared.covers.push((path.clone(), reason.clone()));
                    shared.shares.push(Share { path: wanted.path, mounted: false });
                }
                shared.not_shared.push(NotShared { path, reason, home: wanted.home });
            }
        }
    }
    if let Some(home) = home.filter(|home| refusal(home).is_none() && shared.shares.iter().all(|s| s.path != *home)) {
        let path = home.to_string_lossy().into_owned();
        shared.covers.push((path, "its profile leaves the home out".into()));
        shared.shares.push(Share { path: home, mounted: false });
        // Mounted shares keep their order among themselves, so the mounts stay beside them.
        shared.shares.sort_by(|a, b| a.path.cmp(&b.path));
    }
    shared.facts.1 = facts(record, account, &shared.shares);
    shared
}

/// What the wrapper has to know: who the user is inside, and where his directories are.
fn facts(record: &Record, account: &Account, shares: &[Share]) -> String {
    let shares: Vec<Option<&Path>> = shares.iter().map(|s| s.mounted.then_some(s.path.as_path())).collect();
    json!({
        "uid": record.uid,
        "gid": record.gid,
        "uid_inside": inside(record.uid),
        "gid_inside": inside(record.gid),
        "groups": account.groups_inside(),
        "shares": shares,
    })
    .to_string()
}

/// The conditions that `not_shared` makes: kind and message.
pub(crate) fn conditions(user: &str, not_shared: &[NotShared]) -> Vec<(&'static str, String)> {
    let sentence = |n: &NotShared| format!("{}: {}", n.path, n.reason);
    let mut conditions = Vec::new();
    for home in not_shared.iter().filter(|n| n.home) {
        let message = format!(
            "the home {}; mounts from it fail inside. Change that, or set the profile's home to none; then: berth restart {user}",
            sentence(home)
        );
        conditions.push(("HomeNotMapped", message));
    }
    let others: Vec<String> = not_shared.iter().filter(|n| !n.home).map(sentence).collect();
    if !others.is_empty() {
        let message = format!(
            "{}; mounts from there fail inside. Change that, or the profile's paths; then: berth restart {user}",
            others.join("; ")
        );
        conditions.push(("PathNotMapped", message));
    }
    conditions
}

#[cfg(test)]
mod tests {
    use berth_protocol::{Policy, SharedPath};

    use super::*;
    use crate::daemon::record::tests::record;

    fn with(home: HomeAccess, paths: &[(&str, bool)]) -> Record {
        let paths = paths.iter().map(|(path, read_only)| SharedPath { path: (*path).into(), read_only: *read_only }).collect();
        Record { policy: Policy { home, paths, ..Policy::default() }, home: "/home/alice/".into(), ..record("alice", 1000, 0) }
    }

    #[test]
    fn h02_a_profile_makes_the_home_read_only_or_leaves_it_out() {
        assert_eq!(wanted(&with(HomeAccess::Rw, &[])), [Wanted { path: "/home/alice".into(), read_only: false, home: true }]);
        assert!(wanted(&with(HomeAccess::Ro, &[]))[0].read_only);
        let paths = wanted(&with(HomeAccess::None, &[("/srv/a", true), ("/srv/a", false)]));
        assert_eq!(paths, [Wanted { path: "/srv/a".into(), read_only: true, home: false }]);
    }

    #[test]
    fn h02_what_cannot_be_mapped_is_covered_named_and_a_condition() {
        let record = with(HomeAccess::Rw, &[("/srv/a", false), ("/etc", false)]);
        let wanted = wanted(&record);
        let why = |w: &Wanted| refusal(&w.path).unwrap_or_else(|| "its file system (nfs) has no id-mapped mounts".into());
        let outcomes = wanted.into_iter().map(|w| (w.clone(), Err(why(&w)))).collect();
        let account = Account::new(1000, 1000, &[], record.id_base);
        let shared = assemble(&record, &account, outcomes, None);
        let covers: Vec<&Path> = shared.shares.iter().map(|s| s.path.as_path()).collect();
        assert_eq!(covers, [Path::new("/home/alice"), Path::new("/srv/a")], "nothing covers /etc");
        assert!(shared.covers[0].1.contains("nfs"), "{:?}", shared.covers);
        let conditions = conditions("alice", &shared.not_shared);
        assert_eq!(conditions.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), ["HomeNotMapped", "PathNotMapped"]);
        assert!(conditions[1].1.contains("/etc: a berth has /etc of its own") && conditions[1].1.contains("/srv/a"), "{conditions:?}");
    }

    #[test]
    fn h02_a_home_that_is_left_out_is_covered_without_a_condition() {
        let record = with(HomeAccess::None, &[]);
        let account = Account::new(1000, 1000, &[], record.id_base);
        let shared = assemble(&record, &account, Vec::new(), Some(home_of(&record)));
        assert_eq!(shared.shares, [Share { path: "/home/alice".into(), mounted: false }]);
        assert!(shared.not_shared.is_empty() && shared.covers[0].1.contains("profile"));
    }
}
