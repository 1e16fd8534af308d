//! Profiles: named quota sets.

use super::{Error, Page, Service, authorise, name, not_found, quota, shorten};
use crate::{
    authz::Operation as Op,
    domain::{
        AuditEntry, Berth, Caller, Expected, HostPolicy, OwnLimits, PolicyChange, Problem, Profile, ProfileId, ProfileName, Refusal,
        Subject,
    },
    store,
};

#[derive(Clone, Debug)]
pub struct CreateProfile {
    pub name: String,
    pub description: String,
    /// What is left out is taken from the profile `default`.
    pub limits: OwnLimits,
    pub policy: PolicyChange,
}

#[derive(Clone, Debug)]
pub struct ChangeProfile {
    pub description: Option<String>,
    /// What is left out stays.
    pub limits: OwnLimits,
    pub policy: PolicyChange,
    /// The revision that is meant.
    pub expected: Expected,
}

const DEFAULT: &str = "default";
const MAX_DESCRIPTION: usize = 500;

impl Service {
    pub async fn profiles(&self, caller: &Caller, page: &Page) -> Result<Vec<Profile>, Error> {
        authorise(caller, Op::ListProfiles)?;
        let mut reader = self.store.reader().await?;
        Ok(store::profiles::page(&mut reader, page.after(), page.limit).await?)
    }

    pub async fn profile(&self, caller: &Caller, profile: &str) -> Result<Profile, Error> {
        authorise(caller, Op::ShowProfile)?;
        let mut reader = self.store.reader().await?;
        find(&mut reader, profile).await
    }

    pub async fn create_profile(&self, caller: &Caller, request: CreateProfile) -> Result<Profile, Error> {
        authorise(caller, Op::CreateProfile)?;
        let profile: ProfileName = name("profile", &request.name)?;
        check_description(&request.description)?;
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        if store::profiles::by_name(&mut tx, &profile).await?.is_some() {
            return Err(Problem::new(Refusal::Conflict, "profile_exists", format!("there is a profile {profile} already"))
                .hint(format!("berth profile set {profile} …"))
                .into());
        }
        let default = find(&mut tx, DEFAULT).await?;
        let (limits, policy) = (request.limits.over(default.limits), request.policy.over(default.policy));
        quota::check_limits(limits)?;
        check_policy(&policy)?;
        let created = Profile {
            id: ProfileId(self.clock.id()),
            name: profile.to_string(),
            description: request.description,
            limits,
            policy,
            berths: 0,
            created_at: now,
            updated_at: now,
        };
        store::profiles::insert(&mut tx, &created).await?;
        self.record(&mut tx, caller, Op::CreateProfile, &created.name, serde_json::json!({ "limits": limits, "policy": created.policy }))
            .await?;
        self.store.commit(tx).await?;
        Ok(created)
    }

    /// Changes the profile; every berth that uses it takes on its limits and its policy.
    pub async fn change_profile(&self, caller: &Caller, profile: &str, change: ChangeProfile) -> Result<Profile, Error> {
        authorise(caller, Op::ChangeProfile)?;
        if let Some(description) = &change.description {
            check_description(description)?;
        }
        let now = self.clock.now();
        let mut reader = self.store.reader().await?;
        let used = find(&mut reader, profile).await?.berths > 0;
        drop(reader);
        // The node's figures matter only when somebody's promise changes.
        let node = if used { Some(self.node.node().await?) } else { None };
        let mut tx = self.store.begin().await?;
        let old = find(&mut tx, profile).await?;
        change.expected.check(&old.revision())?;
        let (limits, policy) = (change.limits.over(old.limits), change.policy.over(old.policy.clone()));
        quota::check_limits(limits)?;
        check_policy(&policy)?;
        let before = store::berths::sums(&mut tx).await?;
        let description = change.description.unwrap_or_else(|| old.description.clone());
        // Two changes in one millisecond are two revisions.
        let changed = Profile { description, limits, policy, updated_at: now.max(old.updated_at + 1), ..old.clone() };
        store::profiles::update(&mut tx, &changed).await?;
        if limits != old.limits || changed.policy != old.policy {
            store::berths::touch_profile(&mut tx, changed.id, now).await?;
            for berth in store::berths::of_profile(&mut tx, changed.id).await? {
                quota::check_limits(berth.limits).map_err(|error| of_berth(error, &berth))?;
            }
        }
        if let Some(node) = &node {
            // A profile has no place for warnings in its answer; the doctor tells of promises beyond the host.
            quota::check_host(before, store::berths::sums(&mut tx).await?, node, &self.policy)?;
        }
        let details = serde_json::json!({
            "before": { "limits": old.limits, "policy": old.policy }, "limits": limits, "policy": changed.policy,
        });
        self.record(&mut tx, caller, Op::ChangeProfile, &changed.name, details).await?;
        self.store.commit(tx).await?;
        self.store.announce();
        Ok(changed)
    }

