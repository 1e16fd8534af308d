//! The audit trail: rows are added in the transaction of the intent they speak of, and never changed.

use sqlx::FromRow;

use super::{Connection, During, Error, Query, before_or_end, from_json, id, query, to_json, unsigned};
use crate::domain::{AuditEntry, AuditId, AuditRecord, Caller, Clock, OperationId, TrailFilter};

#[derive(FromRow)]
struct Row {
    id: String,
    at: i64,
    actor: String,
    actor_uid: Option<i64>,
    role: String,
    action: String,
    subject_kind: String,
    subject: String,
    details: String,
    operation_id: Option<String>,
    request_id: Option<String>,
}

impl TryFrom<Row> for AuditRecord {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            id: AuditId(id("audit", row.id)?),
            at: row.at,
            actor: row.actor,
            actor_uid: row.actor_uid.map(|uid| unsigned("audit", "actor_uid", uid)).transpose()?,
            role: row.role,
            action: row.action,
            subject_kind: row.subject_kind,
            subject: row.subject,
            details: from_json("audit", "details", row.details)?,
            operation_id: row.operation_id.map(|text| id("audit", text).map(OperationId)).transpose()?,
            request_id: row.request_id,
        })
    }
}

/// Adds what `caller` asked for, or what the server did by itself.
pub async fn insert(connection: &mut Connection, clock: &Clock, caller: Option<&Caller>, entry: AuditEntry<'_>) -> Result<(), Error> {
    query(
        "INSERT INTO audit (id, at, actor, actor_uid, role, action, subject_kind, subject, details, operation_id, request_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(clock.id().to_string())
    .bind(clock.now())
    .bind(caller.map_or("berth-server", |caller| &caller.name))
    .bind(caller.and_then(|caller| caller.uid).map(i64::from))
    .bind(caller.map_or("system", |caller| caller.role.as_str()))
    .bind(entry.action)
    .bind(entry.subject.kind())
    .bind(entry.subject.name())
    .bind(to_json(&entry.details))
    .bind(entry.operation.map(|id| id.to_string()))
    .bind(caller.map(|caller| caller.request_id.as_str()))
    .execute(connection)
    .await
    .during("write the audit trail")?;
    Ok(())
}

/// Up to `limit` rows older than `before`, newest first.
pub async fn page(
    connection: &mut Connection,
    filter: &TrailFilter,
    before: Option<AuditId>,
    limit: u32,
) -> Result<Vec<AuditRecord>, Error> {
    let mut query = query("SELECT * FROM audit WHERE id < ");
    query.push_bind(before_or_end(before.map(|id| id.0)));
    narrow(&mut query, filter);
    query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(limit));
    fetch(connection, query).await
}

/// Up to `limit` rows after `after` and not after `head`, oldest first.
pub async fn between(
    connection: &mut Connection,
    filter: &TrailFilter,
    after: AuditId,
    head: AuditId,
    limit: u32,
) -> Result<Vec<AuditRecord>, Error> {
    let mut query = query("SELECT * FROM audit WHERE id > ");
    query.push_bind(after.to_string()).push(" AND id <= ").push_bind(head.to_string());
    narrow(&mut query, filter);
    query.push(" ORDER BY id LIMIT ").push_bind(i64::from(limit));
    fetch(connection, query).await
}

/// The newest row's id; all zeros when there is none.
pub async fn head(connection: &mut Connection) -> Result<AuditId, Error> {
    let (head,): (Option<String>,) = query("SELECT MAX(id) FROM audit").fetch_one(connection).await.during("read the audit trail")?;
    head.map_or(Ok(AuditId(uuid::Uuid::nil())), |text| id("audit", text).map(AuditId))
}

fn narrow(query: &mut Query, filter: &TrailFilter) {
    if let Some(user) = &filter.user {
        // An image may have the name of a user; its rows are not his.
        query.push(" AND subject_kind = 'berth' AND subject = ").push_bind(user.clone());
    }
    if let Some(subject) = &filter.subject {
        query.push(" AND subject = ").push_bind(subject.clone());
    }
    if let Some(since) = filter.since {
        query.push(" AND at >= ").push_bind(since);
    }
    if let Some(until) = filter.until {
        query.push(" AND at < ").push_bind(until);
    }
}

async fn fetch(connection: &mut Connection, query: Query) -> Result<Vec<AuditRecord>, Error> {
    let rows: Vec<Row> = query.fetch_all(connection).await.during("read the audit trail")?;
    rows.into_iter().map(AuditRecord::try_from).collect()
}

/// Drops rows older than `before`, at most `limit` of them; returns how many went.
pub async fn prune(connection: &mut Connection, before: i64, limit: u32) -> Result<u64, Error> {
    query("DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < $1 ORDER BY at LIMIT $2)")
        .bind(before)
        .bind(i64::from(limit))
        .execute(connection)
        .await
        .during("prune the audit trail")
}
