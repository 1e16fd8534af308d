//! Berths: assign, look, change, start, stop, restart, delete.

use super::{
    Error, Service, authorise,
    history::{Page, invalid_cursor},
    images::resolve,
    name, not_found,
    profiles::check_policy,
    quota,
    suspension::check_not_suspended,
};
use crate::{
    authz::{self, Access, Operation as Op},
    domain::{
        AuditEntry, Berth, BerthFilter, BerthId, Caller, Clock, Egress, EnsureWanted, Expected, HostPolicy, HostUser, ImageRef, Kind,
        LimitChange, Limits, NodeInfo, Operation, OperationId, OperationState, Own, Parameters, Problem, Profile, ProfileName, Refusal,
        Subject, UserId, UserName, Waits, Wanted, Warning,
    },
    store::{self, Transaction, berths::NewBerth},
};

/// What an assignment asks for.
#[derive(Clone, Debug)]
pub struct AssignBerth {
    pub user: String,
    pub profile: Option<String>,
    pub image: Option<String>,
    pub own: Own,
    pub allow_system: bool,
    pub start: bool,
}

/// What is left out stays.
#[derive(Clone, Debug, Default)]
pub struct ChangeBerth {
    pub profile: Option<String>,
    pub limits: LimitChange,
    /// `Some(None)`: the profile's again.
    pub egress: Option<Option<Egress>>,
    /// The revision that is meant.
    pub expected: Expected,
}

/// What a change would do.
#[derive(Clone, Debug)]
pub struct Preview {
    pub changes: Vec<Difference>,
    pub waits: Vec<Waits>,
    pub warnings: Vec<Warning>,
}

/// A value that a change would replace.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    pub field: String,
    pub before: serde_json::Value,
    pub after: serde_json::Value,
}

/// A berth before and after a change, the latter as stored.
struct Changed {
    before: Berth,
    after: Berth,
    warnings: Vec<Warning>,
}

/// An accepted request.
pub(super) type Accepted = (Operation, Vec<Warning>);

