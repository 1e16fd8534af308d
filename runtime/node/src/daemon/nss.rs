//! Host accounts, as the host's name service knows them. The server names a user; everything else about him is looked up here.

mod members;

use std::{ffi::CString, fs, sync::Arc, time::Duration};

use axum::http::StatusCode;
use berth_protocol::HostUser;
use nix::unistd::{Gid, User, getgrouplist};
use tokio::sync::Semaphore;

use super::{config::Ids, refusal::Refusal};

/// Longest user name in bytes; directories allow more than useradd, sockets' paths do not.
pub(crate) const MAX_NAME: usize = 64;
/// A directory service that does not answer within this is out of order.
const DEADLINE: Duration = Duration::from_secs(5);
/// A berth starts without its user's groups rather than late.
const GROUPS_DEADLINE: Duration = Duration::from_secs(1);
/// More groups than any directory should give.
const MOST_GROUPS: usize = 4096;
/// A look-up cannot be cancelled; more than this many stuck ones are not piled up.
const AT_ONCE: usize = 8;

/// Looks up accounts with a deadline.
#[derive(Clone)]
pub(crate) struct Accounts {
    slots: Arc<Semaphore>,
    ids: Ids,
}

/// True for what can be an account's name and is safe as a file name: ASCII letters, digits and `_ . @ + -`, not beginning with `.`, `-` or `@`.
pub(crate) fn valid_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"_.@+-".contains(&b);
    let first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    name.len() <= MAX_NAME && name.bytes().next().is_some_and(first) && name.bytes().all(inner)
}

impl Accounts {
    pub(crate) fn new(ids: Ids) -> Self {
        Self { slots: Arc::new(Semaphore::new(AT_ONCE)), ids }
    }

    /// The account `name`, or 400 `invalid_user_name`, 404 `user_not_found`, 503 `directory_unavailable`.
    pub(crate) async fn find(&self, name: &str) -> Result<HostUser, Refusal> {
        if !valid_name(name) {
            let shown: String = name.chars().take(MAX_NAME).collect();
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "invalid_user_name", format!("{shown:?} cannot be the name of a host user"))
                .hint(format!("up to {MAX_NAME} ASCII letters, digits and _ . @ + -, beginning with a letter, a digit or _")));
        }
        let unavailable = |why: String| {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "directory_unavailable", format!("looking up {name}: {why}"))
                .hint(format!("see what `getent passwd {name}` says on the host"))
        };
        let look = async {
            let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|e| e.to_string())?;
            let wanted = name.to_owned();
            let found = tokio::task::spawn_blocking(move || {
                let found = User::from_name(&wanted);
                drop(slot);
                found
            });
            found.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
        };
        let found = match tokio::time::timeout(DEADLINE, look).await {
            Err(_) => return Err(unavailable(format!("the name service did not answer within {} s", DEADLINE.as_secs()))),
            Ok(Err(why)) => return Err(unavailable(why)),
            Ok(Ok(found)) => found,
        };
        // A directory that ignores case must not give one account two berths.
        let found = found.filter(|u| u.name == name).ok_or_else(|| {
            Refusal::new(StatusCode::NOT_FOUND, "user_not_found", format!("the host has no user {name}"))
                .hint("accounts are the host's own: useradd, LDAP or SSSD")
        })?;
        let uid = found.uid.as_raw();
        let login_defs = fs::read_to_string("/etc/login.defs").unwrap_or_default();
        Ok(HostUser {
            system: is_system(uid, &found.name, uid_min(&login_defs)),
            name: found.name,
            uid,
            gid: found.gid.as_raw(),
            home: found.dir.to_string_lossy().into_owned(),
        })
    }

    /// Gids of all groups of the account `name`, its primary group `gid` included; an error is a sentence.
    pub(crate) async fn groups(&self, name: &str, gid: u32) -> Result<Vec<u32>, String> {
        let look = async {
            let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|e| e.to_string())?;
            let name = CString::new(name).map_err(|e| e.to_string())?;
            let found = tokio::task::spawn_blocking(move || {
                let found = getgrouplist(&name, Gid::from_raw(gid));
                drop(slot);
                found
            });
            found.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
        };
        match tokio::time::timeout(GROUPS_DEADLINE, look).await {
            Err(_) => Err(format!("the name service did not answer within {} s", GROUPS_DEADLINE.as_secs())),
            Ok(found) => Ok(found?.into_iter().map(Gid::as_raw).take(MOST_GROUPS).collect()),
        }
    }

    /// Whether `user` may have a berth at all.
    pub(crate) fn admit(&self, user: &HostUser, allow_system: bool) -> Result<(), Refusal> {
        let refused = |code: &str, detail: String| Refusal::new(StatusCode::FORBIDDEN, code, detail);
        if user.uid == 0 {
            return Err(
                refused("root_refused", format!("{} has uid 0: root never gets a berth", user.name)).hint("assign it to an ordinary user")
            );
        }
        if (self.ids.first..=self.ids.last).contains(&user.uid) {
            return Err(refused(
                "uid_in_berth_range",
                format!("{} has uid {}, which lies in the id pool of the berths", user.name, user.uid),
            )
            .hint("move the pool ([ids] in node.toml) before the first berth, or give the account another uid"));
        }
        if user.system && !allow_system {
            return Err(refused("system_account", format!("{} (uid {}) is a system account", user.name, user.uid))
                .hint("if that is what you want: berth assign --allow-system"));
        }
        Ok(())
    }
}

fn is_system(uid: u32, name: &str, uid_min: u32) -> bool {
    uid < uid_min || uid == 65534 || name == "nobody"
}

/// `UID_MIN` of login.defs(5).
fn uid_min(login_defs: &str) -> u32 {
    let value = |line: &str| line.trim().strip_prefix("UID_MIN").and_then(|rest| rest.trim().parse().ok());
    login_defs.lines().find_map(value).unwrap_or(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_safe_file_names_are_refused() {
        for good in ["alice", "a.b-c", "_x", "s123@uni.example", "20251234"] {
            assert!(valid_name(good), "{good}");
        }
        let long = "x".repeat(300);
        for bad in ["", ".", "..", "a/b", "../x", "-x", "a\0b", "a b", "ä", ".hidden", long.as_str(), "a\nb"] {
            assert!(!valid_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn uid_min_is_read_and_comments_are_not() {
        assert_eq!(uid_min("#UID_MIN 5\nUID_MIN\t\t 500\nUID_MAX 60000"), 500);
        assert_eq!(uid_min(""), 1000);
        assert!(is_system(999, "x", 1000) && is_system(65534, "nobody", 1000) && !is_system(1000, "x", 1000));
    }

    #[test]
    fn root_is_never_admitted_and_system_accounts_only_when_asked() {
        let accounts = Accounts::new(Ids::default());
        let user = |uid, system| HostUser { name: "u".into(), uid, gid: uid, home: "/".into(), system };
        assert_eq!(accounts.admit(&user(0, true), true).unwrap_err().problem.code, "root_refused");
        assert_eq!(accounts.admit(&user(7, true), false).unwrap_err().problem.code, "system_account");
        assert!(accounts.admit(&user(7, true), true).is_ok());
        assert_eq!(accounts.admit(&user(2_000_224_256, false), true).unwrap_err().problem.code, "uid_in_berth_range");
    }
}
