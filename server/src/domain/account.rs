//! What becomes of a berth whose account is gone, locked, expired or another's: from what the node was told to what is to be done.
//!
//! ```text
//! present ── locked, expired ── grace ──────────────────────────────► suspended ── present again ──► resumed
//!         ── not found ── as often, for as long, with a witness ── grace ──► suspended
//!         ── its uid has another name, or its name another uid ──► suspended at once
//!         ── a source does not answer ──► nothing but an alarm
//! ```
//!
//! "Not found" counts only while another account of the same source is found in the same round: an emptied directory has no such witness.
//! When more than a few are in a bad way at once, that says more of the directory than of them: an alarm, and nothing is done.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::BerthId;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountState {
    Present,
    Vanished,
    Locked,
    Expired,
    Renamed,
    Unknown,
}

impl AccountState {
    pub const ALL: [AccountState; 6] = [Self::Present, Self::Vanished, Self::Locked, Self::Expired, Self::Renamed, Self::Unknown];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Vanished => "vanished",
            Self::Locked => "locked",
            Self::Expired => "expired",
            Self::Renamed => "renamed",
            Self::Unknown => "unknown",
        }
    }

    /// The host knows the name.
    fn is_found(self) -> bool {
        matches!(self, Self::Present | Self::Locked | Self::Expired)
    }
}

/// What the node says of an account now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub name: String,
    pub state: AccountState,
    pub detail: String,
    pub local: bool,
}

/// What is kept of the account of a berth. Times are milliseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    pub state: AccountState,
    pub detail: String,
    /// Since when it is in this state.
    pub since: i64,
    pub looked_at: i64,
    /// How often in a row it was not found while a known account of its source was.
    pub misses: u32,
    pub missed_since: Option<i64>,
    /// `/etc/passwd` had it when it was last found.
    pub local: bool,
    /// Last use of the berth that is known of.
    pub last_used_at: Option<i64>,
}

/// Who holds a berth barred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    No,
    /// What is decided here.
    ByThis,
    ByOthers,
}

/// A berth and what was known of its account before.
#[derive(Clone, Debug)]
pub struct Holder {
    pub id: BerthId,
    pub user: String,
    pub barred: Barred,
    pub last_used_at: Option<i64>,
    pub watch: Option<Watch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountRules {
    /// An account is gone when it was not found so often in a row, over at least so many milliseconds.
    pub gone_checks: u32,
    pub gone_after: i64,
    /// Milliseconds from the first sign to the suspension.
    pub grace: i64,
    /// More than so many at once are an alarm; none: the larger of 3 and 2 % of the berths.
    pub max_at_once: Option<u32>,
}

/// What somebody must look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    pub code: String,
    pub detail: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    pub watches: Vec<(BerthId, Watch)>,
    /// With the reason that its user is told.
    pub suspend: Vec<(BerthId, String)>,
    pub resume: Vec<BerthId>,
    pub alarms: Vec<Alarm>,
}

/// Who suspends; no host account can have such a name.
pub const ACCOUNT_WATCH: &str = "account watch";

const FEW: usize = 3;

