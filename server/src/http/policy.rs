//! Policies between what clients say and the domain.

use berth_api as api;

use crate::domain::{Egress, HomeAccess, HostPolicy, InvalidEgress, OpenTo, PolicyChange, PortRange, Restart, SharedPath};

pub(super) fn shown(policy: HostPolicy) -> api::Policy {
    api::Policy {
        home: match policy.home {
            HomeAccess::Rw => api::HomeAccess::Rw,
            HomeAccess::Ro => api::HomeAccess::Ro,
            HomeAccess::None => api::HomeAccess::None,
        },
        paths: policy.paths.into_iter().map(|shared| api::SharedPath { path: shared.path, read_only: shared.read_only }).collect(),
        ports: policy.ports.map(|range| api::PortRange { first: range.first, last: range.last }),
        ports_open_to: match policy.ports_open_to {
            OpenTo::User => api::OpenTo::User,
            OpenTo::Host => api::OpenTo::Host,
        },
        freeze_after: policy.freeze_after,
        stop_after: policy.stop_after,
        egress: match policy.egress {
            Egress::All => api::Egress::All,
            Egress::Internet => api::Egress::Internet,
            Egress::None => api::Egress::None,
            Egress::List(cidrs) => api::Egress::List(cidrs.iter().map(ToString::to_string).collect()),
        },
        restart: match policy.restart {
            Restart::OnFailure => api::Restart::OnFailure,
            Restart::Never => api::Restart::Never,
        },
    }
}

pub(super) fn egress(egress: api::Egress) -> Result<Egress, InvalidEgress> {
    Ok(match egress {
        api::Egress::All => Egress::All,
        api::Egress::Internet => Egress::Internet,
        api::Egress::None => Egress::None,
        api::Egress::List(cidrs) if cidrs.len() > Egress::MOST_CIDRS => return Err(InvalidEgress::TooMany(cidrs.len())),
        api::Egress::List(cidrs) => Egress::List(cidrs.iter().map(|text| text.parse()).collect::<Result<_, _>>()?),
    })
}

pub(super) fn asked(change: api::PolicyChange) -> Result<PolicyChange, InvalidEgress> {
    Ok(PolicyChange {
        home: change.home.map(|home| match home {
            api::HomeAccess::Rw => HomeAccess::Rw,
            api::HomeAccess::Ro => HomeAccess::Ro,
            api::HomeAccess::None => HomeAccess::None,
        }),
        paths: change
            .paths
            .map(|paths| paths.into_iter().map(|shared| SharedPath { path: shared.path, read_only: shared.read_only }).collect()),
        ports: change.ports.map(|ports| ports.map(|range| PortRange { first: range.first, last: range.last })),
        ports_open_to: change.ports_open_to.map(|open_to| match open_to {
            api::OpenTo::User => OpenTo::User,
            api::OpenTo::Host => OpenTo::Host,
        }),
        freeze_after: change.freeze_after,
        stop_after: change.stop_after,
        egress: change.egress.map(egress).transpose()?,
        restart: change.restart.map(|restart| match restart {
            api::Restart::OnFailure => Restart::OnFailure,
            api::Restart::Never => Restart::Never,
        }),
    })
}
