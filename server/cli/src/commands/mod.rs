//! One file per kind of thing.

mod admin;
mod archive;
mod audit;
mod backup;
mod berths;
mod claim;
mod doctor;
mod exec;
mod images;
mod login;
mod look;
mod many;
mod offboard;
mod operations;
mod profiles;
mod pull;
mod remote;
mod requests;
mod rules;
mod suspension;
mod token;
mod top;
mod words;

use std::path::PathBuf;

use berth_api::client::Client;
use clap::Parser;
use nix::unistd::{User, getuid};

pub(crate) use admin::AdminCommand;
pub(crate) use archive::{ArchiveCommand, RestoreArguments};
pub(crate) use audit::AuditArguments;
pub(crate) use backup::BackupCommand;
pub(crate) use claim::ClaimArguments;
pub(crate) use look::ListArguments;
pub(crate) use many::ManyArguments;
pub(crate) use offboard::OffboardArguments;
pub(crate) use operations::OperationsCommand;
pub(crate) use pull::PullArguments;
pub(crate) use remote::RemoteArguments;
pub(crate) use requests::{RequestArguments, RequestsCommand};
pub(crate) use rules::RuleCommand;
pub(crate) use token::{SessionCommand, TokenCommand};
pub(crate) use top::TopArguments;

use crate::{
    Outcome,
    arguments::{Arguments, Command},
    failure::Failure,
    progress,
};

/// What every command needs.
struct Context {
    client: Client,
    /// Of the service.
    socket: PathBuf,
    json: bool,
}

/// Runs the command; the code is 0, or that of a command inside. Whoever asks for his own berth and has none takes one first, where the rules
/// of the host give him one.
pub(crate) async fn run(arguments: Arguments) -> Outcome {
    let remote = arguments.remote.client()?;
    let local = remote.is_none();
    if !local {
        refuse_what_is_of_this_host(&arguments.command)?;
    }
    let client = remote.unwrap_or_else(|| Client::new(arguments.socket.clone()));
    let context = Context { client, socket: arguments.socket, json: arguments.json };
    let own = local && asks_for_own(&arguments.command);
    match carry_out(&context, arguments.command).await {
        Err(failure) if own && failure.is("berth_not_found") => {
            let show = if context.json { progress::Show::Nothing } else { progress::Show::Steps };
            match claim::make(&context, show).await {
                // What the command was told says more than that no rule gives a berth.
                Err(_) => Err(failure),
                Ok(_) => carry_out(&context, Arguments::parse().command).await,
            }
        }
        outcome => outcome,
    }
}

/// True for commands about the caller's own berth.
fn asks_for_own(command: &Command) -> bool {
    if getuid().is_root() {
        return false;
    }
    match command {
        Command::Status | Command::Context(_) => true,
        Command::Show { user }
        | Command::Env { user, .. }
        | Command::Start { user, .. }
        | Command::Shell { user }
        | Command::Logs { user, .. } => user.is_none(),
        _ => false,
    }
}

async fn carry_out(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Assign { user, from, until, profile, image, limits, allow_system, no_start, start, many } => match (user, from) {
            (_, Some(file)) => {
                let usual = many::Usual { profile, image, limits, until, allow_system, start };
                many::assign(context, &file, &usual, many).await
            }
            (user, None) => {
                let new = berths::new_berth(user.unwrap_or_default(), profile, image, &limits, allow_system, !no_start, until)?;
                match many.dry_run {
                    true => many::assign_one(context, new, many).await,
                    false => berths::assign(context, new, !many.no_wait).await,
                }
            }
        },
        Command::List(arguments) => look::list(context, arguments).await,
        Command::Show { user } => look::show(context, &user_or_self(user)?).await,
        Command::Set { users, all_of_profile, profile, until, limits, many } => {
            let change = berths::change(profile, &limits, until)?;
            match users.as_slice() {
                [user] => berths::set(context, user, &change, many).await,
                _ => many::set(context, users, all_of_profile, change, many).await,
            }
        }
        Command::Top(arguments) => top::top(context, arguments).await,
        Command::Start { user, no_wait } => berths::power(context, berths::Power::Start, &user_or_self(user)?, !no_wait).await,
        Command::Stop { user, no_wait } => berths::power(context, berths::Power::Stop, &user_or_self(user)?, !no_wait).await,
        Command::Restart { user, no_wait } => berths::power(context, berths::Power::Restart, &user_or_self(user)?, !no_wait).await,
        Command::Rebuild { user, wipe, yes, no_wait } => berths::rebuild(context, &user_or_self(user)?, wipe, yes, !no_wait).await,
        Command::Suspend { whom, reason, no_wait } => suspension::suspend(context, whom, &reason, !no_wait).await,
        Command::Resume { whom, no_wait } => suspension::resume(context, whom, !no_wait).await,
        Command::Delete { user, archive, yes, no_wait } => berths::delete(context, &user, archive, yes, !no_wait).await,
        Command::Offboard(arguments) => offboard::offboard(context, arguments).await,
        Command::Restore(arguments) => archive::restore(context, arguments).await,
        Command::Archive(command) => archive::run(context, command).await,
        Command::Exec { user, interactive, tty, uid, env, workdir, argv } => {
            let (uid, gid) = uid.unwrap_or_default();
            exec::exec(context, &user, exec::Call { argv, env, cwd: workdir, uid, gid, interactive, tty }).await
        }
        Command::Shell { user } => exec::shell(context, &user_or_self(user)?).await,
        Command::Logs { user, follow, tail } => exec::logs(context, &user_or_self(user)?, tail, follow).await,
        Command::Image(command) => images::run(context, command).await,
        Command::Profile(command) => profiles::run(context, command).await,
        Command::Operations(command) => operations::run(context, command).await,
        Command::Rule(command) => rules::run(context, command).await,
        Command::Request(arguments) => requests::request(context, arguments).await,
        Command::Requests(command) => requests::run(context, command).await,
        Command::Claim(arguments) => claim::claim(context, arguments).await,
        Command::Status => look::status(context, &user_or_self(None)?).await,
        Command::Env { user, shell } => login::env(context, user, shell).await,
        Command::Context(arguments) => login::context(context, arguments).await,
        Command::Audit(arguments) => audit::audit(context, arguments).await,
        Command::Admin(command) => admin::run(context, command).await,
        Command::Token(command) => token::run(context, command).await,
        Command::Session(command) => token::sessions(context, command).await,
        Command::Webui => token::webui(context).await,
        Command::Backup(command) => backup::run(context, command),
        Command::Doctor { deep } => doctor::doctor(context, deep).await,
    }
}

/// On another host nobody is "you" by his account here, and its sockets are not to be reached from here.
fn refuse_what_is_of_this_host(command: &Command) -> Result<(), Failure> {
    let yours = matches!(
        command,
        Command::Show { user: None }
            | Command::Start { user: None, .. }
            | Command::Stop { user: None, .. }
            | Command::Restart { user: None, .. }
            | Command::Rebuild { user: None, .. }
            | Command::Shell { user: None }
            | Command::Logs { user: None, .. }
            | Command::Status
    );
    match command {
        _ if yours => Err(Failure::usage("whose berth is meant?", "with --url, name the user")),
        Command::Env { .. } | Command::Context(_) | Command::Webui | Command::Backup(_) => {
            Err(Failure::usage("this is about the host that it runs on", "leave out --url, and BERTH_URL"))
        }
        _ => Ok(()),
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
