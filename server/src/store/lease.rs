//! Which server carries intents out: the one whose session holds an advisory lock of the database, on a connection that does nothing else.
//!
//! At start a server that does not get it in time ends, and says why. Later the connection is asked every second: when it is lost, so may
//! the lock be, and this server only stores and shows until it has taken the lock again. For a moment two servers may then act; both
//! re-read what is wanted before each step, and asking a node twice is harmless.

use std::time::Duration;

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::Error;

/// "berti" in ASCII: beside the number of the writers' lock.
const TAKE: &str = "SELECT pg_try_advisory_lock(422608794729)";
/// A server that was killed holds the lock until PostgreSQL sees that its connection is gone.
const PATIENCE: Duration = Duration::from_secs(10);
const PACE: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(5);

pub(super) struct Lease {
    held: watch::Receiver<bool>,
    end: CancellationToken,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Lease {
    pub(super) async fn take(options: &PgConnectOptions, database: &str) -> Result<Self, Error> {
        let deadline = Instant::now() + PATIENCE;
        let connection = loop {
            match take(options).await {
                Ok(Some(connection)) => break connection,
                Ok(None) if Instant::now() >= deadline => return Err(Error::Second { database: database.to_owned() }),
                Ok(None) => tokio::time::sleep(PACE / 4).await,
                Err(source) => return Err(Error::Open { database: database.to_owned(), source }),
            }
        };
        let (sender, held) = watch::channel(true);
        let end = CancellationToken::new();
        let task = tokio::spawn(keep(options.clone(), connection, sender, end.clone()));
        Ok(Self { held, end, task: tokio::sync::Mutex::new(Some(task)) })
    }

    pub(super) fn held(&self) -> watch::Receiver<bool> {
        self.held.clone()
    }

    /// Gives the lock back.
    pub(super) async fn end(&self) {
        self.end.cancel();
        if let Some(task) = self.task.lock().await.take() {
            let _ = task.await;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// A connection that holds the lock, unless another one does.
async fn take(options: &PgConnectOptions) -> Result<Option<PgConnection>, sqlx::Error> {
    let asked = async {
        let mut connection = PgConnection::connect_with(options).await?;
        let (taken,): (bool,) = sqlx::query_as(TAKE).fetch_one(&mut connection).await?;
        Ok(taken.then_some(connection))
    };
    tokio::time::timeout(ANSWER, asked).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

async fn keep(options: PgConnectOptions, mut connection: PgConnection, held: watch::Sender<bool>, end: CancellationToken) {
    let work = async {
        loop {
            while matches!(tokio::time::timeout(ANSWER, connection.ping()).await, Ok(Ok(()))) {
                tokio::time::sleep(PACE).await;
            }
            held.send_replace(false);
            tracing::error!("the connection that holds the lock on the database is lost: nothing is carried out until it is taken again");
            let mut told = false;
            connection = loop {
                match take(&options).await {
                    Ok(Some(connection)) => break connection,
                    Ok(None) if !told => {
                        told = true;
                        tracing::error!("another berth-server has taken the lock on the database");
                    }
                    Ok(None) => {}
                    Err(error) => tracing::debug!(%error, "the database does not answer"),
                }
                tokio::time::sleep(PACE).await;
            };
            held.send_replace(true);
            tracing::warn!("the lock on the database is taken again");
        }
    };
    end.run_until_cancelled(work).await;
    let _ = tokio::time::timeout(ANSWER, connection.close()).await;
}
