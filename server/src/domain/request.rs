//! What a user asks for beyond what his berth has, for a while.
//!
//! ```text
//! open ── approve ──→ approved ── the node has it ──→ active ── the end, or cancel ──→ ending ── the node has it ──→ ended
//!  │ ↑                   │                                                             ↑   │
//!  │ └─ the node refuses ┘                                          tried again later ─┘   └─ the node refuses ──→ overdue
//!  ├─ deny → denied      ├─ cancel → cancelled      └─ its end comes before anybody decides → lapsed
//! ```
//!
//! While a request is approved, active or overdue it is a [`Grant`]: it lies over the berth's own limits and its profile and changes
//! neither. So whatever is changed meanwhile (limits, profile, another grant) holds at once with the grant on top, and holds alone when the
//! grant ends: nothing is ever put back.

use serde::{Deserialize, Serialize};

use super::{BerthId, Limits, Problem, RequestId, UserName};

/// How much of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    /// So much on top of what the berth has; such amounts of several grants add up.
    Add(u64),
    /// At least so much; of several grants the largest counts.
    To(u64),
}

/// The limits that can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    pub cpu_millis: Option<Amount>,
    pub memory_bytes: Option<Amount>,
    pub pids: Option<Amount>,
    pub disk_bytes: Option<Amount>,
}

impl Figures {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// True when there is more in it than a disk.
    pub fn beyond_disk(&self) -> bool {
        !Self { disk_bytes: None, ..*self }.is_empty()
    }

    /// These, with `change` wherever that says something.
    pub fn changed(self, change: Figures) -> Figures {
        Self {
            cpu_millis: change.cpu_millis.or(self.cpu_millis),
            memory_bytes: change.memory_bytes.or(self.memory_bytes),
            pids: change.pids.or(self.pids),
            disk_bytes: change.disk_bytes.or(self.disk_bytes),
        }
    }
}

/// A request that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub request: RequestId,
    pub figures: Figures,
    /// Milliseconds since the epoch.
    pub until: i64,
    /// It has ended and the node cannot take it away: why, and since when.
    #[serde(default)]
    pub overdue: Option<(Problem, i64)>,
}

/// `base` with all `grants` on top. A value above what any berth may have is left for the check of limits.
pub fn effective(base: Limits, grants: &[Grant]) -> Limits {
    let total = |base: u64, of: fn(&Figures) -> Option<Amount>| {
        let (mut sum, mut floor) = (base, 0);
        for amount in grants.iter().filter_map(|grant| of(&grant.figures)) {
            match amount {
                Amount::Add(more) => sum = sum.saturating_add(more),
                Amount::To(least) => floor = least.max(floor),
            }
        }
        sum.max(floor)
    };
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Limits {
        cpu_millis: small(total(base.cpu_millis.into(), |figures| figures.cpu_millis)),
        memory_bytes: total(base.memory_bytes, |figures| figures.memory_bytes),
        pids: small(total(base.pids.into(), |figures| figures.pids)),
        disk_bytes: total(base.disk_bytes, |figures| figures.disk_bytes),
        ..base
    }
}

