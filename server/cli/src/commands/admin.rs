//! Administrators: accounts with a password.

use std::{
    fs,
    io::{self, BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
};

use berth_api::{Admin, AdminChange, AdminRole, NewAdmin, NewPassword, Secret};
use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::Context;
use crate::{
    Outcome,
    failure::Failure,
    output::{self, Rows},
    terminal::Quiet,
    units,
};

#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// Make an administrator
    Create {
        /// Name of the account; it needs no account of this host
        name: String,
        /// What he may do
        #[arg(long, value_enum)]
        role: RoleWord,
        /// A host account that is to have this role on the host itself
        #[arg(long, value_name = "USER")]
        host_user: Option<String>,
        /// File whose first line is the password; without it you are asked, or standard input is read
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// List administrators
    #[command(visible_alias = "ls")]
    List,
    /// Give an administrator another role
    SetRole {
        name: String,
        #[arg(value_enum)]
        role: RoleWord,
    },
    /// Give a host account the role of an administrator
    Tie {
        name: String,
        /// Name of the host account
        user: String,
    },
    /// Take it away again
    Untie { name: String },
    /// Set a password; all sessions of the account end
    Passwd {
        name: String,
        /// File whose first line is the password; without it you are asked, or standard input is read
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// File whose first line is the password that was; needed for your own
        #[arg(long, value_name = "FILE")]
        current_file: Option<PathBuf>,
    },
    /// Shut an administrator out, with all his sessions and tokens
    Disable { name: String },
    /// Let him in again
    Enable { name: String },
    /// Delete an administrator
    #[command(visible_alias = "rm")]
    Delete { name: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleWord {
    /// Everything
    Admin,
    /// Acts on berths; changes no accounts, profiles or images
    Operator,
    /// Reads
    Auditor,
}

impl From<RoleWord> for AdminRole {
    fn from(word: RoleWord) -> Self {
        match word {
            RoleWord::Admin => Self::Admin,
            RoleWord::Operator => Self::Operator,
            RoleWord::Auditor => Self::Auditor,
        }
    }
}

pub(super) async fn run(context: &Context, command: AdminCommand) -> Outcome {
    let client = &context.client;
    match command {
        AdminCommand::Create { name, role, host_user, password_file } => {
            let password = chosen(password_file.as_deref(), &name)?;
            let created = client.create_admin(&NewAdmin { name, role: role.into(), password, host_user }).await?;
            told(context, &created, "can sign in")
        }
        AdminCommand::List => list(context).await,
        AdminCommand::SetRole { name, role } => {
            change(context, &name, AdminChange { role: Some(role.into()), ..AdminChange::default() }).await
        }
        AdminCommand::Tie { name, user } => {
            change(context, &name, AdminChange { host_user: Some(Some(user)), ..AdminChange::default() }).await
        }
        AdminCommand::Untie { name } => change(context, &name, AdminChange { host_user: Some(None), ..AdminChange::default() }).await,
        AdminCommand::Disable { name } => change(context, &name, AdminChange { enabled: Some(false), ..AdminChange::default() }).await,
        AdminCommand::Enable { name } => change(context, &name, AdminChange { enabled: Some(true), ..AdminChange::default() }).await,
        AdminCommand::Passwd { name, password_file, current_file } => {
            let current = match &current_file {
                Some(path) => Some(first_line(path)?),
                None => None,
            };
            let password = chosen(password_file.as_deref(), &name)?;
            client.set_password(&name, &NewPassword { current, password }).await?;
            said(context, &json!({ "name": name }), &format!("{name} has a new password; all his sessions have ended."))
        }
        AdminCommand::Delete { name } => {
            client.delete_admin(&name).await?;
            said(context, &json!({ "deleted": name }), &format!("The administrator {name} is deleted."))
        }
    }
}

async fn change(context: &Context, name: &str, change: AdminChange) -> Outcome {
    let changed = context.client.change_admin(name, &change).await?;
    let state = if changed.enabled { "can sign in" } else { "is disabled" };
    told(context, &changed, state)
}

fn told(context: &Context, admin: &Admin, state: &str) -> Outcome {
    let tied = admin.host_user.as_ref().map(|user| format!("; the host account {user} has the same role")).unwrap_or_default();
    said(context, admin, &format!("{} is {} and {state}{tied}.", admin.name, word(admin.role)))
}

pub(super) fn said(context: &Context, document: &impl serde::Serialize, line: &str) -> Outcome {
    match context.json {
        true => output::json(document)?,
        false => output::line(line)?,
    }
    Ok(0)
}

fn word(role: AdminRole) -> &'static str {
    match role {
        AdminRole::Admin => "admin",
        AdminRole::Operator => "operator",
        AdminRole::Auditor => "auditor",
    }
}

async fn list(context: &Context) -> Outcome {
    let found = context.client.admins().await?;
    if context.json {
        output::json(&found)?;
        return Ok(0);
    }
    let now = units::now();
    let mut rows = Rows::new(&["NAME", "ROLE", "STATE", "HOST USER", "SIGNED IN", "PASSWORD SET"]);
    for admin in found.items {
        rows.push([
            admin.name,
            word(admin.role).to_owned(),
            if admin.enabled { "enabled" } else { "disabled" }.to_owned(),
            admin.host_user.unwrap_or_default(),
            admin.signed_in_at.map_or_else(|| "never".to_owned(), |at| format!("{} ago", units::age(at, now))),
            format!("{} ago", units::age(admin.password_at, now)),
        ]);
    }
    rows.show()?;
    Ok(0)
}

/// The new password: from the file, from a terminal twice, or from standard input. Never from an argument, which every user of the host
/// could read.
fn chosen(file: Option<&Path>, name: &str) -> Result<Secret, Failure> {
    if let Some(path) = file {
        return first_line(path);
    }
    if !io::stdin().is_terminal() {
        return line_of(io::stdin().lock(), "standard input");
    }
    let password = asked(&format!("Password for {name}: "))?;
    match asked("Once more: ")? == password {
        true => Ok(password),
        false => Err(Failure::usage("the two are not the same", "try again")),
    }
}

fn first_line(path: &Path) -> Result<Secret, Failure> {
    let shown = path.display().to_string();
    let file = fs::File::open(path).map_err(|error| Failure::io(&format!("cannot read {shown}"), &error))?;
    line_of(io::BufReader::new(file), &shown)
}

fn line_of(mut from: impl BufRead, what: &str) -> Result<Secret, Failure> {
    let mut line = String::new();
    from.read_line(&mut line).map_err(|error| Failure::io(&format!("cannot read {what}"), &error))?;
    let line = line.trim_end_matches(['\r', '\n']);
    match line.is_empty() {
        true => Err(Failure::usage(format!("{what} holds no password"), "its first line is taken")),
        false => Ok(Secret(line.to_owned())),
    }
}

fn asked(question: &str) -> Result<Secret, Failure> {
    eprint!("{question}");
    io::stderr().flush().map_err(|error| Failure::io("cannot ask", &error))?;
    let quiet = Quiet::enter().map_err(|error| Failure::io("cannot use the terminal", &error))?;
    let line = line_of(io::stdin().lock(), "the terminal");
    drop(quiet);
    eprintln!();
    line
}
