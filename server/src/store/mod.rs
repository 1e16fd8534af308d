//! All SQL of the server, over SQLite or PostgreSQL.
//!
//! Functions are per entity, take a connection or transaction and return domain types. One SQL text serves both databases (`$1`, TEXT ids,
//! BIGINT milliseconds); what differs is in [`connection`], [`sqlite`] and [`postgres`]; migrations lie in pairs under `migrations/`.
//! There is one writing transaction at a time: rows of the trail are read up to an id or a number, and none may appear below it later.
//! Who writes an intent calls [`Store::announce`] after the commit, which wakes the reconciler and whoever waits for an operation.

pub mod accounts;
pub mod administrators;
pub mod archives;
pub mod audit;
pub mod berth_list;
pub mod berths;
pub mod calls;
mod connection;
pub mod ends;
mod error;
pub mod events;
mod export;
pub mod figures;
pub mod keyed;
mod lease;
mod limits;
mod migrate;
pub mod operations;
mod postgres;
pub mod profiles;
pub mod requests;
pub mod rules;
pub mod samples;
pub mod sessions;
pub mod settings;
mod sqlite;
pub mod tokens;
pub mod users;

use std::{path::PathBuf, time::Duration};

use tokio::sync::{Notify, watch};

use crate::config::Location;
pub use connection::{Connection, Transaction};
pub(crate) use connection::{Query, Value, query};
use error::During;
pub use error::{Error, Trouble};
pub use export::TransferError;
pub use migrate::{Plan, Step};

/// A lock is held for milliseconds; whoever waits longer is told so.
const BUSY: Duration = Duration::from_secs(5);

pub struct Store {
    pools: Pools,
    intents: Notify,
    changes: watch::Sender<u64>,
    /// Whether this server carries intents out.
    lease: watch::Receiver<bool>,
    /// Of a file, which no other server gets at.
    _own: watch::Sender<bool>,
    migrated: Migrated,
}

/// What opening a database has changed.
#[derive(Clone, Debug, Default)]
pub struct Migrated {
    pub steps: Vec<Step>,
    /// The database before that, where it was copied.
    pub backup: Option<PathBuf>,
}

enum Pools {
    Sqlite(sqlite::Pools),
    Postgres(postgres::Pools),
}

impl Store {
    /// Opens the database, makes the file when there is none, and brings its tables up to date, a copy of the file first. Refuses a
    /// database on which another server works, and one that a newer program has changed.
    pub async fn open(location: &Location) -> Result<Self, Error> {
        let (own, lease) = watch::channel(true);
        let (pools, lease, plan, backup) = match location {
            Location::Sqlite(path) => {
                let (pools, plan, backup) = sqlite::Pools::open(path).await?;
                (Pools::Sqlite(pools), lease, plan, backup)
            }
            Location::Postgres { url, password_file } => {
                let (pools, plan) = postgres::Pools::open(url, password_file.as_deref()).await?;
                let lease = pools.lease();
                (Pools::Postgres(pools), lease, plan, None)
            }
        };
        if plan.applied > 0 && !plan.steps.is_empty() {
            let backup = backup.as_ref().map(|path| path.display().to_string());
            tracing::info!(steps = plan.steps.len(), backup, "the database was migrated");
        }
        let migrated = Migrated { steps: plan.steps, backup };
        Ok(Self { pools, intents: Notify::new(), changes: watch::Sender::new(0), lease, _own: own, migrated })
    }

    /// What [`Store::open`] would change; changes nothing.
    pub async fn plan(location: &Location) -> Result<Plan, Error> {
        match location {
            Location::Sqlite(path) => sqlite::plan(path).await,
            Location::Postgres { url, password_file } => postgres::plan(url, password_file.as_deref()).await,
        }
    }

    pub fn migrated(&self) -> &Migrated {
        &self.migrated
    }

    /// Fails while another server may be the one that carries intents out.
    pub fn lead(&self) -> Result<(), Error> {
        if *self.lease.borrow() { Ok(()) } else { Err(Error::NotLeading) }
    }

    /// Changes when [`Store::lead`] does.
    pub fn lease(&self) -> watch::Receiver<bool> {
        self.lease.clone()
    }

    /// A connection for reading.
    pub async fn reader(&self) -> Result<Connection, Error> {
        match &self.pools {
            Pools::Sqlite(pools) => pools.reader().await,
            Pools::Postgres(pools) => pools.reader().await,
        }
        .during("get a connection for reading")
    }