pub(super) const DEFAULT_PROFILE: &str = "default";

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

    pub async fn assign_berth(&self, caller: &Caller, request: AssignBerth) -> Result<Accepted, Error> {
        authorise(caller, Op::CreateBerth)?;
        let user: UserName = name("user", &request.user)?;
        let profile_name: ProfileName = name("profile", request.profile.as_deref().unwrap_or(DEFAULT_PROFILE))?;
        let image = request.image.as_deref().map(|text| name::<ImageRef>("image", text)).transpose()?;
        let mut reader = self.store.reader().await?;
        let profile = find_profile(&mut reader, &profile_name).await?;
        check_own(&request.own, profile.limits)?;
        let default = store::settings::get(&mut reader, store::settings::DEFAULT_IMAGE).await?;
        drop(reader);
        let account = self.node.user(&user).await?.ok_or_else(|| not_found("user", user.as_str()))?;
        check_account(&user, &account, request.allow_system)?;
        let image = resolve(&self.node.images().await?, image, default)?;
        let node = self.node.node().await?;

        let (now, id) = (self.clock.now(), BerthId(self.clock.id()));
        let wanted = if request.start { Wanted::Running } else { Wanted::Present };
        let mut tx = self.store.begin().await?;
        if store::berths::by_user(&mut tx, &user).await?.is_some() {
            return Err(Problem::new(Refusal::Conflict, "berth_exists", format!("{user} has a berth already"))
                .hint(format!("berth show {user}; to change its limits: berth set {user} …"))
                .into());
        }
        // Read again: it may have changed or gone since.
        let profile = find_profile(&mut tx, &profile_name).await?;
        check_own(&request.own, profile.limits)?;
        let before = store::berths::sums(&mut tx).await?;
        let user_id = UserId(self.clock.id());
        store::users::insert(&mut tx, user_id, &user, account.uid, now).await?;
        let berth = NewBerth {
            id,
            user: user_id,
            profile: profile.id,
            image: &image.digest,
            image_name: &image.name,
            own: &request.own,
            allow_system: request.allow_system,
            wanted,
            now,
        };
        store::berths::insert(&mut tx, &berth).await?;
        let warnings = quota::check_host(&mut tx, before, &node, &self.policy).await?;
        let details = serde_json::json!({
            "profile": profile.name, "image": image.digest, "limits": request.own.limits.over(profile.limits),
            "egress": request.own.egress, "allow_system": request.allow_system,
        });
        let target = Target { user: &user, id, generation: 1 };
        let operation = self.accept(tx, caller, (Op::CreateBerth, Kind::BerthCreate), target, Parameters::None, details).await?;
        Ok((operation, warnings))
    }

    /// Stores the change and lets the reconciler carry it out. What the node refuses goes back to what was before: the operation fails with
    /// the node's problem, and the berth has all of its old limits.
    pub async fn change_berth(&self, caller: &Caller, user: &str, change: ChangeBerth) -> Result<Accepted, Error> {
        authorise(caller, Op::ChangeBerth)?;
        // For the warnings and the sum of the disks.
        let node = self.node.node().await?;
        let mut tx = self.store.begin().await?;
        let Changed { before, after, warnings } = self.change(&mut tx, caller, Op::ChangeBerth, user, change, &node).await?;
        let details = serde_json::json!({
            "profile": after.profile, "before": before.limits, "limits": after.limits, "egress": after.policy.egress,
        });
        let previous = Parameters::Change { profile: before.profile_id, own: Box::new(before.own) };
        let target = Target { user: &before.user, id: before.id, generation: after.generation };
        let operation = self.accept(tx, caller, (Op::ChangeBerth, Kind::BerthChange), target, previous, details).await?;
        Ok((operation, warnings))
    }

    /// What a change would do, and what of it would wait for a restart; refused as the change itself would be. Changes nothing.
    pub async fn preview_change(&self, caller: &Caller, user: &str, change: ChangeBerth) -> Result<Preview, Error> {
        authorise(caller, Op::PreviewChange)?;
        let node = self.node.node().await?;
        let mut tx = self.store.begin().await?;
        let Changed { before, after, warnings } = self.change(&mut tx, caller, Op::PreviewChange, user, change, &node).await?;
        // Nothing of it is kept.
        drop(tx);
        let waits = match before.status {
            Some(_) => self.node.preview(&before.user, &after.ensure(EnsureWanted::Present)).await?,
            None => Vec::new(),
        };
        Ok(Preview { changes: differences(&before, &after), waits, warnings })
    }

    /// Writes the change and checks what came of it.
    async fn change(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        operation: Op,
        user: &str,
        change: ChangeBerth,
        node: &NodeInfo,
    ) -> Result<Changed, Error> {
        let profile = change.profile.as_deref().map(|text| name::<ProfileName>("profile", text)).transpose()?;
        let before = changeable(tx, caller, operation, user).await?;
        change.expected.check(&before.revision())?;
        let profile_id = match profile {
            Some(profile) => find_profile(tx, &profile).await?.id,
            None => before.profile_id,
        };
        let egress = change.egress.unwrap_or_else(|| before.own.egress.clone());
        let own = Own { limits: change.limits.over(before.own.limits), egress };
        let sums = store::berths::sums(tx).await?;
        store::berths::limit(tx, before.id, profile_id, &own, self.clock.now()).await?;
        let after = store::berths::by_id(tx, before.id).await?.ok_or_else(|| not_found("berth", user))?;
        quota::check_limits(after.limits)?;
        check_policy(&after.policy)?;
        let warnings = quota::check_host(tx, sums, node, &self.policy).await?;
        Ok(Changed { before, after, warnings })
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

pub(super) fn check_own(own: &Own, profile: Limits) -> Result<(), Error> {
    quota::check_limits(own.limits.over(profile))?;
    match &own.egress {
        Some(egress) => check_policy(&HostPolicy { egress: egress.clone(), ..HostPolicy::default() }),
        None => Ok(()),
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
        fields
    };
    let mut after = shown(after);
    let pairs = shown(before).into_iter().map(|(field, before)| (after.remove(&field).unwrap_or_default(), field, before));
    pairs.filter(|(after, _, before)| after != before).map(|(after, field, before)| Difference { field, before, after }).collect()
}

async fn find_profile(connection: &mut store::Connection, profile: &ProfileName) -> Result<Profile, Error> {
    store::profiles::by_name(connection, profile).await?.ok_or_else(|| not_found("profile", profile.as_str()))
}

pub(super) fn check_account(user: &UserName, account: &HostUser, allow_system: bool) -> Result<(), Error> {
    if account.uid == 0 {
        let detail = format!("{user} is the superuser; root cannot have a berth");
        return Err(Problem::new(Refusal::Limit, "root_not_allowed", detail).hint("assign the berth to an ordinary account").into());
    }
    if account.system && !allow_system {
        let detail = format!("{user} (uid {}) is a system account", account.uid);
        return Err(Problem::new(Refusal::Limit, "system_account", detail).hint("pass --allow-system if this is meant").into());
    }
    Ok(())
}
