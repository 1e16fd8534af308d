//! Events: added in the transaction of the change they tell of, and dropped when they are old or too many.

use sqlx::FromRow;

use super::{Connection, During, Error, id, query, variant};
use crate::domain::{Event, EventKind, NewEvent, OperationId};

/// Events that are kept, and for how long (milliseconds).
pub const KEEP: i64 = 20_000;
pub const KEEP_FOR: i64 = 86_400_000;
/// Old ones are looked for so often.
const EVERY: i64 = 200;
/// Events read at a time.
const BATCH: i64 = 500;

#[derive(FromRow)]
struct Row {
    seq: i64,
    at: i64,
    kind: String,
    subject: String,
    owner: Option<String>,
    state: Option<String>,
    operation_id: Option<String>,
}

impl TryFrom<Row> for Event {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            seq: row.seq,
            at: row.at,
            kind: variant(EventKind::ALL, EventKind::as_str, "events", "kind", row.kind)?,
            subject: row.subject,
            owner: row.owner,
            state: row.state,
            operation: row.operation_id.map(|text| id("events", text).map(OperationId)).transpose()?,
        })
    }
}

/// Adds an event. The row of `event_head` keeps others who add one waiting until this transaction ends: numbers grow in the order of commits.
pub async fn note(connection: &mut Connection, now: i64, event: NewEvent<'_>) -> Result<(), Error> {
    let (seq,): (i64,) =
        query("UPDATE event_head SET seq = seq + 1 RETURNING seq").fetch_one(connection).await.during("number an event")?;
    query("INSERT INTO events (seq, at, kind, subject, owner, state, operation_id) VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind(seq)
        .bind(now)
        .bind(event.kind.as_str())
        .bind(event.subject)
        .bind(event.owner)
        .bind(event.state)
        .bind(event.operation.map(|id| id.to_string()))
        .execute(connection)
        .await
        .during("store an event")?;
    match seq % EVERY {
        0 => prune(connection, now).await,
        _ => Ok(()),
    }
}

/// Drops what is past its time, or too much.
pub async fn prune(connection: &mut Connection, now: i64) -> Result<(), Error> {
    query("DELETE FROM events WHERE at < $1 OR seq <= (SELECT seq FROM event_head) - $2")
        .bind(now - KEEP_FOR)
        .bind(KEEP)
        .execute(connection)
        .await
        .during("drop old events")?;
    Ok(())
}

/// The first event that is kept, and the last one there was; the first lies behind the last when none is kept.
pub async fn bounds(connection: &mut Connection) -> Result<(i64, i64), Error> {
    query("SELECT COALESCE((SELECT MIN(seq) FROM events), seq + 1), seq FROM event_head")
        .fetch_one(connection)
        .await
        .during("look for the last event")
}

/// When the last event that is kept was noted.
pub async fn last_at(connection: &mut Connection) -> Result<Option<i64>, Error> {
    let (at,): (Option<i64>,) = query("SELECT MAX(at) FROM events").fetch_one(connection).await.during("look for the last event")?;
    Ok(at)
}

/// Events after `after`, oldest first; there may be more when as many came as [`is_full`] says.
pub async fn after(connection: &mut Connection, after: i64) -> Result<Vec<Event>, Error> {
    let rows: Vec<Row> = query("SELECT * FROM events WHERE seq > $1 ORDER BY seq LIMIT $2")
        .bind(after)
        .bind(BATCH)
        .fetch_all(connection)
        .await
        .during("read events")?;
    rows.into_iter().map(Event::try_from).collect()
}

/// Whether a reading was cut off at its most.
pub fn is_full(events: &[Event]) -> bool {
    events.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX)
}
