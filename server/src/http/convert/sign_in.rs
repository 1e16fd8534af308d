//! Accounts, sessions and tokens.

use berth_api as api;

use crate::{
    domain::{Administrator, ApiToken, Role, Scope, Session, SessionId, Via},
    service::{Myself, SigningKey},
};

pub(in crate::http) fn admin(found: Administrator) -> api::Admin {
    api::Admin {
        id: found.id.0,
        name: found.name,
        role: match found.role {
            Role::Admin => api::AdminRole::Admin,
            Role::Operator => api::AdminRole::Operator,
            // The table holds no users.
            Role::Auditor | Role::User => api::AdminRole::Auditor,
        },
        enabled: found.enabled,
        host_user: found.host.map(|(name, _)| name),
        created_at: found.created_at,
        updated_at: found.updated_at,
        password_at: found.password_at,
        signed_in_at: found.signed_in_at,
    }
}

pub(in crate::http) fn role_asked(role: api::AdminRole) -> Role {
    match role {
        api::AdminRole::Admin => Role::Admin,
        api::AdminRole::Operator => Role::Operator,
        api::AdminRole::Auditor => Role::Auditor,
    }
}

pub(in crate::http) fn scope_asked(scope: api::TokenScope) -> Scope {
    match scope {
        api::TokenScope::Read => Scope::Read,
        api::TokenScope::Operate => Scope::Operate,
        api::TokenScope::Admin => Scope::Admin,
    }
}

fn scope(scope: Scope) -> api::TokenScope {
    match scope {
        Scope::Read => api::TokenScope::Read,
        Scope::Operate => api::TokenScope::Operate,
        Scope::Admin => api::TokenScope::Admin,
    }
}

pub(in crate::http) fn session(session: Session, current: Option<SessionId>) -> api::Session {
    api::Session {
        current: current == Some(session.id),
        id: session.id.0,
        account: session.name,
        created_at: session.created_at,
        seen_at: session.seen_at,
        expires_at: session.expires_at,
        address: session.address,
        agent: session.agent,
    }
}

pub(in crate::http) fn token(token: ApiToken) -> api::Token {
    api::Token {
        id: token.id.0,
        name: token.name,
        account: token.owner_name,
        scope: scope(token.scope),
        created_at: token.created_at,
        expires_at: token.expires_at,
        used_at: token.used_at,
    }
}

pub(in crate::http) fn key(key: SigningKey) -> api::SigningKey {
    api::SigningKey { id: key.id, created_at: key.created_at }
}

pub(in crate::http) fn me(me: &Myself) -> api::Me {
    let caller = &me.caller;
    api::Me {
        account: caller.name.clone(),
        role: match caller.role {
            Role::Admin => api::Role::Admin,
            Role::Operator => api::Role::Operator,
            Role::Auditor => api::Role::Auditor,
            Role::User => api::Role::User,
        },
        via: match caller.via {
            Via::Socket => api::Proof::Socket,
            Via::Session(_) => api::Proof::Session,
            Via::Token(_) => api::Proof::Token,
            Via::AccessToken(_) => api::Proof::AccessToken,
        },
        host_user: caller.uid.map(|_| caller.name.clone()),
        admin: me.administrator.clone(),
        scope: matches!(caller.via, Via::Token(_) | Via::AccessToken(_)).then(|| scope(caller.scope)),
        session: match caller.via {
            Via::Session(id) => Some(id.0),
            _ => None,
        },
        may: me.may.iter().map(|(id, all)| ((*id).to_owned(), if *all { api::Reach::All } else { api::Reach::Own })).collect(),
    }
}
