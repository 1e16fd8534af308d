//! One connection type over both databases, and the statements that run on it.
//!
//! A statement is text that stands in the source, with `$1`, `$2`, … for what is bound; nothing that comes from outside can become text of it.

use std::{
    borrow::Cow,
    fmt::Write,
    ops::{Deref, DerefMut},
};

use sqlx::{
    Arguments, AssertSqlSafe, FromRow, PgConnection, Postgres, Sqlite, SqliteConnection,
    pool::PoolConnection,
    postgres::{PgArguments, PgRow},
    sqlite::{SqliteArguments, SqliteRow},
};

/// What store functions work on: a connection of either database, in a transaction or not.
pub struct Connection(Kind);

enum Kind {
    Sqlite(PoolConnection<Sqlite>),
    SqliteBegun(sqlx::Transaction<'static, Sqlite>),
    Postgres(PoolConnection<Postgres>),
    PostgresBegun(sqlx::Transaction<'static, Postgres>),
}

/// The connection of one database, for what only that one has.
pub(super) enum Raw<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

impl Connection {
    pub(super) fn raw(&mut self) -> Raw<'_> {
        match &mut self.0 {
            Kind::Sqlite(connection) => Raw::Sqlite(connection),
            Kind::SqliteBegun(transaction) => Raw::Sqlite(transaction),
            Kind::Postgres(connection) => Raw::Postgres(connection),
            Kind::PostgresBegun(transaction) => Raw::Postgres(transaction),
        }
    }
}

impl From<PoolConnection<Sqlite>> for Connection {
    fn from(connection: PoolConnection<Sqlite>) -> Self {
        Self(Kind::Sqlite(connection))
    }
}

impl From<PoolConnection<Postgres>> for Connection {
    fn from(connection: PoolConnection<Postgres>) -> Self {
        Self(Kind::Postgres(connection))
    }
}

/// A connection in a transaction, which is rolled back unless it is committed.
pub struct Transaction(Connection);

impl Transaction {
    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        match self.0.0 {
            Kind::SqliteBegun(transaction) => transaction.commit().await,
            Kind::PostgresBegun(transaction) => transaction.commit().await,
            Kind::Sqlite(_) | Kind::Postgres(_) => Ok(()),
        }
    }

    pub(super) async fn rollback(self) -> Result<(), sqlx::Error> {
        match self.0.0 {
            Kind::SqliteBegun(transaction) => transaction.rollback().await,
            Kind::PostgresBegun(transaction) => transaction.rollback().await,
            Kind::Sqlite(_) | Kind::Postgres(_) => Ok(()),
        }
    }
}

impl From<sqlx::Transaction<'static, Sqlite>> for Transaction {
    fn from(transaction: sqlx::Transaction<'static, Sqlite>) -> Self {
        Self(Connection(Kind::SqliteBegun(transaction)))
    }
}

impl From<sqlx::Transaction<'static, Postgres>> for Transaction {
    fn from(transaction: sqlx::Transaction<'static, Postgres>) -> Self {
        Self(Connection(Kind::PostgresBegun(transaction)))
    }
}

impl Deref for Transaction {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

/// What is bound to a statement. NULL has a type, which PostgreSQL wants to know.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(Option<String>),
    Integer(Option<i64>),
    Boolean(Option<bool>),
}

macro_rules! value {
    ($($from:ty => $variant:ident $convert:expr),+ $(,)?) => {
        $(
            impl From<$from> for Value {
                fn from(value: $from) -> Self {
                    Self::$variant(Some($convert(value)))
                }
            }

            impl From<Option<$from>> for Value {
                fn from(value: Option<$from>) -> Self {
                    Self::$variant(value.map($convert))
                }
            }
        )+
    };
}

value! {
    String => Text std::convert::identity,
    &String => Text String::clone,
    &str => Text str::to_owned,
    i64 => Integer std::convert::identity,
    bool => Boolean std::convert::identity,
}

impl From<&Option<String>> for Value {
    fn from(value: &Option<String>) -> Self {
        Self::Text(value.clone())
    }
}

/// What can be read from a row of either database: tuples, and structs that derive [`FromRow`].
pub(crate) trait Decoded: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

impl<T> Decoded for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

/// A statement and what is bound to it.
#[must_use]
pub(crate) struct Query {
    text: Cow<'static, str>,
    values: Vec<Value>,
    kept: bool,
}

/// A statement; `$1` is what is bound first.
pub(crate) fn query(text: &'static str) -> Query {
    Query { text: Cow::Borrowed(text), values: Vec::new(), kept: true }
}

impl Query {
    /// Text that was put together: nothing of it may come from outside.
    pub(super) fn of(text: String) -> Self {
        Self { text: Cow::Owned(text), values: Vec::new(), kept: true }
    }

    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Adds text.
    pub(crate) fn push(&mut self, text: &'static str) -> &mut Self {
        self.text.to_mut().push_str(text);
        self
    }

