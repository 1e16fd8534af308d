//! API tokens, the keys of access tokens, sessions, and the link that opens the dashboard.

use berth_api::{NewToken, TokenScope};
use clap::{Subcommand, ValueEnum};
use serde_json::json;
use uuid::Uuid;

use super::{Context, admin::said};
use crate::{
    Outcome,
    failure::Failure,
    output::{self, Rows, printable},
    units::{self, Span},
};

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make an API token of your own; its secret is printed once
    Create {
        /// What it is for
        #[arg(long)]
        name: String,
        /// How much of your power it carries
        #[arg(long, value_enum)]
        scope: ScopeWord,
        /// When it ends: 1h, 90d; 366 days at most
        #[arg(long, value_name = "TIME", default_value = "90d")]
        expires: Span,
    },
    /// List your API tokens
    #[command(visible_alias = "ls")]
    List {
        /// Everybody's, if you may
        #[arg(long)]
        all: bool,
    },
    /// Revoke an API token, and with it what was got with it
    #[command(visible_alias = "rm")]
    Revoke {
        /// Its id
        id: Uuid,
    },
    /// Make a new key for access tokens; those that the key before it signed go on until they end
    RotateKeys,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// List your sessions
    #[command(visible_alias = "ls")]
    List {
        /// Everybody's, if you may
        #[arg(long)]
        all: bool,
    },
    /// End a session, or all of yours
    #[command(visible_alias = "rm")]
    Revoke {
        /// Its id
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<Uuid>,
        /// All of yours
        #[arg(long)]
        all: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScopeWord {
    /// Looks
    Read,
    /// Acts on berths too
    Operate,
    /// All that you may, but for making accounts, passwords, tokens and links
    Admin,
}

pub(super) async fn run(context: &Context, command: TokenCommand) -> Outcome {
    match command {
        TokenCommand::Create { name, scope, expires } => create(context, name, scope, expires).await,
        TokenCommand::List { all } => list(context, all).await,
        TokenCommand::Revoke { id } => {
            context.client.revoke_token(id).await?;
            said(context, &json!({ "revoked": id }), &format!("The token {id} is revoked."))
        }
        TokenCommand::RotateKeys => {
            let keys = context.client.rotate_keys().await?;
            let first = keys.keys.first().map(|key| key.id.clone()).unwrap_or_default();
            said(context, &keys, &format!("Access tokens are signed with the new key {first}."))
        }
    }
}

async fn create(context: &Context, name: String, scope: ScopeWord, expires: Span) -> Outcome {
    let Some(seconds) = expires.0 else {
        return Err(Failure::usage("a token has an end", "--expires 90d; 366 days at most"));
    };
    let scope = match scope {
        ScopeWord::Read => TokenScope::Read,
        ScopeWord::Operate => TokenScope::Operate,
        ScopeWord::Admin => TokenScope::Admin,
    };
    let created = context.client.create_token(&NewToken { name, scope, expires_in: Some(seconds.into()) }).await?;
    if !context.json {
        eprintln!("The token is shown this once; keep it in a file that only you can read:");
    }
    said(context, &created, &created.secret.0)
}

async fn list(context: &Context, all: bool) -> Outcome {
    let (mut items, mut cursor) = (Vec::new(), None);
    loop {
        let page = context.client.tokens(all, cursor.as_deref()).await?;
        items.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if context.json {
        output::json(&json!({ "items": items }))?;
        return Ok(0);
    }
    let now = units::now();
    let mut rows = Rows::new(&["ID", "NAME", "ACCOUNT", "SCOPE", "EXPIRES", "USED"]);
    for token in items {
        let scope = match token.scope {
            TokenScope::Read => "read",
            TokenScope::Operate => "operate",
            TokenScope::Admin => "admin",
        };
        let expires = match token.expires_at > now {
            true => format!("in {}", units::age(now, token.expires_at)),
            false => "expired".to_owned(),
        };
        let used = token.used_at.map_or_else(|| "never".to_owned(), |at| format!("{} ago", units::age(at, now)));
        rows.push([token.id.to_string(), token.name, token.account, scope.to_owned(), expires, used]);
    }
    rows.show()?;
    Ok(0)
}

pub(super) async fn sessions(context: &Context, command: SessionCommand) -> Outcome {
    match command {
        SessionCommand::List { all } => list_sessions(context, all).await,
        SessionCommand::Revoke { id: Some(id), .. } => {
            context.client.revoke_session(id).await?;
            said(context, &json!({ "revoked": id }), &format!("The session {id} has ended."))
        }
        SessionCommand::Revoke { id: None, .. } => {
            let ended = context.client.revoke_sessions().await?;
            said(context, &ended, &format!("{} of your sessions have ended.", ended.ended))
        }
    }
}

async fn list_sessions(context: &Context, all: bool) -> Outcome {
    let (mut items, mut cursor) = (Vec::new(), None);
    loop {
        let page = context.client.sessions(all, cursor.as_deref()).await?;
        items.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if context.json {
        output::json(&json!({ "items": items }))?;
        return Ok(0);
    }
    let now = units::now();
    let mut rows = Rows::new(&["ID", "ACCOUNT", "SEEN", "FROM", "BROWSER"]);
    for session in items {
        let seen = format!("{} ago", units::age(session.seen_at, now));
        rows.push([session.id.to_string(), session.account, seen, printable(&session.address), printable(&session.agent)]);
    }
    rows.show()?;
    Ok(0)
}

/// Prints the link that opens the dashboard as who calls.
pub(super) async fn webui(context: &Context) -> Outcome {
    let link = context.client.sign_in_link().await?;
    if !context.json {
        eprintln!("Open this within a minute; it works once, and only for you:");
    }
    said(context, &link, &link.url)
}
