//! The whole database as lines of JSON, the same from either kind: for a backup, and for moving from one to the other.
//!
//! The first line says which migrations there were; then each table comes as `{"table", "columns"}` and a line for each row, an array in
//! the order of the columns; the last line counts the rows, so that what was cut short is seen. Tables come so that what is referred to
//! precedes what refers to it. Names of tables and columns are taken from the database at hand, never from the file.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Write},
};

use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sqlx::{AssertSqlSafe, Row};

use super::{
    Connection, During, Error, Store, Value,
    connection::{Query, Raw},
    postgres, query, sqlite,
};
use crate::config::Location;

/// Of the lines.
const FORMAT: u32 = 1;
/// What one statement binds at most: SQLite takes 32,766, PostgreSQL 65,535.
const MOST_BOUND: usize = 30_000;
const ROWS_AT_ONCE: usize = 200;

#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error(transparent)]
    Store(#[from] Error),
    #[error("cannot write the rows")]
    Write { source: io::Error },
    #[error("cannot read the rows")]
    Read { source: io::Error },
    #[error("line {line} is not understood: {why}")]
    Line { line: u64, why: String },
    #[error("the rows end before their end: what was written is cut short")]
    Cut,
    #[error("the rows are of another version: they have had migrations up to {theirs}, this program up to {ours}")]
    Version { theirs: i64, ours: i64 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    format: u32,
    migrations: Vec<i64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    table: String,
    columns: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    rows: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Boolean,
}

/// A table as this database has it.
struct Shape {
    name: String,
    columns: Vec<(String, Kind)>,
}

impl Store {
    /// Writes all rows as they are in one instant; how many. Asks for no lock: a server may work on the database.
    pub async fn export(location: &Location, out: &mut impl Write) -> Result<u64, TransferError> {
        let mut reader = match location {
            Location::Sqlite(path) => sqlite::look(path).await?,
            Location::Postgres { url, password_file } => postgres::look(url, password_file.as_deref()).await?,
        };
        let migrations = migrations(&mut reader).await?;
        put(out, &Head { format: FORMAT, migrations })?;
        let mut rows = 0;
        for Shape { name, columns } in shapes(&mut reader).await? {
            let names: Vec<String> = columns.into_iter().map(|(name, _)| name).collect();
            let quoted = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
            put(out, &Table { table: name.clone(), columns: names })?;
            rows += match reader.raw() {
                Raw::Sqlite(connection) => {
                    let text = format!("SELECT json_array({quoted}) FROM \"{name}\"");
                    each(sqlx::query(AssertSqlSafe(text)).fetch(connection), out).await?
                }
                Raw::Postgres(connection) => {
                    let text = format!("SELECT CAST(json_build_array({quoted}) AS TEXT) FROM \"{name}\"");
                    each(sqlx::query(AssertSqlSafe(text)).fetch(connection), out).await?
                }
            };
        }
        put(out, &End { rows })?;
        Ok(rows)
    }

    /// Puts all rows of an export in the place of those that are here, in one transaction; how many.
    pub async fn import(&self, input: &mut impl BufRead) -> Result<u64, TransferError> {
        let mut lines = Lines { input, number: 0 };
        let head: Head = lines.parse()?.ok_or(TransferError::Cut)?;
        let mut tx = self.begin().await?;
        let migrations = migrations(&mut tx).await?;
        if head != (Head { format: FORMAT, migrations: migrations.clone() }) {
            let last = |all: &[i64]| all.last().copied().unwrap_or(0);
            return Err(TransferError::Version { theirs: last(&head.migrations), ours: last(&migrations) });
        }
        let shapes = shapes(&mut tx).await?;
        for shape in shapes.iter().rev() {
            own_text(&["DELETE FROM \"", &shape.name, "\""]).execute(&mut tx).await.during("empty a table")?;
        }
        let mut shape: Option<(Vec<Kind>, String)> = None;
        let (mut batch, mut rows): (Vec<Vec<Value>>, u64) = (Vec::new(), 0);
        loop {
            let line = lines.next()?.ok_or(TransferError::Cut)?;
            let row = line.starts_with('[');
            let full = |columns: usize| ROWS_AT_ONCE.min(MOST_BOUND / columns.max(1)).max(1);
            if let Some((kinds, insert)) = &shape
                && (!row || batch.len() >= full(kinds.len()))
            {
                flush(&mut tx, insert, &mut batch).await?;
            }
            if row {
                let (kinds, _) = shape.as_ref().ok_or_else(|| lines.wrong("a row before any table"))?;
                let values: Vec<Json> = serde_json::from_str(&line).map_err(|error| lines.wrong(error))?;
                if values.len() != kinds.len() {
                    return Err(lines.wrong("a row of another width than its table"));
                }
                let values = values.into_iter().zip(kinds).map(|(value, kind)| bound(value, *kind));
                batch.push(values.collect::<Option<_>>().ok_or_else(|| lines.wrong("a value of another type than its column"))?);
                rows += 1;
            } else if let Ok(Table { table, columns }) = serde_json::from_str(&line) {
                let found = shapes.iter().find(|shape| shape.name == table).ok_or_else(|| lines.wrong("there is no such table"))?;
                let kind = |name: &String| found.columns.iter().find(|(column, _)| column == name).map(|(_, kind)| *kind);
                let kinds = columns.iter().map(kind).collect::<Option<Vec<_>>>();
                let kinds = kinds.ok_or_else(|| lines.wrong("there is no such column"))?;
                let insert = format!("INSERT INTO \"{}\" (\"{}\") VALUES ", found.name, columns.join("\", \""));
                shape = Some((kinds, insert));
            } else {
                let end: End = serde_json::from_str(&line).map_err(|error| lines.wrong(error))?;
                if end.rows != rows {
                    return Err(TransferError::Cut);
                }
                break;
            }
        }
        self.commit(tx).await?;
        Ok(rows)
    }
}

async fn flush(connection: &mut Connection, insert: &str, batch: &mut Vec<Vec<Value>>) -> Result<(), Error> {
    if batch.is_empty() {
        return Ok(());
    }
    let mut query = own_text(&[insert]);
    query.push_all(batch.drain(..));
    query.once().execute(connection).await.during("store rows")?;
    Ok(())
}

/// Text of which the names are of this database's own tables and columns: see [`shapes`].
fn own_text(parts: &[&str]) -> Query {
    Query::of(parts.concat())
}

async fn each<R: Row>(
    mut found: impl futures_util::Stream<Item = Result<R, sqlx::Error>> + Unpin,
    out: &mut impl Write,
) -> Result<u64, TransferError>
where
    usize: sqlx::ColumnIndex<R>,
    String: for<'r> sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    let mut rows = 0;
    while let Some(row) = found.try_next().await.during("read rows")? {
        let line: String = row.try_get(0).during("read rows")?;
        writeln!(out, "{line}").map_err(|source| TransferError::Write { source })?;
        rows += 1;
    }
    Ok(rows)
}

