//! Profiles.

use sqlx::FromRow;

use super::{Connection, During, Error, from_json, id, signed, to_json, touched, unsigned, variant};
use crate::domain::{HomeAccess, HostPolicy, Limits, OpenTo, PortRange, Profile, ProfileId, ProfileName};

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT p.id, p.name, p.description, p.cpu_millis, p.memory_bytes, p.pids, p.disk_bytes, p.home, p.paths, p.ports_first, p.ports_last,
                    p.ports_open_to, p.freeze_after, p.stop_after, p.created_at, p.updated_at,
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
    #[sqlx(flatten)]
    policy: PolicyRow,
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
            policy: row.policy.try_into()?,
            berths: unsigned("profiles", "berths", row.berths)?,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// The policy's columns, also where a berth is read with its profile.
#[derive(FromRow)]
pub(super) struct PolicyRow {
    home: String,
    paths: String,
    ports_first: Option<i64>,
    ports_last: Option<i64>,
    ports_open_to: String,
    freeze_after: Option<i64>,
    stop_after: Option<i64>,
}

impl TryFrom<PolicyRow> for HostPolicy {
    type Error = Error;

    fn try_from(row: PolicyRow) -> Result<Self, Error> {
        Ok(Self {
            home: variant(&HomeAccess::ALL, HomeAccess::as_str, "profiles", "home", row.home)?,
            paths: from_json("profiles", "paths", row.paths)?,
            ports: match (row.ports_first, row.ports_last) {
                (Some(first), Some(last)) => {
                    Some(PortRange { first: unsigned("profiles", "ports_first", first)?, last: unsigned("profiles", "ports_last", last)? })
                }
                _ => None,
            },
            ports_open_to: variant(&OpenTo::ALL, OpenTo::as_str, "profiles", "ports_open_to", row.ports_open_to)?,
            freeze_after: row.freeze_after.map(|value| unsigned("profiles", "freeze_after", value)).transpose()?,
            stop_after: row.stop_after.map(|value| unsigned("profiles", "stop_after", value)).transpose()?,
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
        "INSERT INTO profiles (id, name, description, cpu_millis, memory_bytes, pids, disk_bytes, created_at, updated_at, home, paths,
                               ports_first, ports_last, ports_open_to, freeze_after, stop_after)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
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
    .bind(profile.policy.home.as_str())
    .bind(to_json(&profile.policy.paths))
    .bind(profile.policy.ports.map(|range| i64::from(range.first)))
    .bind(profile.policy.ports.map(|range| i64::from(range.last)))
    .bind(profile.policy.ports_open_to.as_str())
    .bind(profile.policy.freeze_after.map(i64::from))
    .bind(profile.policy.stop_after.map(i64::from))
    .execute(connection)
    .await
    .during("store the profile")?;
    Ok(())
}

pub async fn update(connection: &mut Connection, profile: &Profile) -> Result<(), Error> {
    let result = sqlx::query(
        "UPDATE profiles SET description = $2, cpu_millis = $3, memory_bytes = $4, pids = $5, disk_bytes = $6, updated_at = $7, home = $8,
                             paths = $9, ports_first = $10, ports_last = $11, ports_open_to = $12, freeze_after = $13, stop_after = $14
         WHERE id = $1",
    )
    .bind(profile.id.to_string())
    .bind(&profile.description)
    .bind(i64::from(profile.limits.cpu_millis))
    .bind(signed(profile.limits.memory_bytes))
    .bind(i64::from(profile.limits.pids))
    .bind(signed(profile.limits.disk_bytes))
    .bind(profile.updated_at)
    .bind(profile.policy.home.as_str())
    .bind(to_json(&profile.policy.paths))
    .bind(profile.policy.ports.map(|range| i64::from(range.first)))
    .bind(profile.policy.ports.map(|range| i64::from(range.last)))
    .bind(profile.policy.ports_open_to.as_str())
    .bind(profile.policy.freeze_after.map(i64::from))
    .bind(profile.policy.stop_after.map(i64::from))
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
