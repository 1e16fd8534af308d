//! PostgreSQL: a pool for reading, and one writing connection whose transactions hold an advisory lock.
//!
//! Under READ COMMITTED two writers would see neither each other's promises nor would their rows become visible in the order of their ids,
//! on which the trail's followers rely. The lock makes one writer of all servers of a database, as SQLite has by itself; an intent takes
//! some milliseconds, so that hundreds a second fit. Which server carries intents out is another matter: see [`super::lease`].

use std::path::Path;

use sqlx::{
    PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::sync::watch;

use super::{BUSY, Connection, Error, Plan, Transaction, lease::Lease, migrate};

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/postgres");
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
    lease: Lease,
}

impl Pools {
    pub(super) async fn open(url: &str, password_file: Option<&Path>) -> Result<(Self, Plan), Error> {
        let (options, database) = options(url, password_file)?;
        let open = |source| Error::Open { database: database.clone(), source };
        let lease = Lease::take(&options, &database).await?;
        let write = pool(1).connect_with(options.clone()).await.map_err(open)?;
        let sorted = "SELECT datcollate FROM pg_database WHERE datname = current_database()";
        let (collation,): (String,) = sqlx::query_as(sorted).fetch_one(&write).await.map_err(open)?;
        if !matches!(collation.as_str(), "C" | "POSIX" | "C.UTF-8" | "C.utf8") {
            return Err(Error::Collation { database, collation });
        }
        let plan = migrate::plan(&mut write.acquire().await.map_err(open)?.into(), &MIGRATIONS, &database).await?;
        MIGRATIONS.run(&write).await.map_err(|source| Error::Migrate { database: database.clone(), source })?;
        let read = options.options([("default_transaction_read_only", "on")]);
        let read = pool(READERS).connect_with(read).await.map_err(open)?;
        Ok((Self { write, read, lease }, plan))
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

    pub(super) fn lease(&self) -> watch::Receiver<bool> {
        self.lease.held()
    }

    pub(super) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
        self.lease.end().await;
    }
}

/// What [`Pools::open`] would do; changes nothing, and asks for no lock.
pub(super) async fn plan(url: &str, password_file: Option<&Path>) -> Result<Plan, Error> {
    let (options, database) = options(url, password_file)?;
    let open = |source| Error::Open { database: database.clone(), source };
    let pool = pool(1).connect_with(options).await.map_err(open)?;
    let plan = migrate::plan(&mut pool.acquire().await.map_err(open)?.into(), &MIGRATIONS, &database).await;
    pool.close().await;
    plan
}

/// The database of one instant, without a lock.
pub(super) async fn look(url: &str, password_file: Option<&Path>) -> Result<Transaction, Error> {
    let (options, database) = options(url, password_file)?;
    let open = |source| Error::Open { database: database.clone(), source };
    let pool = pool(1).connect_with(options).await.map_err(open)?;
    pool.begin_with(SNAPSHOT).await.map(Transaction::from).map_err(open)
}

/// How to connect, and the database's name for people.
fn options(url: &str, password_file: Option<&Path>) -> Result<(PgConnectOptions, String), Error> {
    let options: PgConnectOptions = url.parse().map_err(|source| Error::Open { database: url.to_owned(), source })?;
    let host = options.get_socket().map_or_else(|| options.get_host().to_owned(), |socket| socket.display().to_string());
    let database = format!("{} at {host}", options.get_database().unwrap_or("(default)"));
    let wait = BUSY.as_millis().to_string();
    let mut options = options.application_name("berth-server").options([("lock_timeout", wait.as_str())]);
    if let Some(path) = password_file {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Password { path: path.to_owned(), source })?;
        options = options.password(text.trim_end_matches(['\r', '\n']));
    }
    Ok((options, database))
}

fn pool(connections: u32) -> PgPoolOptions {
    PgPoolOptions::new().max_connections(connections).min_connections(1).acquire_timeout(BUSY)
}
