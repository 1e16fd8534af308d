//! SQLite: one file in WAL mode, one writing connection (`BEGIN IMMEDIATE`), several reading ones.

use std::path::Path;

use sqlx::{
    SqlitePool,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{BUSY, Connection, Error, Transaction};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite");
const READERS: u32 = 4;

pub(super) const CHECK: &str = "PRAGMA quick_check(1)";
pub(super) const SIZE: &str = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";

pub(super) struct Pools {
    write: SqlitePool,
    read: SqlitePool,
}

impl Pools {
    pub(super) async fn open(path: &Path) -> Result<Self, Error> {
        let named = || path.display().to_string();
        let open = |source| Error::Open { database: named(), source };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let write = pool(1).connect_with(options.clone()).await.map_err(open)?;
        MIGRATIONS.run(&write).await.map_err(|source| Error::Migrate { database: named(), source })?;
        let read = pool(READERS).connect_with(options.pragma("query_only", "ON")).await.map_err(open)?;
        Ok(Self { write, read })
    }

    pub(super) async fn reader(&self) -> Result<Connection, sqlx::Error> {
        self.read.acquire().await.map(Connection::from)
    }

    pub(super) async fn snapshot(&self) -> Result<Transaction, sqlx::Error> {
        self.read.begin().await.map(Transaction::from)
    }

    pub(super) async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        self.write.begin_with("BEGIN IMMEDIATE").await.map(Transaction::from)
    }

    pub(super) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new().max_connections(connections).min_connections(1).acquire_timeout(BUSY)
}

/// True for codes of what passes: SQLITE_BUSY and SQLITE_FULL, with whatever extends them.
pub(super) fn is_passing(code: &str) -> bool {
    matches!(code.parse::<i32>().map(|code| code & 0xff), Ok(5 | 13))
}
