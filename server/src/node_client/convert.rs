//! Between the node's wire types and the domain.

use berth_protocol as wire;

use crate::domain::{
    BerthId, Check, CheckLevel, Condition, Egress, Ensure, EnsureWanted, ExecCommand, HomeAccess, HostPolicy, HostPort, HostUser, Image,
    Limits, Member, NodeInfo, OpenTo, PortRange, Problem, Progress, PublishedPort, Refusal, Restart, Sleep, State, Status, Usage,
};

pub(super) fn problem(status: u16, problem: wire::Problem) -> Problem {
    let refusal = match status {
        400 | 405 | 413 | 415 => Refusal::Invalid,
        401 | 403 => Refusal::NotPermitted,
        404 => Refusal::NotFound,
        409 => Refusal::Conflict,
        422 | 507 => Refusal::Limit,
        429 | 503 => Refusal::Unavailable,
        504 => Refusal::TimedOut,
        _ => Refusal::Failed,
    };
    Problem { code: problem.code, detail: problem.detail, hint: problem.hint, refusal }
}

impl From<wire::NodeInfo> for NodeInfo {
    fn from(info: wire::NodeInfo) -> Self {
        Self {
            version: info.version,
            hostname: info.hostname,
            kernel: info.kernel,
            cgroup: info.cgroup,
            cpus: info.cpus,
            memory_bytes: info.memory_bytes,
            disk_bytes: info.disk_bytes,
            disk_free_bytes: info.disk_free_bytes,
        }
    }
}

impl From<wire::HostUser> for HostUser {
    fn from(user: wire::HostUser) -> Self {
        Self { name: user.name, uid: user.uid, gid: user.gid, home: user.home, system: user.system }
    }
}

impl From<wire::Member> for Member {
    fn from(account: wire::Member) -> Self {
        let wire::Member { user, groups, problem: why, .. } = account;
        let status = |why: &wire::Problem| if why.code == "directory_unavailable" { 503 } else { 400 };
        Self { account: user.map(HostUser::from), groups: groups.into_iter().collect(), problem: why.map(|why| problem(status(&why), why)) }
    }
}

impl From<wire::Limits> for Limits {
    fn from(limits: wire::Limits) -> Self {
        let wire::Limits { cpu_millis, cpu_weight, memory_bytes, memory_high_bytes, swap_bytes, pids, disk_bytes, inodes, io, network } =
            limits;
        Self {
            cpu_millis,
            cpu_weight,
            memory_bytes,
            swap_bytes,
            pids,
            disk_bytes,
            memory_high_bytes,
            inodes,
            io_read_bps: io.read_bps,
            io_write_bps: io.write_bps,
            io_read_iops: io.read_iops,
            io_write_iops: io.write_iops,
            network_egress_bits: network.egress_bits,
            network_ingress_bits: network.ingress_bits,
        }
    }
}

impl From<Limits> for wire::Limits {
    fn from(limits: Limits) -> Self {
        let Limits { cpu_millis, cpu_weight, memory_bytes, swap_bytes, pids, disk_bytes, memory_high_bytes, inodes, .. } = limits;
        Self {
            cpu_millis,
            cpu_weight,
            memory_bytes,
            memory_high_bytes,
            swap_bytes,
            pids,
            disk_bytes,
            inodes,
            io: wire::IoLimits {
                read_bps: limits.io_read_bps,
                write_bps: limits.io_write_bps,
                read_iops: limits.io_read_iops,
                write_iops: limits.io_write_iops,
            },
            network: wire::NetworkLimits { egress_bits: limits.network_egress_bits, ingress_bits: limits.network_ingress_bits },
        }
    }
}

impl From<wire::State> for State {
    fn from(state: wire::State) -> Self {
        match state {
            wire::State::Stopped => State::Stopped,
            wire::State::Starting => State::Starting,
            wire::State::Running => State::Running,
            wire::State::Frozen => State::Frozen,
            wire::State::Stopping => State::Stopping,
            wire::State::Suspended => State::Suspended,
            wire::State::Failed => State::Failed,
        }
    }
}

impl From<wire::BerthStatus> for Status {
    fn from(status: wire::BerthStatus) -> Self {
        Self {
            user: status.user,
            id: BerthId(status.id.0),
            state: status.state.into(),
            docker_ready: status.docker_ready,
            conditions: status
                .conditions
                .into_iter()
                .map(|condition| Condition { kind: condition.kind, message: condition.message, since: condition.since })
                .collect(),
            image: status.image,
            limits: status.limits.into(),
            uid: status.uid,
            id_base: status.id_base,
            id_count: status.id_count,
            address: status.address,
            socket: status.socket,
            pid: status.pid,
            started_at: status.started_at,
            usage: status.usage.map(Usage::from),
            suspended: status.suspended,
            sleep: status.sleep.map(|sleep| Sleep { since: sleep.since, reason: sleep.reason }),
            last_used_at: status.last_used_at,
            running_containers: status.running_containers,
            ports: status.ports.into_iter().map(PublishedPort::from).collect(),
            source_ports: status.source_ports.map(|(first, last)| PortRange { first, last }),
        }
    }
}

