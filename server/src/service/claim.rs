//! A berth on first use: a user who has none takes one himself, if the first rule that matches him says so.
//!
//! Every login of a user without a berth comes here, so that no answer is given twice at the cost of the host's directory: a refusal stands
//! for some seconds, and only a few look-ups run at a time.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

use super::{
    Error, Service,
    assign::{Candidate, Ledger, check_account},
    authorise,
    images::resolve,
    name,
};
use crate::{
    authz::Operation as Op,
    domain::{Caller, Operation, Own, Problem, Refusal, Rule, UserName, Wanted},
    store,
};

/// What a claim came to.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub user: String,
    /// The operation that makes the berth; nothing: there is one already.
    pub operation: Option<Operation>,
}

/// A refusal is repeated for so long without asking anybody.
const STANDS: Duration = Duration::from_secs(5);
const MOST: usize = 4_096;
/// Look-ups at a time; a class that logs in at once waits for its turn, but not for long.
const AT_ONCE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(2);

/// Refusals of the last seconds, by user.
pub(super) struct Recent {
    refused: Mutex<HashMap<String, (Instant, Problem)>>,
    places: Semaphore,
}

impl Default for Recent {
    fn default() -> Self {
        Self { refused: Mutex::default(), places: Semaphore::new(AT_ONCE) }
    }
}

impl Recent {
    fn standing(&self, user: &str) -> Option<Problem> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.get(user).filter(|(since, _)| since.elapsed() < STANDS).map(|(_, problem)| problem.clone())
    }

    fn note(&self, user: &str, problem: Problem) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= MOST {
            refused.retain(|_, (since, _)| since.elapsed() < STANDS);
        }
        if refused.len() < MOST {
            refused.insert(user.to_owned(), (Instant::now(), problem));
        }
    }
}

impl Service {
    /// Gives the caller a berth by the rules; harmless when he has one.
    pub async fn claim_berth(&self, caller: &Caller) -> Result<Claimed, Error> {
        authorise(caller, Op::ClaimBerth)?;
        // Who is no host account can have none.
        let Ok(user) = caller.name.parse::<UserName>() else { return Err(no_berth(&caller.name).into()) };
        let mut reader = self.store.reader().await?;
        if store::berths::by_user(&mut reader, &user).await?.is_some() {
            return Ok(Claimed { user: user.to_string(), operation: None });
        }
        let rules = store::rules::all(&mut reader).await?;
        let default = store::settings::get(&mut reader, store::settings::DEFAULT_IMAGE).await?;
        drop(reader);
        if !rules.iter().any(|rule| rule.auto) {
            return Err(no_berth(user.as_str()).into());
        }
        if let Some(problem) = self.claims.standing(user.as_str()) {
            return Err(problem.into());
        }
        let Ok(Ok(_place)) = tokio::time::timeout(PATIENCE, self.claims.places.acquire()).await else {
            return Err(Problem::new(Refusal::Unavailable, "too_many_claims", "many users are being given their berths just now")
                .hint("try again in a moment")
                .into());
        };
        let made = self.make(caller, &user, &rules, default).await;
        if let Err(Error::Refused(problem)) = &made {
            self.claims.note(user.as_str(), problem.clone());
        }
        made
    }

    async fn make(&self, caller: &Caller, user: &UserName, rules: &[Rule], default: Option<String>) -> Result<Claimed, Error> {
        let members = self.node.members(std::slice::from_ref(user), &Rule::groups(rules)).await?;
        let member = members.into_iter().next().ok_or_else(|| no_berth(user.as_str()))?;
        let account = match (member.account, member.problem) {
            (Some(account), None) => account,
            (_, Some(problem)) => return Err(problem.into()),
            (None, None) => return Err(no_berth(user.as_str()).into()),
        };
        let rule = Rule::first(rules, &member.groups).filter(|rule| rule.auto).ok_or_else(|| no_berth(user.as_str()))?;
        check_account(user, &account, false)?;
        let image = resolve(&self.node.images().await?, None, default)?;
        let node = self.node.node().await?;
        let mut tx = self.store.begin().await?;
        // Of two logins at once one makes it.
        if store::berths::by_user(&mut tx, user).await?.is_some() {
            return Ok(Claimed { user: user.to_string(), operation: None });
        }
        let given = store::rules::all(&mut tx).await?.iter().find(|one| one.id == rule.id).map(|one| one.given);
        if let (Some(given), Some(most)) = (given, rule.most)
            && given >= u64::from(most)
        {
            let detail = format!("the rule of the group {} gives {most} berths at most, and has given {given}", rule.group);
            return Err(Problem::new(Refusal::Limit, "rule_exhausted", detail).hint("ask an administrator of this host").into());
        }
        let candidate = Candidate {
            user: user.clone(),
            account,
            profile: name("profile", &rule.profile)?,
            named: false,
            image,
            own: Own::default(),
            allow_system: false,
            wanted: Wanted::Present,
            until: None,
            made_by: Some(rule.id),
        };
        let mut ledger = Ledger::new(store::berths::sums(&mut tx).await?, node);
        let (operation, _) = self.place(&mut tx, caller, Op::ClaimBerth, candidate, &mut ledger).await?;
        self.store.commit(tx).await?;
        self.store.announce();
        Ok(Claimed { user: user.to_string(), operation: Some(operation) })
    }
}

fn no_berth(user: &str) -> Problem {
    let detail = format!("{user} has no berth, and no rule of this host gives one on first use");
    Problem::new(Refusal::NotFound, "berth_not_found", detail)
        .hint(format!("ask an administrator of this host for one (berth assign {user})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_stands_for_its_user_alone_and_the_memory_is_bounded() {
        let recent = Recent::default();
        let problem = no_berth;
        recent.note("alice", problem("alice"));
        assert_eq!((recent.standing("alice"), recent.standing("bob")), (Some(problem("alice")), None));
        for number in 0..2 * MOST {
            recent.note(&format!("user{number}"), problem("user"));
        }
        assert_eq!(recent.refused.lock().unwrap().len(), MOST);
    }
}
