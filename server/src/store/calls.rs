//! Docker API calls, and up to where each berth's spool of them is stored. Rows are never changed; the oldest go.

use sqlx::FromRow;
use uuid::Uuid;

use super::{Connection, During, Error, Query, Value, id, query, signed, unsigned, variant};
use crate::domain::{AuditId, BerthId, Call, CallOutcome, CallRecord, TrailFilter};

const TABLE: &str = "calls";
/// Rows that one statement adds.
const AT_ONCE: usize = 50;
/// What a row occupies beside its texts: ids and figures in the table and three indexes, as measured.
const OVERHEAD: usize = 330;

#[derive(FromRow)]
struct Row {
    id: String,
    seq: i64,
    at: i64,
    berth_id: String,
    user_name: String,
    user_uid: i64,
    uid: i64,
    pid: i64,
    command: String,
    method: String,
    version: Option<String>,
    path: String,
    image: Option<String>,
    container: Option<String>,
    status: Option<i64>,
    request_bytes: i64,
    response_bytes: i64,
    duration_ms: i64,
    outcome: String,
    lost: i64,
}

impl TryFrom<Row> for CallRecord {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let call = Call {
            at: row.at,
            user: row.user_name,
            uid: unsigned(TABLE, "uid", row.uid)?,
            pid: unsigned(TABLE, "pid", row.pid)?,
            command: row.command,
            method: row.method,
            version: row.version,
            path: row.path,
            image: row.image,
            container: row.container,
            status: row.status.map(|status| unsigned(TABLE, "status", status)).transpose()?,
            request_bytes: unsigned(TABLE, "request_bytes", row.request_bytes)?,
            response_bytes: unsigned(TABLE, "response_bytes", row.response_bytes)?,
            duration_ms: unsigned(TABLE, "duration_ms", row.duration_ms)?,
            outcome: variant(&CallOutcome::ALL, CallOutcome::as_str, TABLE, "outcome", row.outcome)?,
            lost: unsigned(TABLE, "lost", row.lost)?,
        };
        Ok(Self {
            id: AuditId(id(TABLE, row.id)?),
            seq: row.seq,
            berth_id: BerthId(id(TABLE, row.berth_id)?),
            user_uid: unsigned(TABLE, "user_uid", row.user_uid)?,
            call,
        })
    }
}

/// Position behind what is stored of a berth's spool; and whose berth it is, as far as that was ever known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    pub position: u64,
    pub owner: Option<(String, u32)>,
}

pub async fn position(connection: &mut Connection, berth: BerthId) -> Result<Position, Error> {
    let what = "read the position in a spool of calls";
    let kept: Option<(i64, Option<String>, Option<i64>)> = query("SELECT position, user_name, uid FROM call_positions WHERE berth_id = $1")
        .bind(berth.to_string())
        .fetch_optional(&mut *connection)
        .await
        .during(what)?;
    let owner: Option<(String, i64)> =
        query("SELECT users.name, users.uid FROM berths JOIN users ON users.id = berths.user_id WHERE berths.id = $1")
            .bind(berth.to_string())
            .fetch_optional(connection)
            .await
            .during(what)?;
    let (position, name, uid) = kept.unwrap_or_default();
    let owner = owner.or(name.zip(uid)).map(|(name, uid)| Ok((name, unsigned("call_positions", "uid", uid)?))).transpose()?;
    Ok(Position { position: unsigned("call_positions", "position", position)?, owner })
}

pub async fn keep_position(connection: &mut Connection, berth: BerthId, position: &Position, now: i64) -> Result<(), Error> {
    query(
        "INSERT INTO call_positions (berth_id, position, user_name, uid, updated_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (berth_id) DO UPDATE SET position = excluded.position, user_name = excluded.user_name, uid = excluded.uid,
                                              updated_at = excluded.updated_at",
    )
    .bind(berth.to_string())
    .bind(signed(position.position))
    .bind(position.owner.as_ref().map(|(name, _)| name.as_str()))
    .bind(position.owner.as_ref().map(|(_, uid)| i64::from(*uid)))
    .bind(now)
    .execute(connection)
    .await
    .during("store the position in a spool of calls")?;
    Ok(())
}