/// Limits below `grants` of which `kept` is what comes out; where that cannot be told, what does not cut anything when the grants end.
pub fn below(kept: Limits, grants: &[Grant]) -> Limits {
    let least = Limits::LEAST;
    let rest = |kept: u64, least: u64, of: fn(&Figures) -> Option<Amount>| {
        let added = grants.iter().filter_map(|grant| of(&grant.figures)).map(|amount| match amount {
            Amount::Add(more) => more,
            Amount::To(_) => 0,
        });
        kept.saturating_sub(added.fold(0, u64::saturating_add)).max(least)
    };
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Limits {
        cpu_millis: small(rest(kept.cpu_millis.into(), least.cpu_millis.into(), |figures| figures.cpu_millis)),
        memory_bytes: rest(kept.memory_bytes, least.memory_bytes, |figures| figures.memory_bytes),
        pids: small(rest(kept.pids.into(), least.pids.into(), |figures| figures.pids)),
        disk_bytes: rest(kept.disk_bytes, least.disk_bytes, |figures| figures.disk_bytes),
        ..kept
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestState {
    Open,
    Denied,
    Cancelled,
    /// Nobody decided before its end.
    Lapsed,
    /// The node has not applied it yet.
    Approved,
    Active,
    /// The node has not taken it away yet.
    Ending,
    /// Ended, and the node refuses to take it away.
    Overdue,
    Ended,
}

impl RequestState {
    pub const ALL: [RequestState; 9] =
        [Self::Open, Self::Denied, Self::Cancelled, Self::Lapsed, Self::Approved, Self::Active, Self::Ending, Self::Overdue, Self::Ended];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Denied => "denied",
            Self::Cancelled => "cancelled",
            Self::Lapsed => "lapsed",
            Self::Approved => "approved",
            Self::Active => "active",
            Self::Ending => "ending",
            Self::Overdue => "overdue",
            Self::Ended => "ended",
        }
    }

    /// True while the berth has it, or is to have it.
    pub fn holds(self) -> bool {
        matches!(self, Self::Approved | Self::Active | Self::Overdue)
    }
}

/// A request as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub id: RequestId,
    pub berth: BerthId,
    pub user: UserName,
    pub state: RequestState,
    pub asked: Figures,
    pub asked_until: i64,
    pub reason: String,
    /// What was approved.
    pub granted: Option<Figures>,
    /// As asked, or as approved.
    pub until: i64,
    pub decided_by: Option<String>,
    pub decided_at: Option<i64>,
    /// What whoever decided had to say.
    pub word: Option<String>,
    pub generation: Option<i64>,
    /// Why it could not be applied, or cannot be taken away.
    pub problem: Option<(Problem, i64)>,
    pub attempts: u32,
    pub created_at: i64,
    pub updated_at: i64,
}

impl Request {
    /// Open ones of one user.
    pub const MOST_OPEN: u32 = 5;
    /// That one user may make in 24 hours.
    pub const MOST_A_DAY: u32 = 20;

    /// As before anybody decided.
    pub fn reopen(&mut self) {
        (self.state, self.granted, self.until) = (RequestState::Open, None, self.asked_until);
        (self.decided_by, self.decided_at, self.word) = (None, None, None);
    }

    /// When something happens to it by itself; nothing: it waits for the node, or is over.
    pub fn due(state: RequestState, until: i64, attempts: u32, now: i64) -> Option<i64> {
        match state {
            RequestState::Open | RequestState::Approved | RequestState::Active => Some(until),
            RequestState::Overdue => Some(now + pause(attempts)),
            RequestState::Denied | RequestState::Cancelled | RequestState::Lapsed | RequestState::Ending | RequestState::Ended => None,
        }
    }
}

