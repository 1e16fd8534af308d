//! Requests with an Idempotency-Key, and their answers: for 24 hours, and the last [`KEEP`] of each caller.

use super::{Connection, During, Error, from_json, query, to_json, unsigned};
use crate::domain::{Begun, KeptAnswer, KeyedRequest};

const TABLE: &str = "keyed_requests";
/// Milliseconds.
pub const KEEP_FOR: i64 = 86_400_000;
pub const KEEP: i64 = 2_000;

type Row = (String, String, Option<i64>, String, Option<String>);

/// Notes that the request is under way, unless its key is known.
pub async fn begin(connection: &mut Connection, new: KeyedRequest<'_>) -> Result<Begun, Error> {
    let KeyedRequest { caller, key, request, life, now } = new;
    query("DELETE FROM keyed_requests WHERE caller = $1 AND at < $2")
        .bind(caller)
        .bind(now - KEEP_FOR)
        .execute(connection)
        .await
        .during("drop old keys")?;
    let known: Option<Row> = query("SELECT request, life, status, headers, body FROM keyed_requests WHERE caller = $1 AND key = $2")
        .bind(caller)
        .bind(key)
        .fetch_optional(connection)
        .await
        .during("look up a key")?;
    if let Some((known, its_life, status, headers, body)) = known {
        return Ok(match status {
            _ if known != request => Begun::Other,
            Some(status) => Begun::Answered(KeptAnswer {
                status: unsigned(TABLE, "status", status)?,
                headers: from_json(TABLE, "headers", headers)?,
                body,
            }),
            None if its_life == life => Begun::UnderWay,
            None => Begun::Interrupted,
        });
    }
    query("INSERT INTO keyed_requests (caller, key, request, life, at, headers) VALUES ($1, $2, $3, $4, $5, '[]')")
        .bind(caller)
        .bind(key)
        .bind(request)
        .bind(life)
        .bind(now)
        .execute(connection)
        .await
        .during("note a key")?;
    query(
        "DELETE FROM keyed_requests
         WHERE caller = $1 AND at < (SELECT at FROM keyed_requests WHERE caller = $1 ORDER BY at DESC LIMIT 1 OFFSET $2)",
    )
    .bind(caller)
    .bind(KEEP)
    .execute(connection)
    .await
    .during("drop old keys")?;
    Ok(Begun::Fresh)
}

/// Keeps what the request was answered.
pub async fn finish(connection: &mut Connection, caller: &str, key: &str, answer: &KeptAnswer) -> Result<(), Error> {
    query("UPDATE keyed_requests SET status = $3, headers = $4, body = $5 WHERE caller = $1 AND key = $2")
        .bind(caller)
        .bind(key)
        .bind(i64::from(answer.status))
        .bind(to_json(&answer.headers))
        .bind(&answer.body)
        .execute(connection)
        .await
        .during("keep an answer")?;
    Ok(())
}

/// The request was refused or failed, and has changed nothing: it may be done anew under the same key.
pub async fn forget(connection: &mut Connection, caller: &str, key: &str) -> Result<(), Error> {
    query("DELETE FROM keyed_requests WHERE caller = $1 AND key = $2")
        .bind(caller)
        .bind(key)
        .execute(connection)
        .await
        .during("forget a key")?;
    Ok(())
}

/// Drops what is past its time.
pub async fn prune(connection: &mut Connection, now: i64) -> Result<u64, Error> {
    query("DELETE FROM keyed_requests WHERE at < $1").bind(now - KEEP_FOR).execute(connection).await.during("drop old keys")
}
