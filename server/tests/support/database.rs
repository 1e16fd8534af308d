//! The database that a test runs on: SQLite, or PostgreSQL where the suite runs as part of the program `postgres`.

use std::path::PathBuf;

use berth_server::config::Location;
use tempfile::TempDir;

use super::postgres;

/// True in `server/tests/postgres.rs`, which takes the other suites in as modules.
pub const POSTGRES: bool = is_within_postgres(module_path!());

const fn is_within_postgres(path: &str) -> bool {
    let (path, wanted) = (path.as_bytes(), b"postgres::");
    let mut at = 0;
    while at < wanted.len() {
        if at >= path.len() || path[at] != wanted[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// A database that goes with this.
pub enum Database {
    Sqlite(TempDir),
    Postgres(postgres::Database),
}

impl Database {
    /// An empty one.
    pub fn fresh() -> Self {
        match POSTGRES {
            true => Self::Postgres(postgres::database()),
            false => Self::Sqlite(tempfile::tempdir().unwrap()),
        }
    }

    pub fn location(&self) -> Location {
        match self {
            Self::Sqlite(directory) => Location::Sqlite(directory.path().join("berth.db")),
            Self::Postgres(database) => Location::Postgres { url: database.url(), password_file: Some(database.password_file()) },
        }
    }

    /// The file of SQLite.
    pub fn file(&self) -> Option<PathBuf> {
        match self.location() {
            Location::Sqlite(path) => Some(path),
            Location::Postgres { .. } => None,
        }
    }
}
