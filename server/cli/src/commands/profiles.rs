//! Profiles: named quota sets.

use berth_api::{Egress, HomeAccess, NewProfile, OpenTo, PolicyChange, PortRange, Profile, ProfileChange, Restart, SharedPath};
use serde_json::json;

use super::{
    Context, look,
    words::{self, quota},
};
use crate::{
    Outcome,
    arguments::{Again, Home, PolicyArguments, ProfileCommand, Reach},
    failure::Failure,
    limits::with_limits,
    output::{self, Rows},
    units::{self, Span},
};

pub(super) async fn run(context: &Context, command: ProfileCommand) -> Outcome {
    match command {
        ProfileCommand::List => list(context).await,
        ProfileCommand::Show { name } => show(context, &context.client.profile(&name).await?),
        ProfileCommand::Create { name, description, limits, policy } => {
            let (description, policy) = (description.unwrap_or_default(), change(policy, limits.egress()));
            let new = with_limits!(limits.named()?, NewProfile { name, description, policy });
            changed(context, &context.client.create_profile(&new).await?)
        }
        ProfileCommand::Set { name, description, limits, policy } => {
            let policy = change(policy, limits.egress());
            let change = with_limits!(limits.named()?, ProfileChange { description, policy });
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
    let mut rows = Rows::new(&["NAME", "CPUS", "MEMORY", "DISK", "PIDS", "HOME", "PORTS", "FREEZE", "STOP", "BERTHS", "DESCRIPTION"]);
    for profile in profiles.items {
        let home = home(&profile);
        rows.push([
            profile.name,
            units::cpus(profile.limits.cpu_millis.into()),
            units::bytes(profile.limits.memory_bytes),
            units::bytes(profile.limits.disk_bytes),
            profile.limits.pids.to_string(),
            home,
            profile.policy.ports.map_or_else(|| "none".to_owned(), |range| format!("{}-{}", range.first, range.last)),
            Span(profile.policy.freeze_after).to_string(),
            Span(profile.policy.stop_after).to_string(),
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
    let mut facts = vec![("name", profile.name.clone()), ("description", profile.description.clone())];
    facts.extend(words::limits(profile.limits, &[]));
    facts.extend(look::policy(&profile.policy));
    facts.push(("berths", profile.berths.to_string()));
    output::facts(&facts)?;
    Ok(0)
}

/// The home, and how many further directories.
fn home(profile: &Profile) -> String {
    let home = match profile.policy.home {
        HomeAccess::Rw => "rw",
        HomeAccess::Ro => "ro",
        HomeAccess::None => "none",
    };
    match profile.policy.paths.len() {
        0 => home.to_owned(),
        count => format!("{home} +{count}"),
    }
}

fn change(arguments: PolicyArguments, egress: Option<Egress>) -> PolicyChange {
    let PolicyArguments { home, paths, no_paths, ports, ports_open_to, freeze_after, stop_after, restart } = arguments;
    PolicyChange {
        home: home.map(|home| match home {
            Home::Rw => HomeAccess::Rw,
            Home::Ro => HomeAccess::Ro,
            Home::None => HomeAccess::None,
        }),
        paths: (no_paths || !paths.is_empty()).then(|| paths.iter().map(|text| shared(text)).collect()),
        ports: ports.map(|ports| ports.0.map(|(first, last)| PortRange { first, last })),
        ports_open_to: ports_open_to.map(|reach| match reach {
            Reach::User => OpenTo::User,
            Reach::Host => OpenTo::Host,
        }),
        freeze_after: freeze_after.map(|span| span.0),
        stop_after: stop_after.map(|span| span.0),
        egress,
        restart: restart.map(|restart| match restart {
            Again::OnFailure => Restart::OnFailure,
            Again::Never => Restart::Never,
        }),
    }
}

/// `DIR`, `DIR:ro` or `DIR:rw`, as Docker writes volumes.
fn shared(text: &str) -> SharedPath {
    let (path, read_only) = match text.strip_suffix(":ro") {
        Some(path) => (path, true),
        None => (text.strip_suffix(":rw").unwrap_or(text), false),
    };
    SharedPath { path: path.to_owned(), read_only }
}

fn changed(context: &Context, profile: &Profile) -> Outcome {
    match context.json {
        true => output::json(profile)?,
        false => output::line(&format!("The profile {} gives {}.", profile.name, quota(profile.limits)))?,
    }
    Ok(0)
}
