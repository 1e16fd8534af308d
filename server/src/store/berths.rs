//! Berths: intent, and what the node last reported.

use sqlx::FromRow;

use super::{
    Connection, During, Error, Query, events, from_json, id, limits, profiles::PolicyRow, query, samples, signed, to_json, touched,
    unsigned, variant,
};
use crate::domain::{
    Berth, BerthId, EventKind, Grant, HostPolicy, Limits, NewEvent, Own, Problem, ProfileId, Rebuild, Status, Suspension, UserId, UserName,
    Wanted, effective,
};

const TABLE: &str = "berths";

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT b.id, b.user_id, u.name AS user_name, u.uid AS user_uid, b.profile_id, p.name AS profile_name, b.image, b.image_name, ",
            limits::of_berth!(),
            ", ",
            limits::of_profile!(),
            ", p.home, p.paths, p.ports_first, p.ports_last, p.ports_open_to, p.freeze_after, p.stop_after, p.egress, p.restart, b.suspended,
                    b.suspended_by, b.suspended_at, b.ends_at, b.ended, b.profile_named, b.grants, b.allow_system, b.wanted, b.restart_after, b.rebuild_at, b.rebuild_wipe, b.generation, b.applied, b.status, b.problem,
                    b.observed_at, b.created_at, b.updated_at
             FROM berths b JOIN users u ON u.id = b.user_id JOIN profiles p ON p.id = b.profile_id ",
            $tail
        )
    };
}

