//! Ends operations before they are done, where that is possible: what nobody has begun, what waits for the node, and builds, imports and
//! pulls of images at any time. What the operation had asked for is taken back with it.

use super::{Error, Service, authorise, not_found};
use crate::{
    authz::Operation as Op,
    domain::{
        AuditEntry, Berth, Caller, Kind, Operation, OperationId, OperationState, Parameters, Problem, Refusal, RequestState, Subject,
        Wanted,
    },
    store::{self, Transaction},
};

impl Service {
    pub async fn cancel_operation(&self, caller: &Caller, id: OperationId) -> Result<Operation, Error> {
        let found = self.visible_operation(caller, Op::CancelOperation, id).await?;
        // Who may not ask for it may not take it back either.
        authorise(caller, asked_by(found.kind))?;
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        // Read again: it may have gone on since.
        let operation = store::operations::by_id(&mut tx, id).await?.ok_or_else(|| not_found("operation", &id.to_string()))?;
        check(&operation)?;
        let problem = Problem::new(Refusal::Conflict, "cancelled", format!("{} has cancelled it", caller.name));
        store::operations::finish(&mut tx, id, OperationState::Cancelled, None, Some(&problem), now).await?;
        let subject = match operation.berth_id {
            Some(berth) => {
                if let Some(berth) = store::berths::by_id(&mut tx, berth).await? {
                    take_back(&mut tx, &operation, &berth, now).await?;
                }
                Subject::Berth(&operation.subject)
            }
            None if operation.kind == Kind::ArchiveRemove => Subject::Archive(&operation.subject),
            None => Subject::Image(&operation.subject),
        };
        let details = serde_json::json!({ "kind": operation.kind.as_str() });
        let entry = AuditEntry { action: Op::CancelOperation.id(), subject, details, operation: Some(id) };
        store::audit::insert(&mut tx, &self.clock, Some(caller), entry).await?;
        self.store.commit(tx).await?;
        self.uploads.forget(id);
        self.store.announce();
        self.operation_now(id).await
    }
}

/// Changes the intent as if the operation had not been asked for.
async fn take_back(tx: &mut Transaction, operation: &Operation, berth: &Berth, now: i64) -> Result<(), Error> {
    let others = store::operations::unfinished(tx, berth.id).await?;
    let later = |of: fn(Kind) -> bool| others.iter().any(|one| one.generation > operation.generation && of(one.kind));
    match operation.kind {
        // The node may hold a part of it: whatever there is goes.
        Kind::BerthCreate | Kind::BerthRestore => drop(store::berths::want(tx, berth.id, Wanted::Deleted, None, now).await?),
        Kind::BerthStart | Kind::BerthStop | Kind::BerthRestart | Kind::BerthDelete
            if !later(|kind| kind.is_power() || kind == Kind::BerthDelete) =>
        {
            store::berths::want(tx, berth.id, Wanted::Present, None, now).await?;
        }
        Kind::BerthRebuild => {
            store::berths::rebuild(tx, berth.id, None).await?;
            if !later(|kind| kind.is_power() || kind == Kind::BerthDelete) {
                store::berths::want(tx, berth.id, Wanted::Present, None, now).await?;
            }
        }
        Kind::BerthChange => {
            let Parameters::Change { profile, own, until } = &operation.parameters else { return Ok(()) };
            reopen(tx, operation, berth, now).await?;
            let next = others.iter().filter(|one| one.kind == Kind::BerthChange && one.generation > operation.generation);
            match next.min_by_key(|one| one.generation) {
                // It is part of a later change; if that is refused or taken back too, all of it goes.
                Some(next) => store::operations::set_parameters(tx, next.id, &operation.parameters).await?,
                None => {
                    store::berths::limit(tx, berth.id, *profile, own, now).await?;
                    store::ends::set(tx, berth.id, *until).await?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// What the operation was to grant is asked for again.
async fn reopen(tx: &mut Transaction, operation: &Operation, berth: &Berth, now: i64) -> Result<(), Error> {
    let generation = operation.generation.unwrap_or_default();
    for mut request in store::requests::asked_of_node(tx, berth.id, generation).await? {
        if request.generation == Some(generation) && request.state == RequestState::Approved {
            request.reopen();
            store::requests::update(tx, &request, now).await?;
        }
    }
    Ok(())
}

fn check(operation: &Operation) -> Result<(), Problem> {
    let refused = |code: &str, detail: &str, hint: &str| Err(Problem::new(Refusal::Conflict, code, detail).hint(hint));
    if operation.finished_at.is_some() {
        return refused("operation_finished", "the operation has ended", "berth operations show shows how");
    }
    match operation.kind {
        Kind::ImageBuild | Kind::ImageImport | Kind::ImagePull => Ok(()),
        Kind::BerthSuspend | Kind::BerthResume => {
            refused("operation_not_cancellable", "nobody is free or barred half", "ask for the opposite: berth resume, berth suspend")
        }
        // What is written or read of an archive is given up, and nothing of it stays.
        Kind::BerthDelete | Kind::BerthRestore if ["archiving", "restoring"].contains(&operation.step.as_str()) => Ok(()),
        _ if operation.state == OperationState::Pending || operation.step.starts_with(Operation::WAITING) => Ok(()),
        _ => refused("operation_under_way", "the host is at work on it", "wait for its end, then ask for the opposite"),
    }
}

/// The request that begins such an operation.
fn asked_by(kind: Kind) -> Op {
    match kind {
        Kind::BerthCreate => Op::CreateBerth,
        Kind::BerthChange => Op::ChangeBerth,
        Kind::BerthStart => Op::StartBerth,
        Kind::BerthStop => Op::StopBerth,
        Kind::BerthRestart => Op::RestartBerth,
        Kind::BerthRebuild => Op::RebuildBerth,
        Kind::BerthDelete => Op::DeleteBerth,
        Kind::BerthSuspend => Op::SuspendBerth,
        Kind::BerthResume => Op::ResumeBerth,
        Kind::ImageBuild => Op::BuildImage,
        Kind::ImageImport => Op::ImportImage,
        Kind::ImagePull => Op::PullImage,
        Kind::ImageRemove => Op::RemoveImage,
        Kind::BerthRestore => Op::RestoreBerth,
        Kind::ArchiveRemove => Op::RemoveArchive,
    }
}
