use std::collections::BTreeSet;

use super::{BerthId, HostPolicy, Limits, Problem};

/// A host account, as the node looked it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostUser {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    pub system: bool,
}

/// What the host knows of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Nothing: there is no such account.
    pub account: Option<HostUser>,
    /// Of the groups that were asked about, those that he belongs to.
    pub groups: BTreeSet<String>,
    /// Why it is not known.
    pub problem: Option<Problem>,
}

/// The host and what it has to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    pub version: String,
    pub hostname: String,
    pub kernel: String,
    pub cgroup: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub disk_free_bytes: u64,
}

/// An unpacked image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub digest: String,
    pub name: String,
    pub created_at: i64,
    pub size_bytes: u64,
    pub used_by: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckLevel {
    Ok,
    Warning,
    Failed,
}

/// One line of the doctor's report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: String,
    pub level: CheckLevel,
    pub detail: String,
    pub fix: Option<String>,
}

impl Check {
    pub fn ok(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), level: CheckLevel::Ok, detail: detail.into(), fix: None }
    }

    pub fn warning(name: &str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name: name.to_owned(), level: CheckLevel::Warning, detail: detail.into(), fix: Some(fix.into()) }
    }

    pub fn failed(name: &str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name: name.to_owned(), level: CheckLevel::Failed, detail: detail.into(), fix: Some(fix.into()) }
    }
}

/// One command to run inside a berth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecCommand {
    pub argv: Vec<String>,
    /// `NAME=value`
    pub env: Vec<String>,
    pub cwd: Option<String>,
    pub uid: u32,
    pub gid: u32,
    pub tty: bool,
    /// Columns and rows.
    pub size: Option<(u16, u16)>,
}

/// Intent for one berth, as the node gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ensure {
    pub id: BerthId,
    pub image: String,
    pub limits: Limits,
    pub wanted: EnsureWanted,
    pub allow_system: bool,
    pub policy: HostPolicy,
    /// Why it is barred.
    pub suspended: Option<String>,
    pub rebuild: Option<Rebuild>,
}

/// A fresh root file system, once for each `at`, before what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuild {
    pub at: i64,
    /// What Docker keeps goes too.
    pub wipe: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnsureWanted {
    Present,
    Running,
    Stopped,
}

/// A part of a change that a running berth takes on only when it starts anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    pub field: String,
    /// A sentence.
    pub reason: String,
}

/// One line of an image build or import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    Log(String),
    Done(Image),
    Failed(Problem),
}
