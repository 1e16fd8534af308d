use std::collections::{BTreeMap, BTreeSet};

/// A chain as its firewall lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// Hangs on the hook `forward`.
    pub(super) forwards: bool,
    /// What no rule decides is dropped.
    pub(super) policy_drops: bool,
    pub(super) rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// What deletes it; only nft has one.
    pub(super) handle: Option<u64>,
    pub(super) text: String,
}

/// What a chain that may drop needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Our rule is in front of all that may drop.
    Nothing,
    Rule,
    /// It is there, but behind a rule that may drop.
    Front,
}

pub(super) type Chains = BTreeMap<String, Chain>;

/// What chain `name` needs so that nothing of ours is dropped in it; `None`: it drops nothing.
pub(super) fn need(chains: &Chains, name: &str, is_ours: impl Fn(&Rule) -> bool) -> Option<Need> {
    let chain = chains.get(name)?;
    let drops = |rule: &Rule| !is_ours(rule) && rule_drops(chains, rule, &mut BTreeSet::from([name.to_owned()]));
    let first = chain.rules.iter().position(drops);
    if first.is_none() && !chain.policy_drops {
        return None;
    }
    let first = first.unwrap_or(chain.rules.len());
    Some(match chain.rules.iter().position(is_ours) {
        Some(place) if place <= first => Need::Nothing,
        Some(_) => Need::Front,
        None => Need::Rule,
    })
}

/// True for a rule that drops, refuses or hands to a program, itself or by a chain that it leads to.
fn rule_drops(chains: &Chains, rule: &Rule, seen: &mut BTreeSet<String>) -> bool {
    let text = unquoted(&rule.text);
    if ["drop", "reject", "queue", "DROP", "REJECT", "QUEUE", "NFQUEUE"].iter().any(|word| says(&text, word)) {
        return true;
    }
    let words: Vec<&str> = text.split([' ', '\t', ',', '{', '}', '"', ';']).filter(|w| !w.is_empty()).collect();
    let leads = words.windows(2).filter(|pair| ["jump", "goto", "-j", "-g"].contains(&pair[0])).map(|pair| pair[1]);
    leads.into_iter().any(|name| {
        seen.insert(name.to_owned()) && chains.get(name).is_some_and(|chain| chain.rules.iter().any(|rule| rule_drops(chains, rule, seen)))
    })
}

/// A word of a rule, not a part of one.
pub(super) fn says(rule: &str, word: &str) -> bool {
    rule.split(|c: char| !(c.is_ascii_alphanumeric() || "_-.".contains(c))).any(|w| w == word)
}

/// Comments and log prefixes say nothing of what a rule does.
fn unquoted(text: &str) -> String {
    text.split('"').step_by(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chains(list: &[(&str, bool, &[&str])]) -> Chains {
        let chain = |policy_drops: bool, rules: &[&str]| Chain {
            forwards: true,
            policy_drops,
            rules: rules.iter().map(|text| Rule { handle: None, text: (*text).to_owned() }).collect(),
        };
        list.iter().map(|(name, policy, rules)| ((*name).to_owned(), chain(*policy, rules))).collect()
    }

    fn ours(rule: &Rule) -> bool {
        rule.text.contains("comment \"berth\"")
    }

    #[test]
    fn n04_only_chains_that_may_drop_need_a_rule_and_it_stands_in_front() {
        let of = |policy, rules: &[&str]| need(&chains(&[("f", policy, rules)]), "f", ours);
        assert_eq!(of(false, &["ct state established accept", "log prefix \"drop: \" accept"]), None);
        assert_eq!(of(true, &[]), Some(Need::Rule));
        assert_eq!(of(true, &["tcp dport 22 accept", "accept comment \"berth\""]), Some(Need::Nothing));
        assert_eq!(of(false, &["accept comment \"berth\"", "reject with icmpx admin-prohibited"]), Some(Need::Nothing));
        assert_eq!(of(false, &["ip saddr 192.0.2.1 drop", "accept comment \"berth\""]), Some(Need::Front));
        assert_eq!(of(false, &["ct state vmap { invalid : drop, new : accept }"]), Some(Need::Rule));
        assert_eq!(need(&Chains::new(), "f", ours), None);
    }

    #[test]
    fn n04_a_drop_behind_jumps_is_found_and_circles_end() {
        let list: &[(&str, bool, &[&str])] = &[
            ("FORWARD", false, &["-A FORWARD -j DOCKER-USER", "-A FORWARD -j LOOP"]),
            ("DOCKER-USER", false, &["-A DOCKER-USER -i eth0 -j DENY"]),
            ("DENY", false, &["-A DENY -j DROP"]),
            ("LOOP", false, &["-A LOOP -j LOOP"]),
            ("CALM", false, &["-A CALM -j LOOP"]),
        ];
        assert_eq!(need(&chains(list), "FORWARD", ours), Some(Need::Rule));
        assert_eq!(need(&chains(list), "CALM", ours), None);
    }
}
