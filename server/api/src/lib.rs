//! Requests and answers of the Berth API (`/api/v1`), and the client that the program `berth` uses.
//!
//! Units: bytes, thousandths of a CPU, milliseconds since the epoch. Ids are UUIDv7 in text. Lists page by an opaque `cursor`.
//! Long work answers 202 with [`Accepted`]; every error is a [`Problem`] (`application/problem+json`) with a stable snake_case `code`.

#![forbid(unsafe_code)]

mod accounts;
mod archives;
mod audit;
mod berths;
pub mod client;
mod events;
mod host;
mod images;
mod inside;
mod limits;
mod many;
mod operations;
mod policy;
mod problem;
mod profiles;
mod requests;
mod rules;
mod sign_in;
mod usage;

pub use accounts::{Account, AccountAlarm, AccountList, AccountState};
pub use archives::{Archive, ArchiveList, RestoreBerth};
pub use audit::{AuditAction, AuditCall, AuditList, AuditRecord, CallOutcome};
pub use berth_protocol::frame;
pub use berths::{
    Berth, BerthChange, BerthList, BerthState, ChangePreview, Condition, ExecBerth, FieldChange, HostPortState, ImageRef, NewBerth,
    PublishedPort, RebuildBerth, Sleep, SuspendBerth, Suspension, WantedState,
};
pub use events::{Event, EventKind};
pub use host::{Check, CheckLevel, Doctor, Health, Node, User};
pub use images::{BuildImage, Image, ImageList, PullImage, RegistryLogin};
pub use inside::{Inside, InsideContainer, InsideDisk, InsideImage, InsideVolume, PruneBerth, PruneKind, Pruned, Taken};
pub use limits::Limits;
pub use many::{BerthClaim, BerthsChange, Entry, EntryReport, EntryState, Headroom, NewBerths};
pub use operations::{Accepted, AllAccepted, Operation, OperationKind, OperationList, OperationProgress, OperationState, Warning};
pub use policy::{Egress, HomeAccess, OpenTo, Policy, PolicyChange, PortRange, Restart, SharedPath};
pub use problem::Problem;
pub use profiles::{NewProfile, Profile, ProfileChange, ProfileList};
pub use requests::{Amount, Amounts, ApproveRequest, ApprovedRequest, DenyRequest, Grant, NewRequest, Request, RequestList, RequestState};
pub use rules::{ApplyRules, NewRule, Rule, RuleChange, RuleList};
pub use sign_in::{
    AccessToken, Admin, AdminChange, AdminList, AdminRole, Me, NewAdmin, NewPassword, NewToken, Proof, Reach, Role, Secret, Session,
    SessionList, SessionsEnded, SignIn, SignInLink, SigningKey, SigningKeys, Token, TokenCreated, TokenList, TokenScope,
};
pub use usage::{BerthUsage, DiskUsage, IoUsage, NetworkUsage, Pressure, Stall, Usage, UsageChart, UsageList, UsagePoint};

/// Path below which all of this lives.
pub const PREFIX: &str = "/api/v1";
/// Content type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Keeps "absent" (leave it) and `null` (back to the default) apart in a PATCH.
fn explicit<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: serde::Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    serde::Deserialize::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    /// utoipa keeps one schema of each name and drops the others without a word.
    #[test]
    fn schema_names_do_not_collide() {
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() {
                continue;
            }
            let (text, mut schema) = (fs::read_to_string(&path).unwrap(), false);
            for line in text.lines().map(str::trim) {
                schema |= line.starts_with("#[derive") && line.contains("ToSchema");
                let name = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "));
                if let (true, Some(name)) = (schema, name) {
                    let name = name.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned();
                    let other = seen.insert(name.clone(), path.display().to_string());
                    assert!(other.is_none(), "schema {name} in {} and {}", path.display(), other.unwrap());
                    schema = false;
                }
            }
        }
        assert!(seen.len() >= 20, "{seen:?}");
    }
}
