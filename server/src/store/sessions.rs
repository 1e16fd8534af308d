//! Browsers that are signed in, and the one-time links that sign one in. Secrets are known by their hash alone.

use super::{Connection, During, Error, before_or_end, id, query, unsigned};
use crate::domain::{AdministratorId, Owner, Session, SessionId};

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    administrator_id: Option<String>,
    administrator: Option<String>,
    host_uid: Option<i64>,
    host_name: Option<String>,
    created_at: i64,
    seen_at: i64,
    expires_at: i64,
    address: String,
    agent: String,
}

impl TryFrom<Row> for Session {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let (owner, name) = owner("sessions", row.administrator_id, row.administrator, row.host_uid, row.host_name)?;
        Ok(Self {
            id: SessionId(id("sessions", row.id)?),
            owner,
            name,
            created_at: row.created_at,
            seen_at: row.seen_at,
            expires_at: row.expires_at,
            address: row.address,
            agent: row.agent,
        })
    }
}

/// Whose the row is, and what he is called.
pub(super) fn owner(
    table: &'static str,
    administrator: Option<String>,
    name: Option<String>,
    uid: Option<i64>,
    host: Option<String>,
) -> Result<(Owner, String), Error> {
    match (administrator, name, uid, host) {
        (Some(of), Some(name), _, _) => Ok((Owner::Administrator(AdministratorId(id(table, of)?)), format!("admin:{name}"))),
        (_, _, Some(uid), Some(name)) => Ok((Owner::Host { uid: unsigned(table, "host_uid", uid)?, name: name.clone() }, name)),
        _ => Err(Error::Corrupt { table, column: "administrator_id", value: String::new() }),
    }
}

/// The two columns of an owner: id of the administrator, uid of the host account.
pub(super) fn columns(owner: &Owner) -> (Option<String>, Option<i64>) {
    match owner {
        Owner::Administrator(id) => (Some(id.to_string()), None),
        Owner::Host { uid, .. } => (None, Some(i64::from(*uid))),
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT s.id, s.administrator_id, a.name AS administrator, s.host_uid, s.host_name, s.created_at, s.seen_at, s.expires_at,
                    s.address, s.agent
             FROM sessions s LEFT JOIN administrators a ON a.id = s.administrator_id ",
            $rest
        )
    };
}

pub async fn by_secret(connection: &mut Connection, hash: &str) -> Result<Option<Session>, Error> {
    let row: Option<Row> = query(select!("WHERE s.secret = $1")).bind(hash).fetch_optional(connection).await.during("look up a session")?;
    row.map(Session::try_from).transpose()
}

pub async fn by_id(connection: &mut Connection, session: SessionId) -> Result<Option<Session>, Error> {
    let row: Option<Row> =
        query(select!("WHERE s.id = $1")).bind(session.to_string()).fetch_optional(connection).await.during("look up a session")?;
    row.map(Session::try_from).transpose()
}

/// Up to `limit` sessions older than `before`, newest first; of everybody without an owner.
pub async fn page(connection: &mut Connection, of: Option<&Owner>, before: Option<SessionId>, limit: u32) -> Result<Vec<Session>, Error> {
    let (administrator, uid) = of.map(columns).unwrap_or_default();
    let rows: Vec<Row> =
        query(select!("WHERE s.id < $1 AND ($2 OR s.administrator_id = $3 OR s.host_uid = $4) ORDER BY s.id DESC LIMIT $5"))
            .bind(before_or_end(before.map(|id| id.0)))
            .bind(of.is_none())
            .bind(administrator)
            .bind(uid)
            .bind(i64::from(limit))
            .fetch_all(connection)
            .await
            .during("list sessions")?;
    rows.into_iter().map(Session::try_from).collect()
}

