//! Profiles: named quota sets.

use berth_api::{NewProfile, Profile, ProfileChange};
use serde_json::json;

use super::{Context, berths::quota};
use crate::{
    Outcome,
    arguments::ProfileCommand,
    failure::Failure,
    output::{self, Rows},
    units,
};

pub(super) async fn run(context: &Context, command: ProfileCommand) -> Outcome {
    match command {
        ProfileCommand::List => list(context).await,
        ProfileCommand::Show { name } => show(context, &context.client.profile(&name).await?),
        ProfileCommand::Create { name, description, limits } => {
            let new = NewProfile {
                name,
                description: description.unwrap_or_default(),
                cpu_millis: limits.cpu_millis(),
                memory_bytes: limits.memory_bytes(),
                pids: limits.pids_limit,
                disk_bytes: limits.disk_bytes(),
            };
            changed(context, &context.client.create_profile(&new).await?)
        }
        ProfileCommand::Set { name, description, limits } => {
            let change = ProfileChange {
                description,
                cpu_millis: limits.cpu_millis(),
                memory_bytes: limits.memory_bytes(),
                pids: limits.pids_limit,
                disk_bytes: limits.disk_bytes(),
            };
            if change == ProfileChange::default() {
                return Err(Failure::usage("there is nothing to change", "berth profile set NAME --cpus 2 --memory 4g"));
            }
            changed(context, &context.client.change_profile(&name, &change).await?)
        }
        ProfileCommand::Rm { name } => {
            context.client.delete_profile(&name).await?;
            match context.json {
                true => output::json(&json!({ "deleted": name }))?,
                false => output::line(&format!("The profile {name} is deleted."))?,
            }
            Ok(0)
        }
    }
}

async fn list(context: &Context) -> Outcome {
    let profiles = context.client.profiles().await?;
    if context.json {
        output::json(&profiles)?;
        return Ok(0);
    }
    let mut rows = Rows::new(&["NAME", "CPUS", "MEMORY", "DISK", "PIDS", "BERTHS", "DESCRIPTION"]);
    for profile in profiles.items {
        rows.push([
            profile.name,
            units::cpus(profile.limits.cpu_millis.into()),
            units::bytes(profile.limits.memory_bytes),
            units::bytes(profile.limits.disk_bytes),
            profile.limits.pids.to_string(),
            profile.berths.to_string(),
            profile.description,
        ]);
    }
    rows.show()?;
    Ok(0)
}

fn show(context: &Context, profile: &Profile) -> Outcome {
    if context.json {
        output::json(profile)?;
        return Ok(0);
    }
    output::facts(&[
        ("name", profile.name.clone()),
        ("description", profile.description.clone()),
        ("cpus", units::cpus(profile.limits.cpu_millis.into())),
        ("memory", units::bytes(profile.limits.memory_bytes)),
        ("pids", profile.limits.pids.to_string()),
        ("disk", units::bytes(profile.limits.disk_bytes)),
        ("berths", profile.berths.to_string()),
    ])?;
    Ok(0)
}

fn changed(context: &Context, profile: &Profile) -> Outcome {
    match context.json {
        true => output::json(profile)?,
        false => output::line(&format!("The profile {} gives {}.", profile.name, quota(profile.limits)))?,
    }
    Ok(0)
}