    pub async fn delete_profile(&self, caller: &Caller, profile: &str, expected: &Expected) -> Result<(), Error> {
        authorise(caller, Op::DeleteProfile)?;
        let mut tx = self.store.begin().await?;
        let found = find(&mut tx, profile).await?;
        expected.check(&found.revision())?;
        if found.name == DEFAULT {
            let detail = "the profile default is what berths and profiles start from";
            return Err(Problem::new(Refusal::Conflict, "profile_is_default", detail)
                .hint("change it instead: berth profile set default …")
                .into());
        }
        if found.berths > 0 {
            let detail = format!("{} berths use the profile {}", found.berths, found.name);
            return Err(Problem::new(Refusal::Conflict, "profile_in_use", detail).hint("berth set USER --profile … first").into());
        }
        if let Some(rule) = store::rules::all(&mut tx).await?.iter().find(|rule| rule.profile_id == found.id) {
            let detail = format!("the rule of the group {} gives the profile {}", rule.group, found.name);
            return Err(Problem::new(Refusal::Conflict, "profile_in_use", detail)
                .hint(format!("berth rule remove --group {} first", rule.group))
                .into());
        }
        store::profiles::remove(&mut tx, &found, self.clock.now()).await?;
        self.record(&mut tx, caller, Op::DeleteProfile, &found.name, serde_json::json!({})).await?;
        self.store.commit(tx).await?;
        Ok(())
    }

    async fn record(
        &self,
        connection: &mut store::Connection,
        caller: &Caller,
        action: Op,
        profile: &str,
        details: serde_json::Value,
    ) -> Result<(), Error> {
        let entry = AuditEntry { action: action.id(), subject: Subject::Profile(profile), details, operation: None };
        Ok(store::audit::insert(connection, &self.clock, Some(caller), entry).await?)
    }
}

/// Says whose limits no longer go together.
fn of_berth(error: Error, berth: &Berth) -> Error {
    match error {
        Error::Refused(problem) => {
            let detail = format!("with the limits of {} himself, {}", berth.user, problem.detail);
            Problem { detail, hint: Some(format!("berth set {} … first", berth.user)), ..problem }.into()
        }
        other => other,
    }
}

async fn find(connection: &mut store::Connection, profile: &str) -> Result<Profile, Error> {
    let profile: ProfileName = name("profile", profile)?;
    store::profiles::by_name(connection, &profile).await?.ok_or_else(|| not_found("profile", profile.as_str()))
}

pub(super) fn check_policy(policy: &HostPolicy) -> Result<(), Error> {
    policy.validate().map_err(|error| Problem::new(Refusal::Limit, "invalid_policy", error.to_string()).hint(error.hint()).into())
}

fn check_description(text: &str) -> Result<(), Error> {
    match text.chars().count() > MAX_DESCRIPTION || text.contains('\0') {
        true => {
            let detail = format!("the description {:?} passes {MAX_DESCRIPTION} characters or holds a NUL", shorten(text));
            Err(Problem::new(Refusal::Invalid, "invalid_description", detail).into())
        }
        false => Ok(()),
    }
}