pub async fn insert(connection: &mut Connection, new: &Session, hash: &str) -> Result<(), Error> {
    let (administrator, uid) = columns(&new.owner);
    let host = match &new.owner {
        Owner::Administrator(_) => None,
        Owner::Host { name, .. } => Some(name.clone()),
    };
    query(
        "INSERT INTO sessions (id, secret, administrator_id, host_uid, host_name, created_at, seen_at, expires_at, address, agent)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(new.id.to_string())
    .bind(hash)
    .bind(administrator)
    .bind(uid)
    .bind(host)
    .bind(new.created_at)
    .bind(new.seen_at)
    .bind(new.expires_at)
    .bind(new.address.clone())
    .bind(new.agent.clone())
    .execute(connection)
    .await
    .during("store the session")?;
    Ok(())
}

/// Notes when and where it was used; a session that has gone meanwhile stays gone.
pub async fn touch(connection: &mut Connection, session: SessionId, now: i64, address: &str, agent: &str) -> Result<(), Error> {
    query("UPDATE sessions SET seen_at = $2, address = $3, agent = $4 WHERE id = $1")
        .bind(session.to_string())
        .bind(now)
        .bind(address)
        .bind(agent)
        .execute(connection)
        .await
        .during("note the use of a session")?;
    Ok(())
}

pub async fn remove(connection: &mut Connection, session: SessionId) -> Result<(), Error> {
    query("DELETE FROM sessions WHERE id = $1").bind(session.to_string()).execute(connection).await.during("end a session")?;
    Ok(())
}

/// Ends all of an owner but one; how many there were.
pub async fn remove_of(connection: &mut Connection, owner: &Owner, but: Option<SessionId>) -> Result<u64, Error> {
    let (administrator, uid) = columns(owner);
    query("DELETE FROM sessions WHERE (administrator_id = $1 OR host_uid = $2) AND id <> $3")
        .bind(administrator)
        .bind(uid)
        .bind(but.map(|id| id.to_string()).unwrap_or_default())
        .execute(connection)
        .await
        .during("end sessions")
}

/// Ends what nobody may use any more, and of an owner all but the newest `keep`.
pub async fn prune(connection: &mut Connection, now: i64, idle: i64, owner: &Owner, keep: u32) -> Result<(), Error> {
    query("DELETE FROM sessions WHERE expires_at <= $1 OR seen_at <= $2")
        .bind(now)
        .bind(now - idle)
        .execute(&mut *connection)
        .await
        .during("remove ended sessions")?;
    let (administrator, uid) = columns(owner);
    query(
        "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE administrator_id = $1 OR host_uid = $2 ORDER BY id DESC LIMIT 1000000 OFFSET $3)",
    )
    .bind(administrator)
    .bind(uid)
    .bind(i64::from(keep))
    .execute(connection)
    .await
    .during("remove the oldest sessions")?;
    Ok(())
}

/// Stores a one-time link; the older ones of this account end, and all whose time is over.
pub async fn insert_link(connection: &mut Connection, hash: &str, uid: u32, name: &str, now: i64, expires_at: i64) -> Result<(), Error> {
    query("DELETE FROM links WHERE host_uid = $1 OR expires_at <= $2")
        .bind(i64::from(uid))
        .bind(now)
        .execute(&mut *connection)
        .await
        .during("remove old links")?;
    query("INSERT INTO links (secret, host_uid, host_name, expires_at) VALUES ($1, $2, $3, $4)")
        .bind(hash)
        .bind(i64::from(uid))
        .bind(name)
        .bind(expires_at)
        .execute(connection)
        .await
        .during("store a link")?;
    Ok(())
}

/// Uses a link up: who made it, if there was one whose time was not over.
pub async fn take_link(connection: &mut Connection, hash: &str, now: i64) -> Result<Option<(u32, String)>, Error> {
    let row: Option<(i64, String, i64)> = query("SELECT host_uid, host_name, expires_at FROM links WHERE secret = $1")
        .bind(hash)
        .fetch_optional(&mut *connection)
        .await
        .during("look up a link")?;
    query("DELETE FROM links WHERE secret = $1").bind(hash).execute(connection).await.during("use a link")?;
    match row {
        Some((uid, name, expires_at)) if now < expires_at => Ok(Some((unsigned("links", "host_uid", uid)?, name))),
        _ => Ok(None),
    }
}
