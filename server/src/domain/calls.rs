use super::{AuditId, AuditRecord, BerthId};

/// How a Docker API call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    Answered,
    /// The connection became a stream.
    Upgraded,
    /// Berth itself answered.
    Refused,
    /// One side went before the answer was complete.
    Cut,
    /// Not HTTP/1.1 as it is known.
    Unparsed,
    /// Not a call, but a number of them of which there is no record.
    Lost,
}

impl CallOutcome {
    pub const ALL: [CallOutcome; 6] = [Self::Answered, Self::Upgraded, Self::Refused, Self::Cut, Self::Unparsed, Self::Lost];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Upgraded => "upgraded",
            Self::Refused => "refused",
            Self::Cut => "cut",
            Self::Unparsed => "unparsed",
            Self::Lost => "lost",
        }
    }
}

/// One Docker API call; all of it is the user's word but time, user, uid, status and figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Milliseconds since the epoch.
    pub at: i64,
    /// Whose berth it is.
    pub user: String,
    /// Who called: the user or root.
    pub uid: u32,
    pub pid: u32,
    pub command: String,
    pub method: String,
    /// Of the API, as the path began with it: `1.45`.
    pub version: Option<String>,
    /// Without the version.
    pub path: String,
    pub image: Option<String>,
    pub container: Option<String>,
    pub status: Option<u16>,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub duration_ms: u64,
    pub outcome: CallOutcome,
    /// How many calls there is no record of; 0 but for [`CallOutcome::Lost`].
    pub lost: u64,
}

/// A call as it is in the audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallRecord {
    /// UUIDv7 of the call's time.
    pub id: AuditId,
    /// Grows in the order in which calls were stored.
    pub seq: i64,
    pub berth_id: BerthId,
    /// Of the user whose berth it is; the call's own may be root's.
    pub user_uid: u32,
    pub call: Call,
}

/// Something waits in a berth's spool on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallsAt {
    pub id: BerthId,
    pub end: u64,
}

/// Calls from a berth's spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallPage {
    /// Position behind the last of them.
    pub next: u64,
    pub more: bool,
    pub calls: Vec<Call>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrailKind {
    Action,
    Call,
}

/// Which records of the audit trail are wanted; what is absent does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrailFilter {
    pub kind: Option<TrailKind>,
    /// Calls of this user, and what was done about his berth.
    pub user: Option<String>,
    /// Whatever has this name.
    pub subject: Option<String>,
    /// Calls at the berths of this uid.
    pub uid: Option<u32>,
    /// From this time on, before that time; milliseconds since the epoch.
    pub since: Option<i64>,
    pub until: Option<i64>,
    /// Calls whose path, without the version, begins so.
    pub path: Option<String>,
    /// Calls with at least this status.
    pub status: Option<u16>,
}

/// One record of the audit trail.
#[derive(Clone, Debug, PartialEq)]
pub enum TrailRecord {
    /// What somebody asked of Berth.
    Action(AuditRecord),
    /// What a user asked of his Docker.
    Call(CallRecord),
}

impl TrailRecord {
    pub fn id(&self) -> AuditId {
        match self {
            Self::Action(record) => record.id,
            Self::Call(record) => record.id,
        }
    }
}

/// How far a follower has seen the trail: actions by id, calls by the order of storing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrailHead {
    pub action: AuditId,
    pub seq: i64,
}

/// `/v1.45/containers/json` is `1.45` and `/containers/json`.
pub fn split_version(path: &str) -> (Option<&str>, &str) {
    let parts = path.strip_prefix("/v").and_then(|rest| rest.find('/').map(|at| rest.split_at(at)));
    match parts {
        Some((version, rest)) if version.starts_with(|c: char| c.is_ascii_digit()) && version.len() <= 8 => (Some(version), rest),
        _ => (None, path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_told_from_a_path() {
        assert_eq!(split_version("/v1.45/containers/json?all=1"), (Some("1.45"), "/containers/json?all=1"));
        for plain in ["/_ping", "/volumes/v1.45/x", "/v/x", "/version", "/v1", "", "*", "/vendor/x"] {
            assert_eq!(split_version(plain), (None, plain));
        }
    }
}
