//! One berth: ask the node what is there, plan, ask for the next step, write down what came of it, until there is nothing left to do.

use super::{
    Outcome, Reconciler, archives, ends,
    plan::{Step, plan, with_archive},
    settle,
};
use crate::{
    chain,
    domain::{
        Archiving, AuditEntry, Berth, BerthId, EnsureWanted, Kind, Limits, Operation, OperationState, Own, Parameters, Problem, Refusal,
        Status, Subject, Wanted, below,
    },
    store,
};

/// Steps in one go; each ends with a call to the node, and no intent needs more than stop, start and a look.
const MAX_STEPS: usize = 8;
/// An operation waits so long for a node that cannot be reached.
const PATIENCE: i64 = 600_000;

pub(super) async fn drive(reconciler: &Reconciler, id: BerthId) -> Outcome {
    for _ in 0..MAX_STEPS {
        match step(reconciler, id).await {
            Ok(Some(outcome)) => return outcome,
            Ok(None) => {}
            Err(error) => {
                tracing::error!(berth = %id, error = chain(&error), "cannot work on the berth");
                return Outcome::Retry;
            }
        }
    }
    Outcome::Retry
}

/// One step; nothing when there may be another.
async fn step(reconciler: &Reconciler, id: BerthId) -> Result<Option<Outcome>, store::Error> {
    let mut reader = reconciler.store.reader().await?;
    let Some(berth) = store::berths::by_id(&mut reader, id).await? else { return Ok(Some(Outcome::Done)) };
    let archiving = store::archives::of(&mut reader, id).await?;
    drop(reader);
    // A suspension goes straight to the node, which itself refuses a berth of another id: nothing is looked up that could wait.
    let at_once = berth.suspension.is_some() && berth.status.is_some() && berth.wanted != Wanted::Deleted;
    let observed = match at_once {
        true => berth.status.clone(),
        false => match reconciler.node.berth(&berth.user).await {
            Ok(observed) => observed,
            Err(error) => return fail(reconciler, &berth, &error).await.map(Some),
        },
    };
    if !at_once {
        keep(reconciler, &berth, observed.as_ref()).await?;
    }
    let step = with_archive(plan(&berth, observed.as_ref()), observed.is_some(), archiving.as_ref());
    if let (Step::Archive | Step::Restore, Some(archiving)) = (step, &archiving) {
        return match archiving {
            Archiving::Write { archive, .. } => archives::write(reconciler, &berth, archive).await,
            Archiving::Restore { archive } => archives::restore(reconciler, &berth, archive).await,
        };
    }
    if step == Step::Nothing {
        return Ok(Some(Outcome::Done));
    }
    if !at_once && !note(reconciler, &berth, wording(step, observed.is_some())).await? {
        return Ok(None);
    }
    match call(reconciler, &berth, step).await {
        Ok(Called::Stopped(status)) => keep(reconciler, &berth, Some(&status)).await.map(|()| None),
        Ok(Called::Reached(status)) => succeed(reconciler, &berth, &status).await.map(|()| None),
        Ok(Called::Deleted) => {
            // The last calls, so that nothing of the berth is left on the node either.
            super::calls::drain(reconciler, berth.id).await;
            deleted(reconciler, &berth).await.map(|()| Some(Outcome::Done))
        }
        Err(error) => fail(reconciler, &berth, &error).await.map(Some),
    }
}

enum Called {
    Stopped(Status),
    Reached(Status),
    Deleted,
}

async fn call(reconciler: &Reconciler, berth: &Berth, step: Step) -> Result<Called, crate::node_client::Error> {
    match step {
        Step::Stop => reconciler.node.stop(&berth.user).await.map(Called::Stopped),
        Step::Delete => reconciler.node.delete(&berth.user, berth.id).await.map(|()| Called::Deleted),
        Step::Ensure(wanted) => reconciler.node.ensure(&berth.user, &berth.ensure(wanted)).await.map(Called::Reached),
        Step::Foreign | Step::Nothing | Step::Archive | Step::Restore => {
            let problem = Problem::new(
                Refusal::Conflict,
                "foreign_berth",
                format!("the node holds a berth of {} that this database does not know", berth.user),
            )
            .hint("restore the database that belongs to this node, or remove the berth's record from the node");
            Err(crate::node_client::Error::Problem("plan".to_owned(), problem))
        }
    }
}

/// What a person sees while the step is under way.
fn wording(step: Step, there: bool) -> &'static str {
    match step {
        Step::Delete => "removing the berth",
        Step::Stop | Step::Ensure(EnsureWanted::Stopped) if there => "stopping",
        Step::Ensure(EnsureWanted::Running) if there => "starting",
        Step::Ensure(EnsureWanted::Present) if there => "applying limits",
        Step::Ensure(_) => "creating the berth",
        Step::Archive => "archiving",
        Step::Restore => "restoring",
        Step::Stop | Step::Foreign | Step::Nothing => "checking",
    }
}

