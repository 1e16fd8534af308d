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
pub mod events;
pub mod figures;
pub mod keyed;
mod limits;
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

use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::config::Location;
pub use connection::{Connection, Transaction};
pub(crate) use connection::{Query, Value, query};

/// A lock is held for milliseconds; whoever waits longer is told so.
const BUSY: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open the database {database}")]
    Open { database: String, source: sqlx::Error },
    #[error("cannot migrate the database {database}")]
    Migrate { database: String, source: sqlx::migrate::MigrateError },
    #[error("the database {database} sorts text by {collation}, not by its bytes; make it anew with LOCALE 'C' (see the README)")]
    Collation { database: String, collation: String },
    #[error("cannot read the password of the database from {}", path.display())]
    Password { path: std::path::PathBuf, source: std::io::Error },
    #[error("cannot {what}")]
    Sql { what: &'static str, source: sqlx::Error },
    #[error("cannot {what}: one of this name exists")]
    Exists { what: &'static str },
    #[error("cannot {what}: the row is gone")]
    Gone { what: &'static str },
    #[error("{table}.{column} holds {value:?}, which is not understood")]
    Corrupt { table: &'static str, column: &'static str, value: String },
}

impl Error {
    /// True when the same call may succeed in a moment: the writer is busy, the disk is full, or no connection became free.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Sql { source: sqlx::Error::PoolTimedOut | sqlx::Error::Io(_), .. } => true,
            Self::Sql { source: sqlx::Error::Database(cause), .. } => {
                let code = cause.code().unwrap_or_default();
                match cause.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
                    Some(_) => postgres::is_passing(&code),
                    None => sqlite::is_passing(&code),
                }
            }
            _ => false,
        }
    }
}

pub struct Store {
    pools: Pools,
    intents: Notify,
    changes: watch::Sender<u64>,
}

enum Pools {
    Sqlite(sqlite::Pools),
    Postgres(postgres::Pools),
}

impl Store {
    /// Opens the database, makes the file when there is none, and brings its tables up to date.
    pub async fn open(location: &Location) -> Result<Self, Error> {
        let pools = match location {
            Location::Sqlite(path) => Pools::Sqlite(sqlite::Pools::open(path).await?),
            Location::Postgres { url, password_file } => Pools::Postgres(postgres::Pools::open(url, password_file.as_deref()).await?),
        };
        Ok(Self { pools, intents: Notify::new(), changes: watch::Sender::new(0) })
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

/// Says what was being done when a statement failed.
trait During<T> {
    fn during(self, what: &'static str) -> Result<T, Error>;
}

impl<T> During<T> for Result<T, sqlx::Error> {
    fn during(self, what: &'static str) -> Result<T, Error> {
        self.map_err(|source| match &source {
            sqlx::Error::Database(error) if error.is_unique_violation() => Error::Exists { what },
            _ => Error::Sql { what, source },
        })
    }
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

    #[tokio::test]
    async fn opening_twice_changes_nothing_and_readers_cannot_write() {
        let (directory, store) = scratch().await;
        store.ping(true).await.unwrap();
        assert_eq!(store.check().await.unwrap(), "ok");
        let mut reader = store.reader().await.unwrap();
        assert!(query("DELETE FROM profiles").execute(&mut reader).await.is_err());
        drop(reader);
        store.close().await;
        let again = Store::open(&Location::Sqlite(directory.path().join("berth.db"))).await.unwrap();
        let mut reader = again.reader().await.unwrap();
        assert_eq!(profiles::page(&mut reader, "", 10).await.unwrap().len(), 3);
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

    #[tokio::test]
    async fn old_rows_go_and_what_is_unfinished_stays() {
        use crate::domain::{AuditEntry, Clock, Kind, Operation, OperationId, OperationState, Parameters, Subject};
        let (_directory, store) = scratch().await;
        let clock = Clock { now: || 1_000, id: uuid::Uuid::now_v7 };
        let operation = |number| Operation {
            id: OperationId(uuid::Uuid::from_u128(number)),
            kind: Kind::ImageBuild,
            subject: "default".to_owned(),
            berth_id: None,
            generation: None,
            parameters: Parameters::None,
            state: OperationState::Pending,
            step: String::new(),
            log: Vec::new(),
            log_lines: 0,
            progress: None,
            result: None,
            problem: None,
            revision: 0,
            actor: "root".to_owned(),
            created_at: 1_000,
            updated_at: 1_000,
            finished_at: None,
        };
        let mut tx = store.begin().await.unwrap();
        for number in [1, 2] {
            operations::insert(&mut tx, &operation(number)).await.unwrap();
        }
        operations::finish(&mut tx, operation(1).id, OperationState::Succeeded, Some("sha256:00"), None, 1_000).await.unwrap();
        // What has ended stays ended.
        operations::finish(&mut tx, operation(1).id, OperationState::Failed, None, None, 2_000).await.unwrap();
        assert_eq!(operations::by_id(&mut tx, operation(1).id).await.unwrap().unwrap().state, OperationState::Succeeded);
        let entry =
            AuditEntry { action: "build_image", subject: Subject::Image("default"), details: serde_json::json!({}), operation: None };
        audit::insert(&mut tx, &clock, None, entry).await.unwrap();
        assert_eq!((operations::prune(&mut tx, 1_000).await.unwrap(), audit::prune(&mut tx, 1_000, 10).await.unwrap()), (0, 0));
        assert_eq!((operations::prune(&mut tx, 1_001).await.unwrap(), audit::prune(&mut tx, 1_001, 10).await.unwrap()), (1, 1));
        assert_eq!(operations::unfinished_images(&mut tx).await.unwrap().len(), 1);
    }
}
