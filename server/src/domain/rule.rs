//! Rules: which profile the members of a host group get, and whether a first use gives them a berth. The first that matches decides all.

use std::collections::BTreeSet;

use super::{ProfileId, RuleId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub id: RuleId,
    /// Name of a group, as the host's name service knows it.
    pub group: String,
    /// From 1; rules are asked in this order.
    pub position: u32,
    pub profile_id: ProfileId,
    pub profile: String,
    /// A member's first use gives him a berth.
    pub auto: bool,
    /// Berths that first uses may have made by this rule at a time.
    pub most: Option<u32>,
    /// Berths that they have made, and that are still there.
    pub given: u64,
    pub created_at: i64,
    pub updated_at: i64,
}

impl Rule {
    /// Rules in one list.
    pub const MOST: usize = 100;

    /// The rule that decides for a member of these groups; `rules` lie in their order.
    pub fn first<'a>(rules: &'a [Rule], member_of: &BTreeSet<String>) -> Option<&'a Rule> {
        rules.iter().find(|rule| member_of.contains(&rule.group))
    }

    /// The groups that somebody has to be looked up in.
    pub fn groups(rules: &[Rule]) -> Vec<String> {
        rules.iter().map(|rule| rule.group.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_first_rule_that_matches_decides_whatever_the_order_of_the_groups() {
        let rule = |position: u32, group: &str, profile: &str| Rule {
            id: RuleId(Uuid::from_u128(position.into())),
            group: group.to_owned(),
            position,
            profile_id: ProfileId(Uuid::nil()),
            profile: profile.to_owned(),
            auto: false,
            most: None,
            given: 0,
            created_at: 0,
            updated_at: 0,
        };
        let rules = [rule(1, "staff", "developer"), rule(2, "students", "student")];
        let first =
            |groups: &[&str]| Rule::first(&rules, &groups.iter().map(|group| (*group).to_owned()).collect()).map(|one| &*one.profile);
        assert_eq!(first(&["students", "staff"]), Some("developer"));
        assert_eq!(first(&["games", "students"]), Some("student"));
        assert_eq!((first(&["games"]), first(&[])), (None, None));
    }
}