/// Says what is about to be asked of the node; false when something else is wanted of the berth by now: then nothing is to be asked.
pub(super) async fn note(reconciler: &Reconciler, berth: &Berth, step: &str) -> Result<bool, store::Error> {
    let now = reconciler.clock.now();
    let mut tx = reconciler.store.begin().await?;
    let newest = store::berths::by_id(&mut tx, berth.id).await?;
    if newest.is_none_or(|newest| newest.generation != berth.generation) {
        return Ok(false);
    }
    for operation in store::operations::unfinished(&mut tx, berth.id).await? {
        store::operations::set_step(&mut tx, operation.id, step, now).await?;
    }
    reconciler.store.commit(tx).await?;
    Ok(true)
}

async fn keep(reconciler: &Reconciler, berth: &Berth, status: Option<&Status>) -> Result<(), store::Error> {
    let now = reconciler.clock.now();
    if status == berth.status.as_ref() {
        return Ok(());
    }
    let mut tx = reconciler.store.begin().await?;
    match status {
        Some(status) if status.id == berth.id => drop(store::berths::observe(&mut tx, status, now).await?),
        _ => store::berths::forget_status(&mut tx, berth.id, now).await?,
    }
    reconciler.store.commit(tx).await
}

async fn succeed(reconciler: &Reconciler, berth: &Berth, status: &Status) -> Result<(), store::Error> {
    let now = reconciler.clock.now();
    let mut tx = reconciler.store.begin().await?;
    store::berths::observe(&mut tx, status, now).await?;
    store::berths::applied(&mut tx, berth.id, berth.generation, None, now).await?;
    ends::reached(reconciler, &mut tx, berth, now).await?;
    let operations = store::operations::unfinished(&mut tx, berth.id).await?;
    for (id, state) in settle::succeed(&operations, berth.generation, berth.suspension.is_some()) {
        let problem = (state == OperationState::Cancelled).then(|| overtaken(berth));
        store::operations::finish(&mut tx, id, state, None, problem.as_ref(), now).await?;
    }
    reconciler.store.commit(tx).await
}

/// The node has nothing of the berth left: neither do we.
async fn deleted(reconciler: &Reconciler, berth: &Berth) -> Result<(), store::Error> {
    let now = reconciler.clock.now();
    let mut tx = reconciler.store.begin().await?;
    let archive = match store::archives::of(&mut tx, berth.id).await? {
        Some(Archiving::Write { archive, done: true }) => Some(archive),
        _ => None,
    };
    store::archives::forget(&mut tx, berth.id).await?;
    for operation in store::operations::unfinished(&mut tx, berth.id).await? {
        let (state, problem) = match operation.kind {
            Kind::BerthDelete => (OperationState::Succeeded, None),
            _ => (OperationState::Cancelled, Some(superseded())),
        };
        let result = archive.as_deref().filter(|_| state == OperationState::Succeeded);
        store::operations::finish(&mut tx, operation.id, state, result, problem.as_ref(), now).await?;
    }
    ends::gone(&mut tx, berth.id, now).await?;
    store::berths::remove(&mut tx, berth.id, now).await?;
    store::users::remove(&mut tx, berth.user_id).await?;
    reconciler.store.commit(tx).await?;
    tracing::info!(user = %berth.user, berth = %berth.id, "the berth is gone");
    Ok(())
}

async fn fail(reconciler: &Reconciler, berth: &Berth, error: &crate::node_client::Error) -> Result<Outcome, store::Error> {
    let problem = error.problem();
    if error.is_transient() {
        return wait(reconciler, berth, &problem).await;
    }
    tracing::warn!(user = %berth.user, berth = %berth.id, error = chain(error), "the node cannot do what is wanted");
    // A create that failed was undone by the node; then there is nothing to keep here either.
    let left = match reconciler.node.berth(&berth.user).await {
        // A record that cannot be read tells no limits.
        Ok(Some(status)) if status.conditions.iter().any(|c| c.kind == "RecordCorrupt") => Left::Unknown,
        Ok(left) => left.filter(|status| status.id == berth.id).map_or(Left::Nothing, |status| Left::Limits(status.limits)),
        Err(_) => Left::Unknown,
    };
    refuse(reconciler, berth, &problem, left).await
}

/// What the node holds of a berth after it has refused something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    Limits(Limits),
    Unknown,
}

/// The node cannot be reached now: say so, and give up on operations that have waited for too long. The intent stands.
pub(super) async fn wait(reconciler: &Reconciler, berth: &Berth, problem: &Problem) -> Result<Outcome, store::Error> {
    let now = reconciler.clock.now();
    let mut tx = reconciler.store.begin().await?;
    for operation in store::operations::unfinished(&mut tx, berth.id).await? {
        if now - operation.created_at > PATIENCE {
            store::operations::finish(&mut tx, operation.id, OperationState::Failed, None, Some(problem), now).await?;
        } else {
            let step = format!("{}{}", Operation::WAITING, problem.detail);
            store::operations::set_step(&mut tx, operation.id, &step, now).await?;
        }
    }
    reconciler.store.commit(tx).await?;
    Ok(Outcome::Retry)
}

