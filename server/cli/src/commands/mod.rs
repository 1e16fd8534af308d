//! One file per kind of thing.

mod archive;
mod audit;
mod backup;
mod berths;
mod doctor;
mod exec;
mod images;
mod login;
mod look;
mod offboard;
mod operations;
mod profiles;
mod suspension;
mod top;
mod words;

use std::path::PathBuf;

use berth_api::client::Client;
use nix::unistd::{User, getuid};

pub(crate) use archive::{ArchiveCommand, RestoreArguments};
pub(crate) use audit::AuditArguments;
pub(crate) use backup::BackupCommand;
pub(crate) use look::ListArguments;
pub(crate) use offboard::OffboardArguments;
pub(crate) use operations::OperationsCommand;
pub(crate) use top::TopArguments;

use crate::{
    Outcome,
    arguments::{Arguments, Command},
    failure::Failure,
};

/// What every command needs.
struct Context {
    client: Client,
    /// Of the service.
    socket: PathBuf,
    json: bool,
}

/// Runs the command; the code is 0, or that of a command inside.
pub(crate) async fn run(arguments: Arguments) -> Outcome {
    let context = Context { client: Client::new(arguments.socket.clone()), socket: arguments.socket, json: arguments.json };
    match arguments.command {
        Command::Assign { user, profile, image, limits, allow_system, no_start, no_wait } => {
            let new = berths::new_berth(user, profile, image, &limits, allow_system, !no_start)?;
            berths::assign(&context, new, !no_wait).await
        }
        Command::List(arguments) => look::list(&context, arguments).await,
        Command::Show { user } => look::show(&context, &user_or_self(user)?).await,
        Command::Set { user, profile, dry_run, limits } => berths::set(&context, &user, profile, &limits, dry_run).await,
        Command::Top(arguments) => top::top(&context, arguments).await,
        Command::Start { user, no_wait } => berths::power(&context, berths::Power::Start, &user_or_self(user)?, !no_wait).await,
        Command::Stop { user, no_wait } => berths::power(&context, berths::Power::Stop, &user_or_self(user)?, !no_wait).await,
        Command::Restart { user, no_wait } => berths::power(&context, berths::Power::Restart, &user_or_self(user)?, !no_wait).await,
        Command::Suspend { whom, reason, no_wait } => suspension::suspend(&context, whom, &reason, !no_wait).await,
        Command::Resume { whom, no_wait } => suspension::resume(&context, whom, !no_wait).await,
        Command::Delete { user, archive, yes, no_wait } => berths::delete(&context, &user, archive, yes, !no_wait).await,
        Command::Offboard(arguments) => offboard::offboard(&context, arguments).await,
        Command::Restore(arguments) => archive::restore(&context, arguments).await,
        Command::Archive(command) => archive::run(&context, command).await,
        Command::Exec { user, interactive, tty, uid, env, workdir, argv } => {
            let (uid, gid) = uid.unwrap_or_default();
            exec::exec(&context, &user, exec::Call { argv, env, cwd: workdir, uid, gid, interactive, tty }).await
        }
        Command::Shell { user } => exec::shell(&context, &user_or_self(user)?).await,
        Command::Logs { user, follow, tail } => exec::logs(&context, &user_or_self(user)?, tail, follow).await,
        Command::Image(command) => images::run(&context, command).await,
        Command::Profile(command) => profiles::run(&context, command).await,
        Command::Operations(command) => operations::run(&context, command).await,
        Command::Status => look::status(&context, &user_or_self(None)?).await,
        Command::Env { user, shell } => login::env(&context, user, shell).await,
        Command::Context(arguments) => login::context(&context, arguments).await,
        Command::Audit(arguments) => audit::audit(&context, arguments).await,
        Command::Backup(command) => backup::run(&context, command),
        Command::Doctor => doctor::doctor(&context).await,
    }
}

/// The named user, or who calls.
fn user_or_self(user: Option<String>) -> Result<String, Failure> {
    if let Some(user) = user {
        return Ok(user);
    }
    let uid = getuid();
    match User::from_uid(uid) {
        Ok(Some(_)) if uid.is_root() => Err(Failure::usage("root has no berth of its own", "name a user")),
        Ok(Some(user)) => Ok(user.name),
        Ok(None) => Err(Failure::usage(format!("uid {uid} has no account name"), "name a user")),
        Err(error) => Err(Failure::own(1, "account", format!("cannot look up uid {uid}: {error}"), Some("name a user"))),
    }
}
