use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A password or token on its way to the service; it shows itself nowhere.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, format = Password)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What an account may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Admin,
    /// Acts on berths; cannot change accounts, profiles or images.
    Operator,
    /// Reads.
    Auditor,
    /// Has his own berth.
    User,
}

/// What an administrator may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdminRole {
    Admin,
    Operator,
    Auditor,
}

/// An account with a password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Admin {
    pub id: Uuid,
    pub name: String,
    pub role: AdminRole,
    pub enabled: bool,
    /// The host account that has this role on the unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_user: Option<String>,
    pub created_at: i64,
    pub updated_at: i64,
    /// When the password was last set.
    pub password_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_in_at: Option<i64>,
}

/// One page of administrators, ordered by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdminList {
    pub items: Vec<Admin>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Makes an administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAdmin {
    /// Letters, digits, `.`, `_`, `-`, `@`; 64 bytes at most.
    pub name: String,
    pub role: AdminRole,
    /// 12 characters at least, not the name, none of the commonest.
    pub password: Secret,
    /// A host account that is to have this role on the unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_user: Option<String>,
}

/// Changes an administrator. What is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<AdminRole>,
    /// False: signs in no more, and none of his sessions and tokens counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// `null`: none any more.
    #[serde(default, deserialize_with = "crate::explicit", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub host_user: Option<Option<String>>,
}

/// Sets a password; all sessions of the account end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    /// The one that was; needed for one's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Secret>,
    pub password: Secret,
}

/// Signs in: name and password, or the secret of a one-time link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum SignIn {
    Password { name: String, password: Secret },
    Link { link: Secret },
}

/// A browser that is signed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    pub id: Uuid,
    /// The host account, or `admin:NAME`.
    pub account: String,
    pub created_at: i64,
    /// Last use, to the minute.
    pub seen_at: i64,
    /// The end whatever happens; unused for two hours it ends earlier.
    pub expires_at: i64,
    /// Where it was last seen.
    pub address: String,
    pub agent: String,
    /// True for the one that asks.
    pub current: bool,
}

/// One page of sessions, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionList {
    pub items: Vec<Session>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// How many sessions were ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionsEnded {
    pub ended: u64,
}

/// A link that opens the dashboard as the host account that asked for it: once, and for a minute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignInLink {
    /// The secret is behind `#link=`; the page posts it to `/sessions`.
    pub url: String,
    pub expires_at: i64,
}

/// How the caller proved who he is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    Socket,
    Session,
    Token,
    AccessToken,
}

/// How far the caller reaches with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    All,
    /// What belongs to himself.
    Own,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// The host account, or `admin:NAME`.
    pub account: String,
    pub role: Role,
    pub via: Proof,
    /// The host account whose berth is his own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_user: Option<String>,
    /// Name of the administrator whose role this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// With a token: its scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<TokenScope>,
    /// With a session: which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Uuid>,
    /// By operation id, where he reaches at all.
    pub may: BTreeMap<String, Reach>,
}

/// How much of its owner's power a token carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenScope {
    /// Looks, as an auditor at most.
    Read,
    /// Acts on berths too, as an operator at most.
    Operate,
    /// All that its owner may, but for making accounts, passwords, tokens and links.
    Admin,
}

/// A secret for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    pub id: Uuid,
    pub name: String,
    /// The host account, or `admin:NAME`.
    pub account: String,
    pub scope: TokenScope,
    pub created_at: i64,
    pub expires_at: i64,
    /// Last use, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at: Option<i64>,
}

/// One page of tokens, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenList {
    pub items: Vec<Token>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Makes a token of the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it is for: letters, digits, `.`, `_`, `-`, `@`; 64 bytes at most.
    pub name: String,
    pub scope: TokenScope,
    /// Seconds until it expires: a minute to 366 days, 90 days unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 60, maximum = 31_622_400)]
    pub expires_in: Option<u64>,
}

/// A new token; the secret is told here and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenCreated {
    pub token: Token,
    /// `berth_` and 43 characters.
    pub secret: Secret,
}

/// A short-lived token that was got with an API token: a JWT, signed with EdDSA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AccessToken {
    pub access_token: Secret,
    /// `Bearer`.
    pub token_type: String,
    /// Seconds.
    pub expires_in: i64,
    pub expires_at: i64,
}

/// A key that signs access tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SigningKey {
    /// The `kid` of what it signs.
    pub id: String,
    pub created_at: i64,
}

/// The keys that count, the one that signs first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SigningKeys {
    pub keys: Vec<SigningKey>,
}
