//! From the kernel's peer credential to an account.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use nix::unistd::{Uid, User};

/// A look-up is kept so long: a rename is seen within a minute, and a slow directory is not asked at each request.
const KEPT: Duration = Duration::from_secs(60);
const MOST: usize = 4_096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identified {
    Account {
        name: String,
    },
    /// No account has this uid.
    Nobody,
    /// The look-up failed.
    Unknown(String),
}

#[derive(Default)]
pub(super) struct Identity {
    known: Mutex<HashMap<u32, (Instant, String)>>,
}

impl Identity {
    /// Name of the account.
    pub(super) async fn of(&self, uid: u32) -> Identified {
        if uid == 0 {
            return Identified::Account { name: "root".to_owned() };
        }
        if let Some(name) = self.recall(uid) {
            return Identified::Account { name };
        }
        match tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid))).await {
            Ok(Ok(Some(user))) => {
                self.remember(uid, &user.name);
                Identified::Account { name: user.name }
            }
            Ok(Ok(None)) => Identified::Nobody,
            Ok(Err(error)) => Identified::Unknown(error.desc().to_owned()),
            Err(error) => Identified::Unknown(error.to_string()),
        }
    }

    fn recall(&self, uid: u32) -> Option<String> {
        let known = self.known.lock().ok()?;
        known.get(&uid).filter(|(since, _)| since.elapsed() < KEPT).map(|(_, name)| name.clone())
    }

    fn remember(&self, uid: u32, name: &str) {
        if let Ok(mut known) = self.known.lock() {
            if known.len() >= MOST {
                known.clear();
            }
            known.insert(uid, (Instant::now(), name.to_owned()));
        }
    }
}
