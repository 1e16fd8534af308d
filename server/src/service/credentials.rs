//! From a credential to who asks. Whatever proves an identity is looked up at each request: what was revoked, disabled or has ended has no
//! power from then on, and a role that was taken away is gone. (That a host account is gone is seen within a minute, as everywhere.)

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{Error, Keys, Service, authorise, listening::Listening, passwords::Hashing, secrets, throttle::Throttle};
use crate::{
    authz::{self, Access, Operation as Op},
    domain::{AccountState, AdministratorId, ApiToken, Caller, Owner, Problem, Refusal, Role, Scope, Session, Source, TokenId, Via},
    store,
};

/// A session that was not used for so long has ended.
pub(super) const IDLE: i64 = 2 * 60 * 60 * 1_000;
/// Uses are noted once in so long.
const NOTED: i64 = 60 * 1_000;

/// What signing in and tokens need.
pub struct Authentication {
    pub(super) keys: Keys,
    pub(super) hashing: Hashing,
    pub(super) throttle: Throttle,
    pub(super) listening: Arc<Listening>,
    /// One note of a use is written at a time; others are left for the next request.
    noting: Arc<Semaphore>,
}

impl Authentication {
    pub fn new(keys: Keys, listening: Arc<Listening>) -> Self {
        Self { keys, hashing: Hashing::default(), throttle: Throttle::default(), listening, noting: Arc::new(Semaphore::new(1)) }
    }
}

/// A credential that holds.
#[derive(Clone, Debug)]
pub struct Proven {
    pub owner: Owner,
    pub via: Via,
    pub scope: Scope,
}

/// Whether the host admits an account, as far as that was asked: of those that hold a berth. (At the socket its kernel says who it is.)
async fn may_sign_in(reader: &mut store::Connection, uid: u32, name: &str) -> Result<bool, store::Error> {
    Ok(store::accounts::state_of(reader, uid, name)
        .await?
        .is_none_or(|state| matches!(state, AccountState::Present | AccountState::Unknown)))
}

impl Service {
    /// The session of a cookie.
    pub async fn proven_by_session(&self, secret: &str, source: Source, agent: &str) -> Result<Proven, Error> {
        let refused = || unauthenticated("session_ended", "the session has ended or was revoked").hint("sign in again").into();
        let Some(hash) = secrets::hash(secret) else { return Err(refused()) };
        let now = self.clock.now();
        let mut reader = self.store.reader().await?;
        let session = store::sessions::by_secret(&mut reader, &hash).await?.filter(|session| is_live(session, now));
        drop(reader);
        let session = session.ok_or_else(refused)?;
        if now - session.seen_at >= NOTED {
            let (id, address, agent) = (session.id, source.to_string(), agent.to_owned());
            self.note_use(move |mut tx| async move {
                store::sessions::touch(&mut tx, id, now, &address, &agent).await?;
                Ok(tx)
            });
        }
        Ok(Proven { owner: session.owner, via: Via::Session(session.id), scope: Scope::Admin })
    }

    /// The API token, or the access token, of a bearer.
    pub async fn proven_by_bearer(&self, text: &str) -> Result<Proven, Error> {
        let (token, via) = match text.starts_with(secrets::TOKEN) {
            true => {
                let token = self.api_token(text).await?;
                let via = Via::Token(token.id);
                (token, via)
            }
            false => {
                let id = self.authentication.keys.verify(text).ok_or_else(no_token)?;
                (self.token_by_id(id).await?.ok_or_else(no_token)?, Via::AccessToken(id))
            }
        };
        let now = self.clock.now();
        if token.used_at.is_none_or(|at| now - at >= NOTED) {
            let id = token.id;
            self.note_use(move |mut tx| async move {
                store::tokens::touch(&mut tx, id, now).await?;
                Ok(tx)
            });
        }
        Ok(Proven { owner: token.owner, via, scope: token.scope })
    }

    /// The API token with this secret.
    pub(super) async fn api_token(&self, secret: &str) -> Result<ApiToken, Error> {
        let hash = secrets::hash(secret).ok_or_else(no_token)?;
        let mut reader = self.store.reader().await?;
        let token = store::tokens::by_secret(&mut reader, &hash).await?;
        token.filter(|token| self.clock.now() < token.expires_at).ok_or_else(|| no_token().into())
    }

    async fn token_by_id(&self, id: TokenId) -> Result<Option<ApiToken>, Error> {
        let mut reader = self.store.reader().await?;
        let token = store::tokens::by_id(&mut reader, id).await?;
        Ok(token.filter(|token| self.clock.now() < token.expires_at))
    }

