//! The field's own things: names, limits, berths, operations. Knows nothing of HTTP, SQL or the node's wire.

mod audit;
mod berth;
mod caller;
mod calls;
mod clock;
mod egress;
mod host;
mod ids;
mod limits;
mod names;
mod operation;
mod policy;
mod problem;
mod profile;
mod reconcile;
mod usage;

pub use audit::{AuditEntry, AuditRecord, Subject, Whose};
pub use berth::{Berth, Condition, HostPort, Own, PublishedPort, Sleep, State, Status, Suspension, Wanted};
pub use caller::{Caller, Role};
pub use calls::{Call, CallOutcome, CallPage, CallRecord, CallsAt, TrailFilter, TrailHead, TrailKind, TrailRecord, split_version};
pub use clock::Clock;
pub use egress::{Cidr, Egress, InvalidEgress};
pub use host::{Check, CheckLevel, Ensure, EnsureWanted, ExecCommand, HostUser, Image, NodeInfo, Progress, Waits};
pub use ids::{AuditId, BerthId, OperationId, ProfileId, UserId};
pub use limits::{InvalidLimits, LimitChange, Limits, OwnLimits};
pub use names::{ImageName, ImageRef, InvalidName, ProfileName, UserName};
pub use operation::{Kind, MAX_LOG_LINES, Operation, OperationState, Parameters, Warning};
pub use policy::{HomeAccess, HostPolicy, InvalidPolicy, OpenTo, PolicyChange, PortRange, Restart, SharedPath};
pub use problem::{Problem, Refusal};
pub use profile::Profile;
pub use reconcile::ReconcileReport;
pub use usage::{DiskUsage, IoUsage, NetworkUsage, Pressure, Sample, Stall, Usage};
