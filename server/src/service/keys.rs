//! The keys that sign access tokens: Ed25519, two of them live, so that what the older one has signed stays good until it expires.
//!
//! They lie in a file of mode 0600 in the state directory and not in the database: a dump or backup of the database gives them to nobody.
//! A lost file costs nothing but a new exchange: access tokens live for minutes.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::Error;
use crate::domain::{Clock, TokenId};

pub(super) const ISSUER: &str = "berth";
pub(super) const AUDIENCE: &str = "berth-api";
/// An access token is good for so long.
pub(super) const LIFE: i64 = 15 * 60 * 1_000;
/// A key signs for so long; then a new one takes its place by itself.
const AGE: i64 = 30 * 24 * 60 * 60 * 1_000;
/// One that signs, one whose signatures still count.
const LIVE: usize = 2;
const LONGEST: usize = 2_048;

/// What a client may know of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKey {
    pub id: String,
    pub created_at: i64,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    id: String,
    created_at: i64,
    /// PKCS#8 in base64.
    private: String,
}

struct Live {
    stored: Stored,
    sign: EncodingKey,
    verify: DecodingKey,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    /// The API token it was got with.
    sub: TokenId,
    /// Seconds since the epoch.
    iat: i64,
    exp: i64,
}

pub struct Keys {
    /// Nothing: they die with the process.
    file: Option<PathBuf>,
    clock: Clock,
    /// The newest first.
    live: Mutex<Vec<Live>>,
}

impl Keys {
    /// Reads the file, or makes it.
    pub fn open(file: Option<PathBuf>, clock: Clock) -> Result<Self, Error> {
        let stored = match &file {
            Some(path) => read(path)?,
            None => Vec::new(),
        };
        let live = stored.into_iter().map(Live::new).collect::<Result<_, _>>()?;
        let keys = Self { file, clock, live: Mutex::new(live) };
        if keys.live.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            keys.rotate()?;
        }
        Ok(keys)
    }

    /// Makes a new key, which signs from now on; of the others only the newest counts on.
    pub(super) fn rotate(&self) -> Result<Vec<SigningKey>, Error> {
        let private =
            Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).map_err(|_| Error::Secrets("no key could be made"))?;
        let id = self.clock.id().to_string();
        let stored = Stored { id, created_at: self.clock.now(), private: STANDARD.encode(private.as_ref()) };
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<Stored> = std::iter::once(stored.clone()).chain(live.iter().map(|live| live.stored.clone())).take(LIVE).collect();
        if let Some(path) = &self.file {
            write(path, &all).map_err(|source| Error::KeyFile { path: path.clone(), source })?;
        }
        live.insert(0, Live::new(stored)?);
        live.truncate(LIVE);
        Ok(all.into_iter().map(|key| SigningKey { id: key.id, created_at: key.created_at }).collect())
    }

    /// A signed access token for an API token, and when it ends: in [`LIFE`], and not after the API token itself.
    pub(super) fn sign(&self, token: TokenId, ends: i64) -> Result<(String, i64), Error> {
        let now = self.clock.now();
        let old = self.live.lock().unwrap_or_else(PoisonError::into_inner).first().is_none_or(|key| now - key.stored.created_at >= AGE);
        if old {
            self.rotate()?;
        }
        let exp = (now + LIFE).min(ends) / 1_000;
        let claims = Claims { iss: ISSUER.to_owned(), aud: AUDIENCE.to_owned(), sub: token, iat: now / 1_000, exp };
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let key = live.first().ok_or(Error::Secrets("there is no key to sign with"))?;
        let header = Header { kid: Some(key.stored.id.clone()), ..Header::new(Algorithm::EdDSA) };
        let text = jsonwebtoken::encode(&header, &claims, &key.sign).map_err(|_| Error::Secrets("an access token was not signed"))?;
        Ok((text, exp * 1_000))
    }

    /// The API token of an access token that one of the live keys signed, is meant for us and has not ended.
    pub(super) fn verify(&self, text: &str) -> Option<TokenId> {
        if text.len() > LONGEST {
            return None;
        }
        let key = jsonwebtoken::decode_header(text).ok()?.kid?;
        let mut wanted = Validation::new(Algorithm::EdDSA);
        wanted.set_audience(&[AUDIENCE]);
        wanted.set_issuer(&[ISSUER]);
        wanted.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // By our own clock, below.
        wanted.validate_exp = false;
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let key = live.iter().find(|live| live.stored.id == key)?;
        let claims = jsonwebtoken::decode::<Claims>(text, &key.verify, &wanted).ok()?.claims;
        (self.clock.now() < claims.exp.saturating_mul(1_000)).then_some(claims.sub)
    }
}

