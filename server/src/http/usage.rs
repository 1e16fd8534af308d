//! What berths use.

use axum::{Json as Answer, extract::State, http::StatusCode};
use berth_api as api;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Api, convert,
    error::{Error, Failure},
    extract::{Path, Query},
    limits,
};
use crate::{
    domain::{Caller, Refusal, Stall, Usage, UsagePoint},
    service::BerthUse,
};

/// Whose.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageQuery {
    /// Only the berth of this user.
    user: Option<String>,
}

/// Shows what the berths that are up use, read from the kernel now; a user without a role sees his own.
#[utoipa::path(get, path = "/usage", tag = "berths", params(UsageQuery), responses((status = 200, body = api::UsageList), Failure))]
pub(super) async fn list_usage(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<UsageQuery>,
) -> Result<Answer<api::UsageList>, Error> {
    let all = api.service.usage(&caller, query.user.as_deref()).await?;
    Ok(Answer(api::UsageList { items: all.into_iter().map(of_berth).collect() }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ChartQuery {
    /// After this time; milliseconds since the epoch. The last 24 hours unless set.
    since: Option<i64>,
    /// Points at most: 1 to 1440, 300 unless set.
    #[param(minimum = 1, maximum = 1440)]
    points: Option<u16>,
}

/// Shows what a berth used over the last 24 hours: a sample a minute while it was up, put together to at most `points` of them.
#[utoipa::path(get, path = "/berths/{user}/usage", tag = "berths",
    params(("user" = String, Path, description = "Name of the host account"), ChartQuery),
    responses((status = 200, body = api::UsageChart), Failure))]
pub(super) async fn show_usage(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<String>,
    Query(query): Query<ChartQuery>,
) -> Result<Answer<api::UsageChart>, Error> {
    const DEFAULT: u16 = 300;
    const MOST: u16 = 1_440;
    let most = query.points.unwrap_or(DEFAULT);
    if !(1..=MOST).contains(&most) {
        let detail = format!("points is {most}, it must lie between 1 and {MOST}");
        return Err(Error::new(StatusCode::BAD_REQUEST, Refusal::Invalid, "invalid_query", detail));
    }
    let points = api.service.usage_since(&caller, &user, query.since, most.into()).await?;
    Ok(Answer(api::UsageChart { items: points.into_iter().map(point).collect() }))
}

fn point(point: UsagePoint) -> api::UsagePoint {
    let UsagePoint { at, memory_bytes, disk_bytes, pids, rates } = point;
    api::UsagePoint {
        at,
        memory_bytes,
        disk_bytes,
        pids,
        cpu_millis: rates.map(|rates| rates.cpu_millis),
        io_read_bps: rates.map(|rates| rates.io_read_bps),
        io_write_bps: rates.map(|rates| rates.io_write_bps),
        egress_bps: rates.map(|rates| rates.egress_bps),
        ingress_bps: rates.map(|rates| rates.ingress_bps),
    }
}

fn of_berth(one: BerthUse) -> api::BerthUsage {
    api::BerthUsage {
        user: one.sample.user,
        id: one.sample.id.0,
        state: convert::told_state(one.sample.state),
        at: one.sample.at,
        limits: limits::shown(one.limits),
        usage: usage(one.sample.usage),
    }
}

pub(super) fn usage(usage: Usage) -> api::Usage {
    let Usage { memory_bytes, swap_bytes, pids, cpu_usec, throttled_usec, oom_kills, disk_bytes, disk, io, network, pressure } = usage;
    api::Usage {
        memory_bytes,
        swap_bytes,
        pids,
        cpu_usec,
        throttled_usec,
        oom_kills,
        disk_bytes,
        disk: disk.map(|disk| api::DiskUsage {
            used_bytes: disk.used_bytes,
            limit_bytes: disk.limit_bytes,
            used_inodes: disk.used_inodes,
            limit_inodes: disk.limit_inodes,
        }),
        io: api::IoUsage { read_bytes: io.read_bytes, write_bytes: io.write_bytes, read_ops: io.read_ops, write_ops: io.write_ops },
        network: api::NetworkUsage { egress_bytes: network.egress_bytes, ingress_bytes: network.ingress_bytes },
        pressure: pressure.map(|pressure| api::Pressure {
            cpu: stall(pressure.cpu),
            memory: stall(pressure.memory),
            io: stall(pressure.io),
        }),
    }
}

fn stall(stall: Stall) -> api::Stall {
    let Stall { some_avg10, some_avg60, full_avg10, full_avg60 } = stall;
    api::Stall { some_avg10, some_avg60, full_avg10, full_avg60 }
}
