//! Barring berths and letting them go: one, or all at once in one transaction.

use super::{Error, Service, authorise, berths};
use crate::{
    authz::Operation as Op,
    domain::{Berth, Caller, Kind, Operation, Parameters, Problem, Refusal, Suspension},
    store::{self, Transaction},
};

/// What became of a request about all berths.
#[derive(Clone, Debug)]
pub struct AllAccepted {
    pub operations: Vec<Operation>,
    /// Berths that were as asked already.
    pub unchanged: u64,
}

impl Service {
    /// Bars a berth; one that is barred already takes on the new reason and stays barred since when it was.
    pub async fn suspend_berth(&self, caller: &Caller, user: &str, reason: &str) -> Result<berths::Accepted, Error> {
        authorise(caller, Op::SuspendBerth)?;
        let reason = check_reason(reason)?;
        let mut tx = self.store.begin().await?;
        let berth = berths::changeable(&mut tx, caller, Op::SuspendBerth, user).await?;
        let operation = self.bar(&mut tx, caller, (Op::SuspendBerth, Kind::BerthSuspend), &berth, Some(reason)).await?;
        self.store.commit(tx).await?;
        self.store.announce();
        Ok((operation, Vec::new()))
    }

    /// Lets a barred berth go; what was wanted of it is taken up again.
    pub async fn resume_berth(&self, caller: &Caller, user: &str) -> Result<berths::Accepted, Error> {
        let mut tx = self.store.begin().await?;
        let berth = berths::changeable(&mut tx, caller, Op::ResumeBerth, user).await?;
        if berth.suspension.is_none() {
            return Err(Problem::new(Refusal::Conflict, "berth_not_suspended", format!("the berth of {user} is not suspended"))
                .hint(format!("see how it is: berth show {user}"))
                .into());
        }
        if berth.until.is_some_and(|until| until <= self.clock.now()) {
            return Err(Problem::new(Refusal::Conflict, "assignment_ended", format!("the assignment of {user} has ended"))
                .hint(format!("give it another end, which also lets it go: berth set {user} --until DATE, or never"))
                .into());
        }
        let operation = self.bar(&mut tx, caller, (Op::ResumeBerth, Kind::BerthResume), &berth, None).await?;
        self.store.commit(tx).await?;
        self.store.announce();
        Ok((operation, Vec::new()))
    }

    /// Bars every berth that is not barred yet; those that are keep their reason.
    pub async fn suspend_berths(&self, caller: &Caller, reason: &str) -> Result<AllAccepted, Error> {
        authorise(caller, Op::SuspendBerths)?;
        let reason = check_reason(reason)?;
        self.bar_all(caller, (Op::SuspendBerths, Kind::BerthSuspend), Some(reason)).await
    }

    /// Lets every barred berth go.
    pub async fn resume_berths(&self, caller: &Caller) -> Result<AllAccepted, Error> {
        authorise(caller, Op::ResumeBerths)?;
        self.bar_all(caller, (Op::ResumeBerths, Kind::BerthResume), None).await
    }

    async fn bar_all(&self, caller: &Caller, what: (Op, Kind), reason: Option<&str>) -> Result<AllAccepted, Error> {
        let mut accepted = AllAccepted { operations: Vec::new(), unchanged: 0 };
        let mut tx = self.store.begin().await?;
        for berth in store::berths::all(&mut tx).await? {
            // Nobody who resumes all means those whose time is over.
            let over = reason.is_none() && berth.until.is_some_and(|until| until <= self.clock.now());
            if berth.suspension.is_some() == reason.is_some() || over {
                accepted.unchanged += 1;
                continue;
            }
            accepted.operations.push(self.bar(&mut tx, caller, what, &berth, reason).await?);
        }
        self.store.commit(tx).await?;
        self.store.announce();
        Ok(accepted)
    }

    async fn bar(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        what: (Op, Kind),
        berth: &Berth,
        reason: Option<&str>,
    ) -> Result<Operation, Error> {
        let now = self.clock.now();
        let suspension = reason.map(|reason| Suspension {
            reason: reason.to_owned(),
            by: caller.name.clone(),
            since: berth.suspension.as_ref().map_or(now, |first| first.since),
        });
        let generation = store::berths::suspend(tx, berth.id, suspension.as_ref(), now).await?;
        let details = match (reason, &berth.suspension) {
            (Some(reason), _) => serde_json::json!({ "reason": reason }),
            (None, Some(was)) => serde_json::json!({ "was": { "reason": was.reason, "by": was.by, "since": was.since } }),
            (None, None) => serde_json::json!({}),
        };
        let target = berths::Target { user: &berth.user, id: berth.id, generation };
        self.note(tx, caller, what, target, Parameters::None, details).await
    }
}

/// Refuses to work on a barred berth.
pub(super) fn check_not_suspended(caller: &Caller, berth: &Berth) -> Result<(), Error> {
    let Some(suspension) = &berth.suspension else { return Ok(()) };
    let detail = format!("the berth of {} is suspended: {}", berth.user, suspension.reason);
    let hint = match caller.name == berth.user.as_str() {
        true => "ask an administrator of this host".to_owned(),
        false => format!("to let it go: berth resume {}", berth.user),
    };
    Err(Problem::new(Refusal::Conflict, "berth_suspended", detail).hint(hint).into())
}

pub(super) fn check_reason(reason: &str) -> Result<&str, Error> {
    let reason = reason.trim();
    let detail = match reason.chars().count() {
        0 => "the reason is empty".to_owned(),
        count if count > Suspension::LONGEST_REASON => {
            format!("the reason has {count} characters, the most is {}", Suspension::LONGEST_REASON)
        }
        _ if reason.chars().any(char::is_control) => "the reason holds a line break or another control character".to_owned(),
        _ => return Ok(reason),
    };
    Err(Problem::new(Refusal::Invalid, "invalid_reason", detail).hint("say in one line what the user should know").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_of_some_length() {
        assert_eq!(check_reason("  mining ").unwrap(), "mining");
        assert!(check_reason(&"ä".repeat(500)).is_ok());
        for bad in ["", " \n ", "a\nb", "a\u{1b}[2J", &"a".repeat(501)] {
            assert!(check_reason(bad).is_err(), "{bad:?}");
        }
    }
}
