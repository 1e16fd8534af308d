//! Operations.

use sqlx::FromRow;

use super::{Connection, During, Error, before_or_end, events, from_json, id, query, signed, to_json, unsigned, variant};
use crate::domain::{
    BerthId, EventKind, Extent, Kind, NewEvent, Operation, OperationFilter, OperationId, OperationState, Parameters, Problem, Whose,
};

const TABLE: &str = "operations";

#[derive(FromRow)]
struct Row {
    id: String,
    kind: String,
    subject: String,
    berth_id: Option<String>,
    generation: Option<i64>,
    parameters: String,
    state: String,
    step: String,
    log: String,
    log_lines: i64,
    progress_done: Option<i64>,
    progress_total: Option<i64>,
    result: Option<String>,
    problem: Option<String>,
    revision: i64,
    actor: String,
    created_at: i64,
    updated_at: i64,
    finished_at: Option<i64>,
}

impl TryFrom<Row> for Operation {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            id: OperationId(id(TABLE, row.id)?),
            kind: variant(&Kind::ALL, Kind::as_str, TABLE, "kind", row.kind)?,
            subject: row.subject,
            berth_id: row.berth_id.map(|text| id(TABLE, text).map(BerthId)).transpose()?,
            generation: row.generation,
            parameters: from_json(TABLE, "parameters", row.parameters)?,
            state: variant(&OperationState::ALL, OperationState::as_str, TABLE, "state", row.state)?,
            step: row.step,
            log: from_json(TABLE, "log", row.log)?,
            log_lines: unsigned(TABLE, "log_lines", row.log_lines)?,
            progress: match row.progress_done {
                Some(done) => Some(Extent {
                    done: unsigned(TABLE, "progress_done", done)?,
                    total: row.progress_total.map(|total| unsigned(TABLE, "progress_total", total)).transpose()?,
                }),
                None => None,
            },
            result: row.result,
            problem: row.problem.map(|text| from_json(TABLE, "problem", text)).transpose()?,
            revision: unsigned(TABLE, "revision", row.revision)?,
            actor: row.actor,
            created_at: row.created_at,
            updated_at: row.updated_at,
            finished_at: row.finished_at,
        })
    }
}

pub async fn insert(connection: &mut Connection, operation: &Operation) -> Result<(), Error> {
    query(
        "INSERT INTO operations (id, kind, subject, berth_id, generation, parameters, state, step, log, log_lines, revision, actor,
                                 created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13)",
    )
    .bind(operation.id.to_string())
    .bind(operation.kind.as_str())
    .bind(&operation.subject)
    .bind(operation.berth_id.map(|id| id.to_string()))
    .bind(operation.generation)
    .bind(to_json(&operation.parameters))
    .bind(operation.state.as_str())
    .bind(&operation.step)
    .bind(to_json(&operation.log))
    .bind(signed(operation.log_lines))
    .bind(signed(operation.revision))
    .bind(&operation.actor)
    .bind(operation.created_at)
    .execute(connection)
    .await
    .during("store the operation")?;
    tell(connection, operation.id, operation.created_at).await
}