fn put(out: &mut impl Write, line: &impl Serialize) -> Result<(), TransferError> {
    let text = serde_json::to_string(line).unwrap_or_default();
    writeln!(out, "{text}").map_err(|source| TransferError::Write { source })
}

struct Lines<'i, I> {
    input: &'i mut I,
    number: u64,
}

impl<I: BufRead> Lines<'_, I> {
    fn next(&mut self) -> Result<Option<String>, TransferError> {
        let mut line = String::new();
        let length = self.input.read_line(&mut line).map_err(|source| TransferError::Read { source })?;
        self.number += 1;
        match length {
            0 => Ok(None),
            _ if !line.ends_with('\n') => Err(TransferError::Cut),
            _ => Ok(Some(line)),
        }
    }

    fn parse<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, TransferError> {
        let line = self.next()?;
        line.map(|line| serde_json::from_str(&line).map_err(|error| self.wrong(error))).transpose()
    }

    fn wrong(&self, why: impl std::fmt::Display) -> TransferError {
        TransferError::Line { line: self.number, why: why.to_string() }
    }
}

/// SQLite writes its booleans as 0 and 1.
fn bound(value: Json, kind: Kind) -> Option<Value> {
    match (kind, value) {
        (Kind::Text, Json::Null) => Some(Value::Text(None)),
        (Kind::Integer, Json::Null) => Some(Value::Integer(None)),
        (Kind::Boolean, Json::Null) => Some(Value::Boolean(None)),
        (Kind::Text, Json::String(text)) => Some(Value::Text(Some(text))),
        (Kind::Integer, Json::Number(number)) => number.as_i64().map(|number| Value::Integer(Some(number))),
        (Kind::Boolean, Json::Bool(value)) => Some(Value::Boolean(Some(value))),
        (Kind::Boolean, Json::Number(number)) => number.as_i64().map(|number| Value::Boolean(Some(number != 0))),
        _ => None,
    }
}

