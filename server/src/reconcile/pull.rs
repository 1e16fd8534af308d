//! Pulls an image: what the registry sends is passed on to the node as it comes.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::StreamExt;

use super::{
    Reconciler,
    images::{self, End},
};
use crate::{
    domain::{Operation, Problem, Reference, Refusal, RegistryAccess},
    node_client::{Error as NodeError, Sent},
    registry::{self, Patience},
    store,
};

/// Works until the image is there, or an hour after it was asked for; a node that is away is for later.
pub(super) async fn work(
    reconciler: &Reconciler,
    operation: &Operation,
    reference: &str,
    plain: bool,
    private: bool,
) -> Result<Result<End, NodeError>, store::Error> {
    let access = match reconciler.uploads.access(operation.id) {
        Some(access) => access,
        None if private => {
            let detail = "the server was restarted while it pulled the image, and keeps no login";
            return Ok(Ok(Err(Problem::new(Refusal::Failed, "pull_interrupted", detail).hint("pull it again"))));
        }
        None => RegistryAccess { plain, ..RegistryAccess::default() },
    };
    let Ok(reference) = reference.parse::<Reference>() else {
        let detail = "the stored reference is none";
        return Ok(Ok(Err(Problem::new(Refusal::Failed, "operation_not_understood", detail))));
    };
    let left = images::PATIENCE - (reconciler.clock.now() - operation.created_at);
    let left = Duration::from_millis(left.max(0).unsigned_abs());
    let pulled = tokio::time::timeout(left, pull(reconciler, operation, &reference, access)).await;
    pulled.unwrap_or_else(|_| Ok(Ok(Err(images::late()))))
}

async fn pull(
    reconciler: &Reconciler,
    operation: &Operation,
    reference: &Reference,
    access: RegistryAccess,
) -> Result<Result<End, NodeError>, store::Error> {
    images::step(reconciler, operation, "asking the registry").await?;
    let found = match registry::find(reference, access, Patience::default()).await {
        Ok(found) => found,
        Err(error) => return Ok(Ok(Err(error.problem()))),
    };
    // What is there under this name already need not come again.
    match reconciler.node.images().await {
        Ok(images) => {
            if let Some(image) = images.into_iter().find(|image| image.digest == found.digest() && image.name == operation.subject) {
                return Ok(Ok(Ok(Some(image))));
            }
        }
        Err(error) => return Ok(Err(error)),
    }
    images::step(reconciler, operation, "receiving").await?;
    let sent = Sent::of(found.total());
    let failure = Arc::new(OnceLock::new());
    let (counted, told) = (sent.clone(), Arc::clone(&failure));
    let body = found.stream().map(move |part| match part {
        Ok(part) => {
            counted.add(part.len());
            Ok(part)
        }
        Err(error) => {
            // The node only sees that the body breaks off.
            let _ = told.set(error.problem());
            Err(io::Error::other(error))
        }
    });
    let end = images::receive(reconciler, operation, body.boxed(), &sent).await?;
    Ok(match (failure.get(), end) {
        (Some(problem), Err(_) | Ok(Err(_))) => Ok(Err(problem.clone())),
        (_, end) => end,
    })
}
