//! From the domain to what clients see.

pub(super) mod sign_in;

use berth_api as api;

use super::{error::stored, limits, many, policy, requests, usage};
use crate::{
    domain::{
        AuditRecord, Berth, CallOutcome, CallRecord, Check, CheckLevel, HostPort, HostUser, Kind, Operation, OperationState, Profile,
        PublishedPort, State, Status, TrailRecord, Wanted, Warning,
    },
    service::{AllAccepted, ImageState, NodeSummary, Preview},
};

/// A berth; `down_since` tells since when the node does not answer, so that its last words are not taken for the truth.
pub(super) fn berth(berth: Berth, down_since: Option<i64>) -> api::Berth {
    let state = told_state(berth.shown_state());
    let mut conditions: Vec<_> = berth
        .problem
        .into_iter()
        .map(|(problem, since)| api::Condition { kind: "NotAsWanted".to_owned(), message: problem.detail, since, hint: problem.hint })
        .collect();
    conditions.extend(down_since.map(|since| api::Condition {
        kind: "NodeUnreachable".to_owned(),
        message: "berth-node does not answer; what is shown is what it last said".to_owned(),
        since,
        hint: Some("systemctl status berth-node".to_owned()),
    }));
    conditions.extend(berth.grants.iter().filter_map(|grant| grant.overdue.as_ref()).map(|(problem, since)| api::Condition {
        kind: "FallbackRefused".to_owned(),
        message: format!("what was granted for a while has ended and cannot be taken away yet: {}", problem.detail),
        since: *since,
        hint: Some("use less inside (docker system prune); it is tried again by itself".to_owned()),
    }));
    let status = berth.status;
    conditions.extend(status.iter().flat_map(|status| &status.conditions).map(|one| api::Condition {
        kind: one.kind.clone(),
        message: one.message.clone(),
        since: one.since,
        hint: one.next_step(&berth.user),
    }));
    let known = |read: fn(&Status) -> u32| status.as_ref().map(read);
    api::Berth {
        id: berth.id.0,
        user: berth.user.to_string(),
        uid: berth.uid,
        profile: berth.profile,
        image: api::ImageRef { digest: berth.image, name: berth.image_name },
        limits: limits::shown(berth.limits),
        grants: berth.grants.iter().map(requests::grant).collect(),
        until: berth.until,
        own_limits: berth.own.names().into_iter().map(str::to_owned).collect(),
        wanted: match berth.wanted {
            Wanted::Present => api::WantedState::Present,
            Wanted::Running => api::WantedState::Running,
            Wanted::Stopped => api::WantedState::Stopped,
            Wanted::Deleted => api::WantedState::Deleted,
        },
        state,
        docker_ready: status.as_ref().is_some_and(|status| status.docker_ready),
        conditions,
        policy: policy::shown(berth.policy),
        suspended: berth.suspension.map(|one| api::Suspension { reason: one.reason, by: one.by, since: one.since }),
        sleep: status
            .as_ref()
            .and_then(|status| status.sleep.as_ref())
            .map(|sleep| api::Sleep { since: sleep.since, reason: sleep.reason.clone() }),
        last_used_at: status.as_ref().and_then(|status| status.last_used_at),
        running_containers: status.as_ref().and_then(|status| status.running_containers),
        ports: status.iter().flat_map(|status| &status.ports).map(port).collect(),
        source_ports: status
            .as_ref()
            .and_then(|status| status.source_ports)
            .map(|range| api::PortRange { first: range.first, last: range.last }),
        id_base: known(|status| status.id_base),
        id_count: known(|status| status.id_count),
        pid: status.as_ref().and_then(|status| status.pid),
        started_at: status.as_ref().and_then(|status| status.started_at),
        usage: status.as_ref().and_then(|status| status.usage).map(usage::usage),
        address: status.as_ref().map(|status| status.address.clone()),
        socket: status.map(|status| status.socket),
        observed_at: berth.observed_at,
        created_at: berth.created_at,
        updated_at: berth.updated_at,
    }
}

