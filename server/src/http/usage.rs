//! What berths use.

use axum::{Json as Answer, extract::State};
use berth_api as api;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Api, convert,
    error::{Error, Failure},
    extract::Query,
    limits,
};
use crate::{
    domain::{Caller, Stall, Usage},
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
