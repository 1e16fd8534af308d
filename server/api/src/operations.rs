use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Problem;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    BerthCreate,
    BerthChange,
    BerthStart,
    BerthStop,
    BerthRestart,
    BerthRebuild,
    BerthDelete,
    BerthSuspend,
    BerthResume,
    BerthRestore,
    ImageBuild,
    ImageImport,
    ImagePull,
    ImageRemove,
    ArchiveRemove,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    Pending,
    Running,
    Succeeded,
    Failed,
    /// A later request took its place, or somebody cancelled it.
    Cancelled,
}

impl OperationState {
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// Bytes that are done, of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationProgress {
    pub done: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// A long-running request. It survives restarts of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    pub id: Uuid,
    pub kind: OperationKind,
    /// The user or the image that it is about.
    pub subject: String,
    pub state: OperationState,
    /// What is being done now.
    pub step: String,
    /// The last lines of output, at most 100.
    pub log: Vec<String>,
    /// Lines of output so far; `log` holds the last of them.
    pub log_lines: u64,
    /// How far it is, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<OperationProgress>,
    /// Digest of the image that a build or import made; name of the archive that a delete left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Why it failed or was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// Grows with each change; pass to `wait` to be told of the next.
    pub revision: u64,
    /// Who asked.
    pub actor: String,
    pub created_at: i64,
    pub updated_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<i64>,
}

/// One page of operations, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperationList {
    pub items: Vec<Operation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Something that was accepted but deserves a look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Warning {
    /// Stable snake_case name.
    pub code: String,
    pub detail: String,
}

/// The intent is stored; the operation carries it out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Accepted {
    pub operation: Operation,
    pub warnings: Vec<Warning>,
}

/// The intent is stored for every berth that it changes; each operation carries out one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AllAccepted {
    pub operations: Vec<Operation>,
    /// Berths that were as asked already.
    pub unchanged: u64,
}
