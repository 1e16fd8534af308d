//! Lists of berths, narrowed and ordered.

use super::{
    Connection, During, Error,
    berths::{self, Row},
};
use crate::domain::{Berth, BerthCursor, BerthFilter, BerthSort};

/// Up to `limit` berths that the filter takes, in its order, behind `after`.
pub async fn page(connection: &mut Connection, filter: &BerthFilter, after: Option<&BerthCursor>, limit: u32) -> Result<Vec<Berth>, Error> {
    let mut query = berths::selected();
    query.push("WHERE b.user_name <> ''");
    if let Some(owner) = &filter.owner {
        query.push(" AND b.user_name = ").push_bind(owner);
    }
    if let Some(state) = filter.state {
        query.push(" AND b.state = ").push_bind(state.as_str());
    }
    if let Some(profile) = &filter.profile {
        query.push(" AND b.profile_id = (SELECT id FROM profiles WHERE name = ").push_bind(profile).push(")");
    }
    if let Some(start) = &filter.user {
        query.push(" AND b.user_name >= ").push_bind(start);
        // Names are ASCII or UTF-8; nothing sorts behind the last code point.
        query.push(" AND b.user_name < ").push_bind(format!("{start}\u{10ffff}"));
    }
    if let Some(part) = &filter.search {
        // Asked of both: SQLite finds the one in the index that gives the order, PostgreSQL reads the other, narrow table through.
        for column in ["b.user_name", "u.name"] {
            query.push(" AND ").push(column).push(" LIKE ").push_bind(format!("%{}%", escaped(part))).push(" ESCAPE '\\'");
        }
    }
    if let Some(condition) = &filter.condition {
        query.push(" AND b.conditions LIKE ").push_bind(format!("% {} %", escaped(condition))).push(" ESCAPE '\\'");
    }
    let (column, both) = match filter.sort {
        BerthSort::User => ("b.user_name", "b.user_name"),
        BerthSort::State => ("b.state", "(b.state, b.user_name)"),
        BerthSort::Memory => ("b.used_memory", "(b.used_memory, b.user_name)"),
        BerthSort::Disk => ("b.used_disk", "(b.used_disk, b.user_name)"),
        BerthSort::LastUsed => ("b.last_used_at", "(b.last_used_at, b.user_name)"),
    };
    if let Some(after) = after {
        query.push(" AND ").push(both).push(if filter.descending { " < " } else { " > " });
        match after {
            BerthCursor::User(user) => query.push_bind(user),
            BerthCursor::State(state, user) => query.push("(").push_bind(state).push(", ").push_bind(user).push(")"),
            BerthCursor::Figure(figure, user) => query.push("(").push_bind(*figure).push(", ").push_bind(user).push(")"),
        };
    }
    let direction = if filter.descending { " DESC" } else { "" };
    query.push(" ORDER BY ").push(column).push(direction);
    if filter.sort != BerthSort::User {
        query.push(", b.user_name").push(direction);
    }
    query.push(" LIMIT ").push_bind(i64::from(limit));
    // Kept, though there are many forms of it: a page asks for few, and to plan one takes PostgreSQL longer than to run it.
    let rows: Vec<Row> = query.fetch_all(connection).await.during("list berths")?;
    rows.into_iter().map(Berth::try_from).collect()
}

/// Text in which LIKE finds nothing special.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}