/// Says that an operation has changed.
async fn tell(connection: &mut Connection, id: OperationId, now: i64) -> Result<(), Error> {
    let row: Option<(String, Option<String>, String)> = query("SELECT subject, berth_id, state FROM operations WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await
        .during("look up an operation")?;
    let Some((subject, berth, state)) = row else { return Ok(()) };
    // An image may have the name of a user; its operations are not his.
    let owner = berth.is_some().then_some(subject.as_str());
    let event = NewEvent { owner, state: Some(&state), operation: Some(id), ..NewEvent::new(EventKind::OperationChanged, &subject) };
    events::note(connection, now, event).await?;
    match berth.is_none() && state == OperationState::Succeeded.as_str() {
        true => events::note(connection, now, NewEvent::new(EventKind::ImageChanged, &subject)).await,
        false => Ok(()),
    }
}

pub async fn by_id(connection: &mut Connection, id: OperationId) -> Result<Option<Operation>, Error> {
    let row: Option<Row> = query("SELECT * FROM operations WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await
        .during("look up an operation")?;
    row.map(Operation::try_from).transpose()
}

/// Up to `limit` operations older than `before`, newest first.
pub async fn page(
    connection: &mut Connection,
    whose: Whose<'_>,
    filter: OperationFilter,
    before: Option<OperationId>,
    limit: u32,
) -> Result<Vec<Operation>, Error> {
    let mut query = query("SELECT * FROM operations WHERE id < $1").bind(before_or_end(before.map(|id| id.0)));
    match whose {
        Whose::Everybodys => &mut query,
        Whose::Named(name) => query.push(" AND subject = ").push_bind(name),
        Whose::OfBerth(name) => query.push(" AND berth_id IS NOT NULL AND subject = ").push_bind(name),
    };
    if let Some(state) = filter.state {
        query.push(" AND state = ").push_bind(state.as_str());
    }
    if let Some(kind) = filter.kind {
        query.push(" AND kind = ").push_bind(kind.as_str());
    }
    query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(limit));
    let rows: Vec<Row> = query.fetch_all(connection).await.during("list operations")?;
    rows.into_iter().map(Operation::try_from).collect()
}

/// Operations on a berth that are not finished, oldest first.
pub async fn unfinished(connection: &mut Connection, berth: BerthId) -> Result<Vec<Operation>, Error> {
    let rows: Vec<Row> = query("SELECT * FROM operations WHERE berth_id = $1 AND finished_at IS NULL ORDER BY id")
        .bind(berth.to_string())
        .fetch_all(connection)
        .await
        .during("list unfinished operations")?;
    rows.into_iter().map(Operation::try_from).collect()
}

/// Operations on images that are not finished, oldest first.
pub async fn unfinished_images(connection: &mut Connection) -> Result<Vec<Operation>, Error> {
    let rows: Vec<Row> = query("SELECT * FROM operations WHERE berth_id IS NULL AND finished_at IS NULL ORDER BY id")
        .fetch_all(connection)
        .await
        .during("list unfinished operations")?;
    rows.into_iter().map(Operation::try_from).collect()
}

/// How many operations on images are not finished.
pub async fn count_unfinished_images(connection: &mut Connection) -> Result<u32, Error> {
    let (count,): (i64,) = query("SELECT COUNT(*) FROM operations WHERE berth_id IS NULL AND finished_at IS NULL")
        .fetch_one(connection)
        .await
        .during("count unfinished operations")?;
    unsigned(TABLE, "count", count)
}

/// Replaces what an unfinished operation would put back.
pub async fn set_parameters(connection: &mut Connection, id: OperationId, parameters: &Parameters) -> Result<(), Error> {
    query("UPDATE operations SET parameters = $2 WHERE id = $1 AND finished_at IS NULL")
        .bind(id.to_string())
        .bind(to_json(parameters))
        .execute(connection)
        .await
        .during("note what an operation would put back")?;
    Ok(())
}

/// Marks what an unfinished operation is doing; false when it said so already or has finished.
pub async fn set_step(connection: &mut Connection, id: OperationId, step: &str, now: i64) -> Result<bool, Error> {
    let rows = query(
        "UPDATE operations SET state = 'running', step = $2, revision = revision + 1, updated_at = $3
         WHERE id = $1 AND finished_at IS NULL AND (step <> $2 OR state <> 'running')",
    )
    .bind(id.to_string())
    .bind(step)
    .bind(now)
    .execute(connection)
    .await
    .during("note the step of an operation")?;
    if rows > 0 {
        tell(connection, id, now).await?;
    }
    Ok(rows > 0)
}

/// Replaces the kept lines of output.
pub async fn set_log(connection: &mut Connection, id: OperationId, log: &[String], lines: u64, now: i64) -> Result<(), Error> {
    let text =
        "UPDATE operations SET log = $2, log_lines = $3, revision = revision + 1, updated_at = $4 WHERE id = $1 AND finished_at IS NULL";
    query(text)
        .bind(id.to_string())
        .bind(to_json(&log))
        .bind(signed(lines))
        .bind(now)
        .execute(connection)
        .await
        .during("keep the output of an operation")?;
    tell(connection, id, now).await
}

/// Notes how far an operation is.
pub async fn set_progress(connection: &mut Connection, id: OperationId, progress: Extent, now: i64) -> Result<(), Error> {
    let rows = query(
        "UPDATE operations SET progress_done = $2, progress_total = $3, revision = revision + 1, updated_at = $4
         WHERE id = $1 AND finished_at IS NULL AND (progress_done IS NULL OR progress_done <> $2)",
    )
    .bind(id.to_string())
    .bind(signed(progress.done))
    .bind(progress.total.map(signed))
    .bind(now)
    .execute(connection)
    .await
    .during("note how far an operation is")?;
    match rows {
        0 => Ok(()),
        _ => tell(connection, id, now).await,
    }
}

/// Ends an operation; one that has finished stays as it is.
pub async fn finish(
    connection: &mut Connection,
    id: OperationId,
    state: OperationState,
    result: Option<&str>,
    problem: Option<&Problem>,
    now: i64,
) -> Result<(), Error> {
    let rows = query(
        "UPDATE operations SET state = $2, step = '', result = $3, problem = $4, revision = revision + 1, updated_at = $5, finished_at = $5
         WHERE id = $1 AND finished_at IS NULL",
    )
    .bind(id.to_string())
    .bind(state.as_str())
    .bind(result)
    .bind(problem.map(to_json))
    .bind(now)
    .execute(connection)
    .await
    .during("finish an operation")?;
    match rows {
        0 => Ok(()),
        _ => tell(connection, id, now).await,
    }
}

/// Drops finished operations older than `before`.
pub async fn prune(connection: &mut Connection, before: i64) -> Result<u64, Error> {
    query("DELETE FROM operations WHERE finished_at < $1").bind(before).execute(connection).await.during("prune operations")
}
