//! API tokens, the access tokens that are got with them, and the keys that sign those.

use serde_json::json;

use super::{Error, Page, Service, SigningKey, authorise, credentials, name, not_found, secrets};
use crate::{
    authz::{Access, Operation as Op},
    domain::{AccountName, ApiToken, AuditEntry, Caller, Owner, Problem, Refusal, Scope, Source, Subject, TokenId},
    store,
};

const DAY: u64 = 24 * 60 * 60;
/// Seconds that a token lives unless said otherwise, at least, at most.
const DEFAULT_LIFE: u64 = 90 * DAY;
const LEAST_LIFE: u64 = 60;
const MOST_LIFE: u64 = 366 * DAY;
/// Tokens of one owner.
const MOST: u64 = 50;
/// An expired token stays in the list for so long.
const REMEMBERED: i64 = 30 * 24 * 60 * 60 * 1_000;

#[derive(Clone, Debug)]
pub struct NewApiToken {
    pub name: String,
    pub scope: Scope,
    /// Seconds.
    pub life: Option<u64>,
}

impl Service {
    /// Makes a token for the caller; its secret is told here and nowhere else.
    pub async fn create_token(&self, caller: &Caller, request: NewApiToken) -> Result<(ApiToken, String), Error> {
        authorise(caller, Op::CreateToken)?;
        let named: AccountName = name("token", &request.name)?;
        let life = request.life.unwrap_or(DEFAULT_LIFE);
        if !(LEAST_LIFE..=MOST_LIFE).contains(&life) {
            let detail = format!("a token lives from {LEAST_LIFE} s to {} days", MOST_LIFE / DAY);
            return Err(Problem::new(Refusal::Invalid, "invalid_expiry", detail).hint("berth token create --expires 90d").into());
        }
        let owner = credentials::owner(caller)?;
        let now = self.clock.now();
        let secret = format!("{}{}", secrets::TOKEN, secrets::fresh()?);
        let hash = secrets::hash(&secret).ok_or(Error::Secrets("a secret has no hash"))?;
        let mut tx = self.store.begin().await?;
        store::tokens::prune(&mut tx, now - REMEMBERED).await?;
        if store::tokens::count(&mut tx, &owner).await? >= MOST {
            return Err(Problem::new(Refusal::Conflict, "too_many_tokens", format!("{} has {MOST} tokens", caller.name))
                .hint("berth token revoke ID")
                .into());
        }
        let token = ApiToken {
            id: TokenId(self.clock.id()),
            owner,
            owner_name: caller.name.clone(),
            name: named.to_string(),
            scope: request.scope,
            created_at: now,
            expires_at: now + i64::try_from(life * 1_000).unwrap_or(i64::MAX / 2),
            used_at: None,
        };
        store::tokens::insert(&mut tx, &token, &hash).await?;
        let details = json!({ "name": token.name, "scope": token.scope.as_str(), "expires_at": token.expires_at });
        self.record_token(&mut tx, caller, Op::CreateToken.id(), &token, details).await?;
        self.store.commit(tx).await?;
        Ok((token, secret))
    }

    /// The caller's tokens, or everybody's, newest first.
    pub async fn tokens(&self, caller: &Caller, everybodys: bool, page: &Page) -> Result<Vec<ApiToken>, Error> {
        let access = authorise(caller, Op::ListTokens)?;
        let own = credentials::owner(caller)?;
        let of = if everybodys && access == Access::All { None } else { Some(&own) };
        let before = page.before()?.map(TokenId);
        let mut reader = self.store.reader().await?;
        Ok(store::tokens::page(&mut reader, of, before, page.limit).await?)
    }

    /// Ends a token, and at once every access token that was got with it.
    pub async fn revoke_token(&self, caller: &Caller, token: TokenId) -> Result<(), Error> {
        let access = authorise(caller, Op::RevokeToken)?;
        let own = credentials::owner(caller)?;
        let mut tx = self.store.begin().await?;
        let found = store::tokens::by_id(&mut tx, token).await?.filter(|found| access == Access::All || found.owner == own);
        let found = found.ok_or_else(|| not_found("token", &token.to_string()))?;
        store::tokens::remove(&mut tx, found.id).await?;
        self.record_token(&mut tx, caller, Op::RevokeToken.id(), &found, json!({ "name": found.name, "owner": found.owner_name })).await?;
        Ok(self.store.commit(tx).await?)
    }

    /// An access token for the secret of an API token, when it ends, and in how many seconds. Nothing is written: access tokens are not kept.
    pub async fn exchange_token(&self, secret: &str, source: Source) -> Result<(String, i64, i64), Error> {
        let now = self.clock.now();
        self.authentication.throttle.attempt(source, now)?;
        let token = self.api_token(secret).await?;
        self.authentication.throttle.exchange(&token.id.to_string(), now)?;
        if let Owner::Administrator(id) = token.owner {
            self.administrator_caller(id, crate::domain::Via::Token(token.id), token.scope).await?;
        }
        let (text, ends) = self.authentication.keys.sign(token.id, token.expires_at)?;
        Ok((text, ends, (ends - now + 999) / 1_000))
    }

    /// Makes a new key for access tokens; those of the key before it go on until they end, those of the one before that end now.
    pub async fn rotate_keys(&self, caller: &Caller) -> Result<Vec<SigningKey>, Error> {
        authorise(caller, Op::RotateKeys)?;
        let keys = self.authentication.keys.rotate()?;
        let ids: Vec<&str> = keys.iter().map(|key| key.id.as_str()).collect();
        let entry = AuditEntry { action: Op::RotateKeys.id(), subject: Subject::Keys, details: json!({ "keys": ids }), operation: None };
        let mut tx = self.store.begin().await?;
        store::audit::insert(&mut tx, &self.clock, Some(caller), entry).await?;
        self.store.commit(tx).await?;
        Ok(keys)
    }

    async fn record_token(
        &self,
        connection: &mut store::Connection,
        caller: &Caller,
        action: &str,
        token: &ApiToken,
        details: serde_json::Value,
    ) -> Result<(), Error> {
        let id = token.id.to_string();
        let entry = AuditEntry { action, subject: Subject::Token(&id), details, operation: None };
        Ok(store::audit::insert(connection, &self.clock, Some(caller), entry).await?)
    }
}
