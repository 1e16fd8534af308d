//! The field's own things: names, limits, berths, operations. Knows nothing of HTTP, SQL or the node's wire.

mod audit;
mod berth;
mod caller;
mod calls;
mod clock;
mod host;
mod ids;
mod limits;
mod names;
mod operation;
mod policy;
mod problem;
mod profile;
mod reconcile;

pub use audit::{AuditEntry, AuditRecord, Subject, Whose};
pub use berth::{Berth, Condition, HostPort, PublishedPort, Sleep, State, Status, Suspension, Usage, Wanted};
pub use caller::{Caller, Role};
pub use calls::{Call, CallOutcome, CallPage, CallRecord, CallsAt, TrailFilter, TrailHead, TrailKind, TrailRecord, split_version};
pub use clock::Clock;
pub use host::{Check, CheckLevel, Ensure, EnsureWanted, ExecCommand, HostUser, Image, NodeInfo, Progress};
pub use ids::{AuditId, BerthId, OperationId, ProfileId, UserId};
pub use limits::{InvalidLimits, Limits, OwnLimits};
pub use names::{ImageName, ImageRef, InvalidName, ProfileName, UserName};
pub use operation::{Kind, MAX_LOG_LINES, Operation, OperationState, Parameters, Warning};
pub use policy::{HomeAccess, HostPolicy, InvalidPolicy, OpenTo, PolicyChange, PortRange, SharedPath};
pub use problem::{Problem, Refusal};
pub use profile::Profile;
pub use reconcile::ReconcileReport;
