//! What a berth's Docker holds, as last seen. The shim is asked on a connection of its own, so that a slow Docker inside holds up nothing else;
//! a berth that rests is not woken, and what was seen before is told.

use std::{path::Path, time::Duration};

use axum::http::StatusCode;
use berth_protocol::{Inside, Prune, Pruned, State};
use tokio::time::timeout;

use super::Berth;
use crate::{
    daemon::{channel::Channel, host::now_ms, refusal::Refusal},
    link::{FromShim, ToShim},
};

/// Longer than the shim waits for the Docker inside.
const LOOK: Duration = Duration::from_secs(30);
const PRUNE: Duration = Duration::from_secs(130);
/// What was seen so recently is not looked at again, in milliseconds.
const FRESH: i64 = 3_000;

impl Berth {
    /// One look at a time, however many ask.
    pub(crate) async fn inside(&self, control: &Path) -> Result<Inside, Refusal> {
        let mut seen = self.inside.lock().await;
        if let Some(fresh) = seen.as_ref().filter(|seen| now_ms() - seen.at < FRESH) {
            return Ok(fresh.clone());
        }
        let why = match self.up() {
            false => "the berth rests, and was not looked at since the node started".to_owned(),
            true => match ask(control, &ToShim::Inside, LOOK).await {
                Ok(FromShim::Inside(inside)) => return Ok(seen.insert(*inside).clone()),
                Ok(FromShim::Refused { detail }) => detail,
                Ok(_) => "the shim answered with something else".to_owned(),
                Err(detail) => detail,
            },
        };
        seen.clone().ok_or_else(|| Refusal::conflict("not_seen", why).hint("what is inside is shown while the berth runs"))
    }

    /// Takes away what is in no use; what that gave.
    pub(crate) async fn prune(&self, control: &Path, what: &[Prune]) -> Result<Pruned, Refusal> {
        if !self.up() {
            return Err(Refusal::conflict("berth_not_running", "the berth does not run").hint("start it first"));
        }
        let mut seen = self.inside.lock().await;
        let mut pruned = Pruned::default();
        for what in what {
            match ask(control, &ToShim::Prune { what: *what }, PRUNE).await {
                Ok(FromShim::Pruned { bytes }) => pruned.bytes = pruned.bytes.saturating_add(bytes),
                Ok(FromShim::Refused { detail }) => return Err(Refusal::conflict("prune_failed", detail)),
                Ok(_) => return Err(Refusal::new(StatusCode::BAD_GATEWAY, "prune_failed", "the shim answered with something else")),
                Err(detail) => return Err(Refusal::new(StatusCode::BAD_GATEWAY, "prune_failed", detail)),
            }
        }
        *seen = None;
        Ok(pruned)
    }

    fn up(&self) -> bool {
        matches!(self.status.borrow().state, State::Running)
    }
}

/// One question on a connection of its own; events that come first are somebody else's.
async fn ask(control: &Path, question: &ToShim, limit: Duration) -> Result<FromShim, String> {
    let asked = async {
        let channel = Channel::connect(control)?;
        channel.send(question, &[]).await?;
        loop {
            match channel.receive().await? {
                Some((FromShim::Event(_), _)) => {}
                Some((answer, _)) => return Ok(answer),
                None => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)),
            }
        }
    };
    match timeout(limit, asked).await {
        Ok(answer) => answer.map_err(|error| format!("the shim cannot be asked: {error}")),
        Err(_) => Err(format!("the shim did not answer within {} s", limit.as_secs())),
    }
}
