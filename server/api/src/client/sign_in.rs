//! Accounts, sessions and tokens.

use hyper::Method;
use uuid::Uuid;

use super::{Client, Error, TIMEOUT, json, narrowed, segment};
use crate::{
    Admin, AdminChange, AdminList, Me, NewAdmin, NewPassword, NewToken, SessionList, SessionsEnded, SignInLink, SigningKeys, TokenCreated,
    TokenList,
};

impl Client {
    pub async fn me(&self) -> Result<Me, Error> {
        self.get("/me").await
    }

    pub async fn admins(&self) -> Result<AdminList, Error> {
        self.get("/admins?limit=500").await
    }

    pub async fn create_admin(&self, new: &NewAdmin) -> Result<Admin, Error> {
        self.send(Method::POST, "/admins", new).await
    }

    pub async fn change_admin(&self, name: &str, change: &AdminChange) -> Result<Admin, Error> {
        self.send(Method::PATCH, &format!("/admins/{}", segment(name)), change).await
    }

    pub async fn delete_admin(&self, name: &str) -> Result<(), Error> {
        self.answer(Method::DELETE, &format!("/admins/{}", segment(name)), None, TIMEOUT).await.map(drop)
    }

    /// All sessions of the account end.
    pub async fn set_password(&self, name: &str, password: &NewPassword) -> Result<(), Error> {
        let path = format!("/admins/{}/password", segment(name));
        self.answer(Method::POST, &path, Some(json(password)), TIMEOUT).await.map(drop)
    }

    /// A link that opens the dashboard as the host account that asks.
    pub async fn sign_in_link(&self) -> Result<SignInLink, Error> {
        self.call(Method::POST, "/sessions/links").await
    }

    /// The caller's sessions, or with `all` everybody's.
    pub async fn sessions(&self, all: bool, cursor: Option<&str>) -> Result<SessionList, Error> {
        self.get(&narrowed(&format!("/sessions?limit=200&all={all}"), &[("cursor", &cursor.map(str::to_owned))])).await
    }

    pub async fn revoke_session(&self, id: Uuid) -> Result<(), Error> {
        self.answer(Method::DELETE, &format!("/sessions/{id}"), None, TIMEOUT).await.map(drop)
    }

    /// Ends all sessions of the caller.
    pub async fn revoke_sessions(&self) -> Result<SessionsEnded, Error> {
        self.call(Method::DELETE, "/sessions").await
    }

    /// The caller's tokens, or with `all` everybody's.
    pub async fn tokens(&self, all: bool, cursor: Option<&str>) -> Result<TokenList, Error> {
        self.get(&narrowed(&format!("/tokens?limit=200&all={all}"), &[("cursor", &cursor.map(str::to_owned))])).await
    }

    pub async fn create_token(&self, new: &NewToken) -> Result<TokenCreated, Error> {
        self.send(Method::POST, "/tokens", new).await
    }

    pub async fn revoke_token(&self, id: Uuid) -> Result<(), Error> {
        self.answer(Method::DELETE, &format!("/tokens/{id}"), None, TIMEOUT).await.map(drop)
    }

    pub async fn rotate_keys(&self) -> Result<SigningKeys, Error> {
        self.call(Method::POST, "/tokens/keys/rotate").await
    }
}
