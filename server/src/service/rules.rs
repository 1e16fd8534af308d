//! Rules that map host groups to profiles. A changed rule changes no berth by itself: nobody's limits move unseen. `apply` does, on request.

use super::{
    Error, Service,
    assign::{DEFAULT_PROFILE, Ledger},
    authorise,
    berths::{ChangeBerth, find_profile},
    many::{Done, Mode, Outcome, Report},
    name, not_found,
};
use crate::{
    authz::Operation as Op,
    domain::{AuditEntry, Caller, EventKind, GroupName, NewEvent, Problem, ProfileName, Refusal, Rule, RuleId, Subject},
    store::{self, Transaction, berths::Sums},
};

#[derive(Clone, Debug)]
pub struct NewRule {
    pub group: String,
    pub profile: String,
    pub auto: bool,
    pub most: Option<u32>,
    /// From 1; the last unless set.
    pub position: Option<u32>,
}

/// What is left out stays.
#[derive(Clone, Debug, Default)]
pub struct ChangeRule {
    pub profile: Option<String>,
    pub auto: Option<bool>,
    pub most: Option<Option<u32>>,
    pub position: Option<u32>,
}

impl Service {
    pub async fn rules(&self, caller: &Caller) -> Result<Vec<Rule>, Error> {
        authorise(caller, Op::ListRules)?;
        let mut reader = self.store.reader().await?;
        Ok(store::rules::all(&mut reader).await?)
    }

    pub async fn create_rule(&self, caller: &Caller, request: NewRule) -> Result<Rule, Error> {
        authorise(caller, Op::CreateRule)?;
        let group: GroupName = name("group", &request.group)?;
        let profile: ProfileName = name("profile", &request.profile)?;
        check_most(request.most)?;
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        let mut rules = store::rules::all(&mut tx).await?;
        if rules.iter().any(|rule| rule.group == group.as_str()) {
            return Err(Problem::new(Refusal::Conflict, "rule_exists", format!("the group {group} has a rule already"))
                .hint(format!("berth rule set --group {group} …"))
                .into());
        }
        if rules.len() >= Rule::MOST {
            let detail = format!("there are {} rules, the most is {}", rules.len(), Rule::MOST);
            return Err(Problem::new(Refusal::Limit, "too_many_rules", detail).hint("berth rule remove --group GROUP").into());
        }
        let profile = find_profile(&mut tx, &profile).await?;
        let rule = Rule {
            id: RuleId(self.clock.id()),
            group: group.to_string(),
            position: 0,
            profile_id: profile.id,
            profile: profile.name,
            auto: request.auto,
            most: request.most,
            given: 0,
            created_at: now,
            updated_at: now,
        };
        store::rules::insert(&mut tx, &rule).await?;
        let id = rule.id;
        rules.push(rule);
        self.reordered(tx, caller, Op::CreateRule, rules, id, request.position).await
    }

    /// Changes a rule, or moves it to another place.
    pub async fn change_rule(&self, caller: &Caller, group: &str, change: ChangeRule) -> Result<Rule, Error> {
        authorise(caller, Op::ChangeRule)?;
        let group: GroupName = name("group", group)?;
        let profile = change.profile.as_deref().map(|text| name::<ProfileName>("profile", text)).transpose()?;
        check_most(change.most.flatten())?;
        let mut tx = self.store.begin().await?;
        let mut rules = store::rules::all(&mut tx).await?;
        let profile = match profile {
            Some(profile) => Some(find_profile(&mut tx, &profile).await?),
            None => None,
        };
        let rule = rules.iter_mut().find(|rule| rule.group == group.as_str()).ok_or_else(|| not_found("rule", group.as_str()))?;
        if let Some(profile) = profile {
            (rule.profile_id, rule.profile) = (profile.id, profile.name);
        }
        rule.auto = change.auto.unwrap_or(rule.auto);
        rule.most = change.most.unwrap_or(rule.most);
        let (id, position) = (rule.id, change.position.or(Some(rule.position)));
        self.reordered(tx, caller, Op::ChangeRule, rules, id, position).await
    }