/// What follows from one round of look-ups.
pub fn decide(rules: &AccountRules, now: i64, holders: &[Holder], seen: &[Observed]) -> Verdict {
    let told: BTreeMap<&str, &Observed> = seen.iter().map(|one| (one.name.as_str(), one)).collect();
    let witness = |local: bool| seen.iter().any(|one| one.local == local && one.state.is_found());
    let witnesses = [witness(false), witness(true)];
    let mut verdict = Verdict::default();
    let (mut due, mut bad, mut unwitnessed, mut unknown, mut renamed) = (Vec::new(), 0, 0, Vec::new(), 0);
    for holder in holders {
        let Some(observed) = told.get(holder.user.as_str()) else { continue };
        let (watch, clean) = look(now, holder, observed, witnesses);
        unwitnessed += usize::from(watch.state == AccountState::Vanished && !clean);
        if watch.state == AccountState::Unknown {
            unknown.push(&observed.detail);
        }
        let waited = now - watch.missed_since.unwrap_or(watch.since);
        match (watch.state, holder.barred) {
            (AccountState::Present, Barred::ByThis) => verdict.resume.push(holder.id),
            (AccountState::Renamed, Barred::No) => {
                renamed += 1;
                verdict.suspend.push((holder.id, watch.detail.clone()));
            }
            (AccountState::Vanished, Barred::No) => {
                bad += 1;
                if clean && watch.misses >= rules.gone_checks && waited >= rules.gone_after.max(rules.grace) {
                    due.push((holder.id, watch.detail.clone()));
                }
            }
            (AccountState::Locked | AccountState::Expired, Barred::No) => {
                bad += 1;
                if waited >= rules.grace {
                    due.push((holder.id, watch.detail.clone()));
                }
            }
            _ => {}
        }
        verdict.watches.push((holder.id, watch));
    }
    let most = rules.max_at_once.map_or_else(|| FEW.max(holders.len() / 50), |most| most as usize);
    let mut alarm = |code: &str, detail: String| verdict.alarms.push(Alarm { code: code.to_owned(), detail });
    if let Some(why) = unknown.first() {
        alarm("directory_unavailable", format!("the host does not tell of {} accounts: {why}", unknown.len()));
    }
    if unwitnessed > 0 {
        alarm(
            "directory_empty",
            format!("{unwitnessed} accounts are not found, nor is any other account of their source: it may be empty or out of reach"),
        );
    }
    if renamed > most {
        alarm("many_renamed", format!("{renamed} accounts have another uid, or their uids another name"));
    }
    match bad > most {
        true => alarm(
            "too_many_at_once",
            format!(
                "{bad} accounts vanished, were locked or have expired at once, the most that is believed is {most}: nobody is suspended for it"
            ),
        ),
        false => verdict.suspend.append(&mut due),
    }
    verdict
}

