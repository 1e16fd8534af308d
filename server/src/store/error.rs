//! What goes wrong with a database, and what of it passes.

use std::{io, path::PathBuf};

use sqlx::postgres::PgDatabaseError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open the database {database}")]
    Open { database: String, source: sqlx::Error },
    #[error("cannot lock {}", path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error("another berth-server works on the database {database}")]
    Second { database: String },
    #[error("the lock on the database is lost: nothing is carried out until this server has it again")]
    NotLeading,
    #[error("the database {database} has migration {version}, which this program does not know: it was used by a newer one")]
    Newer { database: String, version: i64 },
    #[error("migration {version} of the database {database} is not as this program has it")]
    Changed { database: String, version: i64 },
    #[error("cannot make the backup {} before the migration", path.display())]
    Backup { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot migrate the database {database}")]
    Migrate { database: String, source: sqlx::migrate::MigrateError },
    #[error("the database {database} sorts text by {collation}, not by its bytes; make it anew with LOCALE 'C' (see the README)")]
    Collation { database: String, collation: String },
    #[error("cannot read the password of the database from {}", path.display())]
    Password { path: PathBuf, source: io::Error },
    #[error("cannot {what}")]
    Sql { what: &'static str, source: sqlx::Error },
    #[error("cannot {what}: one of this name exists")]
    Exists { what: &'static str },
    #[error("cannot {what}: a text holds a NUL")]
    Text { what: &'static str },
    #[error("cannot {what}: the row is gone")]
    Gone { what: &'static str },
    #[error("{table}.{column} holds {value:?}, which is not understood")]
    Corrupt { table: &'static str, column: &'static str, value: String },
}

/// What is the matter with a database that cannot be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Busy,
    Full,
    ReadOnly,
    /// Its file cannot be read or written.
    Disk,
    Away,
    Damaged,
}

impl Error {
    /// Set when the same call may succeed once the database is well again.
    pub fn trouble(&self) -> Option<Trouble> {
        let Self::Sql { source, .. } = self else { return None };
        match source {
            sqlx::Error::Database(cause) => {
                let code = cause.code().unwrap_or_default();
                match cause.try_downcast_ref::<PgDatabaseError>() {
                    Some(_) => of_postgres(&code),
                    None => of_sqlite(&code),
                }
            }
            sqlx::Error::PoolTimedOut => Some(Trouble::Busy),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => Some(Trouble::Away),
            _ => None,
        }
    }

    /// True when the same call may succeed in a moment.
    pub fn is_passing(&self) -> bool {
        self.trouble().is_some()
    }
}

/// By SQLite's primary result codes: <https://www.sqlite.org/rescode.html>; what extends them is above the lowest byte.
fn of_sqlite(code: &str) -> Option<Trouble> {
    match code.parse::<i32>().ok()? & 0xff {
        5 | 6 => Some(Trouble::Busy),
        8 => Some(Trouble::ReadOnly),
        10 => Some(Trouble::Disk),
        14 => Some(Trouble::Away),
        11 | 26 => Some(Trouble::Damaged),
        13 => Some(Trouble::Full),
        _ => None,
    }
}

/// By SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn of_postgres(code: &str) -> Option<Trouble> {
    match code {
        "53100" => Some(Trouble::Full),
        "25006" => Some(Trouble::ReadOnly),
        "55P03" | "57014" => Some(Trouble::Busy),
        "XX001" | "XX002" => Some(Trouble::Damaged),
        code => match code.get(..2)? {
            "40" | "53" => Some(Trouble::Busy),
            "08" | "57" | "58" => Some(Trouble::Away),
            _ => None,
        },
    }
}

/// Says what was being done when a statement failed.
pub(super) trait During<T> {
    fn during(self, what: &'static str) -> Result<T, Error>;
}

impl<T> During<T> for Result<T, sqlx::Error> {
    fn during(self, what: &'static str) -> Result<T, Error> {
        self.map_err(|source| match &source {
            sqlx::Error::Database(error) if error.is_unique_violation() => Error::Exists { what },
            sqlx::Error::Encode(_) => Error::Text { what },
            _ => Error::Sql { what, source },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        // SQLITE_BUSY_SNAPSHOT, SQLITE_IOERR_FSYNC, SQLITE_READONLY_DBMOVED, SQLITE_CONSTRAINT_FOREIGNKEY
        let found = ["517", "1034", "1032", "787"].map(of_sqlite);
        assert_eq!(found, [Some(Trouble::Busy), Some(Trouble::Disk), Some(Trouble::ReadOnly), None]);
        // admin_shutdown, disk_full, too_many_connections, foreign_key_violation
        let found = ["57P01", "53100", "53300", "23503"].map(of_postgres);
        assert_eq!(found, [Some(Trouble::Away), Some(Trouble::Full), Some(Trouble::Busy), None]);
    }
}
