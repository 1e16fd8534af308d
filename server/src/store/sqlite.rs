//! SQLite: one file in WAL mode, one writing connection (`BEGIN IMMEDIATE`), several reading ones. A lock file beside it keeps a second
//! server off, whatever that one's other directories are; before a migration the file is copied to `backups/` beside it.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use sqlx::{
    SqlitePool,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{BUSY, Connection, Error, Plan, Step, Transaction, migrate, query};

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite");
const READERS: u32 = 4;
/// Copies that stay; the oldest go.
const BACKUPS: usize = 5;

pub(super) const CHECK: &str = "PRAGMA quick_check(1)";
pub(super) const SIZE: &str = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";

pub(super) struct Pools {
    write: SqlitePool,
    read: SqlitePool,
    /// Held as long as this server works on the file.
    lock: Mutex<Option<fs::File>>,
}

impl Pools {
    /// What was migrated, and where the file's state before it is.
    pub(super) async fn open(path: &Path) -> Result<(Self, Plan, Option<PathBuf>), Error> {
        let database = path.display().to_string();
        let open = |source| Error::Open { database: database.clone(), source };
        let lock = lock(path)?;
        let options = options(path).create_if_missing(true);
        let write = pool(1).connect_with(options.clone()).await.map_err(open)?;
        let mut connection = Connection::from(write.acquire().await.map_err(open)?);
        let plan = migrate::plan(&mut connection, &MIGRATIONS, &database).await?;
        let backup = match plan.steps.first() {
            Some(first) if plan.applied > 0 => Some(back_up(&mut connection, path, first).await?),
            _ => None,
        };
        drop(connection);
        MIGRATIONS.run(&write).await.map_err(|source| Error::Migrate { database: database.clone(), source })?;
        let read = pool(READERS).connect_with(options.pragma("query_only", "ON")).await.map_err(open)?;
        Ok((Self { write, read, lock: Mutex::new(Some(lock)) }, plan, backup))
    }

    pub(super) async fn reader(&self) -> Result<Connection, sqlx::Error> {
        self.read.acquire().await.map(Connection::from)
    }

    pub(super) async fn snapshot(&self) -> Result<Transaction, sqlx::Error> {
        self.read.begin().await.map(Transaction::from)
    }

    pub(super) async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        const BEGIN: &str = "BEGIN IMMEDIATE";
        match self.write.begin_with(BEGIN).await {
            // SQLite ends a transaction by itself where the disk is full or fails; sqlx then counts one on this connection that is none.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                let _ = self.write.acquire().await?.close().await;
                self.write.begin_with(BEGIN).await.map(Transaction::from)
            }
            begun => begun.map(Transaction::from),
        }
    }

    pub(super) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// What [`Pools::open`] would do; changes nothing, and asks for no lock.
pub(super) async fn plan(path: &Path) -> Result<Plan, Error> {
    let database = path.display().to_string();
    let open = |source| Error::Open { database: database.clone(), source };
    if !path.exists() {
        let steps = MIGRATIONS.iter().map(|known| Step { version: known.version, name: known.description.to_string() }).collect();
        return Ok(Plan { applied: 0, steps });
    }
    let pool = pool(1).connect_with(options(path).pragma("query_only", "ON")).await.map_err(open)?;
    let plan = migrate::plan(&mut pool.acquire().await.map_err(open)?.into(), &MIGRATIONS, &database).await;
    pool.close().await;
    plan
}

/// The database of one instant, without a lock.
pub(super) async fn look(path: &Path) -> Result<Transaction, Error> {
    let open = |source| Error::Open { database: path.display().to_string(), source };
    let pool = pool(1).connect_with(options(path).pragma("query_only", "ON")).await.map_err(open)?;
    pool.begin().await.map(Transaction::from).map_err(open)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY)
}

fn pool(connections: u32) -> SqlitePoolOptions {
    // A connection to a file does not break: asking each one first would only cost.
    SqlitePoolOptions::new().max_connections(connections).min_connections(1).acquire_timeout(BUSY).test_before_acquire(false)
}