/// Forgets positions in spools of berths that are gone for so long that their spools are too.
pub async fn prune_positions(connection: &mut Connection, before: i64) -> Result<(), Error> {
    query("DELETE FROM call_positions WHERE updated_at < $1 AND berth_id NOT IN (SELECT id FROM berths)")
        .bind(before)
        .execute(connection)
        .await
        .during("forget positions in spools of calls")?;
    Ok(())
}

/// Adds calls; returns what all calls occupy now, in bytes.
pub async fn insert(connection: &mut Connection, records: &[CallRecord]) -> Result<u64, Error> {
    for part in records.chunks(AT_ONCE) {
        let mut query = query(
            "INSERT INTO calls (id, seq, at, berth_id, user_name, user_uid, uid, pid, command, method, version, path, image, container, status,
                                request_bytes, response_bytes, duration_ms, outcome, lost, size) VALUES ",
        );
        query.push_rows(part.iter().map(row));
        // The text of a full statement is prepared once; what remains comes in too many lengths to be kept.
        let query = if part.len() == AT_ONCE { query } else { query.once() };
        query.execute(connection).await.during("store calls")?;
    }
    add_to_total(connection, signed(records.iter().map(|record| size(&record.call)).sum())).await
}

fn row(CallRecord { id, seq, berth_id, user_uid, call }: &CallRecord) -> [Value; 21] {
    [
        id.to_string().into(),
        (*seq).into(),
        call.at.into(),
        berth_id.to_string().into(),
        text(&call.user).into(),
        i64::from(*user_uid).into(),
        i64::from(call.uid).into(),
        i64::from(call.pid).into(),
        text(&call.command).into(),
        text(&call.method).into(),
        call.version.as_deref().map(text).into(),
        text(&call.path).into(),
        call.image.as_deref().map(text).into(),
        call.container.as_deref().map(text).into(),
        call.status.map(i64::from).into(),
        signed(call.request_bytes).into(),
        signed(call.response_bytes).into(),
        signed(call.duration_ms).into(),
        call.outcome.as_str().into(),
        signed(call.lost).into(),
        signed(size(call)).into(),
    ]
}

/// A NUL that somebody managed to send must not keep all later calls of his from being stored.
fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn size(call: &Call) -> u64 {
    let optional = [&call.version, &call.image, &call.container].into_iter().flatten().map(String::len).sum::<usize>();
    let texts = 2 * call.user.len() + call.command.len() + call.method.len() + call.path.len() + optional;
    (OVERHEAD + texts) as u64
}

async fn add_to_total(connection: &mut Connection, bytes: i64) -> Result<u64, Error> {
    let (total,): (i64,) = query("UPDATE call_totals SET bytes = bytes + $1 WHERE name = 'calls' RETURNING bytes")
        .bind(bytes)
        .fetch_one(connection)
        .await
        .during("count the bytes of calls")?;
    Ok(total.max(0).unsigned_abs())
}

/// What all calls occupy, in bytes.
pub async fn total(connection: &mut Connection) -> Result<u64, Error> {
    let (total,): (i64,) =
        query("SELECT bytes FROM call_totals WHERE name = 'calls'").fetch_one(connection).await.during("read the bytes of calls")?;
    Ok(total.max(0).unsigned_abs())
}

/// The `seq` of the call that was stored last; 0 when there is none.
pub async fn head(connection: &mut Connection) -> Result<i64, Error> {
    let (head,): (Option<i64>,) = query("SELECT MAX(seq) FROM calls").fetch_one(connection).await.during("read the end of the calls")?;
    Ok(head.unwrap_or(0))
}

/// Up to `limit` calls older than `before`, newest first.
pub async fn page(
    connection: &mut Connection,
    filter: &TrailFilter,
    before: Option<AuditId>,
    limit: u32,
) -> Result<Vec<CallRecord>, Error> {
    let mut query = query("SELECT * FROM calls WHERE id < ");
    let until = filter.until.map(floor);
    // "g" sorts after every UUID in text.
    let before = before.map_or_else(|| "g".to_owned(), |id| id.to_string());
    query.push_bind(until.into_iter().chain([before]).min().unwrap_or_default());
    if let Some(since) = filter.since {
        query.push(" AND id >= ").push_bind(floor(since));
    }
    narrow(&mut query, filter);
    query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(limit));
    fetch(connection, query).await
}