async fn migrations(connection: &mut Connection) -> Result<Vec<i64>, Error> {
    let rows: Vec<(i64,)> =
        query("SELECT version FROM _sqlx_migrations ORDER BY version").fetch_all(connection).await.during("read the migrations")?;
    Ok(rows.into_iter().map(|(version,)| version).collect())
}

/// All tables of ours, each after those that it refers to.
async fn shapes(connection: &mut Connection) -> Result<Vec<Shape>, Error> {
    let what = "read the tables";
    let (columns, references) = match connection.raw() {
        Raw::Sqlite(_) => (
            "SELECT m.name, c.name, c.type FROM sqlite_master m, pragma_table_info(m.name) c
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite!_%' ESCAPE '!' AND m.name <> '_sqlx_migrations' ORDER BY m.name, c.cid",
            "SELECT m.name, f.\"table\" FROM sqlite_master m, pragma_foreign_key_list(m.name) f WHERE m.type = 'table'",
        ),
        Raw::Postgres(_) => (
            "SELECT CAST(c.table_name AS TEXT), CAST(c.column_name AS TEXT), CAST(c.data_type AS TEXT)
             FROM information_schema.columns c JOIN pg_tables t ON t.schemaname = c.table_schema AND t.tablename = c.table_name
             WHERE c.table_schema = current_schema() AND c.table_name <> '_sqlx_migrations' ORDER BY c.table_name, c.ordinal_position",
            "SELECT CAST(a.relname AS TEXT), CAST(b.relname AS TEXT) FROM pg_constraint f JOIN pg_class a ON a.oid = f.conrelid
             JOIN pg_class b ON b.oid = f.confrelid WHERE f.contype = 'f' AND a.relnamespace = CAST(CAST(current_schema() AS TEXT) AS regnamespace)",
        ),
    };
    let columns: Vec<(String, String, String)> = query(columns).fetch_all(connection).await.during(what)?;
    let references: Vec<(String, String)> = query(references).fetch_all(connection).await.during(what)?;
    let mut open: BTreeMap<String, Vec<(String, Kind)>> = BTreeMap::new();
    for (table, column, declared) in columns {
        let lower = declared.to_lowercase();
        let kind = match () {
            () if lower.contains("bool") => Kind::Boolean,
            () if lower.contains("int") => Kind::Integer,
            () if lower.contains("text") => Kind::Text,
            () => return Err(Error::Corrupt { table: "(schema)", column: "type", value: format!("{table}.{column} {declared}") }),
        };
        open.entry(table).or_default().push((column, kind));
    }
    let mut sorted: Vec<Shape> = Vec::new();
    while !open.is_empty() {
        let free = |name: &String| references.iter().all(|(from, to)| from != name || to == name || !open.contains_key(to));
        let Some(name) = open.keys().find(|name| free(name)).cloned() else {
            return Err(Error::Corrupt { table: "(schema)", column: "references", value: "tables refer to each other".to_owned() });
        };
        if let Some(columns) = open.remove(&name) {
            sorted.push(Shape { name, columns });
        }
    }
    Ok(sorted)
}