pub(super) fn told_state(state: State) -> api::BerthState {
    match state {
        State::Stopped => api::BerthState::Stopped,
        State::Starting => api::BerthState::Starting,
        State::Running => api::BerthState::Running,
        State::Frozen => api::BerthState::Frozen,
        State::Stopping => api::BerthState::Stopping,
        State::Suspended => api::BerthState::Suspended,
        State::Failed => api::BerthState::Failed,
    }
}

fn port(port: &PublishedPort) -> api::PublishedPort {
    let (host, host_detail) = match &port.host {
        HostPort::Open => (api::HostPortState::Open, None),
        HostPort::Pending => (api::HostPortState::Pending, None),
        HostPort::Taken { detail } => (api::HostPortState::Taken, Some(detail.clone())),
        HostPort::NotAllowed { detail } => (api::HostPortState::NotAllowed, Some(detail.clone())),
    };
    api::PublishedPort {
        protocol: port.protocol.clone(),
        port: port.port,
        container: port.container.clone(),
        container_port: port.container_port,
        host,
        host_detail,
    }
}

pub(super) fn profile(profile: Profile) -> api::Profile {
    api::Profile {
        id: profile.id.0,
        name: profile.name,
        description: profile.description,
        limits: limits::shown(profile.limits),
        policy: policy::shown(profile.policy),
        berths: profile.berths,
        created_at: profile.created_at,
        updated_at: profile.updated_at,
    }
}

pub(super) fn image(state: ImageState) -> api::Image {
    api::Image {
        digest: state.image.digest,
        name: state.image.name,
        size_bytes: state.image.size_bytes,
        created_at: state.image.created_at,
        default: state.default,
        used_by: state.image.used_by,
    }
}

pub(super) fn operation(operation: Operation) -> api::Operation {
    api::Operation {
        id: operation.id.0,
        kind: match operation.kind {
            Kind::BerthCreate => api::OperationKind::BerthCreate,
            Kind::BerthChange => api::OperationKind::BerthChange,
            Kind::BerthStart => api::OperationKind::BerthStart,
            Kind::BerthStop => api::OperationKind::BerthStop,
            Kind::BerthRestart => api::OperationKind::BerthRestart,
            Kind::BerthRebuild => api::OperationKind::BerthRebuild,
            Kind::BerthDelete => api::OperationKind::BerthDelete,
            Kind::BerthSuspend => api::OperationKind::BerthSuspend,
            Kind::BerthResume => api::OperationKind::BerthResume,
            Kind::BerthRestore => api::OperationKind::BerthRestore,
            Kind::ArchiveRemove => api::OperationKind::ArchiveRemove,
            Kind::ImageBuild => api::OperationKind::ImageBuild,
            Kind::ImageImport => api::OperationKind::ImageImport,
            Kind::ImagePull => api::OperationKind::ImagePull,
            Kind::ImageRemove => api::OperationKind::ImageRemove,
        },
        subject: operation.subject,
        state: match operation.state {
            OperationState::Pending => api::OperationState::Pending,
            OperationState::Running => api::OperationState::Running,
            OperationState::Succeeded => api::OperationState::Succeeded,
            OperationState::Failed => api::OperationState::Failed,
            OperationState::Cancelled => api::OperationState::Cancelled,
        },
        step: operation.step,
        log: operation.log,
        log_lines: operation.log_lines,
        progress: operation.progress.map(|one| api::OperationProgress { done: one.done, total: one.total }),
        result: operation.result,
        problem: operation.problem.map(stored),
        revision: operation.revision,
        actor: operation.actor,
        created_at: operation.created_at,
        updated_at: operation.updated_at,
        finished_at: operation.finished_at,
    }
}

pub(super) fn accepted((accepted, told): (Operation, Vec<Warning>)) -> api::Accepted {
    api::Accepted { operation: operation(accepted), warnings: warnings(told) }
}

pub(super) fn warnings(warnings: Vec<Warning>) -> Vec<api::Warning> {
    warnings.into_iter().map(|warning| api::Warning { code: warning.code.to_owned(), detail: warning.detail }).collect()
}

