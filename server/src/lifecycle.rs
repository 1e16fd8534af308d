//! From start to end: a soft token (take nothing new, let what is under way end), a hard token under it (stop now), and a tracker of all
//! tasks. SIGTERM and SIGINT cancel the soft one; a second signal, or the deadline, the hard one.

use std::{io, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What is under way has so long to end.
const DRAIN: Duration = Duration::from_secs(10);
/// And so long after it was told to stop.
const STOP: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    pub soft: CancellationToken,
    pub hard: CancellationToken,
    pub tasks: TaskTracker,
}

/// The signals that end the service, caught from when this is made: before anything is open that must be closed in order.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }
}

impl Lifecycle {
    /// Waits for a signal, then for all tasks.
    pub async fn run(self, signals: Signals) {
        let Signals { mut terminate, mut interrupt } = signals;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = self.soft.cancelled() => {}
        }
        tracing::info!("ending");
        let again = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        self.end(again).await;
    }

    /// Ends all tasks; `hurry` shortens the wait.
    pub async fn end(&self, hurry: impl Future<Output = ()>) {
        self.soft.cancel();
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => return,
            () = tokio::time::sleep(DRAIN) => {}
            () = hurry => {}
        }
        self.hard.cancel();
        if tokio::time::timeout(STOP, self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "some tasks did not end");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hurry_cuts_what_does_not_end_by_itself() {
        let life = Lifecycle::default();
        let hard = life.hard.clone();
        let task = life.tasks.spawn(async move { hard.cancelled().await });
        life.end(std::future::ready(())).await;
        task.await.unwrap();
    }
}