/// The node has finally said no. What it refused is taken back, so that the intent says what is in force: a change to what was before it, and
/// of a changed profile the berth keeps as its own what it had. With the intent of old standing, later operations do not fail for it.
pub(super) async fn refuse(reconciler: &Reconciler, berth: &Berth, problem: &Problem, left: Left) -> Result<Outcome, store::Error> {
    let now = reconciler.clock.now();
    let mut tx = reconciler.store.begin().await?;
    let operations = store::operations::unfinished(&mut tx, berth.id).await?;
    let newest = store::berths::by_id(&mut tx, berth.id).await?.map(|newest| newest.generation);
    let covered = |generation: Option<i64>| generation.is_some_and(|own| own <= berth.generation);
    let granted = ends::refused(reconciler, &mut tx, berth, problem, now).await?;
    let before = settle::before(&operations, berth.generation);
    if let (Some((profile, own, until)), Some(next)) = (&before, settle::next_change(&operations, berth.generation)) {
        // What was refused is part of the change that follows; if that is refused too, all of it goes back.
        let previous = Parameters::Change { profile: *profile, own: Box::new(own.clone()), until: *until };
        store::operations::set_parameters(&mut tx, next, &previous).await?;
    }
    let before = before.filter(|_| newest == Some(berth.generation));
    // A suspension that came with a change of limits was not what the node refused.
    let kept = |kind: Kind| kind == Kind::BerthSuspend && before.is_some();
    for operation in operations.iter().filter(|operation| covered(operation.generation) && !kept(operation.kind)) {
        store::operations::finish(&mut tx, operation.id, OperationState::Failed, None, Some(problem), now).await?;
    }
    let creating = operations.iter().any(|operation| matches!(operation.kind, Kind::BerthCreate | Kind::BerthRestore));
    let outcome = if berth.wanted == Wanted::Deleted {
        store::berths::set_problem(&mut tx, berth.id, Some((problem, now)), now).await?;
        Outcome::Retry
    } else if creating && left == Left::Nothing && newest == Some(berth.generation) {
        let details = serde_json::json!({ "code": problem.code, "detail": problem.detail });
        let entry = AuditEntry { action: "undo_create_berth", subject: Subject::Berth(berth.user.as_str()), details, operation: None };
        store::audit::insert(&mut tx, &reconciler.clock, None, entry).await?;
        store::berths::remove(&mut tx, berth.id, now).await?;
        store::users::remove(&mut tx, berth.user_id).await?;
        Outcome::Done
    } else if berth.generation == berth.applied {
        // The node has lost the berth and cannot make it again for now.
        store::berths::set_problem(&mut tx, berth.id, Some((problem, now)), now).await?;
        Outcome::Retry
    } else {
        if let Some((profile, own, until)) = &before {
            store::berths::restore_limits(&mut tx, berth.id, *profile, own, now).await?;
            store::ends::set(&mut tx, berth.id, *until).await?;
            let details = serde_json::json!({ "code": problem.code, "detail": problem.detail });
            let entry = AuditEntry { action: "undo_change_berth", subject: Subject::Berth(berth.user.as_str()), details, operation: None };
            store::audit::insert(&mut tx, &reconciler.clock, None, entry).await?;
        } else if let Left::Limits(kept) = left
            && newest == Some(berth.generation)
            && !granted
            && kept != berth.limits
        {
            let (kept_base, base) = (below(kept, &berth.grants), berth.base);
            let own = Own { limits: berth.own.limits.keeping(kept_base, base), ..berth.own.clone() };
            store::berths::restore_limits(&mut tx, berth.id, berth.profile_id, &own, now).await?;
            let details = serde_json::json!({ "code": problem.code, "detail": problem.detail, "kept": kept });
            let entry = AuditEntry { action: "keep_limits", subject: Subject::Berth(berth.user.as_str()), details, operation: None };
            store::audit::insert(&mut tx, &reconciler.clock, None, entry).await?;
        }
        // With the old limits back the berth is as wanted again; the operation tells what was refused.
        let problem = (before.is_none() && !granted).then_some((problem, now));
        match berth.suspension {
            // Nobody is free because the node failed once to bar him.
            Some(_) => {
                store::berths::set_problem(&mut tx, berth.id, problem, now).await?;
                Outcome::Retry
            }
            None => {
                store::berths::applied(&mut tx, berth.id, berth.generation, problem, now).await?;
                Outcome::Done
            }
        }
    };
    reconciler.store.commit(tx).await?;
    Ok(outcome)
}

fn overtaken(berth: &Berth) -> Problem {
    match &berth.suspension {
        Some(suspension) => {
            let detail = format!("the berth of {} was suspended: {}", berth.user, suspension.reason);
            Problem::new(Refusal::Conflict, "berth_suspended", detail).hint("ask an administrator of this host")
        }
        None => superseded(),
    }
}

fn superseded() -> Problem {
    Problem::new(Refusal::Conflict, "superseded", "a later request took its place")
}