pub(super) fn preview(preview: Preview) -> api::ChangePreview {
    let waits = |field: &str| preview.waits.iter().find(|one| one.field == field).map(|one| one.reason.clone());
    let changes = preview.changes.into_iter();
    let changes = changes.map(|one| api::FieldChange { waits: waits(&one.field), field: one.field, before: one.before, after: one.after });
    api::ChangePreview { changes: changes.collect(), warnings: warnings(preview.warnings), headroom: many::headroom(preview.headroom) }
}

pub(super) fn all_accepted(accepted: AllAccepted) -> api::AllAccepted {
    api::AllAccepted { operations: accepted.operations.into_iter().map(operation).collect(), unchanged: accepted.unchanged }
}

pub(super) fn audit(record: TrailRecord) -> api::AuditRecord {
    match record {
        TrailRecord::Action(record) => api::AuditRecord::Action(action(record)),
        TrailRecord::Call(record) => api::AuditRecord::Call(call(record)),
    }
}

fn action(record: AuditRecord) -> api::AuditAction {
    api::AuditAction {
        id: record.id.0,
        at: record.at,
        actor: record.actor,
        actor_uid: record.actor_uid,
        role: record.role,
        action: record.action,
        subject_kind: record.subject_kind,
        subject: record.subject,
        details: record.details,
        operation_id: record.operation_id.map(|id| id.0),
        request_id: record.request_id,
    }
}

fn call(record: CallRecord) -> api::AuditCall {
    let CallRecord { id, berth_id, call, .. } = record;
    api::AuditCall {
        id: id.0,
        at: call.at,
        berth_id: berth_id.0,
        user: call.user,
        uid: call.uid,
        pid: call.pid,
        command: call.command,
        method: call.method,
        version: call.version,
        path: call.path,
        image: call.image,
        container: call.container,
        status: call.status,
        request_bytes: call.request_bytes,
        response_bytes: call.response_bytes,
        duration_ms: call.duration_ms,
        outcome: match call.outcome {
            CallOutcome::Answered => api::CallOutcome::Answered,
            CallOutcome::Upgraded => api::CallOutcome::Upgraded,
            CallOutcome::Refused => api::CallOutcome::Refused,
            CallOutcome::Cut => api::CallOutcome::Cut,
            CallOutcome::Unparsed => api::CallOutcome::Unparsed,
            CallOutcome::Lost => api::CallOutcome::Lost,
        },
        lost: (call.lost > 0).then_some(call.lost),
    }
}

pub(super) fn node(summary: NodeSummary) -> api::Node {
    let NodeSummary { info, promised } = summary;
    api::Node {
        hostname: info.hostname,
        version: info.version,
        kernel: info.kernel,
        cgroup: info.cgroup,
        cpus: info.cpus,
        memory_bytes: info.memory_bytes,
        disk_bytes: info.disk_bytes,
        disk_free_bytes: info.disk_free_bytes,
        promised_cpu_millis: promised.cpu_millis,
        promised_memory_bytes: promised.memory_bytes,
        promised_disk_bytes: promised.disk_bytes,
        berths: promised.berths,
    }
}

pub(super) fn user((account, berth): (HostUser, bool)) -> api::User {
    api::User { name: account.name, uid: account.uid, gid: account.gid, home: account.home, system: account.system, berth }
}

pub(super) fn doctor(checks: Vec<Check>) -> api::Doctor {
    let healthy = checks.iter().all(|check| check.level != CheckLevel::Failed);
    let level = |level| match level {
        CheckLevel::Ok => api::CheckLevel::Ok,
        CheckLevel::Warning => api::CheckLevel::Warning,
        CheckLevel::Failed => api::CheckLevel::Failed,
    };
    let checks =
        checks.into_iter().map(|check| api::Check { name: check.name, level: level(check.level), detail: check.detail, fix: check.fix });
    api::Doctor { healthy, checks: checks.collect() }
}