    /// A transaction for reading: everything in it sees the database of one instant.
    pub async fn snapshot(&self) -> Result<Transaction, Error> {
        match &self.pools {
            Pools::Sqlite(pools) => pools.snapshot().await,
            Pools::Postgres(pools) => pools.snapshot().await,
        }
        .during("begin to read")
    }

    /// The one writing transaction; others wait their turn.
    pub async fn begin(&self) -> Result<Transaction, Error> {
        match &self.pools {
            Pools::Sqlite(pools) => pools.begin().await,
            Pools::Postgres(pools) => pools.begin().await,
        }
        .during("begin a transaction")
    }

    pub async fn commit(&self, transaction: Transaction) -> Result<(), Error> {
        transaction.commit().await.during("commit")?;
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Says that there is something to carry out.
    pub fn announce(&self) {
        self.intents.notify_one();
    }

    /// Returns when an intent was announced since the last call.
    pub async fn announced(&self) {
        self.intents.notified().await;
    }

    /// Changes its value with every commit.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether a statement can be run and, with `write`, a transaction begun.
    pub async fn ping(&self, write: bool) -> Result<(), Error> {
        let mut reader = self.reader().await?;
        query("SELECT 1").execute(&mut reader).await.during("ask the database")?;
        if write {
            let transaction = self.begin().await?;
            transaction.rollback().await.during("roll back")?;
        }
        Ok(())
    }

    /// The database's own check of its file, where it has one: `ok`, or what is wrong.
    pub async fn check(&self) -> Result<String, Error> {
        let statement = match &self.pools {
            Pools::Sqlite(_) => sqlite::CHECK,
            Pools::Postgres(_) => postgres::CHECK,
        };
        let mut reader = self.reader().await?;
        let (found,) = query(statement).fetch_one(&mut reader).await.during("check the database file")?;
        Ok(found)
    }

    pub async fn close(&self) {
        match &self.pools {
            Pools::Sqlite(pools) => pools.close().await,
            Pools::Postgres(pools) => pools.close().await,
        }
    }
}

/// Bytes of the database.
async fn size(connection: &mut Connection) -> Result<u64, Error> {
    let statement = match connection.raw() {
        connection::Raw::Sqlite(_) => sqlite::SIZE,
        connection::Raw::Postgres(_) => postgres::SIZE,
    };
    let (bytes,) = query(statement).fetch_one(connection).await.during("look how large the database is")?;
    unsigned("database", "size", bytes)
}

fn touched(rows: u64, what: &'static str) -> Result<(), Error> {
    match rows {
        0 => Err(Error::Gone { what }),
        _ => Ok(()),
    }
}

/// The variant that is written as `text`.
fn variant<T: Copy>(all: &[T], name: fn(T) -> &'static str, table: &'static str, column: &'static str, text: String) -> Result<T, Error> {
    all.iter().copied().find(|one| name(*one) == text).ok_or(Error::Corrupt { table, column, value: text })
}

fn from_json<T: serde::de::DeserializeOwned>(table: &'static str, column: &'static str, text: String) -> Result<T, Error> {
    serde_json::from_str(&text).map_err(|_| Error::Corrupt { table, column, value: text })
}

fn to_json(value: &impl serde::Serialize) -> String {
    // Domain types hold strings, numbers and lists of them; serialising those cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

fn id(table: &'static str, text: String) -> Result<uuid::Uuid, Error> {
    text.parse().map_err(|_| Error::Corrupt { table, column: "id", value: text })
}

/// Where a list that is ordered by falling ids goes on: "g" sorts after every UUID in text.
fn before_or_end(before: Option<uuid::Uuid>) -> String {
    before.map_or_else(|| "g".to_owned(), |id| id.to_string())
}

/// An unsigned figure from a BIGINT.
fn unsigned<T: TryFrom<i64>>(table: &'static str, column: &'static str, value: i64) -> Result<T, Error> {
    T::try_from(value).map_err(|_| Error::Corrupt { table, column, value: value.to_string() })
}

/// A BIGINT from an unsigned figure; [`crate::domain::Limits::MOST`] keeps all of them below its end.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::*;

    /// A store on a fresh file, which goes when the directory does.
    pub(crate) async fn scratch() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&Location::Sqlite(directory.path().join("berth.db"))).await.unwrap();
        (directory, store)
    }

    #[test]
    fn migrations_are_paired() {
        let names = |kind: &str| {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations").join(kind);
            let mut names: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names("sqlite"), names("postgres"));
    }
}
