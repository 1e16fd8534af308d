//! Image operations: build, import, pull, remove.

use std::{collections::VecDeque, time::Duration};

use futures_util::StreamExt;
use tokio::time::Instant;

use super::{Outcome, Reconciler};
use crate::{
    chain,
    domain::{Image, Kind, MAX_LOG_LINES, Operation, OperationId, OperationState, Parameters, Problem, Progress, Refusal},
    node_client::{Error as NodeError, ProgressStream, Sent, Upload},
    store,
};

/// Output is written to the store at most so often.
const FLUSH: Duration = Duration::from_millis(500);
const MAX_LINE: usize = 400;
/// A build, import or pull is given up after an hour.
pub(super) const PATIENCE: i64 = 3_600_000;

pub(super) async fn drive(reconciler: &Reconciler, operation: Operation) -> Outcome {
    match work(reconciler, &operation).await {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::error!(operation = %operation.id, error = chain(&error), "cannot work on the image");
            Outcome::Retry
        }
    }
}

async fn work(reconciler: &Reconciler, operation: &Operation) -> Result<Outcome, store::Error> {
    if reconciler.clock.now() - operation.created_at > PATIENCE {
        return finish(reconciler, operation, Err(late())).await;
    }
    let result = match (&operation.kind, &operation.parameters) {
        (Kind::ImageBuild, Parameters::Build { suite }) => {
            step(reconciler, operation, "building").await?;
            follow(reconciler, operation, reconciler.node.build_image(&operation.subject, suite).await, None).await?
        }
        (Kind::ImageImport, _) => match reconciler.uploads.take(operation.id) {
            Some((body, sent)) => {
                step(reconciler, operation, "receiving").await?;
                match receive(reconciler, operation, body, &sent).await? {
                    // The bytes are spent, so that there is no trying again.
                    Err(error) => Ok(Err(error.problem())),
                    other => other,
                }
            }
            None => Ok(Err(Problem::new(Refusal::Failed, "upload_interrupted", "the server was restarted while the image was sent")
                .hint("send it again"))),
        },
        (Kind::ImagePull, Parameters::Pull { reference, plain, private }) => {
            super::pull::work(reconciler, operation, reference, *plain, *private).await?
        }
        (Kind::ImageRemove, Parameters::Remove { digest }) => {
            step(reconciler, operation, "removing").await?;
            reconciler.node.remove_image(digest).await.map(|()| Ok(None))
        }
        (Kind::ArchiveRemove, _) => {
            step(reconciler, operation, "removing").await?;
            reconciler.node.remove_archive(&operation.subject).await.map(|()| Ok(None))
        }
        _ => Ok(Err(Problem::new(Refusal::Failed, "operation_not_understood", "the stored operation is not of an image"))),
    };
    match result {
        Ok(end) => finish(reconciler, operation, end).await,
        Err(error) if error.is_transient() => {
            step(reconciler, operation, &format!("{}{error}", Operation::WAITING)).await?;
            Ok(Outcome::Retry)
        }
        Err(error) => finish(reconciler, operation, Err(error.problem())).await,
    }
}

/// What an operation is told that took too long.
pub(super) fn late() -> Problem {
    Problem::new(Refusal::TimedOut, "timed_out", "it was not done within an hour").hint("see the log of berth-node")
}

/// Tells the node of an operation that was cancelled under way. An import or pull ends with its body, which was dropped; a build has to be told. One that
/// has ended by itself meanwhile is not meant.
pub(super) async fn stop(reconciler: &Reconciler, id: OperationId) {
    let operation = async {
        let mut reader = reconciler.store.reader().await?;
        store::operations::by_id(&mut reader, id).await
    };
    match operation.await {
        Ok(Some(operation)) if operation.state == OperationState::Cancelled && operation.kind == Kind::ImageBuild => {
            if let Err(error) = reconciler.node.stop_build(&operation.subject).await {
                tracing::warn!(operation = %id, error = chain(&error), "the node cannot be told to stop a build");
            }
        }
        Ok(_) => {}
        Err(error) => tracing::error!(operation = %id, error = chain(&error), "cannot look up a cancelled operation"),
    }
}

/// The image that was made, or why none was.
pub(super) type End = Result<Option<Image>, Problem>;

