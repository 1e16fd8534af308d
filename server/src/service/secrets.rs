//! Random secrets and their hashes. A secret has 256 random bits, so that a plain SHA-256 of it gives nothing away; only that is stored.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use super::Error;

/// What API tokens begin with, so that scanners of repositories know them.
pub(super) const TOKEN: &str = "berth_";
/// Longest text that is hashed at all.
const LONGEST: usize = 256;

pub(super) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Secrets("there is no randomness"))?;
    Ok(bytes)
}

/// A fresh secret of 256 bits in 43 letters, digits, `-` and `_`.
pub(super) fn fresh() -> Result<String, Error> {
    Ok(URL_SAFE_NO_PAD.encode(random::<32>()?))
}

/// What is stored of a secret; nothing for what can be none.
pub(super) fn hash(secret: &str) -> Option<String> {
    if secret.is_empty() || secret.len() > LONGEST {
        return None;
    }
    Some(Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect())
}
