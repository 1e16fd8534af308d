//! PostgreSQL: a pool for reading, and one writing connection whose transactions hold an advisory lock.
//!
//! Under READ COMMITTED two writers would see neither each other's promises nor would their rows become visible in the order of their ids,
//! on which the trail's followers rely. The lock makes one writer of all servers of a database, as SQLite has by itself; an intent takes
//! some milliseconds, so that hundreds a second fit.

use std::path::Path;

use sqlx::{
    PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{BUSY, Connection, Error, Transaction};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/postgres");
const READERS: u32 = 4;

/// PostgreSQL looks after its own files.
pub(super) const CHECK: &str = "SELECT 'ok'";
pub(super) const SIZE: &str = "SELECT pg_database_size(current_database())";
/// One round trip. The number is "berth" in ASCII.
const BEGIN: &str = "BEGIN; SELECT pg_advisory_xact_lock(422608794728)";
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

pub(super) struct Pools {
    write: PgPool,
    read: PgPool,
}

impl Pools {
    pub(super) async fn open(url: &str, password_file: Option<&Path>) -> Result<Self, Error> {
        let options: PgConnectOptions = url.parse().map_err(|source| Error::Open { database: url.to_owned(), source })?;
        let database = format!("{} at {}", options.get_database().unwrap_or("(default)"), options.get_host());
        let open = |source| Error::Open { database: database.clone(), source };
        let wait = BUSY.as_millis().to_string();
        let mut options = options.application_name("berth-server").options([("lock_timeout", wait.as_str())]);
        if let Some(path) = password_file {
            let text = std::fs::read_to_string(path).map_err(|source| Error::Password { path: path.to_owned(), source })?;
            options = options.password(text.trim_end_matches(['\r', '\n']));
        }
        let write = pool(1).connect_with(options.clone()).await.map_err(open)?;
        let sorted = "SELECT datcollate FROM pg_database WHERE datname = current_database()";
        let (collation,): (String,) = sqlx::query_as(sorted).fetch_one(&write).await.map_err(open)?;
        if !matches!(collation.as_str(), "C" | "POSIX" | "C.UTF-8" | "C.utf8") {
            return Err(Error::Collation { database, collation });
        }
        MIGRATIONS.run(&write).await.map_err(|source| Error::Migrate { database: database.clone(), source })?;
        let read = options.options([("default_transaction_read_only", "on")]);
        let read = pool(READERS).connect_with(read).await.map_err(open)?;
        Ok(Self { write, read })
    }

    pub(super) async fn reader(&self) -> Result<Connection, sqlx::Error> {
        self.read.acquire().await.map(Connection::from)
    }

    pub(super) async fn snapshot(&self) -> Result<Transaction, sqlx::Error> {
        self.read.begin_with(SNAPSHOT).await.map(Transaction::from)
    }

    pub(super) async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        self.write.begin_with(BEGIN).await.map(Transaction::from)
    }

    pub(super) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

fn pool(connections: u32) -> PgPoolOptions {
    PgPoolOptions::new().max_connections(connections).min_connections(1).acquire_timeout(BUSY)
}

/// True for codes of what passes: the connection or the server went away, something is full, a lock was not got.
pub(super) fn is_passing(code: &str) -> bool {
    ["08", "40", "53", "57"].contains(&code.get(..2).unwrap_or_default()) || code == "55P03"
}