    /// Removes a rule; berths that it gave stay as they are.
    pub async fn delete_rule(&self, caller: &Caller, group: &str) -> Result<(), Error> {
        authorise(caller, Op::DeleteRule)?;
        let group: GroupName = name("group", group)?;
        let mut tx = self.store.begin().await?;
        let mut rules = store::rules::all(&mut tx).await?;
        let place = rules.iter().position(|rule| rule.group == group.as_str()).ok_or_else(|| not_found("rule", group.as_str()))?;
        let rule = rules.remove(place);
        store::rules::remove(&mut tx, rule.id).await?;
        for (number, rule) in (1_u32..).zip(&mut rules).skip(place) {
            rule.position = number;
            store::rules::update(&mut tx, rule).await?;
        }
        let details = serde_json::json!({ "profile": rule.profile, "auto": rule.auto, "most": rule.most });
        self.record_rule(&mut tx, caller, Op::DeleteRule, &rule.group, details).await?;
        Ok(self.store.commit(tx).await?)
    }

    /// Gives every berth the profile that the rules now give its user. One whose profile a person named keeps it, and is told of.
    pub async fn apply_rules(&self, caller: &Caller, mode: Mode) -> Result<Report, Error> {
        authorise(caller, Op::ApplyRules)?;
        let mut reader = self.store.reader().await?;
        let rules = store::rules::all(&mut reader).await?;
        let berths = store::berths::all(&mut reader).await?;
        drop(reader);
        let names: Vec<_> = berths.iter().map(|berth| berth.user.clone()).collect();
        let members = match names.is_empty() || rules.is_empty() {
            true => Vec::new(),
            false => self.node.members(&names, &Rule::groups(&rules)).await?,
        };
        let node = self.node.node().await?;
        let (mut changes, mut kept) = (Vec::new(), Vec::new());
        for (berth, member) in berths.iter().zip(members) {
            let user = berth.user.to_string();
            if let Some(problem) = member.problem {
                kept.push(Outcome::refused(user, Some(problem)));
                continue;
            }
            let profile = Rule::first(&rules, &member.groups).map_or(DEFAULT_PROFILE, |rule| &rule.profile);
            match profile == berth.profile {
                true => {}
                false if berth.profile_named => kept.push(Outcome {
                    user,
                    done: Done::Kept,
                    before: Some(berth.profile.clone()),
                    profile: Some(profile.to_owned()),
                    operation: None,
                    problem: None,
                }),
                false => {
                    changes.push((user, ChangeBerth { profile: Some(profile.to_owned()), by_rule: true, ..ChangeBerth::default() }));
                }
            }
        }
        let tx = self.store.begin().await?;
        let mut report = self.change_all(tx, caller, Op::ApplyRules, changes, Ledger::new(Sums::default(), node), mode).await?;
        report.outcomes.extend(kept);
        report.outcomes.sort_by(|a, b| a.user.cmp(&b.user));
        Ok(report)
    }

    /// Puts one rule at its place, numbers all anew, and stores them.
    async fn reordered(
        &self,
        mut tx: Transaction,
        caller: &Caller,
        action: Op,
        mut rules: Vec<Rule>,
        id: RuleId,
        position: Option<u32>,
    ) -> Result<Rule, Error> {
        let from = rules.iter().position(|rule| rule.id == id).ok_or_else(|| not_found("rule", &id.to_string()))?;
        let rule = rules.remove(from);
        let to = position.map_or(rules.len(), |position| (position.max(1) as usize - 1).min(rules.len()));
        rules.insert(to, rule);
        let now = self.clock.now();
        for (number, rule) in (1_u32..).zip(&mut rules) {
            let moved = rule.position != number;
            rule.position = number;
            if moved || rule.id == id {
                rule.updated_at = now;
                store::rules::update(&mut tx, rule).await?;
            }
        }
        let changed = rules.swap_remove(to);
        let details = serde_json::json!({
            "profile": changed.profile, "auto": changed.auto, "most": changed.most, "position": changed.position,
        });
        self.record_rule(&mut tx, caller, action, &changed.group, details).await?;
        self.store.commit(tx).await?;
        Ok(changed)
    }

    async fn record_rule(
        &self,
        connection: &mut store::Connection,
        caller: &Caller,
        action: Op,
        group: &str,
        details: serde_json::Value,
    ) -> Result<(), Error> {
        let entry = AuditEntry { action: action.id(), subject: Subject::Rule(group), details, operation: None };
        store::audit::insert(connection, &self.clock, Some(caller), entry).await?;
        Ok(store::events::note(connection, self.clock.now(), NewEvent::new(EventKind::RuleChanged, group)).await?)
    }
}

fn check_most(most: Option<u32>) -> Result<(), Error> {
    match most {
        Some(0) => Err(Problem::new(Refusal::Invalid, "invalid_most", "a rule that gives no berth at all gives none on first use")
            .hint("set auto to false instead")
            .into()),
        _ => Ok(()),
    }
}