/// Up to `limit` calls that were stored after `after` and not after `head`, in the order of storing.
pub async fn stored_between(
    connection: &mut Connection,
    filter: &TrailFilter,
    after: i64,
    head: i64,
    limit: u32,
) -> Result<Vec<CallRecord>, Error> {
    let mut query = query("SELECT * FROM calls WHERE seq > ");
    query.push_bind(after).push(" AND seq <= ").push_bind(head);
    if let Some(since) = filter.since {
        query.push(" AND at >= ").push_bind(since);
    }
    if let Some(until) = filter.until {
        query.push(" AND at < ").push_bind(until);
    }
    // Not the bare column: SQLite would walk all of a user's calls instead of the few new ones.
    narrow_by(&mut query, filter, " AND user_name || '' = ");
    query.push(" ORDER BY seq LIMIT ").push_bind(i64::from(limit));
    fetch(connection, query).await
}

fn narrow(query: &mut Query, filter: &TrailFilter) {
    narrow_by(query, filter, " AND user_name = ");
}

fn narrow_by(query: &mut Query, filter: &TrailFilter, user: &'static str) {
    for name in [&filter.user, &filter.subject].into_iter().flatten() {
        query.push(user).push_bind(name.clone());
    }
    if let Some(uid) = filter.uid {
        query.push(" AND user_uid = ").push_bind(i64::from(uid));
    }
    if let Some(path) = &filter.path {
        query.push(" AND substr(path, 1, length(").push_bind(path.clone()).push(")) = ").push_bind(path.clone());
    }
    if let Some(status) = filter.status {
        query.push(" AND status >= ").push_bind(i64::from(status));
    }
}

async fn fetch(connection: &mut Connection, query: Query) -> Result<Vec<CallRecord>, Error> {
    let rows: Vec<Row> = query.fetch_all(connection).await.during("read calls")?;
    rows.into_iter().map(CallRecord::try_from).collect()
}

/// Drops the oldest `limit` calls, only those of before `before` if given; returns how many went, and what all occupy then.
pub async fn prune(connection: &mut Connection, before: Option<i64>, limit: u32) -> Result<(u64, u64), Error> {
    let before = before.map_or_else(|| "g".to_owned(), floor);
    let gone: Vec<(i64,)> = query("DELETE FROM calls WHERE id IN (SELECT id FROM calls WHERE id < $1 ORDER BY id LIMIT $2) RETURNING size")
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(&mut *connection)
        .await
        .during("drop old calls")?;
    let total = add_to_total(connection, -gone.iter().map(|(size,)| size).sum::<i64>()).await?;
    Ok((gone.len() as u64, total))
}

/// No UUIDv7 of this time or later sorts before it.
fn floor(at: i64) -> String {
    Uuid::from_u128(u128::from(at.clamp(0, MOST_TIME).unsigned_abs()) << 80).to_string()
}

/// What a UUIDv7 can hold, in milliseconds.
const MOST_TIME: i64 = (1 << 48) - 1;

