use serde::{Deserialize, Serialize};

use super::{BerthId, OperationId, Own, Problem, ProfileId};

/// Lines of output that an operation keeps.
pub const MAX_LOG_LINES: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
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

impl Kind {
    pub const ALL: [Kind; 15] = [
        Self::BerthCreate,
        Self::BerthChange,
        Self::BerthStart,
        Self::BerthStop,
        Self::BerthRestart,
        Self::BerthRebuild,
        Self::BerthDelete,
        Self::BerthSuspend,
        Self::BerthResume,
        Self::BerthRestore,
        Self::ImageBuild,
        Self::ImageImport,
        Self::ImagePull,
        Self::ImageRemove,
        Self::ArchiveRemove,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::BerthCreate => "berth_create",
            Self::BerthChange => "berth_change",
            Self::BerthStart => "berth_start",
            Self::BerthStop => "berth_stop",
            Self::BerthRestart => "berth_restart",
            Self::BerthRebuild => "berth_rebuild",
            Self::BerthDelete => "berth_delete",
            Self::BerthSuspend => "berth_suspend",
            Self::BerthResume => "berth_resume",
            Self::BerthRestore => "berth_restore",
            Self::ImageBuild => "image_build",
            Self::ImageImport => "image_import",
            Self::ImagePull => "image_pull",
            Self::ImageRemove => "image_remove",
            Self::ArchiveRemove => "archive_remove",
        }
    }

    /// Start, stop and restart: a later one of them takes the place of an earlier one that is not done.
    pub fn is_power(self) -> bool {
        matches!(self, Self::BerthStart | Self::BerthStop | Self::BerthRestart)
    }

    /// Suspend and resume: likewise, among each other.
    pub fn is_bar(self) -> bool {
        matches!(self, Self::BerthSuspend | Self::BerthResume)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationState {
    Pending,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl OperationState {
    pub const ALL: [OperationState; 5] = [Self::Pending, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What an operation needs to be carried out, or undone when the node refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Parameters {
    None,
    /// What the berth had before the change.
    Change {
        profile: ProfileId,
        own: Box<Own>,
        /// When the assignment was to end.
        #[serde(default)]
        until: Option<i64>,
    },
    Build {
        suite: String,
    },
    Pull {
        reference: String,
        plain: bool,
        /// It had a login or certificates, which are kept nowhere.
        private: bool,
    },
    Remove {
        digest: String,
    },
}

/// A long-running request.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    pub id: OperationId,
    pub kind: Kind,
    pub subject: String,
    pub berth_id: Option<BerthId>,
    /// The generation of the berth's intent that it stands for.
    pub generation: Option<i64>,
    pub parameters: Parameters,
    pub state: OperationState,
    pub step: String,
    pub log: Vec<String>,
    pub log_lines: u64,
    /// How far it is, where that is known.
    pub progress: Option<Extent>,
    /// Digest of the image that was made, or name of the archive.
    pub result: Option<String>,
    pub problem: Option<Problem>,
    pub revision: u64,
    pub actor: String,
    pub created_at: i64,
    pub updated_at: i64,
    pub finished_at: Option<i64>,
}

impl Operation {
    /// How the step of an operation begins that waits for the node.
    pub const WAITING: &str = "waiting: ";
}

/// Bytes that are done, of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub done: u64,
    pub total: Option<u64>,
}

/// Something that was accepted but deserves a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub code: &'static str,
    pub detail: String,
}
