//! Requests. Those that hold are repeated in `berths.grants` by whatever changes one, in the same transaction: a berth is read in one row.

use sqlx::FromRow;

use super::{Connection, During, Error, before_or_end, events, from_json, id, query, to_json, unsigned, variant};
use crate::domain::{BerthId, EventKind, Grant, NewEvent, Problem, Request, RequestId, RequestState, UserName};

const TABLE: &str = "requests";
/// Requests of which one look takes up what is due.
const AT_ONCE: i64 = 200;

#[derive(FromRow)]
struct Row {
    id: String,
    berth_id: String,
    user_name: String,
    state: String,
    asked: String,
    asked_until: i64,
    reason: String,
    granted: Option<String>,
    ends_at: i64,
    decided_by: Option<String>,
    decided_at: Option<i64>,
    word: Option<String>,
    generation: Option<i64>,
    problem: Option<String>,
    problem_since: Option<i64>,
    attempts: i64,
    created_at: i64,
    updated_at: i64,
}

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT id, berth_id, user_name, state, asked, asked_until, reason, granted, ends_at, decided_by, decided_at, word, generation,
                    problem, problem_since, attempts, created_at, updated_at FROM requests ",
            $tail
        )
    };
}

impl TryFrom<Row> for Request {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let problem: Option<Problem> = row.problem.map(|text| from_json(TABLE, "problem", text)).transpose()?;
        Ok(Self {
            id: RequestId(id(TABLE, row.id)?),
            berth: BerthId(id(TABLE, row.berth_id)?),
            user: row.user_name.parse().map_err(|_| Error::Corrupt { table: TABLE, column: "user_name", value: row.user_name })?,
            state: variant(&RequestState::ALL, RequestState::as_str, TABLE, "state", row.state)?,
            asked: from_json(TABLE, "asked", row.asked)?,
            asked_until: row.asked_until,
            reason: row.reason,
            granted: row.granted.map(|text| from_json(TABLE, "granted", text)).transpose()?,
            until: row.ends_at,
            decided_by: row.decided_by,
            decided_at: row.decided_at,
            word: row.word,
            generation: row.generation,
            problem: problem.map(|problem| (problem, row.problem_since.unwrap_or_default())),
            attempts: unsigned(TABLE, "attempts", row.attempts)?,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

fn read(rows: Vec<Row>) -> Result<Vec<Request>, Error> {
    rows.into_iter().map(Request::try_from).collect()
}

pub async fn insert(connection: &mut Connection, request: &Request) -> Result<(), Error> {
    query(
        "INSERT INTO requests (id, berth_id, user_name, state, asked, asked_until, reason, ends_at, due_at, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)",
    )
    .bind(request.id.to_string())
    .bind(request.berth.to_string())
    .bind(request.user.as_str())
    .bind(request.state.as_str())
    .bind(to_json(&request.asked))
    .bind(request.asked_until)
    .bind(request.reason.as_str())
    .bind(request.until)
    .bind(Request::due(request.state, request.until, 0, request.created_at))
    .bind(request.created_at)
    .execute(&mut *connection)
    .await
    .during("store the request")?;
    tell(connection, request, request.created_at).await
}

async fn tell(connection: &mut Connection, request: &Request, now: i64) -> Result<(), Error> {
    let event = NewEvent { state: Some(request.state.as_str()), ..NewEvent::own(EventKind::RequestChanged, request.user.as_str()) };
    events::note(connection, now, event).await
}

pub async fn by_id(connection: &mut Connection, id: RequestId) -> Result<Option<Request>, Error> {
    let row: Option<Row> =
        query(select!("WHERE id = $1")).bind(id.to_string()).fetch_optional(connection).await.during("look up a request")?;
    row.map(Request::try_from).transpose()
}

/// Up to `limit` requests older than `before`, newest first; of one user or all, in one state or any.
pub async fn page(
    connection: &mut Connection,
    user: Option<&str>,
    state: Option<RequestState>,
    before: Option<RequestId>,
    limit: u32,
) -> Result<Vec<Request>, Error> {
    let text = select!("WHERE id < $1 AND ($2 = '' OR user_name = $2) AND ($3 = '' OR state = $3) ORDER BY id DESC LIMIT $4");
    let rows = query(text)
        .bind(before_or_end(before.map(|id| id.0)))
        .bind(user.unwrap_or_default())
        .bind(state.map(RequestState::as_str).unwrap_or_default())
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await
        .during("list requests")?;
    read(rows)
}

/// How many of a user's are open, and how many he has made since.
pub async fn counts(connection: &mut Connection, user: &UserName, since: i64) -> Result<(u32, u32), Error> {
    let (open, made): (i64, i64) = query(
        "SELECT CAST(COALESCE(SUM(CASE WHEN state = 'open' THEN 1 ELSE 0 END), 0) AS BIGINT),
                CAST(COALESCE(SUM(CASE WHEN created_at > $2 THEN 1 ELSE 0 END), 0) AS BIGINT)
         FROM requests WHERE user_name = $1",
    )
    .bind(user.as_str())
    .bind(since)
    .fetch_one(connection)
    .await
    .during("count requests")?;
    Ok((unsigned(TABLE, "state", open)?, unsigned(TABLE, "created_at", made)?))
}

/// Writes all of a request that changes, and what its berth has been granted.
pub async fn update(connection: &mut Connection, request: &Request, now: i64) -> Result<(), Error> {
    query(
        "UPDATE requests SET state = $2, granted = $3, ends_at = $4, decided_by = $5, decided_at = $6, word = $7, generation = $8,
                             problem = $9, problem_since = $10, attempts = $11, due_at = $12, updated_at = $13
         WHERE id = $1",
    )
    .bind(request.id.to_string())
    .bind(request.state.as_str())
    .bind(request.granted.as_ref().map(to_json))
    .bind(request.until)
    .bind(request.decided_by.clone())
    .bind(request.decided_at)
    .bind(request.word.clone())
    .bind(request.generation)
    .bind(request.problem.as_ref().map(|(problem, _)| to_json(problem)))
    .bind(request.problem.as_ref().map(|(_, since)| *since))
    .bind(i64::from(request.attempts))
    .bind(Request::due(request.state, request.until, request.attempts, now))
    .bind(now)
    .execute(&mut *connection)
    .await
    .during("change the request")?;
    tell(connection, request, now).await?;
    repeat(connection, request.berth).await
}

/// Writes what holds into the berth.
async fn repeat(connection: &mut Connection, berth: BerthId) -> Result<(), Error> {
    let text = select!("WHERE berth_id = $1 AND state IN ('approved', 'active', 'overdue') ORDER BY id");
    let rows: Vec<Row> = query(text).bind(berth.to_string()).fetch_all(&mut *connection).await.during("list what was granted")?;
    let grants: Vec<Grant> = read(rows)?.into_iter().map(grant).collect();
    query("UPDATE berths SET grants = $2 WHERE id = $1")
        .bind(berth.to_string())
        .bind((!grants.is_empty()).then(|| to_json(&grants)))
        .execute(connection)
        .await
        .during("note what was granted")?;
    Ok(())
}

fn grant(request: Request) -> Grant {
    Grant {
        request: request.id,
        figures: request.granted.unwrap_or(request.asked),
        until: request.until,
        overdue: request.problem.filter(|_| request.state == RequestState::Overdue),
    }
}

/// Requests of a berth for which the node has been asked something by `generation` or before.
pub async fn asked_of_node(connection: &mut Connection, berth: BerthId, generation: i64) -> Result<Vec<Request>, Error> {
    let text = select!("WHERE berth_id = $1 AND state IN ('approved', 'ending') AND generation <= $2 ORDER BY id");
    let rows =
        query(text).bind(berth.to_string()).bind(generation).fetch_all(connection).await.during("list what the node was asked for")?;
    read(rows)
}

/// Requests of a berth that are not over.
pub async fn unfinished(connection: &mut Connection, berth: BerthId) -> Result<Vec<Request>, Error> {
    let text = select!("WHERE berth_id = $1 AND state IN ('open', 'approved', 'active', 'ending', 'overdue') ORDER BY id");
    read(query(text).bind(berth.to_string()).fetch_all(connection).await.during("list the requests of a berth")?)
}

/// Requests with which something is to be done by itself, the longest due first.
pub async fn due(connection: &mut Connection, now: i64) -> Result<Vec<Request>, Error> {
    let text = select!("WHERE due_at <= $1 ORDER BY due_at LIMIT $2");
    read(query(text).bind(now).bind(AT_ONCE).fetch_all(connection).await.during("list the requests that are due")?)
}

/// When the next one is due.
pub async fn next(connection: &mut Connection) -> Result<Option<i64>, Error> {
    let (next,): (Option<i64>,) =
        query("SELECT MIN(due_at) FROM requests WHERE due_at IS NOT NULL").fetch_one(connection).await.during("look for the next end")?;
    Ok(next)
}

/// Drops requests that were over before `before`.
pub async fn prune(connection: &mut Connection, before: i64) -> Result<u64, Error> {
    query("DELETE FROM requests WHERE state IN ('denied', 'cancelled', 'lapsed', 'ended') AND updated_at < $1")
        .bind(before)
        .execute(connection)
        .await
        .during("prune requests")
}
