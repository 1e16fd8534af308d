//! Administrators: accounts with a password.

use super::{Connection, During, Error, id, query, touched, unsigned, variant};
use crate::domain::{AccountName, Administrator, AdministratorId, Role};

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    name: String,
    role: String,
    enabled: bool,
    host_name: Option<String>,
    host_uid: Option<i64>,
    created_at: i64,
    updated_at: i64,
    password_at: i64,
    signed_in_at: Option<i64>,
}

impl TryFrom<Row> for Administrator {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let uid = row.host_uid.map(|uid| unsigned("administrators", "host_uid", uid)).transpose()?;
        Ok(Self {
            id: AdministratorId(id("administrators", row.id)?),
            name: row.name,
            role: variant(&Role::ALL, Role::as_str, "administrators", "role", row.role)?,
            enabled: row.enabled,
            host: row.host_name.zip(uid),
            created_at: row.created_at,
            updated_at: row.updated_at,
            password_at: row.password_at,
            signed_in_at: row.signed_in_at,
        })
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, role, enabled, host_name, host_uid, created_at, updated_at, password_at, signed_in_at FROM administrators ",
            $rest
        )
    };
}

pub async fn by_name(connection: &mut Connection, name: &AccountName) -> Result<Option<Administrator>, Error> {
    let row: Option<Row> =
        query(select!("WHERE name = $1")).bind(name.as_str()).fetch_optional(connection).await.during("look up an administrator")?;
    row.map(Administrator::try_from).transpose()
}

pub async fn by_id(connection: &mut Connection, id: AdministratorId) -> Result<Option<Administrator>, Error> {
    let row: Option<Row> =
        query(select!("WHERE id = $1")).bind(id.to_string()).fetch_optional(connection).await.during("look up an administrator")?;
    row.map(Administrator::try_from).transpose()
}

/// The one that is tied to the host account of this uid and name.
pub async fn by_host(connection: &mut Connection, uid: u32, name: &str) -> Result<Option<Administrator>, Error> {
    let row: Option<Row> = query(select!("WHERE host_uid = $1 AND host_name = $2"))
        .bind(i64::from(uid))
        .bind(name)
        .fetch_optional(connection)
        .await
        .during("look up an administrator")?;
    row.map(Administrator::try_from).transpose()
}

/// Up to `limit` whose names come after `after`.
pub async fn page(connection: &mut Connection, after: &str, limit: u32) -> Result<Vec<Administrator>, Error> {
    let rows: Vec<Row> = query(select!("WHERE name > $1 ORDER BY name LIMIT $2"))
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await
        .during("list administrators")?;
    rows.into_iter().map(Administrator::try_from).collect()
}

/// The hash of the password, in PHC's text form.
pub async fn password(connection: &mut Connection, id: AdministratorId) -> Result<Option<String>, Error> {
    let row: Option<(String,)> = query("SELECT password FROM administrators WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await
        .during("read a password's hash")?;
    Ok(row.map(|(password,)| password))
}

/// How many enabled ones with the role admin there are besides this one.
pub async fn other_admins(connection: &mut Connection, id: AdministratorId) -> Result<u64, Error> {
    let (count,): (i64,) = query("SELECT COUNT(*) FROM administrators WHERE role = 'admin' AND enabled = $1 AND id <> $2")
        .bind(true)
        .bind(id.to_string())
        .fetch_one(connection)
        .await
        .during("count administrators")?;
    unsigned("administrators", "count", count)
}

/// Stores a new one; [`Error::Exists`] when the name or the host account is taken.
pub async fn insert(connection: &mut Connection, new: &Administrator, password: &str) -> Result<(), Error> {
    query(
        "INSERT INTO administrators (id, name, role, enabled, host_name, host_uid, password, created_at, updated_at, password_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(new.id.to_string())
    .bind(new.name.clone())
    .bind(new.role.as_str())
    .bind(new.enabled)
    .bind(new.host.as_ref().map(|(name, _)| name.clone()))
    .bind(new.host.as_ref().map(|(_, uid)| i64::from(*uid)))
    .bind(password)
    .bind(new.created_at)
    .bind(new.updated_at)
    .bind(new.password_at)
    .execute(connection)
    .await
    .during("store the administrator")?;
    Ok(())
}

/// Stores role, host account and whether he is enabled.
pub async fn update(connection: &mut Connection, changed: &Administrator) -> Result<(), Error> {
    let rows = query("UPDATE administrators SET role = $2, enabled = $3, host_name = $4, host_uid = $5, updated_at = $6 WHERE id = $1")
        .bind(changed.id.to_string())
        .bind(changed.role.as_str())
        .bind(changed.enabled)
        .bind(changed.host.as_ref().map(|(name, _)| name.clone()))
        .bind(changed.host.as_ref().map(|(_, uid)| i64::from(*uid)))
        .bind(changed.updated_at)
        .execute(connection)
        .await
        .during("change the administrator")?;
    touched(rows, "change the administrator")
}

pub async fn set_password(connection: &mut Connection, id: AdministratorId, password: &str, now: i64) -> Result<(), Error> {
    let rows = query("UPDATE administrators SET password = $2, password_at = $3 WHERE id = $1")
        .bind(id.to_string())
        .bind(password)
        .bind(now)
        .execute(connection)
        .await
        .during("change the password")?;
    touched(rows, "change the password")
}

pub async fn signed_in(connection: &mut Connection, id: AdministratorId, now: i64) -> Result<(), Error> {
    let rows = query("UPDATE administrators SET signed_in_at = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(now)
        .execute(connection)
        .await
        .during("note the sign-in")?;
    touched(rows, "note the sign-in")
}

/// Removes one with all his sessions and tokens.
pub async fn remove(connection: &mut Connection, id: AdministratorId) -> Result<(), Error> {
    let rows = query("DELETE FROM administrators WHERE id = $1")
        .bind(id.to_string())
        .execute(connection)
        .await
        .during("remove the administrator")?;
    touched(rows, "remove the administrator")
}
