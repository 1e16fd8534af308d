//! Single values that administrators choose.

use super::{Connection, During, Error, events, query};
use crate::domain::{EventKind, NewEvent};

/// Name or digest of the image of berths that name none.
pub const DEFAULT_IMAGE: &str = "default_image";
/// What is wrong with the host's accounts as a whole: a JSON list of alarms.
pub const ACCOUNT_ALARMS: &str = "account_alarms";

pub async fn get(connection: &mut Connection, name: &str) -> Result<Option<String>, Error> {
    let row: Option<(String,)> =
        query("SELECT value FROM settings WHERE name = $1").bind(name).fetch_optional(connection).await.during("read a setting")?;
    Ok(row.map(|(value,)| value))
}

pub async fn set(connection: &mut Connection, name: &str, value: &str, now: i64) -> Result<(), Error> {
    query(
        "INSERT INTO settings (name, value, updated_at) VALUES ($1, $2, $3)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
    )
    .bind(name)
    .bind(value)
    .bind(now)
    .execute(connection)
    .await
    .during("store a setting")?;
    match name {
        DEFAULT_IMAGE => events::note(connection, now, NewEvent::new(EventKind::ImageChanged, value)).await,
        _ => Ok(()),
    }
}

pub async fn clear(connection: &mut Connection, name: &str) -> Result<(), Error> {
    query("DELETE FROM settings WHERE name = $1").bind(name).execute(connection).await.during("clear a setting")?;
    Ok(())
}
