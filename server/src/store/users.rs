//! Host accounts that hold a berth.

use super::{Connection, During, Error, query};
use crate::domain::{UserId, UserName};

pub async fn insert(connection: &mut Connection, id: UserId, name: &UserName, uid: u32, now: i64) -> Result<(), Error> {
    query("INSERT INTO users (id, name, uid, created_at) VALUES ($1, $2, $3, $4)")
        .bind(id.to_string())
        .bind(name.as_str())
        .bind(i64::from(uid))
        .bind(now)
        .execute(connection)
        .await
        .during("store the user")?;
    Ok(())
}

/// Forgets the user; his berth must be gone.
pub async fn remove(connection: &mut Connection, id: UserId) -> Result<(), Error> {
    query("DELETE FROM users WHERE id = $1").bind(id.to_string()).execute(connection).await.during("remove the user")?;
    Ok(())
}
