//! Passwords: what may be one, and argon2id with 19 MiB, 2 passes and 1 lane, which takes some tens of milliseconds.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

use argon2::{Algorithm, Argon2, Params, Version, password_hash::PasswordHasher as _, password_hash::PasswordVerifier as _};
use tokio::sync::Semaphore;

use super::{Error, secrets};
use crate::domain::{AccountName, Problem, Refusal};

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT: usize = 16;
/// Characters of the shortest, bytes of the longest.
const LEAST: usize = 12;
const MOST: usize = 1024;
/// Computations at a time, which bounds their memory, and how many may wait for one.
const AT_ONCE: usize = 2;
const WAITING: u32 = 16;

/// The commonest that are long enough, in lower case; what a guesser tries first.
const COMMON: &[&str] = &[
    "123456789012",
    "1234567890123",
    "12345678901234",
    "123456789012345",
    "1234567890123456",
    "012345678901",
    "0123456789012",
    "0123456789abcdef",
    "098765432109",
    "123123123123",
    "121212121212",
    "112233445566",
    "111222333444",
    "123456123456",
    "1234512345123",
    "123412341234",
    "1q2w3e4r5t6y",
    "1q2w3e4r5t6y7u8i",
    "1qaz2wsx3edc",
    "1qaz2wsx3edc4rfv",
    "1qazxsw23edc",
    "abc123abc123",
    "abcd1234abcd",
    "abcdefghijkl",
    "abcdefghijklmnop",
    "adminadminadmin",
    "adminadmin123",
    "administrator",
    "administrator1",
    "administrator123",
    "asdfasdfasdf",
    "asdfghjkl123",
    "asdfghjklqwerty",
    "changemechangeme",
    "changeme1234",
    "changemenow1",
    "correcthorsebatterystaple",
    "correct horse battery staple",
    "defaultpassword",
    "dockerdocker",
    "helloworld123",
    "iloveyou1234",
    "iloveyouforever",
    "letmeinletmein",
    "letmein12345",
    "letmeinplease",
    "mypassword123",
    "passw0rd1234",
    "passw0rdpassw0rd",
    "password1234",
    "password12345",
    "password123456",
    "password2024",
    "password2025",
    "password2026",
    "password!234",
    "password123!",
    "passwordpassword",
    "p@ssw0rd1234",
    "p@ssword1234",
    "q1w2e3r4t5y6",
    "qazwsxedcrfv",
    "qwerasdfzxcv",
    "qwerty123456",
    "qwerty1234567",
    "qwertyqwerty",
    "qwertyuiop12",
    "qwertyuiop123",
    "qwertyuiop[]",
    "qwertyuiopasdf",
    "qwertyuiopasdfghjkl",
    "rootrootroot",
    "secretsecret",
    "superman1234",
    "testtesttest",
    "testpassword",
    "trustno1trustno1",
    "welcome12345",
    "welcomewelcome",
    "zaq12wsxcde3",
    "zaq1xsw2cde3",
    "zxcvbnm12345",
    "zxcvbnmasdfghjkl",
];

/// Refuses what a guesser would try. Length counts, composition does not.
pub(super) fn check(name: &AccountName, password: &str) -> Result<(), Error> {
    let refuse = |detail: String| {
        Err(Problem::new(Refusal::Invalid, "weak_password", detail).hint("take a few words that do not belong together").into())
    };
    let lower = password.to_lowercase();
    if password.chars().count() < LEAST {
        return refuse(format!("the password is shorter than {LEAST} characters"));
    }
    if password.len() > MOST {
        return refuse(format!("the password passes {MOST} bytes"));
    }
    if password.contains('\0') {
        return refuse("the password holds a NUL".to_owned());
    }
    let name = name.as_str().to_lowercase();
    // The name again and again, or with a few characters at its ends.
    if !name.is_empty() && lower.replace(&name, "").chars().count() < LEAST / 2 && lower.contains(&name) {
        return refuse("the password is the account's name, or little more".to_owned());
    }
    let mut characters = lower.chars();
    let first = characters.next();
    if characters.all(|c| Some(c) == first) || COMMON.contains(&lower.as_str()) {
        return refuse("the password is one of those that are guessed first".to_owned());
    }
    Ok(())
}

