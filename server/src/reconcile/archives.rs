//! Archives of berths: written before a delete, and berths made from them. Whatever breaks off is asked for anew: the node gives up what
//! nobody listens to, and what is there already is done at once.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;

use super::{
    Outcome, Reconciler,
    berths::{Left, refuse, wait},
};
use crate::{
    domain::{
        ArchiveNotes, ArchiveProgress, Archiving, AuditEntry, Berth, EnsureWanted, Extent, OperationState, Problem, Refusal, Subject,
        Wanted,
    },
    node_client::{ArchiveStream, Error as NodeError},
    store,
};

/// Progress is written to the store at most so often.
const FLUSH: Duration = Duration::from_millis(500);

/// Writes the archive that is to be there before the berth goes. A failure takes the deletion back: nothing is deleted that was to be kept.
pub(super) async fn write(reconciler: &Reconciler, berth: &Berth, name: &str) -> Result<Option<Outcome>, store::Error> {
    let notes = ArchiveNotes {
        profile: berth.profile.clone(),
        own: berth.own.clone(),
        limits: berth.limits,
        image_name: berth.image_name.clone(),
        allow_system: berth.allow_system,
    };
    let stream = reconciler.node.write_archive(&berth.user, berth.id, name, &notes).await;
    match follow(reconciler, berth, "archiving", stream).await? {
        Ok(()) => {
            let mut tx = reconciler.store.begin().await?;
            // Asked meanwhile not to keep it: then there is no row to mark.
            if store::archives::of(&mut tx, berth.id).await?.is_some() {
                store::archives::want(&mut tx, berth.id, &Archiving::Write { archive: name.to_owned(), done: true }).await?;
            }
            reconciler.store.commit(tx).await?;
            Ok(None)
        }
        Err(problem) if problem.refusal == Refusal::Unavailable => wait(reconciler, berth, &problem).await.map(Some),
        Err(problem) => keep(reconciler, berth, &problem).await.map(Some),
    }
}

/// Makes the berth; what it is to do then is asked for as of any other.
pub(super) async fn restore(reconciler: &Reconciler, berth: &Berth, name: &str) -> Result<Option<Outcome>, store::Error> {
    let stream = reconciler.node.restore_archive(&berth.user, name, &berth.ensure(EnsureWanted::Present)).await;
    match follow(reconciler, berth, "restoring", stream).await? {
        Ok(()) => {
            let mut tx = reconciler.store.begin().await?;
            store::archives::forget(&mut tx, berth.id).await?;
            reconciler.store.commit(tx).await?;
            Ok(None)
        }
        Err(problem) if problem.refusal == Refusal::Unavailable => wait(reconciler, berth, &problem).await.map(Some),
        Err(problem) => {
            let mut tx = reconciler.store.begin().await?;
            store::archives::forget(&mut tx, berth.id).await?;
            reconciler.store.commit(tx).await?;
            refuse(reconciler, berth, &problem, Left::Nothing).await.map(Some)
        }
    }
}

async fn follow(
    reconciler: &Reconciler,
    berth: &Berth,
    what: &str,
    stream: Result<ArchiveStream, NodeError>,
) -> Result<Result<(), Problem>, store::Error> {
    let transient = |error: &NodeError| {
        let problem = error.problem();
        match error.is_transient() {
            true => Problem { refusal: Refusal::Unavailable, ..problem },
            false => problem,
        }
    };
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(error) => return Ok(Err(transient(&error))),
    };
    let mut told = Instant::now();
    let superseded = || Ok(Err(Problem::new(Refusal::Unavailable, "node_stopping", "a later request took its place")));
    if !super::berths::note(reconciler, berth, what).await? {
        return superseded();
    }
    loop {
        match stream.next().await {
            Some(Ok(ArchiveProgress::Bytes { done, of })) => {
                if told.elapsed() >= FLUSH {
                    told = Instant::now();
                    if !progress(reconciler, berth, Extent { done, total: Some(of.max(done)) }).await? {
                        // Dropped, the stream ends the work.
                        return superseded();
                    }
                }
            }
            Some(Ok(ArchiveProgress::Done(_))) => return Ok(Ok(())),
            Some(Ok(ArchiveProgress::Failed(problem))) => return Ok(Err(problem)),
            Some(Err(error)) => return Ok(Err(transient(&error))),
            None => {
                let problem = Problem::new(Refusal::Unavailable, "node_unreachable", "berth-node ended in the middle of it");
                return Ok(Err(problem.hint("it is tried again by itself")));
            }
        }
    }
}

/// Keeps how far it is; false when something else is wanted of the berth by now.
async fn progress(reconciler: &Reconciler, berth: &Berth, extent: Extent) -> Result<bool, store::Error> {
    let now = reconciler.clock.now();
    let mut tx = reconciler.store.begin().await?;
    let newest = store::berths::by_id(&mut tx, berth.id).await?;
    if newest.is_none_or(|newest| newest.generation != berth.generation) {
        return Ok(false);
    }
    for operation in store::operations::unfinished(&mut tx, berth.id).await? {
        store::operations::set_progress(&mut tx, operation.id, extent, now).await?;
    }
    reconciler.store.commit(tx).await?;
    Ok(true)
}

/// The berth stays: its archive was not written.
async fn keep(reconciler: &Reconciler, berth: &Berth, problem: &Problem) -> Result<Outcome, store::Error> {
    let now = reconciler.clock.now();
    let mut tx = reconciler.store.begin().await?;
    store::archives::forget(&mut tx, berth.id).await?;
    for operation in store::operations::unfinished(&mut tx, berth.id).await? {
        store::operations::finish(&mut tx, operation.id, OperationState::Failed, None, Some(problem), now).await?;
    }
    store::berths::want(&mut tx, berth.id, Wanted::Present, None, now).await?;
    let details = serde_json::json!({ "code": problem.code, "detail": problem.detail });
    let entry = AuditEntry { action: "undo_delete_berth", subject: Subject::Berth(berth.user.as_str()), details, operation: None };
    store::audit::insert(&mut tx, &reconciler.clock, None, entry).await?;
    reconciler.store.commit(tx).await?;
    tracing::warn!(user = %berth.user, detail = problem.detail, "not archived, and so not deleted");
    Ok(Outcome::Done)
}
