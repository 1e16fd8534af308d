//! What is known of the accounts of berths.

use std::collections::HashMap;

use super::{Connection, During, Error, id, query, unsigned, variant};
use crate::domain::{AccountState, BerthId, Watch};

const TABLE: &str = "accounts";

#[derive(sqlx::FromRow)]
struct Row {
    berth_id: String,
    state: String,
    detail: String,
    since: i64,
    looked_at: i64,
    misses: i64,
    missed_since: Option<i64>,
    local: bool,
    last_used_at: Option<i64>,
}

impl TryFrom<Row> for (BerthId, Watch) {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let watch = Watch {
            state: variant(&AccountState::ALL, AccountState::as_str, TABLE, "state", row.state)?,
            detail: row.detail,
            since: row.since,
            looked_at: row.looked_at,
            misses: unsigned(TABLE, "misses", row.misses)?,
            missed_since: row.missed_since,
            local: row.local,
            last_used_at: row.last_used_at,
        };
        Ok((BerthId(id(TABLE, row.berth_id)?), watch))
    }
}

pub async fn all(connection: &mut Connection) -> Result<HashMap<BerthId, Watch>, Error> {
    let rows: Vec<Row> = query("SELECT * FROM accounts").fetch_all(connection).await.during("read what is known of accounts")?;
    rows.into_iter().map(<(BerthId, Watch)>::try_from).collect()
}

/// What the host last said of the account that holds a berth; nothing of one that holds none.
pub async fn state_of(connection: &mut Connection, uid: u32, name: &str) -> Result<Option<AccountState>, Error> {
    let row: Option<(String,)> = query(
        "SELECT a.state FROM accounts a JOIN berths b ON b.id = a.berth_id JOIN users u ON u.id = b.user_id WHERE u.uid = $1 AND u.name = $2",
    )
    .bind(i64::from(uid))
    .bind(name)
    .fetch_optional(connection)
    .await
    .during("read what is known of an account")?;
    row.map(|(state,)| variant(&AccountState::ALL, AccountState::as_str, TABLE, "state", state)).transpose()
}

/// The last call that came through each berth's socket, as far as the trail reaches; milliseconds since the epoch.
pub async fn last_calls(connection: &mut Connection) -> Result<HashMap<BerthId, i64>, Error> {
    let rows: Vec<(String, Option<i64>)> = query("SELECT b.id, (SELECT MAX(c.at) FROM calls c WHERE c.berth_id = b.id) FROM berths b")
        .fetch_all(connection)
        .await
        .during("read when berths were last used")?;
    let known = rows.into_iter().filter_map(|(text, at)| Some((text, at?)));
    known.map(|(text, at)| Ok((BerthId(id(TABLE, text)?), at))).collect()
}

pub async fn keep(connection: &mut Connection, berth: BerthId, watch: &Watch) -> Result<(), Error> {
    query(
        "INSERT INTO accounts (berth_id, state, detail, since, looked_at, misses, missed_since, local, last_used_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (berth_id) DO UPDATE SET state = excluded.state, detail = excluded.detail, since = excluded.since,
             looked_at = excluded.looked_at, misses = excluded.misses, missed_since = excluded.missed_since, local = excluded.local,
             last_used_at = excluded.last_used_at",
    )
    .bind(berth.to_string())
    .bind(watch.state.as_str())
    .bind(&watch.detail)
    .bind(watch.since)
    .bind(watch.looked_at)
    .bind(i64::from(watch.misses))
    .bind(watch.missed_since)
    .bind(watch.local)
    .bind(watch.last_used_at)
    .execute(connection)
    .await
    .during("keep what is known of an account")?;
    Ok(())
}

/// Forgets accounts of berths that are gone.
pub async fn prune(connection: &mut Connection) -> Result<(), Error> {
    query("DELETE FROM accounts WHERE berth_id NOT IN (SELECT id FROM berths)")
        .execute(connection)
        .await
        .during("forget accounts of berths that are gone")?;
    Ok(())
}