#[derive(FromRow)]
pub(super) struct Row {
    id: String,
    user_id: String,
    user_name: String,
    user_uid: i64,
    profile_id: String,
    profile_name: String,
    image: String,
    image_name: String,
    #[sqlx(flatten)]
    own: limits::OwnRow,
    #[sqlx(flatten)]
    limits: limits::ProfileRow,
    #[sqlx(flatten)]
    policy: PolicyRow,
    suspended: Option<String>,
    suspended_by: Option<String>,
    suspended_at: Option<i64>,
    ends_at: Option<i64>,
    ended: bool,
    profile_named: bool,
    grants: Option<String>,
    allow_system: bool,
    wanted: String,
    restart_after: Option<i64>,
    rebuild_at: Option<i64>,
    rebuild_wipe: Option<bool>,
    generation: i64,
    applied: i64,
    status: Option<String>,
    problem: Option<String>,
    observed_at: Option<i64>,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<Row> for Berth {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let own = Own::try_from(row.own)?;
        let policy = HostPolicy::try_from(row.policy)?;
        let base = own.limits.over(row.limits.try_into()?);
        let grants: Vec<Grant> = row.grants.map(|text| from_json(TABLE, "grants", text)).transpose()?.unwrap_or_default();
        Ok(Self {
            id: BerthId(id(TABLE, row.id)?),
            user_id: UserId(id(TABLE, row.user_id)?),
            user: row.user_name.parse().map_err(|_| Error::Corrupt { table: "users", column: "name", value: row.user_name })?,
            uid: unsigned("users", "uid", row.user_uid)?,
            profile_id: ProfileId(id(TABLE, row.profile_id)?),
            profile: row.profile_name,
            image: row.image,
            image_name: row.image_name,
            limits: effective(base, &grants),
            base,
            grants,
            policy: HostPolicy { egress: own.egress.clone().unwrap_or(policy.egress), ..policy },
            own,
            suspension: row.suspended.map(|reason| Suspension {
                reason,
                by: row.suspended_by.unwrap_or_default(),
                since: row.suspended_at.unwrap_or_default(),
            }),
            until: row.ends_at,
            ended: row.ended && row.suspended_at.is_some(),
            profile_named: row.profile_named,
            allow_system: row.allow_system,
            wanted: variant(&Wanted::ALL, Wanted::as_str, TABLE, "wanted", row.wanted)?,
            restart_after: row.restart_after,
            rebuild_at: row.rebuild_at,
            rebuild_wipe: row.rebuild_wipe,
            generation: row.generation,
            applied: row.applied,
            status: row.status.map(|text| from_json(TABLE, "status", text)).transpose()?,
            problem: row.problem.map(|text| from_json(TABLE, "problem", text)).transpose()?,
            observed_at: row.observed_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// A berth that is about to be stored; its first generation is 1, of which nothing is applied.
#[derive(Clone, Debug)]
pub struct NewBerth<'a> {
    pub id: BerthId,
    pub user: UserId,
    pub profile: ProfileId,
    pub image: &'a str,
    pub image_name: &'a str,
    pub own: &'a Own,
    pub allow_system: bool,
    pub wanted: Wanted,
    pub now: i64,
}

pub async fn insert(connection: &mut Connection, berth: &NewBerth<'_>) -> Result<(), Error> {
    let query = query(concat!(
        "INSERT INTO berths (id, user_id, ",
        limits::columns!(),
        ", egress, profile_id, image, image_name, allow_system, wanted, generation, applied, state, created_at, updated_at, user_name)
         VALUES ($1, $2, ",
        limits::values!(),
        ", $17, $18, $19, $20, $21, $22, 1, 0, 'stopped', $23, $23, (SELECT u.name FROM users u WHERE u.id = $2))",
    ));
    limits::bind_own(query.bind(berth.id.to_string()).bind(berth.user.to_string()), berth.own)
        .bind(berth.profile.to_string())
        .bind(berth.image)
        .bind(berth.image_name)
        .bind(berth.allow_system)
        .bind(berth.wanted.as_str())
        .bind(berth.now)
        .execute(connection)
        .await
        .during("store the berth")?;
    tell(connection, berth.id, berth.now).await
}

/// Says that a berth has changed. The state of one that the node has not told of yet comes from the intent.
async fn tell(connection: &mut Connection, id: BerthId, now: i64) -> Result<(), Error> {
    query(
        "UPDATE berths SET state = CASE WHEN problem IS NOT NULL THEN 'failed' WHEN wanted = 'running' THEN 'starting'
                                        WHEN wanted = 'deleted' THEN 'stopping' ELSE 'stopped' END
         WHERE id = $1 AND status IS NULL",
    )
    .bind(id.to_string())
    .execute(connection)
    .await
    .during("keep the state of the berth")?;
    let row: Option<(String, String)> = query("SELECT user_name, state FROM berths WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await
        .during("look up a berth")?;
    match row {
        Some((user, state)) => {
            let event = NewEvent { state: Some(&state), ..NewEvent::own(EventKind::BerthChanged, &user) };
            events::note(connection, now, event).await
        }
        None => Ok(()),
    }
}

/// Berths with all that belongs to them; what narrows them is to be added.
pub(super) fn selected() -> Query {
    query(select!(""))
}

pub async fn by_user(connection: &mut Connection, user: &UserName) -> Result<Option<Berth>, Error> {
    let row: Option<Row> =
        query(select!("WHERE u.name = $1")).bind(user.as_str()).fetch_optional(connection).await.during("look up a berth")?;
    row.map(Berth::try_from).transpose()
}

pub async fn by_id(connection: &mut Connection, id: BerthId) -> Result<Option<Berth>, Error> {
    let row: Option<Row> =
        query(select!("WHERE b.id = $1")).bind(id.to_string()).fetch_optional(connection).await.during("look up a berth")?;
    row.map(Berth::try_from).transpose()
}

/// Up to `limit` berths whose users come after `after`, in the order of names.
pub async fn page(connection: &mut Connection, after: &str, limit: u32) -> Result<Vec<Berth>, Error> {
    let rows: Vec<Row> = query(select!("WHERE u.name > $1 ORDER BY u.name LIMIT $2"))
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await
        .during("list berths")?;
    rows.into_iter().map(Berth::try_from).collect()
}

/// A berth for which there is something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    pub id: BerthId,
    pub generation: i64,
    /// It was suspended: that waits for nothing else.
    pub urgent: bool,
}

/// Berths for which there is something to do, urgent ones first: a new intent, or nothing known of them on the node.
pub async fn due(connection: &mut Connection) -> Result<Vec<Due>, Error> {
    let rows: Vec<(String, i64, bool)> = query(
        "SELECT id, generation, suspended IS NOT NULL AND wanted <> 'deleted' AND generation > applied AS urgent FROM berths
         WHERE generation > applied OR wanted = 'deleted' OR status IS NULL ORDER BY urgent DESC, id",
    )
    .fetch_all(connection)
    .await
    .during("list what is to be done")?;
    rows.into_iter().map(|(text, generation, urgent)| Ok(Due { id: BerthId(id(TABLE, text)?), generation, urgent })).collect()
}

/// All berths that are not being deleted, in the order of ids.
pub async fn all(connection: &mut Connection) -> Result<Vec<Berth>, Error> {
    let rows: Vec<Row> =
        query(select!("WHERE b.wanted <> 'deleted' ORDER BY b.id")).fetch_all(connection).await.during("list all berths")?;
    rows.into_iter().map(Berth::try_from).collect()
}

/// The berths of a profile that are not being deleted.
pub async fn of_profile(connection: &mut Connection, profile: ProfileId) -> Result<Vec<Berth>, Error> {
    let rows: Vec<Row> = query(select!("WHERE b.profile_id = $1 AND b.wanted <> 'deleted' ORDER BY b.id"))
        .bind(profile.to_string())
        .fetch_all(connection)
        .await
        .during("list the berths of a profile")?;
    rows.into_iter().map(Berth::try_from).collect()
}

/// Bars the berth, or lets it go, and takes back a rebuild that was not done; returns the new generation.
pub async fn suspend(connection: &mut Connection, id: BerthId, suspension: Option<&Suspension>, now: i64) -> Result<i64, Error> {
    let (generation,) = query(
        "UPDATE berths SET suspended = $2, suspended_by = $3, suspended_at = $4, ended = FALSE, rebuild_wipe = NULL,
                generation = generation + 1, updated_at = $5
         WHERE id = $1
         RETURNING generation",
    )
    .bind(id.to_string())
    .bind(suspension.map(|suspension| &suspension.reason))
    .bind(suspension.map(|suspension| &suspension.by))
    .bind(suspension.map(|suspension| suspension.since))
    .bind(now)
    .fetch_one(connection)
    .await
    .during("store the suspension of the berth")?;
    tell(connection, id, now).await?;
    Ok(generation)
}

/// Asks for another state; returns the new generation.
pub async fn want(connection: &mut Connection, id: BerthId, wanted: Wanted, restart_after: Option<i64>, now: i64) -> Result<i64, Error> {
    let (generation,) = query(
        "UPDATE berths SET wanted = $2, restart_after = $3, generation = generation + 1, updated_at = $4 WHERE id = $1
         RETURNING generation",
    )
    .bind(id.to_string())
    .bind(wanted.as_str())
    .bind(restart_after)
    .bind(now)
    .fetch_one(connection)
    .await
    .during("store what is wanted of the berth")?;
    tell(connection, id, now).await?;
    Ok(generation)
}

/// Asks for a fresh root file system with the next generation, or takes that back (`None`).
pub async fn rebuild(connection: &mut Connection, id: BerthId, rebuild: Option<Rebuild>) -> Result<(), Error> {
    query("UPDATE berths SET rebuild_at = COALESCE($2, rebuild_at), rebuild_wipe = $3 WHERE id = $1")
        .bind(id.to_string())
        .bind(rebuild.map(|rebuild| rebuild.at))
        .bind(rebuild.map(|rebuild| rebuild.wipe))
        .execute(connection)
        .await
        .during("store that the berth is to be rebuilt")?;
    Ok(())
}

/// Asks for other limits; returns the new generation.
pub async fn limit(connection: &mut Connection, id: BerthId, profile: ProfileId, own: &Own, now: i64) -> Result<i64, Error> {
    set_limits(connection, id, profile, own, now).await?;
    let (generation,) = query("UPDATE berths SET generation = generation + 1 WHERE id = $1 RETURNING generation")
        .bind(id.to_string())
        .fetch_one(connection)
        .await
        .during("store the limits of the berth")?;
    tell(connection, id, now).await?;
    Ok(generation)
}

/// Puts back the limits that the node has kept after refusing others; asks for nothing. A profile that was deleted meanwhile stays away.
pub async fn restore_limits(connection: &mut Connection, id: BerthId, profile: ProfileId, own: &Own, now: i64) -> Result<(), Error> {
    set_limits(connection, id, profile, own, now).await?;
    tell(connection, id, now).await
}

async fn set_limits(connection: &mut Connection, id: BerthId, profile: ProfileId, own: &Own, now: i64) -> Result<(), Error> {
    let query = query(concat!(
        "UPDATE berths SET profile_id = COALESCE((SELECT p.id FROM profiles p WHERE p.id = $2), profile_id), ",
        limits::assignments!(),
        ", egress = $17, updated_at = $18 WHERE id = $1",
    ));
    let rows = limits::bind_own(query.bind(id.to_string()).bind(profile.to_string()), own).bind(now).execute(connection).await;
    touched(rows.during("store the limits of the berth")?, "store the limits of the berth")
}

/// Asks that every berth of a profile takes on its limits and its policy.
pub async fn touch_profile(connection: &mut Connection, profile: ProfileId, now: i64) -> Result<(), Error> {
    query("UPDATE berths SET generation = generation + 1, updated_at = $2 WHERE profile_id = $1 AND wanted <> 'deleted'")
        .bind(profile.to_string())
        .bind(now)
        .execute(connection)
        .await
        .during("pass the profile's limits on")?;
    Ok(())
}

/// Notes that the node has carried out `generation`, or has finally refused it because of `problem`. What was wanted is no longer pending
/// then, unless something newer is, or a suspension holds it back: a berth that was stopped as asked may wake on its next connection, and
/// nobody stops it again. Nor is a rebuild told twice, to a node whose record might be older than it.
pub async fn applied(
    connection: &mut Connection,
    id: BerthId,
    generation: i64,
    problem: Option<(&Problem, i64)>,
    now: i64,
) -> Result<(), Error> {
    let rows = query(
        "UPDATE berths SET applied = $2, problem = $3, rebuild_wipe = CASE WHEN generation = $2 AND $3 IS NULL THEN NULL ELSE rebuild_wipe END,
                           wanted = CASE WHEN generation = $2 AND wanted <> 'deleted' AND suspended IS NULL THEN 'present' ELSE wanted END
         WHERE id = $1",
    )
    .bind(id.to_string())
    .bind(generation)
    .bind(problem.as_ref().map(to_json))
    .execute(connection)
    .await
    .during("note what the node has done")?;
    touched(rows, "note what the node has done")?;
    tell(connection, id, now).await
}

/// Notes why the intent cannot be carried out for now.
pub async fn set_problem(connection: &mut Connection, id: BerthId, problem: Option<(&Problem, i64)>, now: i64) -> Result<(), Error> {
    query("UPDATE berths SET problem = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(problem.as_ref().map(to_json))
        .execute(connection)
        .await
        .during("note a problem of the berth")?;
    tell(connection, id, now).await
}

/// Forgets why an earlier attempt failed, once the berth works and nothing new is wanted of it.
pub async fn recovered(connection: &mut Connection, id: BerthId, now: i64) -> Result<(), Error> {
    let rows =
        query("UPDATE berths SET problem = NULL WHERE id = $1 AND problem IS NOT NULL AND applied = generation AND wanted = 'present'")
            .bind(id.to_string())
            .execute(connection)
            .await
            .during("note that the berth works")?;
    match rows {
        0 => Ok(()),
        _ => tell(connection, id, now).await,
    }
}

/// Keeps what the node reported; false when that is known already, or no berth has this id. What only tells of use is no event.
pub async fn observe(connection: &mut Connection, status: &Status, now: i64) -> Result<bool, Error> {
    let rows = query(
        "UPDATE berths SET state = $2, status = $3, observed_at = $4, used_memory = $5, used_disk = $6, last_used_at = $7, conditions = $8
         WHERE id = $1 AND (status IS NULL OR status <> $3)",
    )
    .bind(status.id.to_string())
    .bind(status.state.as_str())
    .bind(to_json(status))
    .bind(now)
    .bind(signed(status.used_memory()))
    .bind(signed(status.used_disk()))
    .bind(status.last_used_at.unwrap_or_default())
    .bind(status.conditions.iter().fold(" ".to_owned(), |all, one| all + &one.kind + " "))
    .execute(connection)
    .await
    .during("keep the state of the berth")?;
    if rows == 0 {
        return Ok(false);
    }
    let rows = query("UPDATE berths SET told = $2 WHERE id = $1 AND (told IS NULL OR told <> $2)")
        .bind(status.id.to_string())
        .bind(to_json(&status.told()))
        .execute(connection)
        .await
        .during("keep the state of the berth")?;
    if rows > 0 {
        tell(connection, status.id, now).await?;
    }
    Ok(true)
}

/// Notes that the node knows no such berth.
pub async fn forget_status(connection: &mut Connection, id: BerthId, now: i64) -> Result<(), Error> {
    query(
        "UPDATE berths SET status = NULL, told = NULL, observed_at = $2, used_memory = 0, used_disk = 0, last_used_at = 0, conditions = ' '
         WHERE id = $1",
    )
    .bind(id.to_string())
    .bind(now)
    .execute(connection)
    .await
    .during("keep the state of the berth")?;
    tell(connection, id, now).await
}

/// Ids of berths that the node has reported.
pub async fn observed(connection: &mut Connection) -> Result<Vec<BerthId>, Error> {
    let rows: Vec<(String,)> =
        query("SELECT id FROM berths WHERE status IS NOT NULL").fetch_all(connection).await.during("list observed berths")?;
    rows.into_iter().map(|(text,)| id(TABLE, text).map(BerthId)).collect()
}

pub async fn remove(connection: &mut Connection, id: BerthId, now: i64) -> Result<(), Error> {
    let row: Option<(String,)> = query("DELETE FROM berths WHERE id = $1 RETURNING user_name")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await
        .during("remove the berth")?;
    samples::forget(connection, id).await?;
    match row {
        Some((user,)) => events::note(connection, now, NewEvent::own(EventKind::BerthRemoved, &user)).await,
        None => Ok(()),
    }
}

/// What all berths together were promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub berths: u64,
}

impl Sums {
    /// After the limits of a berth have changed.
    pub fn moved(self, from: Limits, to: Limits) -> Self {
        let other = |sum: u64, from: u64, to: u64| sum.saturating_sub(from).saturating_add(to);
        Self {
            cpu_millis: other(self.cpu_millis, from.cpu_millis.into(), to.cpu_millis.into()),
            memory_bytes: other(self.memory_bytes, from.memory_bytes, to.memory_bytes),
            disk_bytes: other(self.disk_bytes, from.disk_bytes, to.disk_bytes),
            berths: self.berths,
        }
    }

    /// With one berth more.
    pub fn with(self, limits: Limits) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(limits.cpu_millis.into()),
            memory_bytes: self.memory_bytes.saturating_add(limits.memory_bytes),
            disk_bytes: self.disk_bytes.saturating_add(limits.disk_bytes),
            berths: self.berths + 1,
        }
    }
}

/// Sums of the limits in force of all berths that are not being deleted; call it again after a change in the same transaction.
pub async fn sums(connection: &mut Connection) -> Result<Sums, Error> {
    let mut sums = base_sums(connection).await?;
    let rows: Vec<Row> = query(select!("WHERE b.grants IS NOT NULL AND b.wanted <> 'deleted'"))
        .fetch_all(connection)
        .await
        .during("sum up what berths were granted")?;
    for row in rows {
        let berth = Berth::try_from(row)?;
        sums = sums.moved(berth.base, berth.limits);
    }
    Ok(sums)
}

/// The same without what was granted for a while.
async fn base_sums(connection: &mut Connection) -> Result<Sums, Error> {
    let (cpu, memory, disk, berths): (i64, i64, i64, i64) = query(
        "SELECT CAST(COALESCE(SUM(COALESCE(b.cpu_millis, p.cpu_millis)), 0) AS BIGINT),
                CAST(COALESCE(SUM(COALESCE(b.memory_bytes, p.memory_bytes)), 0) AS BIGINT),
                CAST(COALESCE(SUM(COALESCE(b.disk_bytes, p.disk_bytes)), 0) AS BIGINT), COUNT(*)
         FROM berths b JOIN profiles p ON p.id = b.profile_id WHERE b.wanted <> 'deleted'",
    )
    .fetch_one(connection)
    .await
    .during("sum up what berths were promised")?;
    Ok(Sums {
        cpu_millis: unsigned(TABLE, "cpu_millis", cpu)?,
        memory_bytes: unsigned(TABLE, "memory_bytes", memory)?,
        disk_bytes: unsigned(TABLE, "disk_bytes", disk)?,
        berths: unsigned(TABLE, "id", berths)?,
    })
}

/// Users whose berths stand on an image.
pub async fn users_of_image(connection: &mut Connection, digest: &str) -> Result<Vec<String>, Error> {
    let rows: Vec<(String,)> = query("SELECT u.name FROM berths b JOIN users u ON u.id = b.user_id WHERE b.image = $1 ORDER BY u.name")
        .bind(digest)
        .fetch_all(connection)
        .await
        .during("list the berths on an image")?;
    Ok(rows.into_iter().map(|(name,)| name).collect())
}