impl Live {
    fn new(stored: Stored) -> Result<Self, Error> {
        let broken = || Error::Secrets("a key of the key file is not understood; remove the file, and new ones are made");
        let private = STANDARD.decode(&stored.private).map_err(|_| broken())?;
        let pair = Ed25519KeyPair::from_pkcs8(&private).map_err(|_| broken())?;
        let verify = DecodingKey::from_ed_der(pair.public_key().as_ref());
        Ok(Self { sign: EncodingKey::from_ed_der(&private), verify, stored })
    }
}

fn read(path: &Path) -> Result<Vec<Stored>, Error> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| Error::KeyFile { path: path.to_owned(), source: error.into() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(Error::KeyFile { path: path.to_owned(), source }),
    }
}

/// Replaces the file; after a power loss it is the old or the new one.
fn write(path: &Path, keys: &[Stored]) -> io::Result<()> {
    let fresh = path.with_added_extension("new");
    let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(&serde_json::to_vec(keys)?)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use uuid::Uuid;

    use super::*;

    fn token() -> TokenId {
        TokenId(Uuid::from_u128(7))
    }

    #[test]
    fn what_the_key_before_signed_counts_and_that_of_two_before_does_not() {
        let keys = Keys::open(None, Clock::SYSTEM).unwrap();
        let (text, _) = keys.sign(token(), i64::MAX).unwrap();
        assert_eq!(keys.verify(&text), Some(token()));
        assert_eq!(keys.rotate().unwrap().len(), 2);
        assert_eq!(keys.verify(&text), Some(token()));
        keys.rotate().unwrap();
        assert_eq!(keys.verify(&text), None);
    }

    #[test]
    fn keys_outlive_the_process_in_a_file_for_the_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access-keys.json");
        let (text, _) = Keys::open(Some(path.clone()), Clock::SYSTEM).unwrap().sign(token(), i64::MAX).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Keys::open(Some(path.clone()), Clock::SYSTEM).unwrap().verify(&text), Some(token()));
        fs::remove_file(&path).unwrap();
        assert_eq!(Keys::open(Some(path), Clock::SYSTEM).unwrap().verify(&text), None);
    }

    #[test]
    fn another_algorithm_audience_issuer_key_or_time_is_refused() {
        let keys = Keys::open(None, Clock::SYSTEM).unwrap();
        let live = keys.live.lock().unwrap();
        let (kid, sign) = (live[0].stored.id.clone(), live[0].sign.clone());
        drop(live);
        let now = Clock::SYSTEM.now() / 1_000;
        let good = || Claims { iss: ISSUER.into(), aud: AUDIENCE.into(), sub: token(), iat: now, exp: now + 60 };
        let header = |alg, kid: Option<&str>| Header { kid: kid.map(str::to_owned), ..Header::new(alg) };
        let signed = |header: &Header, claims: &Claims| jsonwebtoken::encode(header, claims, &sign).unwrap();
        let ours = header(Algorithm::EdDSA, Some(&kid));
        assert_eq!(keys.verify(&signed(&ours, &good())), Some(token()));
        for claims in [Claims { iss: "other".into(), ..good() }, Claims { aud: "other".into(), ..good() }, Claims { exp: now, ..good() }] {
            assert_eq!(keys.verify(&signed(&ours, &claims)), None);
        }
        assert_eq!(keys.verify(&signed(&header(Algorithm::EdDSA, None), &good())), None);
        assert_eq!(keys.verify(&signed(&header(Algorithm::EdDSA, Some("other")), &good())), None);
        // The public key as a secret for HMAC, and no signature at all.
        let secret = EncodingKey::from_secret(b"public");
        let confused = jsonwebtoken::encode(&header(Algorithm::HS256, Some(&kid)), &good(), &secret).unwrap();
        assert_eq!(keys.verify(&confused), None);
        let text = signed(&ours, &good());
        let (unsigned, _) = text.rsplit_once('.').unwrap();
        assert_eq!(keys.verify(&format!("{unsigned}.")), None);
        assert_eq!(keys.verify("berth_x"), None);
        assert_eq!(keys.verify(&"x".repeat(1 << 20)), None);
    }
}
