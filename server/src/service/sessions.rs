//! Sessions of browsers: signing in by password or one-time link, listing, ending.

use serde_json::json;

use super::{Error, Page, Service, authorise, credentials, credentials::IDLE, not_found, secrets};
use crate::{
    authz::{Access, Operation as Op},
    domain::{
        AccountName, Administrator, AuditEntry, Caller, Owner, Problem, Refusal, Role, Scope, Session, SessionId, Source, Subject, Via,
    },
    store::{self, Transaction},
};

/// A session ends after so long, used or not.
const LIFE: i64 = 24 * 60 * 60 * 1_000;
/// A link may be used so long, once.
const LINK_LIFE: i64 = 60 * 1_000;
/// Sessions of one owner; the oldest end.
const MOST: u32 = 20;
const MAX_AGENT: usize = 200;

/// What signs in.
#[derive(Clone, Debug)]
pub struct Browser {
    pub source: Source,
    pub agent: String,
    pub request_id: String,
}

/// A one-time link that opens the dashboard.
#[derive(Clone, Debug)]
pub struct Link {
    pub url: String,
    pub expires_at: i64,
}

impl Service {
    /// Signs an administrator in: the session, and the secret of its cookie. Unknown, disabled and wrong are one answer after the same
    /// work.
    pub async fn sign_in(&self, name: &str, password: &str, browser: &Browser) -> Result<(Session, String), Error> {
        let name = name.parse::<AccountName>().ok();
        let key = name.as_ref().map_or("?", |name| name.as_str());
        let now = self.clock.now();
        self.authentication.throttle.sign_in(key, browser.source, now)?;
        let mut reader = self.store.reader().await?;
        let found = match &name {
            Some(name) => store::administrators::by_name(&mut reader, name).await?,
            None => None,
        };
        // Asked for nobody too, so that the work is the same.
        let id = found.as_ref().map_or(crate::domain::AdministratorId(uuid::Uuid::nil()), |found| found.id);
        let hash = store::administrators::password(&mut reader, id).await?;
        drop(reader);
        let hash = hash.filter(|_| found.as_ref().is_some_and(|found| found.enabled));
        let right = self.authentication.hashing.verify(password, hash.clone()).await?;
        let mut tx = self.store.begin().await?;
        // Meanwhile he may have been disabled, or his password changed.
        let still = store::administrators::by_id(&mut tx, id).await?.filter(|found| found.enabled);
        let same = store::administrators::password(&mut tx, id).await? == hash;
        let Some(administrator) = still.filter(|_| right && same) else {
            self.note_failure(tx, found.as_ref(), browser, "password").await?;
            return Err(credentials::unauthenticated("sign_in_failed", "name or password is wrong, or the account is disabled")
                .hint("an administrator sets a new password: berth admin passwd NAME")
                .into());
        };
        self.authentication.throttle.signed_in(key, browser.source, now);
        store::administrators::signed_in(&mut tx, administrator.id, now).await?;
        let caller = Caller {
            administrator: Some(administrator.id),
            uid: None,
            role: administrator.role,
            ..acting(&administrator.actor(), browser)
        };
        self.open(tx, Owner::Administrator(administrator.id), &caller, browser, "password").await
    }

    /// Makes the link; only the host account itself can, on the unix socket.
    pub async fn create_link(&self, caller: &Caller) -> Result<Link, Error> {
        authorise(caller, Op::CreateLink)?;
        let (Some(uid), Via::Socket) = (caller.uid, caller.via) else {
            return Err(Problem::new(Refusal::NotPermitted, "host_account_required", "links are for host accounts, on the host itself")
                .hint("run berth webui on the host")
                .into());
        };
        let Some(url) = self.authentication.listening.url() else {
            return Err(Problem::new(Refusal::Conflict, "no_listener", "the service listens for no browsers")
                .hint("set [listen] address in server.toml")
                .into());
        };
        let now = self.clock.now();
        self.authentication.throttle.link(uid, now)?;
        let secret = secrets::fresh()?;
        let hash = secrets::hash(&secret).ok_or(Error::Secrets("a secret has no hash"))?;
        let mut tx = self.store.begin().await?;
        store::sessions::insert_link(&mut tx, &hash, uid, &caller.name, now, now + LINK_LIFE).await?;
        self.record_account(&mut tx, caller, Op::CreateLink.id(), &caller.name, json!({})).await?;
        self.store.commit(tx).await?;
        // Behind the #, what browsers send to nobody: it is in no log and no Referer, and a previewer of links does not use it up.
        Ok(Link { url: format!("{url}/#link={secret}"), expires_at: now + LINK_LIFE })
    }

    /// Uses a link up.
    pub async fn follow_link(&self, secret: &str, browser: &Browser) -> Result<(Session, String), Error> {
        let now = self.clock.now();
        self.authentication.throttle.attempt(browser.source, now)?;
        let mut tx = self.store.begin().await?;
        let link = match secrets::hash(secret) {
            Some(hash) => store::sessions::take_link(&mut tx, &hash, now).await?,
            None => None,
        };
        let Some((uid, name)) = link else {
            self.note_failure(tx, None, browser, "link").await?;
            return Err(credentials::unauthenticated("link_used", "the link was used already, is older than a minute, or is none")
                .hint("berth webui prints a new one")
                .into());
        };
        let caller = Caller { uid: Some(uid), ..acting(&name, browser) };
        self.open(tx, Owner::Host { uid, name }, &caller, browser, "link").await
    }