    /// Adds a place and what is bound there.
    pub(crate) fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        let place = self.values.len();
        // Writing to a String cannot fail.
        let _ = write!(self.text.to_mut(), "${place}");
        self
    }

    /// Adds `(…, …), (…, …)`: the rows of an INSERT … VALUES, or with one column the members of an IN (VALUES …).
    pub(crate) fn push_rows<const N: usize>(&mut self, rows: impl IntoIterator<Item = [Value; N]>) -> &mut Self {
        self.push_all(rows)
    }

    /// The same where the columns are counted when it runs.
    pub(super) fn push_all(&mut self, rows: impl IntoIterator<Item = impl IntoIterator<Item = Value>>) -> &mut Self {
        for (number, row) in rows.into_iter().enumerate() {
            self.push(if number == 0 { "(" } else { ", (" });
            for (number, value) in row.into_iter().enumerate() {
                if number > 0 {
                    self.push(", ");
                }
                self.push_bind(value);
            }
            self.push(")");
        }
        self
    }

    /// The prepared statement is not kept for later: for text that comes in too many forms.
    pub(crate) fn once(mut self) -> Self {
        self.kept = false;
        self
    }

    /// Runs it; how many rows were touched.
    pub(crate) async fn execute(self, connection: &mut Connection) -> Result<u64, sqlx::Error> {
        match connection.raw() {
            Raw::Sqlite(connection) => {
                let query = sqlx::query_with(AssertSqlSafe(places(self.text)), sqlite(self.values)?).persistent(self.kept);
                Ok(query.execute(connection).await?.rows_affected())
            }
            Raw::Postgres(connection) => {
                let query = sqlx::query_with(AssertSqlSafe(self.text), postgres(self.values)?).persistent(self.kept);
                Ok(query.execute(connection).await?.rows_affected())
            }
        }
    }

    pub(crate) async fn fetch_all<T: Decoded>(self, connection: &mut Connection) -> Result<Vec<T>, sqlx::Error> {
        match connection.raw() {
            Raw::Sqlite(connection) => {
                let query = sqlx::query_as_with(AssertSqlSafe(places(self.text)), sqlite(self.values)?).persistent(self.kept);
                query.fetch_all(connection).await
            }
            Raw::Postgres(connection) => {
                let query = sqlx::query_as_with(AssertSqlSafe(self.text), postgres(self.values)?).persistent(self.kept);
                query.fetch_all(connection).await
            }
        }
    }

    pub(crate) async fn fetch_optional<T: Decoded>(self, connection: &mut Connection) -> Result<Option<T>, sqlx::Error> {
        match connection.raw() {
            Raw::Sqlite(connection) => {
                let query = sqlx::query_as_with(AssertSqlSafe(places(self.text)), sqlite(self.values)?).persistent(self.kept);
                query.fetch_optional(connection).await
            }
            Raw::Postgres(connection) => {
                let query = sqlx::query_as_with(AssertSqlSafe(self.text), postgres(self.values)?).persistent(self.kept);
                query.fetch_optional(connection).await
            }
        }
    }

    /// The one row; [`sqlx::Error::RowNotFound`] when there is none.
    pub(crate) async fn fetch_one<T: Decoded>(self, connection: &mut Connection) -> Result<T, sqlx::Error> {
        self.fetch_optional(connection).await?.ok_or(sqlx::Error::RowNotFound)
    }
}

/// The text with `?` for its `$1`, `$2`, …, where that says the same: each stands once, in this order. sqlx asks for the name of each place,
/// and SQLite looks for it from the first one on, so that a thousand of them took two fifths of the time of storing rows.
fn places(text: Cow<'static, str>) -> Cow<'static, str> {
    let mut unnamed = String::with_capacity(text.len());
    let mut rest = &*text;
    let mut place = 0_usize;
    while let Some((before, behind)) = rest.split_once('$') {
        let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
        unnamed.push_str(before);
        rest = &behind[digits..];
        if digits == 0 {
            unnamed.push('$');
            continue;
        }
        place += 1;
        if behind[..digits].parse() != Ok(place) {
            return text;
        }
        unnamed.push('?');
    }
    unnamed.push_str(rest);
    Cow::Owned(unnamed)
}

/// PostgreSQL's text holds no NUL; so that both databases hold the same, nor does SQLite's.
fn sound(values: &[Value]) -> Result<(), sqlx::Error> {
    match values.iter().any(|value| matches!(value, Value::Text(Some(text)) if text.contains('\0'))) {
        true => Err(sqlx::Error::Encode("a text holds a NUL".into())),
        false => Ok(()),
    }
}

fn sqlite(values: Vec<Value>) -> Result<SqliteArguments, sqlx::Error> {
    sound(&values)?;
    let mut arguments = SqliteArguments::default();
    for value in values {
        match value {
            Value::Text(value) => arguments.add(value),
            Value::Integer(value) => arguments.add(value),
            Value::Boolean(value) => arguments.add(value),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

fn postgres(values: Vec<Value>) -> Result<PgArguments, sqlx::Error> {
    sound(&values)?;
    let mut arguments = PgArguments::default();
    for value in values {
        match value {
            Value::Text(value) => arguments.add(value),
            Value::Integer(value) => arguments.add(value),
            Value::Boolean(value) => arguments.add(value),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lose_their_names_where_each_stands_once_and_in_order() {
        let same = |text: &'static str| assert_eq!(places(text.into()), text);
        assert_eq!(places("a = $1 AND json_extract(b, '$.c') = $2 AND d = $3".into()), "a = ? AND json_extract(b, '$.c') = ? AND d = ?");
        same("a = $1 OR b = $1");
        same("a = $2 AND b = $1");
        same("a = $1 AND b = $3");
        same("SELECT 1");
    }

    #[test]
    fn what_is_pushed_counts_its_places_on_from_what_was_bound() {
        let mut built = query("DELETE FROM t WHERE a = $1").bind("x");
        built.push(" AND b < ").push_bind(7).push(" AND (c, d) IN (VALUES ");
        built.push_rows([[Value::from("y"), Value::from(None::<i64>)], [Value::from(true), Value::from("'; DROP TABLE t")]]).push(")");
        assert_eq!(built.text, "DELETE FROM t WHERE a = $1 AND b < $2 AND (c, d) IN (VALUES ($3, $4), ($5, $6))");
        assert_eq!(built.values.len(), 6);
        assert_eq!(built.values[3], Value::Integer(None));
    }
}
