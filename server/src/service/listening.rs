//! What the rest of the server has to know of the listener for browsers.

use std::sync::{Mutex, PoisonError};

use crate::domain::Check;

/// Shared with whoever listens.
#[derive(Debug, Default)]
pub struct Listening(Mutex<State>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    /// The configuration names no address.
    #[default]
    Off,
    At {
        url: String,
        fingerprint: Option<String>,
    },
    Failed {
        address: String,
        reason: String,
    },
}

impl Listening {
    /// It listens; browsers find it at `url`. With TLS, the SHA-256 of the certificate.
    pub fn at(&self, url: String, fingerprint: Option<String>) {
        self.set(State::At { url, fingerprint });
    }

    pub fn failed(&self, address: String, reason: String) {
        self.set(State::Failed { address, reason });
    }

    /// Nothing while nobody of ours listens: who else has the port must not be sent a link.
    pub fn url(&self) -> Option<String> {
        match &*self.lock() {
            State::At { url, .. } => Some(url.clone()),
            _ => None,
        }
    }

    pub(super) fn check(&self) -> Check {
        match &*self.lock() {
            State::Off => Check::ok("listener", "none; the API is on the unix socket alone"),
            State::At { url, fingerprint: None } => Check::ok("listener", url.clone()),
            State::At { url, fingerprint: Some(fingerprint) } => Check::ok("listener", format!("{url}, certificate SHA-256 {fingerprint}")),
            State::Failed { address, reason } => Check::failed(
                "listener",
                format!("{address}: {reason}"),
                "see who has the port (ss -ltnp), or set [listen] address in server.toml; it is tried again every few seconds",
            ),
        }
    }

    fn set(&self, state: State) {
        *self.lock() = state;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
