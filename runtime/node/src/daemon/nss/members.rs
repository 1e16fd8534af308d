//! Many accounts at once, and to which of some groups each of them belongs.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use berth_protocol::{Asked, Member};
use futures_util::{StreamExt, stream};
use nix::unistd::Group;

use super::{AT_ONCE, Accounts, DEADLINE};
use crate::daemon::refusal::Refusal;

/// Whoever is not looked up within this is told that the directory does not answer.
const ALL: Duration = Duration::from_secs(20);

impl Accounts {
    /// Each of the names in the order in which they were asked for; one that cannot be looked up holds nobody else up for long.
    pub(crate) async fn members(&self, asked: Asked) -> Result<Vec<Member>, Refusal> {
        let Asked { names, groups } = asked;
        for (what, count, most) in [("names", names.len(), Asked::MOST_NAMES), ("groups", groups.len(), Asked::MOST_GROUPS)] {
            if count > most {
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "too_many", format!("{what} has {count} entries, the most is {most}")));
            }
        }
        let end = Instant::now() + ALL;
        let mut known = Vec::with_capacity(groups.len());
        for group in groups {
            known.extend(self.gid(&group).await?.map(|gid| (group, gid)));
        }
        let known = &known;
        let each = stream::iter(names).map(|name| async move {
            match Instant::now() < end {
                true => self.member(name, known).await,
                false => nothing(name, unavailable("the name service took too long for those before")),
            }
        });
        Ok(each.buffered(AT_ONCE).collect().await)
    }

    async fn member(&self, name: String, known: &[(String, u32)]) -> Member {
        let user = match self.find(&name).await {
            Ok(user) => user,
            Err(refusal) if refusal.problem.code == "user_not_found" => {
                return Member { name, user: None, groups: Vec::new(), problem: None };
            }
            Err(refusal) => return nothing(name, refusal),
        };
        // Nobody asked about groups: a directory that has them elsewhere is left alone.
        let gids = match known.is_empty() {
            true => Ok(Vec::new()),
            false => self.groups(&name, user.gid).await,
        };
        match gids {
            Ok(gids) => {
                let groups = known.iter().filter(|(_, gid)| gids.contains(gid)).map(|(group, _)| group.clone()).collect();
                Member { name, user: Some(user), groups, problem: None }
            }
            Err(why) => {
                let refusal = unavailable(&format!("the groups of {name}: {why}"));
                Member { user: Some(user), ..nothing(name, refusal) }
            }
        }
    }

    /// Nothing: there is no such group.
    async fn gid(&self, group: &str) -> Result<Option<u32>, Refusal> {
        let wanted = group.to_owned();
        let look = async {
            let slot = self.slots.clone().acquire_owned().await.map_err(|e| e.to_string())?;
            let found = tokio::task::spawn_blocking(move || {
                let found = Group::from_name(&wanted);
                drop(slot);
                found
            });
            found.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
        };
        match tokio::time::timeout(DEADLINE, look).await {
            Ok(Ok(found)) => Ok(found.map(|found| found.gid.as_raw())),
            Ok(Err(why)) => Err(unavailable(&format!("looking up the group {group}: {why}"))),
            Err(_) => Err(unavailable(&format!("the name service did not answer for the group {group} within {} s", DEADLINE.as_secs()))),
        }
    }
}

fn nothing(name: String, refusal: Refusal) -> Member {
    Member { name, user: None, groups: Vec::new(), problem: Some(refusal.problem) }
}

fn unavailable(why: &str) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "directory_unavailable", why.to_owned()).hint("see what `getent` says on the host")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::config::Ids;

    #[tokio::test]
    async fn many_are_told_in_order_with_the_groups_that_were_asked_about() {
        let accounts = Accounts::new(Ids::default());
        let names = ["root", "no-such-user-x", "daemon", "../x"].map(str::to_owned).to_vec();
        let groups = ["root", "no-such-group-x", "daemon"].map(str::to_owned).to_vec();
        let told = accounts.members(Asked { names: names.clone(), groups }).await.unwrap();
        assert_eq!(told.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), names);
        assert_eq!((told[0].user.as_ref().unwrap().uid, told[0].groups.as_slice()), (0, ["root".to_owned()].as_slice()));
        assert!(told[1].user.is_none() && told[1].problem.is_none(), "{:?}", told[1]);
        assert_eq!(told[2].groups, ["daemon"]);
        assert_eq!(told[3].problem.as_ref().unwrap().code, "invalid_user_name");
    }

    #[tokio::test]
    async fn lists_are_bounded() {
        let accounts = Accounts::new(Ids::default());
        let many = |names, groups| Asked { names: vec!["x".to_owned(); names], groups: vec!["x".to_owned(); groups] };
        for asked in [many(Asked::MOST_NAMES + 1, 0), many(0, Asked::MOST_GROUPS + 1)] {
            assert_eq!(accounts.members(asked).await.unwrap_err().problem.code, "too_many");
        }
    }
}
