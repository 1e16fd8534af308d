//! Assignments: one, or many in one transaction.

use std::collections::{HashMap, HashSet};

use super::{
    Error, Service, authorise,
    berths::{self, Accepted},
    images::resolve,
    many::{Mode, Outcome, Report, check_count, refused},
    name, not_found,
    profiles::check_policy,
    quota,
};
use crate::{
    authz::Operation as Op,
    domain::{
        BerthId, Caller, HostPolicy, HostUser, Image, ImageRef, Kind, Limits, Member, NodeInfo, Operation, Own, Parameters, Problem,
        Profile, ProfileName, Refusal, Rule, RuleId, UserId, UserName, Wanted,
    },
    store::{self, Connection, Transaction, berths::NewBerth, berths::Sums},
};

/// What an assignment asks for.
#[derive(Clone, Debug)]
pub struct AssignBerth {
    pub user: String,
    /// Left out: that of the first rule that matches the user, or `default`.
    pub profile: Option<String>,
    pub image: Option<String>,
    pub own: Own,
    pub allow_system: bool,
    pub start: bool,
    /// When the assignment ends, milliseconds since the epoch.
    pub until: Option<i64>,
}

/// An assignment that makes sense by itself.
struct Draft {
    user: UserName,
    profile: Option<ProfileName>,
    image: Option<ImageRef>,
    own: Own,
    allow_system: bool,
    wanted: Wanted,
    until: Option<i64>,
}

/// An assignment that the host can carry.
pub(super) struct Candidate {
    pub user: UserName,
    pub account: HostUser,
    pub profile: ProfileName,
    /// Somebody named the profile; no rule decided.
    pub named: bool,
    pub image: Image,
    pub own: Own,
    pub allow_system: bool,
    pub wanted: Wanted,
    pub until: Option<i64>,
    /// The rule whose first use it is.
    pub made_by: Option<RuleId>,
}

/// What everything in one transaction is checked against.
pub(super) struct Ledger {
    pub sums: Sums,
    pub node: NodeInfo,
    profiles: HashMap<ProfileName, Profile>,
}

pub(super) const DEFAULT_PROFILE: &str = "default";
/// The end of the year 9999.
const LATEST: i64 = 253_402_300_799_999;

impl Service {
    pub async fn assign_berth(&self, caller: &Caller, request: AssignBerth) -> Result<Accepted, Error> {
        authorise(caller, Op::CreateBerth)?;
        let user = request.user.clone();
        let report = self.assign_all(caller, Op::CreateBerth, vec![request], Mode::default()).await?;
        let outcome = report.outcomes.into_iter().next();
        match outcome.map(|outcome| (outcome.operation, outcome.problem)) {
            Some((Some(operation), _)) => Ok((operation, report.warnings)),
            Some((None, Some(problem))) => Err(problem.into()),
            _ => Err(not_found("user", &user)),
        }
    }

    /// Assigns many berths in one transaction; what is refused of them does not keep the others, unless that is asked for.
    pub async fn assign_berths(&self, caller: &Caller, requests: Vec<AssignBerth>, mode: Mode) -> Result<Report, Error> {
        authorise(caller, Op::CreateBerths)?;
        check_count(requests.len())?;
        self.assign_all(caller, Op::CreateBerths, requests, mode).await
    }

