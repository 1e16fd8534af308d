//! Which migrations a database has had, and which it is to get.

use sqlx::migrate::Migrator;

use super::{Connection, Error, connection::Raw, query};

/// A migration that is still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub version: i64,
    pub name: String,
}

/// How a database stands to this program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Migrations that it has had; 0 is a new database.
    pub applied: usize,
    pub steps: Vec<Step>,
}

/// Refuses a database that a newer program has changed, and one whose past is another.
pub(super) async fn plan(connection: &mut Connection, migrations: &Migrator, database: &str) -> Result<Plan, Error> {
    let failed = |source| Error::Open { database: database.to_owned(), source };
    let exists = match connection.raw() {
        Raw::Sqlite(_) => "SELECT COUNT(*) FROM sqlite_master WHERE name = '_sqlx_migrations'",
        Raw::Postgres(_) => "SELECT COUNT(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = '_sqlx_migrations'",
    };
    let (exists,): (i64,) = query(exists).fetch_one(connection).await.map_err(failed)?;
    let applied: Vec<(i64, Vec<u8>)> = match exists {
        0 => Vec::new(),
        _ => query("SELECT version, checksum FROM _sqlx_migrations ORDER BY version").fetch_all(connection).await.map_err(failed)?,
    };
    for (version, checksum) in &applied {
        let (version, database) = (*version, database.to_owned());
        match migrations.iter().find(|known| known.version == version) {
            None => return Err(Error::Newer { database, version }),
            Some(known) if known.checksum != *checksum => return Err(Error::Changed { database, version }),
            Some(_) => {}
        }
    }
    let had = |version| applied.iter().any(|(applied, _)| *applied == version);
    let steps = migrations.iter().filter(|known| !had(known.version));
    let steps = steps.map(|known| Step { version: known.version, name: known.description.to_string() }).collect();
    Ok(Plan { applied: applied.len(), steps })
}