    /// An administrator who proved to be himself.
    pub async fn administrator_caller(&self, id: AdministratorId, via: Via, scope: Scope) -> Result<Caller, Error> {
        let mut reader = self.store.reader().await?;
        let found = store::administrators::by_id(&mut reader, id).await?.filter(|administrator| administrator.enabled);
        let administrator = found.ok_or_else(|| unauthenticated("account_disabled", "the account is disabled or gone"))?;
        let (name, role) = (administrator.actor(), administrator.role);
        Ok(Caller { name, uid: None, role, scope, via, administrator: Some(id), request_id: String::new() })
    }

    /// A host account that proved to be itself: root is admin, one that is tied to an administrator has his role, others are users.
    pub async fn host_caller(&self, name: &str, uid: u32, via: Via, scope: Scope) -> Result<Caller, Error> {
        let mut caller = Caller { via, scope, ..Caller::host(name, uid, Role::User) };
        if uid == 0 {
            caller.role = Role::Admin;
            return Ok(caller);
        }
        let mut reader = self.store.reader().await?;
        if via != Via::Socket && !may_sign_in(&mut reader, uid, name).await? {
            return Err(unauthenticated("account_disabled", "this account may not sign in on the host now").into());
        }
        let tied = store::administrators::by_host(&mut reader, uid, name).await?;
        if let Some(administrator) = tied.filter(|administrator| administrator.enabled) {
            caller.role = administrator.role;
            caller.administrator = Some(administrator.id);
        }
        Ok(caller)
    }

    pub async fn me(&self, caller: &Caller) -> Result<Myself, Error> {
        authorise(caller, Op::ShowMe)?;
        let mut reader = self.store.reader().await?;
        let administrator = match caller.administrator {
            Some(id) => store::administrators::by_id(&mut reader, id).await?.map(|found| found.name),
            None => None,
        };
        let may = Op::ALL.iter().filter_map(|operation| match authz::reach(caller, *operation) {
            Access::All => Some((operation.id(), true)),
            Access::Own => Some((operation.id(), false)),
            Access::None => None,
        });
        Ok(Myself { caller: caller.clone(), administrator, may: may.collect() })
    }

    /// Whether what proved the caller's identity still holds: streams outlive the request that opened them.
    pub async fn still_proven(&self, caller: &Caller) -> Result<bool, Error> {
        let now = self.clock.now();
        let mut reader = self.store.reader().await?;
        let holds = match caller.via {
            Via::Socket => true,
            Via::Session(id) => store::sessions::by_id(&mut reader, id).await?.is_some_and(|session| is_live(&session, now)),
            Via::Token(id) | Via::AccessToken(id) => {
                store::tokens::by_id(&mut reader, id).await?.is_some_and(|token| now < token.expires_at)
            }
        };
        let enabled = match caller.administrator {
            Some(id) => {
                store::administrators::by_id(&mut reader, id).await?.is_some_and(|found| found.enabled && found.role == caller.role)
            }
            None => true,
        };
        let there = match caller.uid {
            Some(uid) if uid != 0 && caller.via != Via::Socket => may_sign_in(&mut reader, uid, &caller.name).await?,
            _ => true,
        };
        Ok(holds && enabled && there)
    }

    /// Writes down a use, unless another one is being written: a request waits for neither.
    fn note_use<F, Done>(&self, write: F)
    where
        F: FnOnce(store::Transaction) -> Done + Send + 'static,
        Done: Future<Output = Result<store::Transaction, store::Error>> + Send,
    {
        let Ok(place) = Arc::clone(&self.authentication.noting).try_acquire_owned() else { return };
        let store = Arc::clone(&self.store);
        tokio::spawn(async move {
            let noted = async {
                let tx = write(store.begin().await?).await?;
                store.commit(tx).await
            };
            if let Err(error) = noted.await {
                tracing::debug!(error = crate::chain(&error), "a use was not noted");
            }
            drop(place);
        });
    }
}

/// Who asks, as he is told.
#[derive(Clone, Debug)]
pub struct Myself {
    pub caller: Caller,
    /// Name of the administrator whose role it is.
    pub administrator: Option<String>,
    /// Operations that he reaches, and whether of all.
    pub may: Vec<(&'static str, bool)>,
}

/// Whose sessions and tokens the caller's own are.
pub(super) fn owner(caller: &Caller) -> Result<Owner, Error> {
    match (caller.uid, caller.administrator) {
        (Some(uid), _) => Ok(Owner::Host { uid, name: caller.name.clone() }),
        (None, Some(id)) => Ok(Owner::Administrator(id)),
        (None, None) => Err(unauthenticated("unauthenticated", "it is not known who asks").into()),
    }
}

pub(super) fn unauthenticated(code: &str, detail: &str) -> Problem {
    Problem::new(Refusal::NotAuthenticated, code, detail)
}

/// One answer for all tokens that do not count, whatever the reason.
fn no_token() -> Problem {
    unauthenticated("invalid_token", "the token is unknown, has expired or was revoked").hint("berth token create makes one")
}

fn is_live(session: &Session, now: i64) -> bool {
    now < session.expires_at && now - session.seen_at < IDLE
}