    async fn assign_all(&self, caller: &Caller, action: Op, requests: Vec<AssignBerth>, mode: Mode) -> Result<Report, Error> {
        let now = self.clock.now();
        let mut reader = self.store.reader().await?;
        let rules = match requests.iter().any(|request| request.profile.is_none()) {
            true => store::rules::all(&mut reader).await?,
            false => Vec::new(),
        };
        let default = store::settings::get(&mut reader, store::settings::DEFAULT_IMAGE).await?;
        let (mut lines, mut seen, mut known) = (Vec::with_capacity(requests.len()), HashSet::new(), HashMap::new());
        for request in requests {
            let user = super::shorten(&request.user);
            let draft = draft(&mut reader, request, now, &mut known).await.and_then(|draft| match seen.insert(draft.user.clone()) {
                true => Ok(draft),
                false => Err(twice(&draft.user)),
            });
            lines.push((user, refused(draft)?));
        }
        drop(reader);
        let names: Vec<_> = lines.iter().filter_map(|(_, draft)| draft.as_ref().ok()).map(|draft| draft.user.clone()).collect();
        if names.is_empty() {
            let outcomes = lines.into_iter().map(|(user, draft)| Outcome::refused(user, draft.err()));
            return Ok(Report { outcomes: outcomes.collect(), ..Report::default() });
        }
        // Whoever is looked up in no group need not be asked about.
        let mut members = self.node.members(&names, &Rule::groups(&rules)).await?.into_iter();
        let images = self.node.images().await?;
        let node = self.node.node().await?;

        let mut tx = self.store.begin().await?;
        let before = store::berths::sums(&mut tx).await?;
        let mut ledger = Ledger { sums: before, node, profiles: HashMap::new() };
        let mut outcomes = Vec::with_capacity(lines.len());
        for (user, draft) in lines {
            let draft = match draft {
                Ok(draft) => draft,
                Err(problem) => {
                    outcomes.push(Outcome::refused(user, Some(problem)));
                    continue;
                }
            };
            let member = members.next().ok_or_else(|| not_found("user", &user))?;
            let candidate = candidate(draft, member, &images, default.clone(), &rules);
            let placed = match candidate {
                Ok(candidate) => self.place(&mut tx, caller, action, candidate, &mut ledger).await,
                Err(error) => Err(error),
            };
            outcomes.push(match refused(placed)? {
                Ok((operation, profile)) => Outcome::accepted(user, None, profile, operation),
                Err(problem) => Outcome::refused(user, Some(problem)),
            });
        }
        self.conclude(tx, outcomes, mode, (before, &ledger)).await
    }

    /// Writes one assignment with its operation and audit row, or refuses it before anything is written.
    pub(super) async fn place(
        &self,
        tx: &mut Transaction,
        caller: &Caller,
        action: Op,
        candidate: Candidate,
        ledger: &mut Ledger,
    ) -> Result<(Operation, String), Error> {
        let Candidate { user, account, profile, named, image, own, allow_system, wanted, until, made_by } = candidate;
        if store::berths::by_user(tx, &user).await?.is_some() {
            return Err(Problem::new(Refusal::Conflict, "berth_exists", format!("{user} has a berth already"))
                .hint(format!("berth show {user}; to change its limits: berth set {user} …"))
                .into());
        }
        // Read in the transaction: it may have changed or gone since.
        let profile = find(tx, &profile, &mut ledger.profiles).await?;
        check_own(&own, profile.limits)?;
        let limits = own.limits.over(profile.limits);
        let after = ledger.sums.with(limits);
        quota::check_host(ledger.sums, after, &ledger.node, &self.policy)?;

        let (now, id, user_id) = (self.clock.now(), BerthId(self.clock.id()), UserId(self.clock.id()));
        store::users::insert(tx, user_id, &user, account.uid, now).await?;
        let berth = NewBerth {
            id,
            user: user_id,
            profile: profile.id,
            image: &image.digest,
            image_name: &image.name,
            own: &own,
            allow_system,
            wanted,
            now,
        };
        store::berths::insert(tx, &berth).await?;
        store::ends::set(tx, id, until).await?;
        store::rules::decided(tx, id, named, made_by).await?;
        let details = serde_json::json!({
            "profile": profile.name, "image": image.digest, "limits": limits, "egress": own.egress, "allow_system": allow_system,
            "until": until,
        });
        let target = berths::Target { user: &user, id, generation: 1 };
        let operation = self.note(tx, caller, (action, Kind::BerthCreate), target, Parameters::None, details).await?;
        ledger.sums = after;
        Ok((operation, profile.name))
    }
}

impl Ledger {
    pub(super) fn new(sums: Sums, node: NodeInfo) -> Self {
        Self { sums, node, profiles: HashMap::new() }
    }
}

