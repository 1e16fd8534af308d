//! Counts of rows, for what watches the host.

use super::{Connection, During, Error, query, size, unsigned};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Berths by the state that is shown.
    pub berths: Vec<(String, u64)>,
    /// Operations that have not ended, by state.
    pub operations: Vec<(String, u64)>,
    /// Berths for which there is something to do, and since when the oldest of them has waited (milliseconds since the epoch).
    pub due: u64,
    pub due_since: Option<i64>,
    /// Calls that were ever stored, and what those that are kept occupy.
    pub calls: u64,
    pub call_bytes: u64,
    /// The last event.
    pub events: u64,
    pub database_bytes: u64,
}

pub async fn counts(connection: &mut Connection) -> Result<Counts, Error> {
    const READ: &str = "count rows";
    let berths: Vec<(String, i64)> =
        query("SELECT state, COUNT(*) FROM berths GROUP BY state ORDER BY state").fetch_all(connection).await.during(READ)?;
    let operations: Vec<(String, i64)> =
        query("SELECT state, COUNT(*) FROM operations WHERE finished_at IS NULL GROUP BY state ORDER BY state")
            .fetch_all(connection)
            .await
            .during(READ)?;
    let (due, due_since): (i64, Option<i64>) =
        query("SELECT COUNT(*), MIN(updated_at) FROM berths WHERE generation > applied OR wanted = 'deleted'")
            .fetch_one(connection)
            .await
            .during(READ)?;
    let (calls,): (i64,) = query("SELECT COALESCE(MAX(seq), 0) FROM calls").fetch_one(connection).await.during(READ)?;
    let (call_bytes,): (i64,) =
        query("SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM call_totals").fetch_one(connection).await.during(READ)?;
    let (events,): (i64,) = query("SELECT seq FROM event_head").fetch_one(connection).await.during(READ)?;
    Ok(Counts {
        berths: by_state(berths)?,
        operations: by_state(operations)?,
        due: unsigned("berths", "generation", due)?,
        due_since,
        calls: unsigned("calls", "seq", calls)?,
        call_bytes: unsigned("call_totals", "bytes", call_bytes)?,
        events: unsigned("event_head", "seq", events)?,
        database_bytes: size(connection).await?,
    })
}

fn by_state(rows: Vec<(String, i64)>) -> Result<Vec<(String, u64)>, Error> {
    rows.into_iter().map(|(name, count)| Ok((name, unsigned("berths", "state", count)?))).collect()
}
