//! Berths: look, change, start, stop, restart, delete.

use super::{
    Error, Service,
    assign::{Ledger, check_until},
    authorise,
    history::{Page, invalid_cursor},
    name, not_found,
    profiles::check_policy,
    quota::{self, Headroom},
    suspension::check_not_suspended,
};
use crate::{
    authz::{self, Access, Operation as Op},
    domain::{
        AuditEntry, Berth, BerthFilter, BerthId, Caller, Clock, Egress, EnsureWanted, Expected, HostPolicy, Kind, LimitChange, Operation,
        OperationId, OperationState, Own, Parameters, Problem, Profile, ProfileName, Rebuild, Refusal, Subject, UserName, Waits, Wanted,
        Warning, effective,
    },
    store::{self, Transaction},
};

/// What is left out stays.
#[derive(Clone, Debug, Default)]
pub struct ChangeBerth {
    pub profile: Option<String>,
    pub limits: LimitChange,
    /// `Some(None)`: the profile's again.
    pub egress: Option<Option<Egress>>,
    /// The revision that is meant.
    pub expected: Expected,
    /// When the assignment ends; `Some(None)`: never.
    pub until: Option<Option<i64>>,
    /// A rule names the profile, not a person.
    pub by_rule: bool,
}

/// What a change would do.
#[derive(Clone, Debug)]
pub struct Preview {
    pub changes: Vec<Difference>,
    pub waits: Vec<Waits>,
    pub warnings: Vec<Warning>,
    pub headroom: Vec<Headroom>,
}

/// A value that a change would replace.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    pub field: String,
    pub before: serde_json::Value,
    pub after: serde_json::Value,
}

/// A berth before and after a change.
pub(super) struct Changed {
    pub before: Berth,
    pub after: Berth,
    pub warnings: Vec<Warning>,
    /// Whether a person named the profile, where the change does.
    named: Option<bool>,
}

/// An accepted request.
pub(super) type Accepted = (Operation, Vec<Warning>);

impl Service {
    pub async fn berths(&self, caller: &Caller, filter: BerthFilter, page: &Page) -> Result<Vec<Berth>, Error> {
        let own = match authorise(caller, Op::ListBerths)? {
            Access::All => None,
            _ => Some(caller.name.clone()),
        };
        let filter = BerthFilter { owner: own, ..filter };
        let after = page.cursor.as_deref().map(|text| filter.sort.cursor(text).ok_or_else(invalid_cursor)).transpose()?;
        let mut reader = self.store.reader().await?;
        Ok(store::berth_list::page(&mut reader, &filter, after.as_ref(), page.limit).await?)
    }

    pub async fn berth(&self, caller: &Caller, user: &str) -> Result<Berth, Error> {
        let mut reader = self.store.reader().await?;
        visible(&mut reader, caller, Op::ShowBerth, user).await
    }

    /// Stores the change and lets the reconciler carry it out. What the node refuses goes back to what was before: the operation fails with
    /// the node's problem, and the berth has all of its old limits.
    pub async fn change_berth(&self, caller: &Caller, user: &str, change: ChangeBerth) -> Result<Accepted, Error> {
        authorise(caller, Op::ChangeBerth)?;
        // For the warnings and the sum of the disks.
        let node = self.node.node().await?;
        let mut tx = self.store.begin().await?;
        let mut ledger = Ledger::new(store::berths::sums(&mut tx).await?, node);
        let changed = self.planned(&mut tx, caller, Op::ChangeBerth, user, change, &mut ledger).await?;
        let Changed { before, after, warnings, .. } = self.store_change(&mut tx, changed).await?;
        let details = serde_json::json!({
            "profile": after.profile, "before": before.limits, "limits": after.limits, "egress": after.policy.egress, "until": after.until,
        });
        let previous = Parameters::Change { profile: before.profile_id, own: Box::new(before.own), until: before.until };
        let target = Target { user: &before.user, id: before.id, generation: after.generation };
        let operation = self.accept(tx, caller, (Op::ChangeBerth, Kind::BerthChange), target, previous, details).await?;
        Ok((operation, warnings))
    }

    /// What a change would do, and what of it would wait for a restart; refused as the change itself would be. Changes nothing.
    pub async fn preview_change(&self, caller: &Caller, user: &str, change: ChangeBerth) -> Result<Preview, Error> {
        authorise(caller, Op::PreviewChange)?;
        let node = self.node.node().await?;
        let mut reader = self.store.snapshot().await?;
        let promised = store::berths::sums(&mut reader).await?;
        let mut ledger = Ledger::new(promised, node);
        let changed = self.planned(&mut reader, caller, Op::PreviewChange, user, change, &mut ledger).await?;
        drop(reader);
        let Changed { before, after, warnings, .. } = changed;
        let waits = match before.status {
            Some(_) => self.node.preview(&before.user, &after.ensure(EnsureWanted::Present)).await?,
            None => Vec::new(),
        };
        let headroom = quota::headroom(promised, ledger.sums, &ledger.node, &self.policy).to_vec();
        Ok(Preview { changes: differences(&before, &after), waits, warnings, headroom })
    }

