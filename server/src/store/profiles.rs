//! Profiles.

use sqlx::FromRow;

use super::{Connection, During, Error, id, signed, touched, unsigned};
use crate::domain::{Limits, Profile, ProfileId, ProfileName};

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT p.id, p.name, p.description, p.cpu_millis, p.memory_bytes, p.pids, p.disk_bytes, p.created_at, p.updated_at,
                    (SELECT COUNT(*) FROM berths b WHERE b.profile_id = p.id) AS berths FROM profiles p ",
            $tail
        )
    };
}

#[derive(FromRow)]
struct Row {
    id: String,
    name: String,
    description: String,
    cpu_millis: i64,
    memory_bytes: i64,
    pids: i64,
    disk_bytes: i64,
    created_at: i64,
    updated_at: i64,
    berths: i64,
}

impl TryFrom<Row> for Profile {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            id: ProfileId(id("profiles", row.id)?),
            name: row.name,
            description: row.description,
            limits: Limits {
                cpu_millis: unsigned("profiles", "cpu_millis", row.cpu_millis)?,
                memory_bytes: unsigned("profiles", "memory_bytes", row.memory_bytes)?,
                pids: unsigned("profiles", "pids", row.pids)?,
                disk_bytes: unsigned("profiles", "disk_bytes", row.disk_bytes)?,
            },
            berths: unsigned("profiles", "berths", row.berths)?,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

pub async fn by_name(connection: &mut Connection, name: &ProfileName) -> Result<Option<Profile>, Error> {
    let row: Option<Row> =
        sqlx::query_as(select!("WHERE p.name = $1")).bind(name.as_str()).fetch_optional(connection).await.during("look up a profile")?;
    row.map(Profile::try_from).transpose()
}

/// Up to `limit` profiles whose names come after `after`.
pub async fn page(connection: &mut Connection, after: &str, limit: u32) -> Result<Vec<Profile>, Error> {
    let rows: Vec<Row> = sqlx::query_as(select!("WHERE p.name > $1 ORDER BY p.name LIMIT $2"))
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await
        .during("list profiles")?;
    rows.into_iter().map(Profile::try_from).collect()
}

/// Stores a new profile; [`Error::Exists`] when the name is taken.
pub async fn insert(connection: &mut Connection, profile: &Profile) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO profiles (id, name, description, cpu_millis, memory_bytes, pids, disk_bytes, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(profile.id.to_string())
    .bind(&profile.name)
    .bind(&profile.description)
    .bind(i64::from(profile.limits.cpu_millis))
    .bind(signed(profile.limits.memory_bytes))
    .bind(i64::from(profile.limits.pids))
    .bind(signed(profile.limits.disk_bytes))
    .bind(profile.created_at)
    .bind(profile.updated_at)
    .execute(connection)
    .await
    .during("store the profile")?;
    Ok(())
}

pub async fn update(connection: &mut Connection, profile: &Profile) -> Result<(), Error> {
    let result = sqlx::query(
        "UPDATE profiles SET description = $2, cpu_millis = $3, memory_bytes = $4, pids = $5, disk_bytes = $6, updated_at = $7
         WHERE id = $1",
    )
    .bind(profile.id.to_string())
    .bind(&profile.description)
    .bind(i64::from(profile.limits.cpu_millis))
    .bind(signed(profile.limits.memory_bytes))
    .bind(i64::from(profile.limits.pids))
    .bind(signed(profile.limits.disk_bytes))
    .bind(profile.updated_at)
    .execute(connection)
    .await
    .during("change the profile")?;
    touched(&result, "change the profile")
}

pub async fn remove(connection: &mut Connection, id: ProfileId) -> Result<(), Error> {
    let result =
        sqlx::query("DELETE FROM profiles WHERE id = $1").bind(id.to_string()).execute(connection).await.during("remove the profile")?;
    touched(&result, "remove the profile")
}