async fn draft(reader: &mut Connection, request: AssignBerth, now: i64, known: &mut HashMap<ProfileName, Profile>) -> Result<Draft, Error> {
    let user: UserName = name("user", &request.user)?;
    let profile = request.profile.as_deref().map(|text| name::<ProfileName>("profile", text)).transpose()?;
    let image = request.image.as_deref().map(|text| name::<ImageRef>("image", text)).transpose()?;
    if let Some(profile) = &profile {
        let profile = find(reader, profile, known).await?;
        check_own(&request.own, profile.limits)?;
    }
    if let Some(until) = request.until {
        check_until(until, now)?;
    }
    let wanted = if request.start { Wanted::Running } else { Wanted::Present };
    Ok(Draft { user, profile, image, own: request.own, allow_system: request.allow_system, wanted, until: request.until })
}

/// Puts together what was asked, what the host knows of the user, and what the rules say.
fn candidate(draft: Draft, member: Member, images: &[Image], default: Option<String>, rules: &[Rule]) -> Result<Candidate, Error> {
    let Draft { user, profile, image, own, allow_system, wanted, until } = draft;
    // A profile that is named needs no groups.
    let account = match (member.account, member.problem) {
        (Some(account), None) => account,
        (Some(account), Some(_)) if profile.is_some() => account,
        (_, Some(problem)) => return Err(problem.into()),
        (None, None) => return Err(not_found("user", user.as_str())),
    };
    check_account(&user, &account, allow_system)?;
    let image = resolve(images, image, default)?;
    let named = profile.is_some();
    let profile = match (profile, Rule::first(rules, &member.groups)) {
        (Some(profile), _) => profile,
        (None, Some(rule)) => name("profile", &rule.profile)?,
        (None, None) => name("profile", DEFAULT_PROFILE)?,
    };
    Ok(Candidate { user, account, profile, named, image, own, allow_system, wanted, until, made_by: None })
}

/// The profile, looked up once in a transaction.
async fn find(connection: &mut Connection, profile: &ProfileName, known: &mut HashMap<ProfileName, Profile>) -> Result<Profile, Error> {
    if let Some(found) = known.get(profile) {
        return Ok(found.clone());
    }
    let found = berths::find_profile(connection, profile).await?;
    known.insert(profile.clone(), found.clone());
    Ok(found)
}

pub(super) fn check_own(own: &Own, profile: Limits) -> Result<(), Error> {
    quota::check_limits(own.limits.over(profile))?;
    match &own.egress {
        Some(egress) => check_policy(&HostPolicy { egress: egress.clone(), ..HostPolicy::default() }),
        None => Ok(()),
    }
}

/// Refuses an end that has passed or never comes.
pub(super) fn check_until(until: i64, now: i64) -> Result<(), Error> {
    match until {
        _ if until <= now => Err(Problem::new(Refusal::Invalid, "invalid_until", "the end has passed already")
            .hint("name a time to come, in milliseconds since 1970")
            .into()),
        _ if until > LATEST => Err(Problem::new(Refusal::Invalid, "invalid_until", "the end lies beyond the year 9999")
            .hint("leave it out for something that does not end")
            .into()),
        _ => Ok(()),
    }
}

pub(super) fn check_account(user: &UserName, account: &HostUser, allow_system: bool) -> Result<(), Error> {
    if account.uid == 0 {
        let detail = format!("{user} is the superuser; root cannot have a berth");
        return Err(Problem::new(Refusal::Limit, "root_not_allowed", detail).hint("assign the berth to an ordinary account").into());
    }
    if account.system && !allow_system {
        let detail = format!("{user} (uid {}) is a system account", account.uid);
        return Err(Problem::new(Refusal::Limit, "system_account", detail).hint("pass --allow-system if this is meant").into());
    }
    Ok(())
}

fn twice(user: &UserName) -> Error {
    Problem::new(Refusal::Conflict, "duplicate_user", format!("{user} is named twice")).hint("leave all but one of the lines out").into()
}
