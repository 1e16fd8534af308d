//! What a request leaves in memory under its operation, for the reconciler to take: bodies on their way to the node, and logins.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::sync::oneshot;

use crate::domain::{Extent, OperationId, RegistryAccess};

/// A sender that is silent for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);
/// Largest image that is taken.
const MAX_BYTES: u64 = 64 << 30;

/// A body that can be read once.
pub type Upload = BoxStream<'static, io::Result<Bytes>>;

/// How much of a body has been read.
#[derive(Clone, Debug)]
pub struct Sent {
    done: Arc<AtomicU64>,
    total: Option<u64>,
}

impl Sent {
    /// Of a body of `total` bytes, none of them read yet.
    pub fn of(total: u64) -> Self {
        Self { done: Arc::default(), total: Some(total) }
    }

    pub fn add(&self, bytes: usize) {
        self.done.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn extent(&self) -> Extent {
        Extent { done: self.done.load(Ordering::Relaxed), total: self.total }
    }
}

/// Uploads that nobody has taken yet, and logins of pulls that are not done; the number of unfinished image operations bounds them.
#[derive(Default)]
pub struct Uploads {
    waiting: Mutex<HashMap<OperationId, (Upload, Sent)>>,
    accesses: Mutex<HashMap<OperationId, RegistryAccess>>,
}

impl Uploads {
    /// Leaves a body of `total` bytes, where that is known; the receiver resolves when all of it was read, or when it was dropped unread.
    pub fn leave(&self, operation: OperationId, body: Upload, total: Option<u64>) -> oneshot::Receiver<()> {
        let (done, finished) = oneshot::channel();
        let sent = Sent { done: Arc::default(), total };
        self.lock().insert(operation, (bounded(body, sent.clone(), done), sent));
        finished
    }

    pub fn take(&self, operation: OperationId) -> Option<(Upload, Sent)> {
        self.lock().remove(&operation)
    }

    pub fn leave_access(&self, operation: OperationId, access: RegistryAccess) {
        self.accesses.lock().unwrap_or_else(PoisonError::into_inner).insert(operation, access);
    }

    /// It stays until the operation has ended: a pull may be tried again.
    pub fn access(&self, operation: OperationId) -> Option<RegistryAccess> {
        self.accesses.lock().unwrap_or_else(PoisonError::into_inner).get(&operation).cloned()
    }

    /// To be called when the operation has ended, however it did.
    pub fn forget(&self, operation: OperationId) {
        drop(self.take(operation));
        self.accesses.lock().unwrap_or_else(PoisonError::into_inner).remove(&operation);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<OperationId, (Upload, Sent)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bounded(body: Upload, sent: Sent, done: oneshot::Sender<()>) -> Upload {
    stream::unfold(Some((body, sent, done)), |state| async move {
        let (mut body, sent, done) = state?;
        match tokio::time::timeout(SILENCE, body.next()).await {
            Ok(Some(Ok(part))) => {
                let length = part.len() as u64;
                let taken = sent.done.fetch_add(length, Ordering::Relaxed) + length;
                match taken > MAX_BYTES {
                    true => Some((Err(io::Error::other(format!("the image passes {MAX_BYTES} bytes"))), None)),
                    false => Some((Ok(part), Some((body, sent, done)))),
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
        let finished = uploads.leave(id, stream::iter([Ok(Bytes::from_static(b"a")), Ok(Bytes::from_static(b"b"))]).boxed(), Some(2));
        let (body, sent) = uploads.take(id).unwrap();
        let parts: Vec<_> = body.map(Result::unwrap).collect().await;
        assert_eq!(parts, ["a", "b"]);
        assert_eq!(finished.await, Ok(()));
        assert_eq!(sent.extent(), Extent { done: 2, total: Some(2) });
        let finished = uploads.leave(id, stream::empty().boxed(), None);
        drop(uploads.take(id));
        assert!(finished.await.is_err());
        assert!(uploads.take(id).is_none());
    }
}