impl From<wire::PublishedPort> for PublishedPort {
    fn from(port: wire::PublishedPort) -> Self {
        Self {
            protocol: port.protocol,
            port: port.port,
            container: port.container,
            container_port: port.container_port,
            host: match port.host {
                wire::HostPort::Open => HostPort::Open,
                wire::HostPort::Pending => HostPort::Pending,
                wire::HostPort::Taken { detail } => HostPort::Taken { detail },
                wire::HostPort::NotAllowed { detail } => HostPort::NotAllowed { detail },
            },
        }
    }
}

impl From<&HostPolicy> for wire::Policy {
    fn from(policy: &HostPolicy) -> Self {
        Self {
            home: match policy.home {
                HomeAccess::Rw => wire::HomeAccess::Rw,
                HomeAccess::Ro => wire::HomeAccess::Ro,
                HomeAccess::None => wire::HomeAccess::None,
            },
            paths: policy.paths.iter().map(|shared| wire::SharedPath { path: shared.path.clone(), read_only: shared.read_only }).collect(),
            ports: wire::Ports {
                range: policy.ports.map(|range| (range.first, range.last)),
                open_to: match policy.ports_open_to {
                    OpenTo::User => wire::OpenTo::User,
                    OpenTo::Host => wire::OpenTo::Host,
                },
            },
            idle: wire::Idle { freeze_after: policy.freeze_after, stop_after: policy.stop_after },
            restart: match policy.restart {
                Restart::OnFailure => wire::Restart::OnFailure,
                Restart::Never => wire::Restart::Never,
            },
            egress: match &policy.egress {
                Egress::All => wire::Egress::All,
                Egress::Internet => wire::Egress::Internet,
                Egress::None => wire::Egress::None,
                Egress::List(cidrs) => wire::Egress::List { cidrs: cidrs.iter().map(ToString::to_string).collect() },
            },
        }
    }
}

impl From<&Ensure> for wire::Ensure {
    fn from(ensure: &Ensure) -> Self {
        Self {
            id: wire::BerthId(ensure.id.0),
            image: ensure.image.clone(),
            limits: ensure.limits.into(),
            wanted: match ensure.wanted {
                EnsureWanted::Present => wire::Wanted::Present,
                EnsureWanted::Running => wire::Wanted::Running,
                EnsureWanted::Stopped => wire::Wanted::Stopped,
            },
            allow_system: ensure.allow_system,
            policy: wire::Policy::from(&ensure.policy),
            suspended: ensure.suspended.clone(),
            rebuild: ensure.rebuild.map(|rebuild| wire::Rebuild { at: rebuild.at, wipe: rebuild.wipe }),
        }
    }
}

impl From<&ExecCommand> for wire::ExecRequest {
    fn from(command: &ExecCommand) -> Self {
        Self {
            argv: command.argv.clone(),
            env: command.env.clone(),
            cwd: command.cwd.clone(),
            uid: command.uid,
            gid: command.gid,
            tty: command.tty,
            size: command.size,
        }
    }
}

impl From<wire::ImageInfo> for Image {
    fn from(image: wire::ImageInfo) -> Self {
        Self { digest: image.digest, name: image.name, created_at: image.created_at, size_bytes: image.size_bytes, used_by: image.used_by }
    }
}

impl From<wire::ImageProgress> for Progress {
    fn from(progress: wire::ImageProgress) -> Self {
        match progress {
            wire::ImageProgress::Log { line } => Self::Log(line),
            wire::ImageProgress::Done { image } => Self::Done(image.into()),
            wire::ImageProgress::Failed { problem: why } => Self::Failed(problem(500, why)),
        }
    }
}

impl From<wire::Check> for Check {
    fn from(check: wire::Check) -> Self {
        Self {
            name: check.name,
            level: match check.level {
                wire::CheckLevel::Ok => CheckLevel::Ok,
                wire::CheckLevel::Warning => CheckLevel::Warning,
                wire::CheckLevel::Failed => CheckLevel::Failed,
            },
            detail: check.detail,
            fix: check.fix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_and_node_agree_on_least_and_most() {
        assert_eq!(wire::Limits::from(Limits::LEAST), wire::Limits::LEAST);
        assert_eq!(Limits::from(wire::Limits::from(Limits::MOST)), Limits::MOST);
        let sorted = |mut bounds: Vec<_>| {
            bounds.sort_unstable();
            bounds
        };
        assert_eq!(sorted(Limits::MOST.bounds()), sorted(wire::Limits::from(Limits::MOST).bounds().to_vec()));
    }

    #[test]
    fn server_and_node_agree_on_how_a_berth_joins_the_host_unless_told_otherwise() {
        assert_eq!(wire::Policy::from(&HostPolicy::default()), wire::Policy::default());
        let list = Egress::List(vec!["10.0.0.0/8".parse().unwrap()]);
        let asked = wire::Policy::from(&HostPolicy { egress: list, ..HostPolicy::default() });
        assert_eq!(asked.egress.networks().unwrap(), ["10.0.0.0/8".parse().unwrap()]);
    }
}
