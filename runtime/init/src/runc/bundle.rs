//! What is changed in a container's configuration: from data to data.
//!
//! In the berth the user is root, and his home belongs to root. A container that runs under the user's own number would find somebody
//! else's files there. So its binds from the user's directories are pointed to a second mount of each, in which the user has his own
//! number; a number that does not fit a berth's 65536 becomes the one that stands for it. Containers with such binds also get the groups
//! that stand for the user's supplementary ones.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Where the runtime put the second mounts: `<n>/own`, and `<n>/root` for a container whose group is root's.
const AS_USER: &str = "/run/berth/as-user";

/// Who the user is, and what he has of the host.
#[derive(Debug)]
pub(crate) struct Facts {
    /// On the host.
    uid: u64,
    gid: u64,
    uid_inside: u64,
    gid_inside: u64,
    groups: Vec<u64>,
    /// Directories, by number; a cover has none.
    shares: Vec<Option<PathBuf>>,
}

impl Facts {
    pub(crate) fn parse(text: &Value) -> Option<Self> {
        let number = |key: &str| text.get(key)?.as_u64();
        Some(Self {
            uid: number("uid")?,
            gid: number("gid")?,
            uid_inside: number("uid_inside")?,
            gid_inside: number("gid_inside")?,
            groups: text.get("groups")?.as_array()?.iter().filter_map(Value::as_u64).collect(),
            shares: text.get("shares")?.as_array()?.iter().map(|path| path.as_str().map(PathBuf::from)).collect(),
        })
    }

    /// The innermost share above `path`, and the rest below it.
    fn share_of<'p>(&self, path: &'p Path) -> Option<(usize, &'p Path)> {
        let inside = self.shares.iter().enumerate().filter_map(|(index, share)| {
            let share = share.as_ref()?;
            Some((share.components().count(), index, path.strip_prefix(share).ok()?))
        });
        inside.max_by_key(|(depth, _, _)| *depth).map(|(_, index, rest)| (index, rest))
    }
}

/// Changes the `config.json` of a container about to be made; true when there was something to change. `real` resolves symbolic links.
pub(crate) fn create(config: &mut Value, facts: &Facts, real: &dyn Fn(&Path) -> Option<PathBuf>) -> bool {
    let Some(user) = config.pointer("/process/user") else { return false };
    let (uid, gid) = (id(user, "uid"), id(user, "gid"));
    let is_user = uid == facts.uid;
    let mut changed = config.pointer_mut("/process").is_some_and(|process| exec(process, facts));
    let mut shared = false;
    for mount in config.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(source) = bind_source(mount) else { continue };
        let Some(source) = real(Path::new(source)) else { continue };
        let Some((index, rest)) = facts.share_of(&source) else { continue };
        shared = true;
        if !is_user {
            continue;
        }
        let which = if gid == 0 { "root" } else { "own" };
        let other: PathBuf = Path::new(AS_USER).join(index.to_string()).join(which).join(rest).components().collect();
        // What is not there is left as it was asked for: runc says then what is wrong with it.
        if let Some(other) = real(&other) {
            mount["source"] = json!(other);
            changed = true;
        }
    }
    if shared && (is_user || uid == 0) && !facts.groups.is_empty() {
        add_groups(config, &facts.groups);
        changed = true;
    }
    changed
}

/// Changes the process of a container, or one that joins it: the user's number on the host becomes the one he has inside.
pub(crate) fn exec(process: &mut Value, facts: &Facts) -> bool {
    let Some(user) = process.get_mut("user") else { return false };
    let mut changed = false;
    for (key, outside, inside) in [("uid", facts.uid, facts.uid_inside), ("gid", facts.gid, facts.gid_inside)] {
        if outside != inside && id(user, key) == outside {
            user[key] = json!(inside);
            changed = true;
        }
    }
    // Docker names the primary group here once more.
    for gid in user.get_mut("additionalGids").and_then(Value::as_array_mut).into_iter().flatten() {
        if facts.gid != facts.gid_inside && gid.as_u64() == Some(facts.gid) {
            *gid = json!(facts.gid_inside);
            changed = true;
        }
    }
    changed
}