    /// What the berth would be after the change, checked; writes nothing but the ledger's sums.
    pub(super) async fn planned(
        &self,
        connection: &mut store::Connection,
        caller: &Caller,
        operation: Op,
        user: &str,
        change: ChangeBerth,
        ledger: &mut Ledger,
    ) -> Result<Changed, Error> {
        let named = change.profile.as_deref().map(|text| name::<ProfileName>("profile", text)).transpose()?;
        let before = changeable(connection, caller, operation, user).await?;
        change.expected.check(&before.revision())?;
        if let Some(Some(until)) = change.until {
            check_until(until, self.clock.now())?;
        }
        let profile = match &named {
            Some(profile) => find_profile(connection, profile).await?,
            None => store::profiles::by_id(connection, before.profile_id).await?.ok_or_else(|| not_found("profile", &before.profile))?,
        };
        let egress = change.egress.unwrap_or_else(|| before.own.egress.clone());
        let own = Own { limits: change.limits.over(before.own.limits), egress };
        let base = own.limits.over(profile.limits);
        let after = Berth {
            profile_id: profile.id,
            profile: profile.name,
            base,
            limits: effective(base, &before.grants),
            policy: HostPolicy { egress: own.egress.clone().unwrap_or(profile.policy.egress), ..profile.policy },
            own,
            until: change.until.unwrap_or(before.until),
            ..before.clone()
        };
        quota::check_limits(after.base)?;
        quota::check_limits(after.limits)?;
        check_policy(&after.policy)?;
        let sums = ledger.sums.moved(before.limits, after.limits);
        let warnings = quota::check_host(ledger.sums, sums, &ledger.node, &self.policy)?;
        ledger.sums = sums;
        let named = named.map(|_| !change.by_rule);
        Ok(Changed { before, after, warnings, named })
    }

    /// Writes a planned change; its generation is then known.
    pub(super) async fn store_change(&self, tx: &mut Transaction, mut changed: Changed) -> Result<Changed, Error> {
        let Changed { after, named, .. } = &mut changed;
        after.generation = store::berths::limit(tx, after.id, after.profile_id, &after.own, self.clock.now()).await?;
        store::ends::set(tx, after.id, after.until).await?;
        if let Some(named) = named {
            store::rules::decided(tx, after.id, *named, None).await?;
        }
        Ok(changed)
    }

    pub async fn start_berth(&self, caller: &Caller, user: &str) -> Result<Accepted, Error> {
        self.want(caller, (Op::StartBerth, Kind::BerthStart), user, Wanted::Running, &Expected::Whatever).await
    }

    pub async fn stop_berth(&self, caller: &Caller, user: &str) -> Result<Accepted, Error> {
        self.want(caller, (Op::StopBerth, Kind::BerthStop), user, Wanted::Stopped, &Expected::Whatever).await
    }

    pub async fn restart_berth(&self, caller: &Caller, user: &str) -> Result<Accepted, Error> {
        self.want(caller, (Op::RestartBerth, Kind::BerthRestart), user, Wanted::Running, &Expected::Whatever).await
    }

    /// A fresh root file system, and with `wipe` an empty Docker; then it runs.
    pub async fn rebuild_berth(&self, caller: &Caller, user: &str, wipe: bool) -> Result<Accepted, Error> {
        let what = (Op::RebuildBerth, Kind::BerthRebuild);
        let mut tx = self.store.begin().await?;
        let berth = changeable(&mut tx, caller, what.0, user).await?;
        check_not_suspended(caller, &berth)?;
        let now = self.clock.now();
        let at = berth.rebuild_at.map_or(now, |last| now.max(last + 1));
        // One that waits with a wipe is not made less by this.
        let wipe = wipe || berth.applied < berth.generation && berth.rebuild_wipe == Some(true);
        store::berths::rebuild(&mut tx, berth.id, Some(Rebuild { at, wipe })).await?;
        let generation = store::berths::want(&mut tx, berth.id, Wanted::Running, None, now).await?;
        let target = Target { user: &berth.user, id: berth.id, generation };
        let operation = self.accept(tx, caller, what, target, Parameters::None, serde_json::json!({ "wipe": wipe })).await?;
        Ok((operation, Vec::new()))
    }

    pub async fn delete_berth(&self, caller: &Caller, user: &str, expected: &Expected) -> Result<Accepted, Error> {
        self.want(caller, (Op::DeleteBerth, Kind::BerthDelete), user, Wanted::Deleted, expected).await
    }

