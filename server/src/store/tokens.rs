//! API tokens, known by the hash of their secret alone.

use super::{
    Connection, During, Error, before_or_end, id, query,
    sessions::{columns, owner},
    touched, unsigned, variant,
};
use crate::domain::{ApiToken, Owner, Scope, TokenId};

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    administrator_id: Option<String>,
    administrator: Option<String>,
    host_uid: Option<i64>,
    host_name: Option<String>,
    name: String,
    scope: String,
    created_at: i64,
    expires_at: i64,
    used_at: Option<i64>,
}

impl TryFrom<Row> for ApiToken {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let (owner, owner_name) = owner("tokens", row.administrator_id, row.administrator, row.host_uid, row.host_name)?;
        Ok(Self {
            id: TokenId(id("tokens", row.id)?),
            owner,
            owner_name,
            name: row.name,
            scope: variant(&Scope::ALL, Scope::as_str, "tokens", "scope", row.scope)?,
            created_at: row.created_at,
            expires_at: row.expires_at,
            used_at: row.used_at,
        })
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT t.id, t.administrator_id, a.name AS administrator, t.host_uid, t.host_name, t.name, t.scope, t.created_at, t.expires_at,
                    t.used_at
             FROM tokens t LEFT JOIN administrators a ON a.id = t.administrator_id ",
            $rest
        )
    };
}

pub async fn by_secret(connection: &mut Connection, hash: &str) -> Result<Option<ApiToken>, Error> {
    let row: Option<Row> = query(select!("WHERE t.secret = $1")).bind(hash).fetch_optional(connection).await.during("look up a token")?;
    row.map(ApiToken::try_from).transpose()
}

pub async fn by_id(connection: &mut Connection, token: TokenId) -> Result<Option<ApiToken>, Error> {
    let row: Option<Row> =
        query(select!("WHERE t.id = $1")).bind(token.to_string()).fetch_optional(connection).await.during("look up a token")?;
    row.map(ApiToken::try_from).transpose()
}

/// Up to `limit` tokens older than `before`, newest first; of everybody without an owner.
pub async fn page(connection: &mut Connection, of: Option<&Owner>, before: Option<TokenId>, limit: u32) -> Result<Vec<ApiToken>, Error> {
    let (administrator, uid) = of.map(columns).unwrap_or_default();
    let rows: Vec<Row> =
        query(select!("WHERE t.id < $1 AND ($2 OR t.administrator_id = $3 OR t.host_uid = $4) ORDER BY t.id DESC LIMIT $5"))
            .bind(before_or_end(before.map(|id| id.0)))
            .bind(of.is_none())
            .bind(administrator)
            .bind(uid)
            .bind(i64::from(limit))
            .fetch_all(connection)
            .await
            .during("list tokens")?;
    rows.into_iter().map(ApiToken::try_from).collect()
}

/// How many an owner has.
pub async fn count(connection: &mut Connection, owner: &Owner) -> Result<u64, Error> {
    let (administrator, uid) = columns(owner);
    let (count,): (i64,) = query("SELECT COUNT(*) FROM tokens WHERE administrator_id = $1 OR host_uid = $2")
        .bind(administrator)
        .bind(uid)
        .fetch_one(connection)
        .await
        .during("count tokens")?;
    unsigned("tokens", "count", count)
}

pub async fn insert(connection: &mut Connection, new: &ApiToken, hash: &str) -> Result<(), Error> {
    let (administrator, uid) = columns(&new.owner);
    let host = match &new.owner {
        Owner::Administrator(_) => None,
        Owner::Host { name, .. } => Some(name.clone()),
    };
    query(
        "INSERT INTO tokens (id, secret, administrator_id, host_uid, host_name, name, scope, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(new.id.to_string())
    .bind(hash)
    .bind(administrator)
    .bind(uid)
    .bind(host)
    .bind(new.name.clone())
    .bind(new.scope.as_str())
    .bind(new.created_at)
    .bind(new.expires_at)
    .execute(connection)
    .await
    .during("store the token")?;
    Ok(())
}

/// Notes a use; a token that has gone meanwhile stays gone.
pub async fn touch(connection: &mut Connection, token: TokenId, now: i64) -> Result<(), Error> {
    query("UPDATE tokens SET used_at = $2 WHERE id = $1")
        .bind(token.to_string())
        .bind(now)
        .execute(connection)
        .await
        .during("note the use of a token")?;
    Ok(())
}

pub async fn remove(connection: &mut Connection, token: TokenId) -> Result<(), Error> {
    let rows = query("DELETE FROM tokens WHERE id = $1").bind(token.to_string()).execute(connection).await.during("revoke a token")?;
    touched(rows, "revoke a token")
}

/// Forgets tokens that expired before `at`.
pub async fn prune(connection: &mut Connection, at: i64) -> Result<u64, Error> {
    query("DELETE FROM tokens WHERE expires_at < $1").bind(at).execute(connection).await.during("remove old tokens")
}