    /// The caller's sessions, or everybody's, newest first.
    pub async fn sessions(&self, caller: &Caller, everybodys: bool, page: &Page) -> Result<Vec<Session>, Error> {
        let access = authorise(caller, Op::ListSessions)?;
        let own = credentials::owner(caller)?;
        let of = if everybodys && access == Access::All { None } else { Some(&own) };
        let before = page.before()?.map(SessionId);
        let mut reader = self.store.reader().await?;
        let now = self.clock.now();
        let found = store::sessions::page(&mut reader, of, before, page.limit).await?;
        // Those that have ended are still there until somebody signs in.
        Ok(found.into_iter().filter(|session| now < session.expires_at && now - session.seen_at < IDLE).collect())
    }

    /// Ends one session.
    pub async fn revoke_session(&self, caller: &Caller, session: SessionId) -> Result<(), Error> {
        let access = authorise(caller, Op::RevokeSession)?;
        let own = credentials::owner(caller)?;
        let mut tx = self.store.begin().await?;
        let found = store::sessions::by_id(&mut tx, session).await?.filter(|found| access == Access::All || found.owner == own);
        let found = found.ok_or_else(|| not_found("session", &session.to_string()))?;
        store::sessions::remove(&mut tx, found.id).await?;
        self.record_account(&mut tx, caller, Op::RevokeSession.id(), &found.name, json!({ "session": found.id })).await?;
        Ok(self.store.commit(tx).await?)
    }

    /// Ends the caller's sessions but the one he asks with; how many there were.
    pub async fn revoke_sessions(&self, caller: &Caller) -> Result<u64, Error> {
        authorise(caller, Op::RevokeSessions)?;
        let but = match caller.via {
            Via::Session(id) => Some(id),
            _ => None,
        };
        let mut tx = self.store.begin().await?;
        let ended = store::sessions::remove_of(&mut tx, &credentials::owner(caller)?, but).await?;
        self.record_account(&mut tx, caller, Op::RevokeSessions.id(), &caller.name, json!({ "sessions": ended })).await?;
        self.store.commit(tx).await?;
        Ok(ended)
    }

    async fn open(
        &self,
        mut tx: Transaction,
        owner: Owner,
        caller: &Caller,
        browser: &Browser,
        by: &str,
    ) -> Result<(Session, String), Error> {
        let now = self.clock.now();
        let secret = secrets::fresh()?;
        let hash = secrets::hash(&secret).ok_or(Error::Secrets("a secret has no hash"))?;
        let session = Session {
            id: SessionId(self.clock.id()),
            owner,
            name: caller.name.clone(),
            created_at: now,
            seen_at: now,
            expires_at: now + LIFE,
            address: browser.source.to_string(),
            agent: browser.agent.chars().filter(|c| !c.is_control()).take(MAX_AGENT).collect(),
        };
        store::sessions::prune(&mut tx, now, IDLE, &session.owner, MOST - 1).await?;
        store::sessions::insert(&mut tx, &session, &hash).await?;
        let details = json!({ "session": session.id, "by": by, "address": session.address });
        self.record_account(&mut tx, caller, "create_session", &caller.name, details).await?;
        self.store.commit(tx).await?;
        Ok((session, secret))
    }

    /// A failed attempt in the audit trail, some of them as one. What was typed for a name is written only if it is one: people type
    /// passwords there.
    pub(super) async fn note_failure(
        &self,
        mut tx: Transaction,
        who: Option<&Administrator>,
        browser: &Browser,
        by: &str,
    ) -> Result<(), Error> {
        let Some(before) = self.authentication.throttle.row(browser.source, self.clock.now()) else {
            // A link that was tried is used up all the same.
            return Ok(self.store.commit(tx).await?);
        };
        let name = who.map_or_else(|| "(unknown)".to_owned(), Administrator::actor);
        let details = json!({ "by": by, "address": browser.source.to_string(), "untold_before": before });
        let caller = Caller { role: Role::User, ..acting("(unknown)", browser) };
        self.record_account(&mut tx, &caller, "create_session_failed", &name, details).await?;
        Ok(self.store.commit(tx).await?)
    }

    pub(super) async fn record_account(
        &self,
        connection: &mut store::Connection,
        caller: &Caller,
        action: &str,
        account: &str,
        details: serde_json::Value,
    ) -> Result<(), Error> {
        let entry = AuditEntry { action, subject: Subject::Account(account), details, operation: None };
        Ok(store::audit::insert(connection, &self.clock, Some(caller), entry).await?)
    }
}

/// Who the audit trail says is signing in.
fn acting(name: &str, browser: &Browser) -> Caller {
    Caller {
        name: name.to_owned(),
        uid: None,
        role: Role::User,
        scope: Scope::Admin,
        via: Via::Socket,
        administrator: None,
        request_id: browser.request_id.clone(),
    }
}