    async fn want(&self, caller: &Caller, what: (Op, Kind), user: &str, wanted: Wanted, expected: &Expected) -> Result<Accepted, Error> {
        let mut tx = self.store.begin().await?;
        let berth = match wanted {
            Wanted::Deleted => visible(&mut tx, caller, what.0, user).await?,
            _ => changeable(&mut tx, caller, what.0, user).await?,
        };
        expected.check(&berth.revision())?;
        if wanted != Wanted::Deleted {
            check_not_suspended(caller, &berth)?;
        }
        let now = self.clock.now();
        let restart_after = (what.1 == Kind::BerthRestart).then_some(now);
        let generation = store::berths::want(&mut tx, berth.id, wanted, restart_after, now).await?;
        if wanted == Wanted::Deleted {
            // Whoever asks for a plain delete does not want what an earlier request was to keep.
            store::archives::forget(&mut tx, berth.id).await?;
        }
        let target = Target { user: &berth.user, id: berth.id, generation };
        let operation = self.accept(tx, caller, what, target, Parameters::None, serde_json::json!({})).await?;
        Ok((operation, Vec::new()))
    }

    /// Writes the operation and the audit row, commits, and wakes the reconciler.
    pub(super) async fn accept(
        &self,
        mut tx: Transaction,
        caller: &Caller,
        what: (Op, Kind),
        target: Target<'_>,
        parameters: Parameters,
        details: serde_json::Value,
    ) -> Result<Operation, Error> {
        let operation = self.note(&mut tx, caller, what, target, parameters, details).await?;
        self.store.commit(tx).await?;
        self.store.announce();
        Ok(operation)
    }

    /// Writes the operation and the audit row.
    pub(super) async fn note(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        (action, kind): (Op, Kind),
        target: Target<'_>,
        parameters: Parameters,
        details: serde_json::Value,
    ) -> Result<Operation, Error> {
        let mut operation = pending(&self.clock, caller, kind, target.user.as_str(), parameters);
        operation.berth_id = Some(target.id);
        operation.generation = Some(target.generation);
        store::operations::insert(tx, &operation).await?;
        let entry =
            AuditEntry { action: action.id(), subject: Subject::Berth(target.user.as_str()), details, operation: Some(operation.id) };
        store::audit::insert(tx, &self.clock, Some(caller), entry).await?;
        Ok(operation)
    }
}

pub(super) struct Target<'a> {
    pub user: &'a UserName,
    pub id: BerthId,
    pub generation: i64,
}

/// An operation that nobody has begun to carry out.
pub(super) fn pending(clock: &Clock, caller: &Caller, kind: Kind, subject: &str, parameters: Parameters) -> Operation {
    let now = clock.now();
    Operation {
        id: OperationId(clock.id()),
        kind,
        subject: subject.to_owned(),
        berth_id: None,
        generation: None,
        parameters,
        state: OperationState::Pending,
        step: String::new(),
        log: Vec::new(),
        log_lines: 0,
        progress: None,
        result: None,
        problem: None,
        revision: 0,
        actor: caller.name.clone(),
        created_at: now,
        updated_at: now,
        finished_at: None,
    }
}

/// The berth of `user`; for whoever may not see it there is none.
pub(super) async fn visible(connection: &mut store::Connection, caller: &Caller, operation: Op, user: &str) -> Result<Berth, Error> {
    authorise(caller, operation)?;
    let user: UserName = name("user", user)?;
    let missing = || {
        let hint = match caller.name == user.as_str() {
            true => format!("ask an administrator of this host for one (berth assign {user})"),
            false => format!("berth assign {user}"),
        };
        Error::from(Problem::new(Refusal::NotFound, "berth_not_found", format!("{user} has no berth")).hint(hint))
    };
    if !authz::permits(caller, operation, user.as_str()) {
        return Err(missing());
    }
    store::berths::by_user(connection, &user).await?.ok_or_else(missing)
}

/// The same, and it is not about to go.
pub(super) async fn changeable(connection: &mut store::Connection, caller: &Caller, operation: Op, user: &str) -> Result<Berth, Error> {
    let berth = visible(connection, caller, operation, user).await?;
    match berth.wanted {
        Wanted::Deleted => Err(Problem::new(Refusal::Conflict, "berth_deleting", format!("the berth of {user} is being deleted"))
            .hint(format!("wait until it is gone, then: berth assign {user}"))
            .into()),
        _ => Ok(berth),
    }
}

/// What differs, by the names of the fields.
fn differences(before: &Berth, after: &Berth) -> Vec<Difference> {
    let shown = |berth: &Berth| {
        let of = |value: serde_json::Result<serde_json::Value>| match value {
            Ok(serde_json::Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let mut fields = serde_json::Map::from_iter([("profile".to_owned(), serde_json::Value::from(berth.profile.as_str()))]);
        fields.extend(of(serde_json::to_value(berth.limits)));
        fields.extend(of(serde_json::to_value(&berth.policy)));
        fields.insert("until".to_owned(), berth.until.into());
        fields
    };
    let mut after = shown(after);
    let pairs = shown(before).into_iter().map(|(field, before)| (after.remove(&field).unwrap_or_default(), field, before));
    pairs.filter(|(after, _, before)| after != before).map(|(after, field, before)| Difference { field, before, after }).collect()
}

pub(super) async fn find_profile(connection: &mut store::Connection, profile: &ProfileName) -> Result<Profile, Error> {
    store::profiles::by_name(connection, profile).await?.ok_or_else(|| not_found("profile", profile.as_str()))
}