/// Sends the body, which the node reads before it answers, and keeps note of how far that is.
pub(super) async fn receive(
    reconciler: &Reconciler,
    operation: &Operation,
    body: Upload,
    sent: &Sent,
) -> Result<Result<End, NodeError>, store::Error> {
    let mut sending = std::pin::pin!(reconciler.node.import_image(&operation.subject, body));
    let stream = loop {
        tokio::select! {
            stream = sending.as_mut() => break stream,
            () = tokio::time::sleep(FLUSH) => progress(reconciler, operation, sent).await?,
        }
    };
    let end = follow(reconciler, operation, stream, Some(sent)).await?;
    progress(reconciler, operation, sent).await?;
    Ok(end)
}

async fn progress(reconciler: &Reconciler, operation: &Operation, sent: &Sent) -> Result<(), store::Error> {
    let mut tx = reconciler.store.begin().await?;
    store::operations::set_progress(&mut tx, operation.id, sent.extent(), reconciler.clock.now()).await?;
    reconciler.store.commit(tx).await
}

/// Keeps the output of a build or import until it ends.
async fn follow(
    reconciler: &Reconciler,
    operation: &Operation,
    stream: Result<ProgressStream, NodeError>,
    sent: Option<&Sent>,
) -> Result<Result<End, NodeError>, store::Error> {
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(error) => return Ok(Err(error)),
    };
    let (mut log, mut lines) = (VecDeque::new(), 0);
    let mut flush_at = None;
    loop {
        let item = tokio::select! {
            item = stream.next() => item,
            () = tokio::time::sleep(FLUSH), if sent.is_some() && flush_at.is_none() => {
                if let Some(sent) = sent {
                    progress(reconciler, operation, sent).await?;
                }
                continue;
            }
            () = tokio::time::sleep_until(flush_at.unwrap_or_else(Instant::now)), if flush_at.is_some() => {
                flush(reconciler, operation, &mut log, lines).await?;
                flush_at = None;
                continue;
            }
        };
        let end = match item {
            Some(Ok(Progress::Log(line))) => {
                lines += 1;
                log.push_back(clean(&line));
                if log.len() > MAX_LOG_LINES {
                    log.pop_front();
                }
                flush_at.get_or_insert_with(|| Instant::now() + FLUSH);
                continue;
            }
            Some(Ok(Progress::Done(image))) => Ok(Ok(Some(image))),
            Some(Ok(Progress::Failed(problem))) => Ok(Err(problem)),
            Some(Err(error)) => Err(error),
            None => Err(NodeError::Answer { what: "image".to_owned(), reason: "it ended without a result".to_owned() }),
        };
        flush(reconciler, operation, &mut log, lines).await?;
        return Ok(end);
    }
}

/// One line, short, without characters that a terminal would act on.
fn clean(line: &str) -> String {
    line.chars().filter(|c| !c.is_control()).take(MAX_LINE).collect()
}

async fn flush(reconciler: &Reconciler, operation: &Operation, log: &mut VecDeque<String>, lines: u64) -> Result<(), store::Error> {
    let mut tx = reconciler.store.begin().await?;
    store::operations::set_log(&mut tx, operation.id, log.make_contiguous(), lines, reconciler.clock.now()).await?;
    reconciler.store.commit(tx).await
}

pub(super) async fn step(reconciler: &Reconciler, operation: &Operation, step: &str) -> Result<(), store::Error> {
    let mut tx = reconciler.store.begin().await?;
    store::operations::set_step(&mut tx, operation.id, step, reconciler.clock.now()).await?;
    reconciler.store.commit(tx).await
}

async fn finish(reconciler: &Reconciler, operation: &Operation, end: End) -> Result<Outcome, store::Error> {
    let now = reconciler.clock.now();
    let mut tx = reconciler.store.begin().await?;
    match &end {
        Ok(image) => {
            let digest = image.as_ref().map(|image| image.digest.as_str());
            store::operations::finish(&mut tx, operation.id, OperationState::Succeeded, digest, None, now).await?;
            let default = store::settings::get(&mut tx, store::settings::DEFAULT_IMAGE).await?;
            // The first image is the default one until somebody chooses another.
            if let (Some(image), None) = (image, default) {
                store::settings::set(&mut tx, store::settings::DEFAULT_IMAGE, &image.name, now).await?;
            }
        }
        Err(problem) => {
            tracing::warn!(operation = %operation.id, subject = operation.subject, detail = problem.detail, "an image operation failed");
            store::operations::finish(&mut tx, operation.id, OperationState::Failed, None, Some(problem), now).await?;
        }
    }
    reconciler.store.commit(tx).await?;
    reconciler.uploads.forget(operation.id);
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_never_reach_a_terminal() {
        assert_eq!(clean("a\x1b]0;x\x07b\r\n"), "a]0;xb");
        assert_eq!(clean(&"x".repeat(10_000)).len(), MAX_LINE);
    }
}
