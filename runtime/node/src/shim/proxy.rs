//! The user's Docker socket: who may speak is settled by the kernel's word before a byte is read, then bytes pass untouched.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::{
    io::Errno,
    net::{SocketFlags, accept_with},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::consume_budget,
    time::sleep,
};
use tokio_util::task::TaskTracker;

use super::{
    answer::Answer,
    copy::{Stream, hung_up, relay},
    inner::{Inner, Unreachable},
    pipe::Pool,
    state::{Engine, State},
};
use crate::{descriptor::watch_socket, link::Owner};

/// Refused clients that are answered with patience at once; more are answered without reading their request.
const PATIENT_ANSWERS: usize = 64;

/// How long a client is held while nothing listens inside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold {
    /// While the inner Docker is starting or starting again.
    pub(crate) starting: Duration,
    /// While it is said to run.
    pub(crate) ready: Duration,
}

impl Default for Hold {
    fn default() -> Self {
        Self { starting: Duration::from_secs(60), ready: Duration::from_secs(5) }
    }
}

/// The proxy of one berth.
#[derive(Debug)]
pub(crate) struct Proxy {
    owner: Owner,
    inner: Arc<Inner>,
    state: Arc<State>,
    hold: Hold,
    limit: usize,
    places: Arc<Semaphore>,
    patience: Semaphore,
    pipes: Pool,
    /// Who is at the other end; the kernel's word, but in tests.
    identify: fn(BorrowedFd<'_>) -> io::Result<u32>,
    pub(crate) connections: TaskTracker,
}

impl Proxy {
    /// `limit`: connections that the user may have open at once.
    pub(crate) fn new(owner: Owner, inner: Arc<Inner>, state: Arc<State>, limit: usize, hold: Hold) -> Self {
        Self {
            owner,
            inner,
            state,
            hold,
            limit,
            places: Arc::new(Semaphore::new(limit)),
            patience: Semaphore::new(PATIENT_ANSWERS),
            pipes: Pool::default(),
            identify: peer_uid,
            connections: TaskTracker::new(),
        }
    }

    /// Connections of the user that are open now.
    pub(crate) fn open(&self) -> u32 {
        u32::try_from(self.limit - self.places.available_permits()).unwrap_or(u32::MAX)
    }

    /// Accepts until a stop is wanted. Whoever connects then waits in the queue of the socket, which outlives the shim.
    pub(crate) async fn serve(self: Arc<Self>, listener: Stream) {
        let mut stop = self.state.watch_stop();
        let mut told = false;
        loop {
            consume_budget().await;
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(Option::is_some) => return,
                accepted = accept(&listener) => accepted,
            };
            match accepted {
                Ok(client) => drop(self.connections.spawn(Arc::clone(&self).connection(client))),
                // The client is gone, or nothing can be opened just now: the queue keeps the others meanwhile.
                Err(error) => {
                    // Once: the log is bounded by what PID 1 prints, not by what is printed here.
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "cannot accept on the user's socket for now");
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, client: OwnedFd) {
        let Ok(client) = watch_socket(client) else { return };
        let refusal = match self.admit(&client) {
            Err(answer) => answer,
            Ok(_place) => match self.reach(&client).await {
                Err(answer) => answer,
                // An error is a reset by one side, and dropping both sockets passes it on.
                Ok(inner) => return drop(relay(&client, &inner, &self.pipes).await),
            },
        };
        match self.patience.try_acquire() {
            Ok(_turn) => refusal.send(&client).await,
            Err(_) => refusal.send_now(&client),
        }
    }

    /// A place for the owner; the reason for everybody else.
    fn admit(&self, client: &Stream) -> Result<OwnedSemaphorePermit, Answer> {
        let owner = &self.owner.name;
        let uid =
            (self.identify)(client.as_fd()).map_err(|e| Answer::new(403, format!("berth cannot tell who connects to this socket: {e}")))?;
        if uid == self.owner.uid {
            return Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
                let limit = self.limit;
                Answer::new(
                    429,
                    format!("{owner} has {limit} connections to this Docker open already, which is the limit: close some, then try again"),
                )
            });
        }
        let hint = match uid {
            0 => format!("as root, use `berth exec {owner} docker …` or `berth shell {owner}`"),
            _ => "your own socket is shown by `berth env`".to_owned(),
        };
        Err(Answer::new(403, format!("this Docker socket belongs to {owner}, and only {owner} may use it; {hint}")))
    }

    /// A connection to the inner Docker, waited for while it starts.
    async fn reach(&self, client: &Stream) -> Result<Stream, Answer> {
        let began = Instant::now();
        let mut engine = self.state.watch_engine();
        let mut stop = self.state.watch_stop();
        let mut pause = Duration::from_millis(20);
        loop {
            if self.state.stopping() {
                return Err(Answer::new(503, "this berth is being stopped; run the command again to start it"));
            }
            let known = engine.borrow_and_update().clone();
            match self.inner.connect().await {
                Ok(inner) => return Ok(inner),
                Err(Unreachable::Absent) => {}
                Err(error) => {
                    let why = berth_runtime::error::chain(&error);
                    return Err(Answer::new(502, format!("berth: {why}; `berth restart` puts a fresh one there")));
                }
            }
            if known == Engine::Ready && self.state.handed_over() {
                self.state.set_engine(Engine::Down("nothing listens at /run/docker.sock inside the berth".into()));
            }
            let (patience, why) = match known {
                Engine::Failed(reason) => (Duration::ZERO, format!("Docker does not run in this berth: {reason}")),
                Engine::Ready => (self.hold.ready, "nothing listens at /run/docker.sock inside the berth any more".to_owned()),
                Engine::Down(reason) => (self.hold.starting, format!("Docker in this berth is down: {reason}")),
                Engine::Starting => {
                    (self.hold.starting, format!("Docker in this berth did not start within {} s", self.hold.starting.as_secs()))
                }
            };
            if began.elapsed() >= patience || hung_up(client.get_ref()) {
                return Err(Answer::new(503, format!("{why}; see `berth logs`, or start afresh with `berth restart`")));
            }
            tokio::select! {
                _ = engine.changed() => {}
                _ = stop.changed() => {}
                () = sleep(pause) => pause = (pause * 2).min(Duration::from_millis(500)),
            }
        }
    }
}

async fn accept(listener: &Stream) -> io::Result<OwnedFd> {
    loop {
        let mut ready = listener.readable().await?;
        match ready.try_io(|listener| Ok(accept_with(listener.get_ref(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)) {
            Ok(Err(error)) if [Errno::INTR, Errno::CONNABORTED].iter().any(|e| error.raw_os_error() == Some(e.raw_os_error())) => {}
            Ok(done) => return done,
            Err(_) => {}
        }
    }
}

/// Host uid of the process that connected, as it was at connect(2).
fn peer_uid(client: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(getsockopt(&client, PeerCredentials)?.uid())
}

#[cfg(test)]
mod tests;