/// The id of a call: a UUIDv7 of its time that sorts the calls of one instant as they were stored.
pub fn call_id(at: i64, seq: i64, berth: BerthId) -> AuditId {
    let time = u128::from(at.clamp(0, MOST_TIME).unsigned_abs());
    let (seq, tail) = (u128::from(seq.unsigned_abs()), berth.0.as_u128());
    let random = ((seq & 0xffff_ffff) << 30) | (tail & 0x3fff_ffff);
    AuditId(Uuid::from_u128((time << 80) | (7 << 76) | (((seq >> 32) & 0xfff) << 64) | (0b10 << 62) | random))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, tests::scratch};

    fn record(seq: i64, at: i64) -> CallRecord {
        let berth = BerthId(Uuid::from_u128(7));
        let call = Call {
            at,
            user: "alice".to_owned(),
            uid: 1000,
            pid: 42,
            command: "docker".to_owned(),
            method: "POST".to_owned(),
            version: Some("1.45".to_owned()),
            path: format!("/containers/{seq:064x}/start?detachKeys="),
            image: Some("docker.io/library/busybox:latest".to_owned()),
            container: Some(format!("{seq:064x}")),
            status: Some(204),
            request_bytes: 1,
            response_bytes: 2,
            duration_ms: 3,
            outcome: CallOutcome::Answered,
            lost: 0,
        };
        CallRecord { id: call_id(at, seq, berth), seq, berth_id: berth, user_uid: 1000, call }
    }

    async fn fill(store: &Store, count: i64, at: i64) {
        for from in (1..=count).step_by(500) {
            let records: Vec<_> = (from..(from + 500).min(count + 1)).map(|seq| record(seq, at + seq)).collect();
            let mut tx = store.begin().await.unwrap();
            insert(&mut tx, &records).await.unwrap();
            store.commit(tx).await.unwrap();
        }
    }

    #[test]
    fn ids_are_uuids_of_the_calls_time_in_the_order_of_storing() {
        let berth = BerthId(Uuid::from_u128(7));
        let at = 1_795_000_000_000;
        let ids = [call_id(at, 5, berth), call_id(at, 1 << 33, berth), call_id(at + 1, 1, berth)];
        assert!(ids.is_sorted());
        let (seconds, nanos) = ids[0].0.get_timestamp().unwrap().to_unix();
        assert_eq!((ids[0].0.get_version_num(), seconds, nanos), (7, 1_795_000_000, 0));
        assert!(floor(at) <= ids[0].to_string() && ids[1].to_string() < floor(at + 1) && floor(-5) < floor(i64::MAX));
    }

    #[tokio::test]
    async fn the_oldest_go_by_time_and_by_number_and_the_total_is_what_the_file_holds() {
        let (directory, store) = scratch().await;
        let pages = async || -> i64 {
            let mut reader = store.reader().await.unwrap();
            let (bytes,) =
                query("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()").fetch_one(&mut reader).await.unwrap();
            bytes
        };
        let empty = pages().await;
        fill(&store, 10_000, 1_795_000_000_000).await;
        let mut tx = store.begin().await.unwrap();
        let (all, held) = (total(&mut tx).await.unwrap() as f64, (pages().await - empty) as f64);
        assert!((0.75..1.33).contains(&(all / held)), "counted {all}, on disk {held}");
        assert_eq!(prune(&mut tx, Some(1_795_000_000_000 + 101), 1000).await.unwrap().0, 100);
        let (gone, left) = prune(&mut tx, None, 900).await.unwrap();
        assert_eq!((gone, left), (900, (all * 0.9) as u64));
        let oldest = page(&mut tx, &TrailFilter::default(), None, 20_000).await.unwrap();
        assert_eq!((oldest.len(), oldest.last().unwrap().seq), (9_000, 1_001));
        drop(directory);
    }

    /// A million of them with `BERTH_TEST_LONG=1`, best `--release`; `--nocapture` shows the figures.
    #[tokio::test]
    async fn the_latest_of_many_calls_are_read_in_milliseconds() {
        let count = if std::env::var_os("BERTH_TEST_LONG").is_some() { 1_000_000 } else { 20_000 };
        let (_directory, store) = scratch().await;
        let start = std::time::Instant::now();
        fill(&store, count, 1_795_000_000_000).await;
        println!("stored: {:.0} rows a second", count as f64 / start.elapsed().as_secs_f64());
        let mut reader = store.reader().await.unwrap();
        let user = Some("alice".to_owned());
        for (name, filter, wanted, most) in [
            ("all", TrailFilter::default(), 101, 100),
            ("one user", TrailFilter { user, ..TrailFilter::default() }, 101, 100),
            ("no such status", TrailFilter { status: Some(500), ..TrailFilter::default() }, 0, 20_000),
        ] {
            let start = std::time::Instant::now();
            let found = page(&mut reader, &filter, None, 101).await.unwrap().len();
            let took = start.elapsed();
            println!("{name}: {found} rows in {:.1} ms", took.as_secs_f64() * 1e3);
            assert!(found == wanted && took.as_millis() < most, "{name}: {found} rows in {took:?}");
        }
        let start = std::time::Instant::now();
        let (head, filter) = (head(&mut reader).await.unwrap(), TrailFilter { user: Some("alice".to_owned()), ..TrailFilter::default() });
        assert_eq!(stored_between(&mut reader, &filter, head - 5, head, 100).await.unwrap().len(), 5);
        assert!(start.elapsed().as_millis() < 100, "a follower's look took {:?}", start.elapsed());
    }
}
