//! What berths used, minute by minute: a ring of [`SLOTS`] rows per berth, so that nothing grows.

use sqlx::FromRow;

use super::{Connection, During, Error, connection::Value, query, signed, unsigned};
use crate::domain::{BerthId, Sample, UsageSample};

const TABLE: &str = "usage_samples";
/// Minutes of a day.
const SLOTS: i64 = 1_440;
const MINUTE: i64 = 60_000;
/// Rows are kept so long (milliseconds).
pub const KEEP_FOR: i64 = SLOTS * MINUTE;
/// Rows of one statement.
const AT_ONCE: usize = 100;

#[derive(FromRow)]
struct Row {
    at: i64,
    cpu_usec: i64,
    memory_bytes: i64,
    disk_bytes: i64,
    pids: i64,
    io_read_bytes: i64,
    io_write_bytes: i64,
    egress_bytes: i64,
    ingress_bytes: i64,
}

impl TryFrom<Row> for UsageSample {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let figure = |column, value| unsigned(TABLE, column, value);
        Ok(Self {
            at: row.at,
            cpu_usec: figure("cpu_usec", row.cpu_usec)?,
            memory_bytes: figure("memory_bytes", row.memory_bytes)?,
            disk_bytes: figure("disk_bytes", row.disk_bytes)?,
            pids: figure("pids", row.pids)?,
            io_read_bytes: figure("io_read_bytes", row.io_read_bytes)?,
            io_write_bytes: figure("io_write_bytes", row.io_write_bytes)?,
            egress_bytes: figure("egress_bytes", row.egress_bytes)?,
            ingress_bytes: figure("ingress_bytes", row.ingress_bytes)?,
        })
    }
}

/// Keeps one sample of each berth for this minute, in the place of yesterday's.
pub async fn keep(connection: &mut Connection, samples: &[Sample], now: i64) -> Result<(), Error> {
    let slot = (now / MINUTE) % SLOTS;
    for some in samples.chunks(AT_ONCE) {
        let mut statement = query(
            "INSERT INTO usage_samples (berth_id, slot, at, cpu_usec, memory_bytes, disk_bytes, pids, io_read_bytes, io_write_bytes,
                                        egress_bytes, ingress_bytes) VALUES ",
        );
        statement.push_rows(some.iter().map(|one| {
            let usage = &one.usage;
            let figures = [
                usage.cpu_usec,
                usage.memory_bytes,
                usage.disk_bytes,
                usage.pids,
                usage.io.read_bytes,
                usage.io.write_bytes,
                usage.network.egress_bytes,
                usage.network.ingress_bytes,
            ];
            let [cpu, memory, disk, pids, read, write, egress, ingress] = figures.map(|figure| Value::from(signed(figure)));
            [Value::from(one.id.to_string()), Value::from(slot), Value::from(now), cpu, memory, disk, pids, read, write, egress, ingress]
        }));
        statement.push(
            " ON CONFLICT (berth_id, slot) DO UPDATE SET at = excluded.at, cpu_usec = excluded.cpu_usec,
                memory_bytes = excluded.memory_bytes, disk_bytes = excluded.disk_bytes, pids = excluded.pids,
                io_read_bytes = excluded.io_read_bytes, io_write_bytes = excluded.io_write_bytes,
                egress_bytes = excluded.egress_bytes, ingress_bytes = excluded.ingress_bytes",
        );
        statement.once().execute(connection).await.during("keep samples of use")?;
    }
    Ok(())
}

/// Samples of a berth after `since`, oldest first.
pub async fn since(connection: &mut Connection, id: BerthId, since: i64) -> Result<Vec<UsageSample>, Error> {
    let rows: Vec<Row> = query("SELECT * FROM usage_samples WHERE berth_id = $1 AND at > $2 ORDER BY at")
        .bind(id.to_string())
        .bind(since)
        .fetch_all(connection)
        .await
        .during("read samples of use")?;
    rows.into_iter().map(UsageSample::try_from).collect()
}

/// Drops those of a berth that is gone.
pub(super) async fn forget(connection: &mut Connection, id: BerthId) -> Result<(), Error> {
    query("DELETE FROM usage_samples WHERE berth_id = $1").bind(id.to_string()).execute(connection).await.during("drop samples of use")?;
    Ok(())
}

/// Drops what is past its time, of berths that have not been up since.
pub async fn prune(connection: &mut Connection, now: i64) -> Result<u64, Error> {
    query("DELETE FROM usage_samples WHERE at < $1").bind(now - KEEP_FOR).execute(connection).await.during("drop samples of use")
}
