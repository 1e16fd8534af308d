//! Ends of assignments. Whether a berth is suspended for its end follows from the end and the time alone, in both directions: a moved end, or
//! a clock that went wrong for a while, lets it go again.

use super::{Connection, During, Error, id, query};
use crate::domain::{BerthId, Suspension};

const TABLE: &str = "berths";

/// Moves the end of an assignment.
pub async fn set(connection: &mut Connection, id: BerthId, until: Option<i64>) -> Result<(), Error> {
    query("UPDATE berths SET ends_at = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(until)
        .execute(connection)
        .await
        .during("store the end of the assignment")?;
    Ok(())
}

/// Berths that are not as their end says: not suspended though it has passed, or suspended for it though it has not.
pub async fn due(connection: &mut Connection, now: i64) -> Result<Vec<BerthId>, Error> {
    let rows: Vec<(String,)> = query(
        "SELECT id FROM berths WHERE wanted <> 'deleted' AND ((ends_at <= $1 AND suspended IS NULL)
                                                           OR (ended AND suspended IS NOT NULL AND (ends_at IS NULL OR ends_at > $1)))
         ORDER BY id",
    )
    .bind(now)
    .fetch_all(connection)
    .await
    .during("list the assignments that end")?;
    rows.into_iter().map(|(text,)| id(TABLE, text).map(BerthId)).collect()
}

/// When the next assignment ends.
pub async fn next(connection: &mut Connection, now: i64) -> Result<Option<i64>, Error> {
    let (next,): (Option<i64>,) = query("SELECT MIN(ends_at) FROM berths WHERE ends_at > $1")
        .bind(now)
        .fetch_one(connection)
        .await
        .during("look for the next end")?;
    Ok(next)
}

/// Marks a suspension as that of the end; any other suspension, and a resume, takes the mark away.
async fn mark(connection: &mut Connection, id: BerthId) -> Result<(), Error> {
    query("UPDATE berths SET ended = TRUE WHERE id = $1").bind(id.to_string()).execute(connection).await.during("note the end")?;
    Ok(())
}

/// Suspends a berth for its end, or lets it go.
pub async fn suspend(connection: &mut Connection, id: BerthId, suspension: Option<&Suspension>, now: i64) -> Result<(), Error> {
    super::berths::suspend(connection, id, suspension, now).await?;
    match suspension {
        Some(_) => mark(connection, id).await,
        None => Ok(()),
    }
}
