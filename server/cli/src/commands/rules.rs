//! Rules: which profile the members of a host group get.

use berth_api::{ApplyRules, NewRule, Rule, RuleChange};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Context,
    many::{self, ManyArguments},
};
use crate::{
    Outcome,
    failure::Failure,
    output::{self, Rows, printable},
};

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RuleCommand {
    /// List the rules in their order; the first whose group a user belongs to decides
    #[command(visible_alias = "ls")]
    List,
    /// Make a rule; berths that are there change only by apply
    Add {
        #[command(flatten)]
        group: Group,
        /// Quota set that members get
        #[arg(long, value_name = "NAME")]
        profile: String,
        /// Give members a berth at their login or first berth command
        #[arg(long)]
        auto: bool,
        /// No more than so many of them at a time
        #[arg(long, value_name = "N", requires = "auto")]
        most: Option<u32>,
        /// Its place, from 1 [default: the last]
        #[arg(long, value_name = "N")]
        position: Option<u32>,
    },
    /// Change a rule
    Set {
        #[command(flatten)]
        group: Group,
        /// Quota set that members get
        #[arg(long, value_name = "NAME")]
        profile: Option<String>,
        /// Give members a berth on first use
        #[arg(long, conflicts_with = "no_auto")]
        auto: bool,
        /// Give them none
        #[arg(long)]
        no_auto: bool,
        /// No more than so many of them at a time, or any
        #[arg(long, value_name = "N|any")]
        most: Option<Most>,
    },
    /// Move a rule to another place
    Move {
        #[command(flatten)]
        group: Group,
        /// From 1
        #[arg(long, value_name = "N")]
        position: u32,
    },
    /// Remove a rule; berths that it gave stay as they are
    #[command(visible_alias = "rm")]
    Remove {
        #[command(flatten)]
        group: Group,
    },
    /// Give every berth the profile that the rules now give its user; one whose profile a person named keeps it
    Apply(ManyArguments),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Group {
    /// Name of the host group
    #[arg(long, value_name = "NAME")]
    group: String,
}

/// A number, or the word `any`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Most(Option<u32>);

impl std::str::FromStr for Most {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "any" => Ok(Self(None)),
            _ => text.parse().map(|most| Self(Some(most))).map_err(|_| format!("{text:?} is no number; write for instance 200, or any")),
        }
    }
}

pub(super) async fn run(context: &Context, command: RuleCommand) -> Outcome {
    match command {
        RuleCommand::List => list(context).await,
        RuleCommand::Add { group, profile, auto, most, position } => {
            let new = NewRule { group: group.group, profile, auto, most, position };
            told(context, &context.client.create_rule(&new).await?)
        }
        RuleCommand::Set { group, profile, auto, no_auto, most } => {
            let auto = (auto || no_auto).then_some(auto);
            let change = RuleChange { profile, auto, most: most.map(|most| most.0), position: None };
            if change == RuleChange::default() {
                return Err(Failure::usage(
                    "there is nothing to change",
                    "berth rule set --group GROUP --profile NAME, --auto, --no-auto or --most N",
                ));
            }
            told(context, &context.client.change_rule(&group.group, &change).await?)
        }
        RuleCommand::Move { group, position } => {
            let change = RuleChange { position: Some(position), ..RuleChange::default() };
            told(context, &context.client.change_rule(&group.group, &change).await?)
        }
        RuleCommand::Remove { group } => {
            context.client.delete_rule(&group.group).await?;
            match context.json {
                true => output::json(&json!({ "deleted": group.group }))?,
                false => output::line(&format!("The rule of the group {} is removed; berths that it gave stay.", printable(&group.group)))?,
            }
            Ok(0)
        }
        RuleCommand::Apply(many) => {
            let apply = ApplyRules { all_or_none: many.all_or_none, dry_run: many.dry_run };
            many::applied(context, context.client.apply_rules(&apply).await?, many).await
        }
    }
}

async fn list(context: &Context) -> Outcome {
    let rules = context.client.rules().await?;
    if context.json {
        output::json(&rules)?;
        return Ok(0);
    }
    if rules.items.is_empty() {
        output::line(
            "There are no rules: whoever names no profile gets default. To make one: berth rule add --group GROUP --profile NAME",
        )?;
        return Ok(0);
    }
    let mut rows = Rows::new(&["PLACE", "GROUP", "PROFILE", "ON FIRST USE", "GIVEN"]);
    for rule in rules.items {
        let first = match (rule.auto, rule.most) {
            (false, _) => "nothing".to_owned(),
            (true, None) => "a berth".to_owned(),
            (true, Some(most)) => format!("a berth, {most} at most"),
        };
        rows.push([rule.position.to_string(), printable(&rule.group), rule.profile, first, rule.given.to_string()]);
    }
    rows.show()?;
    Ok(0)
}

fn told(context: &Context, rule: &Rule) -> Outcome {
    if context.json {
        output::json(rule)?;
        return Ok(0);
    }
    let first = if rule.auto { ", and a berth on first use" } else { "" };
    output::line(&format!("Place {}: members of {} get the profile {}{first}.", rule.position, printable(&rule.group), rule.profile))?;
    output::line("Berths that are there stay as they are; to see what would change: berth rule apply --dry-run")?;
    Ok(0)
}