/// What is known of one account now, and whether its not being found counts.
fn look(now: i64, holder: &Holder, observed: &Observed, witnesses: [bool; 2]) -> (Watch, bool) {
    let before = holder.watch.as_ref();
    let local = observed.local || (!observed.state.is_found() && before.is_some_and(|watch| watch.local));
    let clean = observed.state == AccountState::Vanished && witnesses[usize::from(local)];
    let (misses, missed_since) = match observed.state {
        AccountState::Vanished if clean => {
            (before.map_or(0, |watch| watch.misses).saturating_add(1), before.and_then(|watch| watch.missed_since).or(Some(now)))
        }
        // Neither a sign of life nor one of death.
        AccountState::Vanished | AccountState::Unknown => before.map_or((0, None), |watch| (watch.misses, watch.missed_since)),
        _ => (0, None),
    };
    let since = before.filter(|watch| watch.state == observed.state).map_or(now, |watch| watch.since);
    let last_used_at = holder.last_used_at.max(before.and_then(|watch| watch.last_used_at));
    let detail = observed.detail.clone();
    (Watch { state: observed.state, detail, since, looked_at: now, misses, missed_since, local, last_used_at }, clean)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const HOUR: i64 = 3_600_000;
    const RULES: AccountRules = AccountRules { gone_checks: 3, gone_after: HOUR, grace: 2 * HOUR, max_at_once: None };

    fn holder(number: u128) -> Holder {
        Holder { id: BerthId(Uuid::from_u128(number)), user: format!("u{number}"), barred: Barred::No, last_used_at: None, watch: None }
    }

    fn seen(number: u128, state: AccountState) -> Observed {
        Observed { name: format!("u{number}"), state, detail: state.as_str().to_owned(), local: false }
    }

    /// Plays rounds, `step` apart, and returns the last verdict; the holders remember.
    fn rounds(holders: &mut [Holder], step: i64, rounds: &[Vec<Observed>]) -> Verdict {
        let mut verdict = Verdict::default();
        for (number, seen) in (1..).zip(rounds) {
            verdict = decide(&RULES, number * step, holders, seen);
            for (id, watch) in &verdict.watches {
                holders.iter_mut().find(|holder| holder.id == *id).unwrap().watch = Some(watch.clone());
            }
        }
        verdict
    }

    use AccountState::{Expired, Locked, Present, Renamed, Unknown, Vanished};

    #[test]
    fn l05_gone_means_three_clean_misses_over_an_hour_and_the_grace() {
        let mut holders = [holder(1), holder(2)];
        let gone = vec![seen(1, Vanished), seen(2, Present)];
        assert!(rounds(&mut holders, HOUR, &vec![gone.clone(); 2]).suspend.is_empty(), "two misses");
        let mut holders = [holder(1), holder(2)];
        assert!(rounds(&mut holders, HOUR / 4, &vec![gone.clone(); 5]).suspend.is_empty(), "an hour, but within the grace");
        let mut holders = [holder(1), holder(2)];
        let verdict = rounds(&mut holders, HOUR, &vec![gone.clone(); 3]);
        assert_eq!((verdict.suspend.len(), verdict.suspend[0].0, verdict.alarms.len()), (1, holders[0].id, 0));
        // A sign of life between begins anew.
        let mut holders = [holder(1), holder(2)];
        let back = vec![seen(1, Present), seen(2, Present)];
        assert!(rounds(&mut holders, HOUR, &[gone.clone(), gone.clone(), back, gone.clone(), gone]).suspend.is_empty());
    }

    #[test]
    fn l05_an_empty_directory_has_no_witness_and_suspends_nobody() {
        let mut holders: Vec<Holder> = (1..=2).map(holder).collect();
        let local = Observed { name: "root".into(), state: Present, detail: String::new(), local: true };
        let emptied = vec![seen(1, Vanished), seen(2, Vanished), local];
        let verdict = rounds(&mut holders, HOUR, &vec![emptied; 50]);
        assert!(verdict.suspend.is_empty());
        assert_eq!(verdict.alarms[0].code, "directory_empty");
        // With root as witness a local account can be gone.
        let mut holders = [holder(1)];
        let found = vec![Observed { local: true, ..seen(1, Present) }];
        let local = Observed { name: "root".into(), state: Present, detail: String::new(), local: true };
        let gone = vec![seen(1, Vanished), local];
        assert_eq!(rounds(&mut holders, HOUR, &[found, gone.clone(), gone.clone(), gone]).suspend.len(), 1);
    }

    #[test]
    fn l05_a_source_that_does_not_answer_is_an_alarm_and_nothing_else() {
        let mut holders: Vec<Holder> = (1..=3).map(holder).collect();
        let dead: Vec<Observed> = (1..=3).map(|number| seen(number, Unknown)).collect();
        let verdict = rounds(&mut holders, HOUR, &vec![dead; 50]);
        assert!(verdict.suspend.is_empty() && verdict.resume.is_empty());
        assert_eq!(verdict.alarms[0].code, "directory_unavailable");
    }

    #[test]
    fn l05_more_than_a_few_at_once_are_an_alarm_and_nobody_is_suspended() {
        for (all, bad, suspended) in [(100, 3, 3), (100, 4, 0), (400, 8, 8), (400, 9, 0)] {
            let mut holders: Vec<Holder> = (0..all).map(holder).collect();
            let seen: Vec<Observed> = (0..all).map(|number| seen(number, if number < bad { Locked } else { Present })).collect();
            let verdict = rounds(&mut holders, 3 * HOUR, &vec![seen; 2]);
            assert_eq!(verdict.suspend.len(), suspended, "{bad} of {all}");
            assert_eq!(verdict.alarms.iter().any(|alarm| alarm.code == "too_many_at_once"), suspended == 0);
        }
    }

    #[test]
    fn l05_a_uid_under_a_new_name_is_suspended_at_once_whatever_else_is_wrong() {
        let mut holders: Vec<Holder> = (0..9).map(holder).collect();
        let mut all: Vec<Observed> = (0..9).map(|number| seen(number, Vanished)).collect();
        all[0] = seen(0, Renamed);
        let verdict = rounds(&mut holders, HOUR, &[all]);
        assert_eq!(verdict.suspend, [(holders[0].id, "renamed".to_owned())]);
    }

    #[test]
    fn l05_an_account_that_comes_back_is_resumed_if_this_suspended_it() {
        let mut holders = [holder(1), holder(2), holder(3)];
        holders[0].barred = Barred::ByThis;
        holders[1].barred = Barred::ByOthers;
        holders[2].barred = Barred::ByThis;
        let back = vec![seen(1, Present), seen(2, Present), seen(3, Expired)];
        let verdict = rounds(&mut holders, HOUR, &[back]);
        assert_eq!((verdict.resume, verdict.suspend), (vec![holders[0].id], vec![]));
    }

    #[test]
    fn l05_expired_and_locked_have_their_grace_and_last_use_is_remembered() {
        let mut holders = [holder(1), holder(2)];
        holders[0].last_used_at = Some(5);
        let bad = vec![seen(1, Expired), seen(2, Locked)];
        assert!(rounds(&mut holders, HOUR, &vec![bad.clone(); 2]).suspend.is_empty());
        holders[0].last_used_at = None;
        let verdict = rounds(&mut holders, 4 * HOUR, &[bad]);
        assert_eq!(verdict.suspend.len(), 2);
        assert_eq!(verdict.watches[0].1.last_used_at, Some(5));
    }
}
