//! What is done to many berths in one transaction: each of them has an outcome of its own.

use std::collections::HashSet;

use super::{
    Error, Service,
    assign::Ledger,
    authorise,
    berths::{ChangeBerth, Changed, Target},
    name, not_found,
    quota::{self, Headroom},
};
use crate::{
    authz::Operation as Op,
    domain::{Caller, Kind, Operation, Parameters, Problem, ProfileName, Refusal, Warning},
    store::{self, Transaction, berths::Sums},
};

/// How much of it is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// Nothing, if anything is refused.
    pub all_or_none: bool,
    /// Nothing in any case.
    pub dry_run: bool,
}

/// What became of one of them.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub user: String,
    pub done: Done,
    /// The profile before, where it differs, and after.
    pub before: Option<String>,
    pub profile: Option<String>,
    pub operation: Option<Operation>,
    pub problem: Option<Problem>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    Accepted,
    /// It could be done; this was a dry run.
    Checked,
    Refused,
    /// It could be done, but something else was refused.
    HeldBack,
    /// Left as it is.
    Kept,
}

#[derive(Clone, Debug, Default)]
pub struct Report {
    pub outcomes: Vec<Outcome>,
    /// With all that could be done.
    pub headroom: Vec<Headroom>,
    pub warnings: Vec<Warning>,
}

/// Whose berths are changed.
#[derive(Clone, Debug)]
pub enum Whose {
    Named(Vec<String>),
    OfProfile(String),
}

/// Entries of one request.
const MOST: usize = 1_000;

impl Outcome {
    pub(super) fn refused(user: String, problem: Option<Problem>) -> Self {
        Self { user, done: Done::Refused, before: None, profile: None, operation: None, problem }
    }

    pub(super) fn accepted(user: String, before: Option<String>, profile: String, operation: Operation) -> Self {
        Self { user, done: Done::Accepted, before, profile: Some(profile), operation: Some(operation), problem: None }
    }
}

impl Service {
    /// Changes many berths alike.
    pub async fn change_berths(&self, caller: &Caller, whose: Whose, change: ChangeBerth, mode: Mode) -> Result<Report, Error> {
        authorise(caller, Op::ChangeBerths)?;
        if let Whose::Named(users) = &whose {
            check_count(users.len())?;
        }
        let node = self.node.node().await?;
        let mut tx = self.store.begin().await?;
        let users = match whose {
            Whose::Named(users) => users,
            Whose::OfProfile(profile) => {
                let profile: ProfileName = name("profile", &profile)?;
                let found = store::profiles::by_name(&mut tx, &profile).await?.ok_or_else(|| not_found("profile", profile.as_str()))?;
                store::berths::of_profile(&mut tx, found.id).await?.into_iter().map(|berth| berth.user.to_string()).collect()
            }
        };
        let changes = users.into_iter().map(|user| (user, change.clone())).collect();
        self.change_all(tx, caller, Op::ChangeBerths, changes, Ledger::new(Sums::default(), node), mode).await
    }

    /// Carries out changes in an open transaction; the ledger's sums are read here.
    pub(super) async fn change_all(
        &self,
        mut tx: Transaction,
        caller: &Caller,
        action: Op,
        changes: Vec<(String, ChangeBerth)>,
        mut ledger: Ledger,
        mode: Mode,
    ) -> Result<Report, Error> {
        let before = store::berths::sums(&mut tx).await?;
        ledger.sums = before;
        let (mut outcomes, mut seen) = (Vec::with_capacity(changes.len()), HashSet::new());
        for (user, change) in changes {
            let shown = super::shorten(&user);
            if !seen.insert(user.clone()) {
                let problem = Problem::new(Refusal::Conflict, "duplicate_user", format!("{shown} is named twice"));
                outcomes.push(Outcome::refused(shown, Some(problem)));
                continue;
            }
            let changed = match self.planned(&mut tx, caller, action, &user, change, &mut ledger).await {
                Ok(changed) => self.write(&mut tx, caller, action, changed).await,
                Err(error) => Err(error),
            };
            outcomes.push(match refused(changed)? {
                Ok((operation, before, after)) => Outcome::accepted(shown, (before != after).then_some(before), after, operation),
                Err(problem) => Outcome::refused(shown, Some(problem)),
            });
        }
        self.conclude(tx, outcomes, mode, (before, &ledger)).await
    }

    /// Writes a change that was checked, with its operation and audit row; the profile before and after.
    async fn write(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        action: Op,
        changed: Changed,
    ) -> Result<(Operation, String, String), Error> {
        let Changed { before, after, .. } = self.store_change(tx, changed).await?;
        let details = serde_json::json!({
            "profile": after.profile, "before": before.limits, "limits": after.limits, "egress": after.policy.egress, "until": after.until,
        });
        let target = Target { user: &before.user, id: before.id, generation: after.generation };
        let previous = Parameters::Change { profile: before.profile_id, own: Box::new(before.own.clone()), until: before.until };
        let operation = self.note(tx, caller, (action, Kind::BerthChange), target, previous, details).await?;
        Ok((operation, before.profile, after.profile))
    }

    /// Keeps what was done, or nothing of it.
    pub(super) async fn conclude(
        &self,
        tx: Transaction,
        mut outcomes: Vec<Outcome>,
        mode: Mode,
        (before, ledger): (Sums, &Ledger),
    ) -> Result<Report, Error> {
        let broken = mode.all_or_none && outcomes.iter().any(|outcome| outcome.done == Done::Refused);
        let instead = match (mode.dry_run, broken) {
            (true, _) => Some(Done::Checked),
            (false, true) => Some(Done::HeldBack),
            (false, false) => None,
        };
        match instead {
            Some(instead) => {
                drop(tx);
                for outcome in outcomes.iter_mut().filter(|outcome| outcome.done == Done::Accepted) {
                    (outcome.done, outcome.operation) = (instead, None);
                }
            }
            None if outcomes.iter().any(|outcome| outcome.done == Done::Accepted) => {
                self.store.commit(tx).await?;
                self.store.announce();
            }
            None => drop(tx),
        }
        let headroom = quota::headroom(before, ledger.sums, &ledger.node, &self.policy).to_vec();
        let warnings = quota::check_host(before, ledger.sums, &ledger.node, &self.policy)?;
        Ok(Report { outcomes, headroom, warnings })
    }
}

/// Keeps refusals, which are an entry's own, apart from faults, which end all.
pub(super) fn refused<T>(result: Result<T, Error>) -> Result<Result<T, Problem>, Error> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Error::Refused(problem)) => Ok(Err(problem)),
        Err(fault) => Err(fault),
    }
}

pub(super) fn check_count(count: usize) -> Result<(), Error> {
    let (code, detail) = match count {
        0 => ("no_entries", "there is nothing in the list".to_owned()),
        _ if count > MOST => ("too_many_entries", format!("the list has {count} entries, the most is {MOST}")),
        _ => return Ok(()),
    };
    Err(Problem::new(Refusal::Invalid, code, detail).hint(format!("send 1 to {MOST} at a time")).into())
}
