use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::explicit;

/// Which profile the members of a host group get. Rules are asked in their order; the first whose group the user belongs to decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rule {
    /// Name of the host group.
    pub group: String,
    /// From 1.
    pub position: u32,
    pub profile: String,
    /// A member's login or first use gives him a berth.
    pub auto: bool,
    /// Berths that first uses may have made by this rule at a time; absent: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u32>,
    /// Berths that they have made, and that are still there.
    pub given: u64,
    pub created_at: i64,
    pub updated_at: i64,
}

/// All rules in their order; at most 100.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleList {
    pub items: Vec<Rule>,
}

/// Makes a rule. A group has at most one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRule {
    pub group: String,
    pub profile: String,
    #[serde(default)]
    pub auto: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub most: Option<u32>,
    /// From 1; the last unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
}

/// Changes a rule. What is left out stays; a `most` of `null` means any number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "explicit")]
    #[schema(value_type = Option<u32>)]
    pub most: Option<Option<u32>>,
    /// The new place, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
}

/// Gives every berth the profile that the rules now give its user, but for those whose profile a person named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRules {
    /// Change none when any of them is refused.
    #[serde(default)]
    pub all_or_none: bool,
    /// Tell which would change, and change none.
    #[serde(default)]
    pub dry_run: bool,
}
