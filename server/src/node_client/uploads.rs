//! Bodies on their way from a request to the node: the handler leaves one under its operation, the reconciler takes it.

use std::{
    collections::HashMap,
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::sync::oneshot;

use crate::domain::OperationId;

/// A sender that is silent for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);
/// Largest image that is taken.
const MAX_BYTES: u64 = 64 << 30;

/// A body that can be read once.
pub type Upload = BoxStream<'static, io::Result<Bytes>>;

/// Uploads that nobody has taken yet; the number of unfinished image operations bounds them.
#[derive(Default)]
pub struct Uploads {
    waiting: Mutex<HashMap<OperationId, Upload>>,
}

impl Uploads {
    /// Leaves a body; the receiver resolves when all of it was read, or when it was dropped unread.
    pub fn leave(&self, operation: OperationId, body: Upload) -> oneshot::Receiver<()> {
        let (done, finished) = oneshot::channel();
        self.lock().insert(operation, bounded(body, done));
        finished
    }

    pub fn take(&self, operation: OperationId) -> Option<Upload> {
        self.lock().remove(&operation)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<OperationId, Upload>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bounded(body: Upload, done: oneshot::Sender<()>) -> Upload {
    stream::unfold(Some((body, 0_u64, done)), |state| async move {
        let (mut body, taken, done) = state?;
        match tokio::time::timeout(SILENCE, body.next()).await {
            Ok(Some(Ok(part))) => {
                let taken = taken + part.len() as u64;
                match taken > MAX_BYTES {
                    true => Some((Err(io::Error::other(format!("the image passes {MAX_BYTES} bytes"))), None)),
                    false => Some((Ok(part), Some((body, taken, done)))),
                }
            }
            Ok(Some(Err(error))) => Some((Err(error), None)),
            // Whoever waits may have gone; the upload is whole all the same.
            Ok(None) => done.send(()).map_or(None, |()| None),
            Err(_) => {
                let error = io::Error::new(io::ErrorKind::TimedOut, format!("nothing came for {} s", SILENCE.as_secs()));
                Some((Err(error), None))
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_waiter_learns_when_the_body_was_read_or_dropped() {
        let (uploads, id) = (Uploads::default(), OperationId(uuid::Uuid::nil()));
        let finished = uploads.leave(id, stream::iter([Ok(Bytes::from_static(b"a")), Ok(Bytes::from_static(b"b"))]).boxed());
        let parts: Vec<_> = uploads.take(id).unwrap().map(Result::unwrap).collect().await;
        assert_eq!(parts, ["a", "b"]);
        assert_eq!(finished.await, Ok(()));
        let finished = uploads.leave(id, stream::empty().boxed());
        drop(uploads.take(id));
        assert!(finished.await.is_err());
        assert!(uploads.take(id).is_none());
    }
}