fn lock(database: &Path) -> Result<fs::File, Error> {
    let path = with_suffix(database, ".lock");
    let file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let file = file.map_err(|source| Error::Lock { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Second { database: database.display().to_string() }),
        Err(fs::TryLockError::Error(source)) => Err(Error::Lock { path, source }),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Copies the database, as it is in one instant, to `backups/` beside it; only so many copies stay.
async fn back_up(connection: &mut Connection, database: &Path, before: &Step) -> Result<PathBuf, Error> {
    let directory = database.parent().unwrap_or(Path::new("/")).join("backups");
    let stem = database.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    // Names of one database sort by age.
    let at = uuid::Uuid::now_v7();
    let path = directory.join(format!("{stem}-{at}-before-{:04}.db", before.version));
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Backup { path: path.clone(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(|error| failed(error.into()))?;
    let Some(target) = path.to_str() else { return Err(failed("the path is not UTF-8".into())) };
    query("VACUUM INTO $1").bind(target).execute(connection).await.map_err(|error| failed(error.into()))?;
    let synced = fs::File::open(&path).and_then(|file| file.sync_all()).and_then(|()| fs::File::open(&directory)?.sync_all());
    synced.map_err(|error| failed(error.into()))?;
    let mut kept: Vec<_> = fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    kept.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{stem}-"))));
    kept.sort();
    for old in kept.iter().rev().skip(BACKUPS) {
        if let Err(error) = fs::remove_file(old) {
            tracing::warn!(path = %old.display(), %error, "an old backup stays");
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Location,
        store::{Store, Trouble, settings, tests::scratch},
    };

    #[tokio::test]
    async fn before_a_migration_the_file_is_copied_and_five_copies_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("berth.db");
        let location = Location::Sqlite(path.clone());
        let old = pool(1).connect_with(options(&path).create_if_missing(true)).await.unwrap();
        MIGRATIONS.run_to(14, &old).await.unwrap();
        let mut connection = Connection::from(old.acquire().await.unwrap());
        query("INSERT INTO settings (name, value, updated_at) VALUES ('mark', 'before', 1)").execute(&mut connection).await.unwrap();
        drop(connection);
        old.close().await;
        let backups = directory.path().join("backups");
        fs::create_dir(&backups).unwrap();
        for number in 0..7 {
            fs::write(backups.join(format!("berth-00{number}-before-0001.db")), "").unwrap();
        }
        fs::write(backups.join("mine.db"), "").unwrap();

        assert_eq!(Store::plan(&location).await.unwrap().steps[0], Step { version: 15, name: "audit kinds".to_owned() });
        let store = Store::open(&location).await.unwrap();
        store.close().await;
        let backup = store.migrated().backup.clone().unwrap();
        drop(store);
        assert_eq!(fs::read_dir(&backups).unwrap().count(), 6, "five of ours, one of somebody else");
        let kept = Store::plan(&Location::Sqlite(backup.clone())).await.unwrap();
        assert_eq!((kept.applied, kept.steps[0].version), (14, 15));
        let opened = Store::open(&Location::Sqlite(backup)).await.unwrap();
        assert_eq!(settings::get(&mut opened.reader().await.unwrap(), "mark").await.unwrap().as_deref(), Some("before"));
    }

    #[tokio::test]
    async fn a_file_of_a_newer_program_or_of_another_past_is_refused_and_left_as_it_is() {
        let (directory, store) = scratch().await;
        let change = async |statement: &'static str| {
            let mut tx = store.begin().await.unwrap();
            query(statement).execute(&mut tx).await.unwrap();
            store.commit(tx).await.unwrap();
        };
        let location = Location::Sqlite(directory.path().join("berth.db"));
        change("UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 3").await;
        assert!(matches!(Store::plan(&location).await.unwrap_err(), Error::Changed { version: 3, .. }));
        change("INSERT INTO _sqlx_migrations SELECT 9999, description, installed_on, success, checksum, execution_time FROM _sqlx_migrations WHERE version = 1").await;
        change("DELETE FROM _sqlx_migrations WHERE version = 3").await;
        assert!(matches!(Store::plan(&location).await.unwrap_err(), Error::Newer { version: 9999, .. }));
        store.close().await;
        drop(store);
        let Err(refused) = Store::open(&location).await else { panic!("opened") };
        assert!(matches!(refused, Error::Newer { version: 9999, .. }) && refused.to_string().contains("newer"), "{refused}");
        assert!(!directory.path().join("backups").exists());
    }

    #[tokio::test]
    async fn a_full_file_and_a_lock_of_somebody_else_are_told_and_pass() {
        let (directory, store) = scratch().await;
        let mut tx = store.begin().await.unwrap();
        query("PRAGMA max_page_count = 1").execute(&mut tx).await.unwrap();
        let filler = "x".repeat(1 << 20);
        let full = settings::set(&mut tx, "big", &filler, 1).await.unwrap_err();
        assert_eq!(full.trouble(), Some(Trouble::Full), "{full:?}");
        drop(tx);
        let mut tx = store.begin().await.unwrap();
        query("PRAGMA max_page_count = 100000").execute(&mut tx).await.unwrap();
        settings::set(&mut tx, "big", &filler, 1).await.unwrap();
        store.commit(tx).await.unwrap();
        assert_eq!(settings::get(&mut store.reader().await.unwrap(), "big").await.unwrap().map(|text| text.len()), Some(1 << 20));

        let other = pool(1).connect_with(options(&directory.path().join("berth.db"))).await.unwrap();
        let held = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let Err(busy) = store.begin().await else { panic!("two writers") };
        assert_eq!(busy.trouble(), Some(Trouble::Busy), "{busy:?}");
        store.ping(false).await.unwrap();
        held.rollback().await.unwrap();
        store.ping(true).await.unwrap();
    }
}
