//! Archives: a berth made from one, what there is, and its removal.

use berth_api::{Accepted, Archive, RestoreBerth};
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Context, berths::finish, words::quota};
use crate::{
    Outcome,
    failure::Failure,
    output::{self, Rows, printable},
    progress::{self, Show},
    units,
};

#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveCommand {
    /// List archives, newest first
    #[command(visible_alias = "ls")]
    List,
    /// Remove an archive
    #[command(visible_alias = "rm")]
    Remove {
        /// Its name
        archive: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// Name of the archive, see berth archive list
    archive: String,
    /// Account that gets the berth [default: whose it was]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Quota set [default: its own, or default where that is not known]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Accept a system account
    #[arg(long)]
    allow_system: bool,
    /// Leave it stopped; it starts on the first connection
    #[arg(long)]
    no_start: bool,
    /// Do not wait until it is done
    #[arg(long)]
    no_wait: bool,
}

pub(super) async fn run(context: &Context, command: ArchiveCommand) -> Outcome {
    match command {
        ArchiveCommand::List => list(context).await,
        ArchiveCommand::Remove { archive } => {
            let accepted = context.client.remove_archive(&archive).await?;
            finish(context, accepted, true, &format!("The archive {archive} is removed.")).await
        }
    }
}

async fn list(context: &Context) -> Outcome {
    let archives = context.client.archives().await?;
    if context.json {
        output::json(&archives)?;
        return Ok(0);
    }
    let mut rows = Rows::new(&["ARCHIVE", "USER", "AGE", "SIZE", "DISK", "PROFILE", "DOCKER IMAGES"]);
    for archive in &archives.items {
        rows.push(row(archive));
    }
    rows.show()?;
    Ok(0)
}

fn row(archive: &Archive) -> [String; 7] {
    const SHOWN: usize = 3;
    let mut images = archive.docker_images.iter().take(SHOWN).map(|name| printable(name)).collect::<Vec<_>>().join(", ");
    if archive.docker_images.len() > SHOWN {
        images = format!("{images}, and {} more", archive.docker_images.len() - SHOWN);
    }
    [
        archive.name.clone(),
        printable(&archive.user),
        units::age(archive.created_at, units::now()),
        units::bytes(archive.size_bytes),
        units::bytes(archive.disk_bytes),
        printable(archive.profile.as_deref().unwrap_or("-")),
        images,
    ]
}

pub(super) async fn restore(context: &Context, arguments: RestoreArguments) -> Outcome {
    let RestoreArguments { archive, user, profile, allow_system, no_start, no_wait } = arguments;
    let request = RestoreBerth { user, profile, start: !no_start, allow_system };
    let accepted = context.client.restore(&archive, &request).await?;
    let user = accepted.operation.subject.clone();
    if no_wait {
        return finish(context, accepted, false, "").await;
    }
    let warnings = accepted.warnings.clone();
    let show = if context.json { Show::Nothing } else { Show::Steps };
    let operation = progress::follow(&context.client, accepted, show).await?;
    if context.json {
        output::json(&Accepted { operation, warnings })?;
        return Ok(0);
    }
    let berth = context.client.berth(&user).await?;
    output::line(&format!("{user} has the berth of {archive}: {}.", quota(berth.limits)))?;
    Ok(0)
}

/// Deletes a berth into an archive; an empty name: after the user and the time.
pub(super) async fn delete(context: &Context, user: &str, archive: &str, wait: bool) -> Outcome {
    let accepted = context.client.delete_into_archive(user, archive).await?;
    if !wait {
        return finish(context, accepted, false, "").await;
    }
    let show = if context.json { Show::Nothing } else { Show::Steps };
    let operation = progress::follow(&context.client, accepted, show).await?;
    match context.json {
        true => output::json(&json!({ "operation": operation, "archive": operation.result }))?,
        false => {
            let kept =
                operation.result.as_deref().map_or_else(|| "there was nothing to archive".to_owned(), |name| format!("archive {name}"));
            output::line(&format!("The berth of {user} is deleted ({kept})."))?;
        }
    }
    Ok(0)
}

/// So that a wrong option is told before anything is asked.
pub(super) fn check_name(archive: &str) -> Result<(), Failure> {
    if archive.is_empty() || archive.ends_with(".berth") {
        return Ok(());
    }
    Err(Failure::usage(
        format!("{archive:?} cannot be the name of an archive"),
        "--archive=NAME.berth, or --archive alone; it lies in archive_dir of node.toml",
    ))
}