/// Before the next attempt to take away what is overdue: 15 s, 30 s, … 8 min.
fn pause(attempts: u32) -> i64 {
    15_000 << attempts.saturating_sub(1).min(5)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn grant(number: u128, figures: Figures) -> Grant {
        Grant { request: RequestId(Uuid::from_u128(number)), figures, until: 1_000, overdue: None }
    }

    fn disk(number: u128, amount: Amount) -> Grant {
        grant(number, Figures { disk_bytes: Some(amount), ..Figures::default() })
    }

    fn base(disk_bytes: u64) -> Limits {
        Limits { disk_bytes, ..Limits::LEAST }
    }

    #[test]
    fn a_grant_lies_on_top_and_nothing_else_moves() {
        assert_eq!(effective(base(10 * GIB), &[]), base(10 * GIB));
        assert_eq!(effective(base(10 * GIB), &[disk(1, Amount::Add(20 * GIB))]), base(30 * GIB));
        assert_eq!(effective(base(10 * GIB), &[disk(1, Amount::To(20 * GIB))]), base(20 * GIB));
        let all = Figures {
            cpu_millis: Some(Amount::Add(500)),
            memory_bytes: Some(Amount::To(GIB)),
            pids: Some(Amount::To(65)),
            disk_bytes: None,
        };
        let expected = Limits { cpu_millis: 550, memory_bytes: GIB, pids: 65, ..Limits::LEAST };
        assert_eq!(effective(Limits::LEAST, &[grant(1, all)]), expected);
    }

    #[test]
    fn what_is_added_adds_up_and_of_what_is_at_least_the_largest_counts() {
        let grants = [disk(1, Amount::Add(5 * GIB)), disk(2, Amount::To(12 * GIB)), disk(3, Amount::Add(2 * GIB)), disk(4, Amount::To(3))];
        assert_eq!(effective(base(10 * GIB), &grants), base(17 * GIB));
        assert_eq!(effective(base(4 * GIB), &grants), base(12 * GIB));
        // In whatever order they come and go.
        assert_eq!(effective(base(10 * GIB), &[grants[2].clone(), grants[1].clone()]), base(12 * GIB));
    }

    #[test]
    fn limits_that_were_changed_meanwhile_hold_with_the_grant_and_without() {
        let grants = [disk(1, Amount::Add(20 * GIB))];
        for own in [2, 10, 50] {
            assert_eq!(effective(base(own * GIB), &grants), base((own + 20) * GIB));
        }
        // A limit that was raised above an absolute grant is not lowered by it.
        assert_eq!(effective(base(50 * GIB), &[disk(1, Amount::To(20 * GIB))]), base(50 * GIB));
    }

    #[test]
    fn too_much_ends_at_the_check_of_limits_and_never_wraps() {
        let much = Figures { cpu_millis: Some(Amount::Add(u64::MAX)), disk_bytes: Some(Amount::Add(u64::MAX)), ..Figures::default() };
        let total = effective(Limits::LEAST, &[grant(1, much), grant(2, much)]);
        assert_eq!((total.cpu_millis, total.disk_bytes), (u32::MAX, u64::MAX));
        assert!(total.validate().is_err());
    }

    #[test]
    fn what_a_node_kept_is_told_apart_from_what_was_granted() {
        let grants = [disk(1, Amount::Add(5 * GIB)), disk(2, Amount::To(12 * GIB))];
        let kept = effective(base(10 * GIB), &grants);
        assert_eq!(below(kept, &grants), base(10 * GIB));
        assert_eq!(effective(below(kept, &grants), &grants), kept);
        // Below a floor the rest cannot be told: the berth keeps what it has.
        assert_eq!(below(base(12 * GIB), &grants[1..]), base(12 * GIB));
        assert_eq!(below(base(2 * GIB), &grants[..1]), base(GIB), "never below the least");
    }

    #[test]
    fn what_is_overdue_is_tried_again_after_growing_pauses() {
        let pauses: Vec<_> = (1..9).map(|attempts| Request::due(RequestState::Overdue, 5, attempts, 0).unwrap() / 1000).collect();
        assert_eq!(pauses, [15, 30, 60, 120, 240, 480, 480, 480]);
        for state in RequestState::ALL {
            let due = Request::due(state, 5, 1, 0);
            assert_eq!(due == Some(5), matches!(state, RequestState::Open | RequestState::Approved | RequestState::Active), "{state:?}");
        }
    }

    #[test]
    fn figures_are_changed_one_by_one() {
        let asked = Figures { disk_bytes: Some(Amount::Add(20)), pids: Some(Amount::To(5)), ..Figures::default() };
        let less = Figures { disk_bytes: Some(Amount::Add(10)), ..Figures::default() };
        assert_eq!(asked.changed(less), Figures { pids: Some(Amount::To(5)), ..less });
        assert!(asked.beyond_disk() && !less.beyond_disk() && Figures::default().is_empty());
    }
}