fn id(user: &Value, key: &str) -> u64 {
    user.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn bind_source(mount: &Value) -> Option<&str> {
    let option = |wanted: &str| mount.get("options").and_then(Value::as_array).is_some_and(|all| all.iter().any(|o| o == wanted));
    let bind = mount.get("type").is_some_and(|kind| kind == "bind") || option("bind") || option("rbind");
    mount.get("source").and_then(Value::as_str).filter(|source| bind && source.starts_with('/'))
}

fn add_groups(config: &mut Value, groups: &[u64]) {
    let Some(user) = config.pointer_mut("/process/user").and_then(Value::as_object_mut) else { return };
    let mut all: Vec<u64> = user.get("additionalGids").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_u64).collect();
    for group in groups {
        if !all.contains(group) {
            all.push(*group);
        }
    }
    user.insert("additionalGids".into(), json!(all));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(uid: u64, inside: u64) -> Facts {
        let text = json!({
            "uid": uid, "gid": uid, "uid_inside": inside, "gid_inside": inside, "groups": [65533],
            "shares": ["/home/a", null, "/srv/data", "/home/a/disk"],
        });
        Facts::parse(&text).unwrap()
    }

    fn config(uid: u64, gid: u64, sources: &[&str]) -> Value {
        let bind = |source: &&str| json!({"destination": "/w", "type": "bind", "source": source, "options": ["rbind", "rw"]});
        let mut mounts: Vec<Value> = sources.iter().map(bind).collect();
        mounts.push(json!({"destination": "/proc", "type": "proc", "source": "proc"}));
        json!({"process": {"user": {"uid": uid, "gid": gid, "additionalGids": [10]}, "args": ["sh"]}, "mounts": mounts, "extra": {"kept": true}})
    }

    fn sources(config: &Value) -> Vec<&str> {
        config["mounts"].as_array().unwrap().iter().map(|m| m["source"].as_str().unwrap()).collect()
    }

    fn same(path: &Path) -> Option<PathBuf> {
        Some(path.to_owned())
    }

    #[test]
    fn h01_a_container_of_the_users_own_number_gets_his_directories_as_himself() {
        let mut found = config(1000, 1000, &["/home/a/x", "/var/lib/x", "/srv/data", "/home/ab", "/home/a/disk/y"]);
        assert!(create(&mut found, &facts(1000, 1000), &same));
        let expected =
            ["/run/berth/as-user/0/own/x", "/var/lib/x", "/run/berth/as-user/2/own", "/home/ab", "/run/berth/as-user/3/own/y", "proc"];
        assert_eq!(sources(&found), expected);
        assert_eq!(found["process"]["user"], json!({"uid": 1000, "gid": 1000, "additionalGids": [10, 65533]}));
        assert_eq!(found["extra"]["kept"], true);
        let mut found = config(1000, 0, &["/home/a/x"]);
        assert!(create(&mut found, &facts(1000, 1000), &same));
        assert_eq!(sources(&found)[0], "/run/berth/as-user/0/root/x");
    }

    #[test]
    fn h01_root_keeps_its_binds_and_gets_the_groups_and_others_get_nothing() {
        let mut found = config(0, 0, &["/home/a/x"]);
        assert!(create(&mut found, &facts(1000, 1000), &same));
        assert_eq!(sources(&found)[0], "/home/a/x");
        assert_eq!(found["process"]["user"]["additionalGids"], json!([10, 65533]));
        for (uid, source) in [(33, "/home/a/x"), (0, "/var/lib/x"), (1000, "/var/lib/x")] {
            let mut found = config(uid, 33, &[source]);
            let before = found.clone();
            assert!(!create(&mut found, &facts(1000, 1000), &same));
            assert_eq!(found, before);
        }
    }

    #[test]
    fn h01_a_number_that_does_not_fit_becomes_the_one_that_stands_for_it() {
        let mut found = config(1_234_567, 1_234_567, &["/home/a/x"]);
        assert!(create(&mut found, &facts(1_234_567, 65469), &same));
        assert_eq!((&found["process"]["user"]["uid"], &found["process"]["user"]["gid"]), (&json!(65469), &json!(65469)));
        assert_eq!(sources(&found)[0], "/run/berth/as-user/0/own/x");
        let mut process = json!({"user": {"uid": 1_234_567, "gid": 5, "additionalGids": [1_234_567, 7]}});
        assert!(exec(&mut process, &facts(1_234_567, 65469)));
        assert_eq!(process["user"], json!({"uid": 65469, "gid": 5, "additionalGids": [65469, 7]}));
        assert!(!exec(&mut process, &facts(1_234_567, 65469)));
    }

    #[test]
    fn links_are_resolved_and_what_is_not_there_stays() {
        let linked = |path: &Path| match path.to_str()? {
            "/link" => Some("/home/a/x".into()),
            "/home/a/leads-out" => Some("/var/lib/x".into()),
            "/run/berth/as-user/0/own/gone" => None,
            other => Some(other.into()),
        };
        let mut found = config(1000, 1000, &["/link", "/home/a/leads-out", "/home/a/gone"]);
        assert!(create(&mut found, &facts(1000, 1000), &linked));
        assert_eq!(sources(&found)[..3], ["/run/berth/as-user/0/own/x", "/home/a/leads-out", "/home/a/gone"]);
        for text in [json!({}), json!([]), json!({"process": 7, "mounts": "x"}), json!({"process": {"user": {}}, "mounts": [1]})] {
            let mut found = text.clone();
            assert!(!create(&mut found, &facts(1000, 1000), &same));
            assert_eq!(found, text);
        }
    }
}