/// Computes hashes, a few at a time.
pub(super) struct Hashing {
    places: Semaphore,
    waiting: AtomicU32,
}

impl Default for Hashing {
    fn default() -> Self {
        Self { places: Semaphore::new(AT_ONCE), waiting: AtomicU32::new(0) }
    }
}

impl Hashing {
    /// A fresh hash in PHC's text form.
    pub(super) async fn hash(&self, password: &str) -> Result<String, Error> {
        let password = password.to_owned();
        self.compute(move || hash(password.as_bytes())).await?
    }

    /// Whether the password is the one of `hash`. Without a hash as much is computed, and the answer is no.
    pub(super) async fn verify(&self, password: &str, hash: Option<String>) -> Result<bool, Error> {
        // What can be no password costs nothing to refuse, whoever it is for.
        if password.len() > MOST {
            return Ok(false);
        }
        let password = password.to_owned();
        self.compute(move || match hash {
            Some(hash) => argon2().is_some_and(|argon2| argon2.verify_password(password.as_bytes(), hash.as_str()).is_ok()),
            None => {
                let _ = argon2().map(|argon2| argon2.verify_password(password.as_bytes(), dummy()));
                false
            }
        })
        .await
    }

    async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::Throttled { seconds: 1 });
        }
        let place = self.places.acquire().await;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let computed = tokio::task::spawn_blocking(work).await;
        drop(place);
        computed.map_err(|_| Error::Secrets("a password's hash was not computed"))
    }
}

fn argon2() -> Option<Argon2<'static>> {
    Params::new(MEMORY_KIB, PASSES, LANES, None).ok().map(|parameters| Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters))
}

fn hash(password: &[u8]) -> Result<String, Error> {
    let salt = secrets::random::<SALT>()?;
    let argon2 = argon2().ok_or(Error::Secrets("argon2 does not take its parameters"))?;
    argon2.hash_password_with_salt(password, &salt).map(|hash| hash.to_string()).map_err(|_| Error::Secrets("argon2 failed"))
}

/// The hash of nobody's password, with the same parameters.
fn dummy() -> &'static str {
    static DUMMY: OnceLock<String> = OnceLock::new();
    DUMMY.get_or_init(|| secrets::random::<32>().and_then(|password| hash(&password)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_common_and_named_passwords_are_refused() {
        let name: AccountName = "alice.admin".parse().unwrap();
        for bad in
            ["", "short", "elevenchars", "Password1234", "aaaaaaaaaaaaaaaa", "alice.admin1", "Alice.AdminAlice.Admin", "x\0xxxxxxxxxxxx"]
        {
            assert!(check(&name, bad).is_err(), "{bad:?}");
        }
        assert!(check(&name, &"x y".repeat(400)).is_err());
        for good in ["tall green mug 7", "jwqkzpvmtxgh", "пароль на двенадцать"] {
            assert!(check(&name, good).is_ok(), "{good:?}");
        }
        assert!(COMMON.iter().all(|common| common.chars().count() >= LEAST && *common == common.to_lowercase()));
    }

    #[tokio::test]
    async fn a_hash_is_argon2id_and_knows_its_password_alone() {
        let hashing = Hashing::default();
        let hash = hashing.hash("tall green mug 7").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, hashing.hash("tall green mug 7").await.unwrap());
        assert!(hashing.verify("tall green mug 7", Some(hash.clone())).await.unwrap());
        assert!(!hashing.verify("tall green mug 8", Some(hash)).await.unwrap());
        assert!(!hashing.verify("tall green mug 7", None).await.unwrap());
    }

    /// Unknown names take as long as known ones: the dummy costs what a real hash does.
    #[tokio::test]
    async fn the_dummy_has_the_parameters_of_a_real_hash() {
        let real = Hashing::default().hash("tall green mug 7").await.unwrap();
        let parameters = |hash: &str| hash.rsplitn(3, '$').nth(2).map(str::to_owned);
        assert_eq!(parameters(dummy()), parameters(&real));
        assert!(!dummy().is_empty());
    }
}
