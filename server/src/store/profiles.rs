//! Profiles.

use sqlx::FromRow;

use super::{Connection, During, Error, Query, events, from_json, id, limits, query, to_json, touched, unsigned, variant};
use crate::domain::{EventKind, HomeAccess, HostPolicy, NewEvent, OpenTo, PortRange, Profile, ProfileId, ProfileName, Restart};

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT p.id, p.name, p.description, ",
            limits::of_profile!(),
            ", p.home, p.paths, p.ports_first, p.ports_last, p.ports_open_to, p.freeze_after, p.stop_after, p.egress, p.restart, p.created_at,
                    p.updated_at, (SELECT COUNT(*) FROM berths b WHERE b.profile_id = p.id) AS berths FROM profiles p ",
            $tail
        )
    };
}

#[derive(FromRow)]
struct Row {
    id: String,
    name: String,
    description: String,
    #[sqlx(flatten)]
    limits: limits::ProfileRow,
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
            limits: row.limits.try_into()?,
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
    egress: String,
    restart: String,
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
            egress: from_json("profiles", "egress", row.egress)?,
            restart: variant(&Restart::ALL, Restart::as_str, "profiles", "restart", row.restart)?,
        })
    }
}

pub async fn by_name(connection: &mut Connection, name: &ProfileName) -> Result<Option<Profile>, Error> {
    let row: Option<Row> =
        query(select!("WHERE p.name = $1")).bind(name.as_str()).fetch_optional(connection).await.during("look up a profile")?;
    row.map(Profile::try_from).transpose()
}

pub async fn by_id(connection: &mut Connection, id: ProfileId) -> Result<Option<Profile>, Error> {
    let row: Option<Row> =
        query(select!("WHERE p.id = $1")).bind(id.to_string()).fetch_optional(connection).await.during("look up a profile")?;
    row.map(Profile::try_from).transpose()
}

/// Up to `limit` profiles whose names come after `after`.
pub async fn page(connection: &mut Connection, after: &str, limit: u32) -> Result<Vec<Profile>, Error> {
    let rows: Vec<Row> = query(select!("WHERE p.name > $1 ORDER BY p.name LIMIT $2"))
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await
        .during("list profiles")?;
    rows.into_iter().map(Profile::try_from).collect()
}

/// Stores a new profile; [`Error::Exists`] when the name is taken.
pub async fn insert(connection: &mut Connection, profile: &Profile) -> Result<(), Error> {
    let query = query(concat!(
        "INSERT INTO profiles (id, name, ",
        limits::columns!(),
        ", description, home, paths, ports_first, ports_last, ports_open_to, freeze_after, stop_after, egress, restart, updated_at, created_at)
         VALUES ($1, $2, ",
        limits::values!(),
        ", $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28)",
    ));
    bind(query, profile).bind(profile.created_at).execute(connection).await.during("store the profile")?;
    events::note(connection, profile.updated_at, NewEvent::new(EventKind::ProfileChanged, &profile.name)).await
}

pub async fn update(connection: &mut Connection, profile: &Profile) -> Result<(), Error> {
    let query = query(concat!(
        "UPDATE profiles SET name = $2, ",
        limits::assignments!(),
        ", description = $17, home = $18, paths = $19, ports_first = $20, ports_last = $21, ports_open_to = $22, freeze_after = $23,
           stop_after = $24, egress = $25, restart = $26, updated_at = $27
         WHERE id = $1",
    ));
    let rows = bind(query, profile).execute(connection).await.during("change the profile")?;
    touched(rows, "change the profile")?;
    events::note(connection, profile.updated_at, NewEvent::new(EventKind::ProfileChanged, &profile.name)).await
}

/// Binds all but the time of making, which is last.
fn bind(query: Query, profile: &Profile) -> Query {
    let policy = &profile.policy;
    limits::bind(query.bind(profile.id.to_string()).bind(profile.name.clone()), &profile.limits)
        .bind(profile.description.clone())
        .bind(policy.home.as_str())
        .bind(to_json(&policy.paths))
        .bind(policy.ports.map(|range| i64::from(range.first)))
        .bind(policy.ports.map(|range| i64::from(range.last)))
        .bind(policy.ports_open_to.as_str())
        .bind(policy.freeze_after.map(i64::from))
        .bind(policy.stop_after.map(i64::from))
        .bind(to_json(&policy.egress))
        .bind(policy.restart.as_str())
        .bind(profile.updated_at)
}

pub async fn remove(connection: &mut Connection, profile: &Profile, now: i64) -> Result<(), Error> {
    let rows =
        query("DELETE FROM profiles WHERE id = $1").bind(profile.id.to_string()).execute(connection).await.during("remove the profile")?;
    touched(rows, "remove the profile")?;
    events::note(connection, now, NewEvent::new(EventKind::ProfileRemoved, &profile.name)).await
}
