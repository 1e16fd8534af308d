//! The user's Docker socket: who may speak is settled by the kernel's word before a byte is read, then bytes pass untouched, while a
//! [`Tap`] follows them on the side.

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
    task::{consume_budget, yield_now},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    answer::Answer,
    calls::{Caller, Calls},
    copy::{End, Relay, Stop, Stream, hung_up, nap_exactly},
    http::{self, Budget, Cover, Gate, Now},
    inner::{Inner, Unreachable},
    lingering::Lingering,
    pipe::Pool,
    sleep::Sleeper,
    state::{Engine, State},
    tap::{self, Tap, now},
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

/// What the proxy needs to know of its berth.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) inner: Arc<Inner>,
    pub(crate) state: Arc<State>,
    pub(crate) sleeper: Arc<Sleeper>,
    pub(crate) calls: Arc<Calls>,
    /// Directories of the host that could not be brought in.
    pub(crate) covers: Vec<Cover>,
}

/// The proxy of one berth.
#[derive(Debug)]
pub(crate) struct Proxy {
    owner: Owner,
    inner: Arc<Inner>,
    state: Arc<State>,
    sleeper: Arc<Sleeper>,
    pub(crate) calls: Arc<Calls>,
    covers: Vec<Cover>,
    hold: Hold,
    limit: usize,
    places: Arc<Semaphore>,
    patience: Semaphore,
    lingering: Lingering,
    pipes: Pool,
    budget: Budget,
    /// Ends what is open.
    pub(crate) cut: CancellationToken,
    /// Who is at the other end; the kernel's word, but in tests.
    identify: fn(BorrowedFd<'_>) -> io::Result<(u32, u32)>,
    pub(crate) connections: TaskTracker,
}

impl Proxy {
    /// The way into the berth.
    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// `limit`: connections that the user may have open at once.
    pub(crate) fn new(owner: Owner, berth: Parts, limit: usize, hold: Hold) -> Self {
        let Parts { inner, state, sleeper, calls, covers } = berth;
        Self {
            owner,
            inner,
            state,
            sleeper,
            calls,
            covers,
            hold,
            limit,
            places: Arc::new(Semaphore::new(limit)),
            patience: Semaphore::new(PATIENT_ANSWERS),
            lingering: Lingering::default(),
            pipes: Pool::default(),
            budget: Budget::default(),
            cut: CancellationToken::new(),
            identify: peer,
            connections: TaskTracker::new(),
        }
    }

    /// Connections of the user that are open now.
    pub(crate) fn open(&self) -> u32 {
        u32::try_from(self.limit - self.places.available_permits()).unwrap_or(u32::MAX)
    }

    /// Accepts until a stop is wanted. Whoever connects then waits in the queue of the socket, which outlives the shim.
    pub(crate) async fn serve(self: Arc<Self>, listener: Stream) {
        nap_exactly();
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
        let began = now();
        let (uid, pid) = match (self.identify)(client.as_fd()) {
            Ok(peer) => peer,
            Err(error) => {
                let answer = Answer::new(403, format!("berth cannot tell who connects to this socket: {error}"));
                return self.refuse(client, Caller::default(), answer, began).await;
            }
        };
        let caller = Caller { uid, pid, command: String::new() };
        let inner = match self.admit(uid) {
            Err(answer) => Err(answer),
            Ok(place) => match self.reach(&client).await {
                Err(answer) => Err(answer),
                Ok(inner) => Ok((place, inner)),
            },
        };
        match inner {
            Ok((place, inner)) => self.carry(client, inner, caller, place).await,
            Err(answer) => self.refuse(client, caller, answer, began).await,
        }
    }

    /// Carries bytes both ways until an end, or until what is open is to be cut.
    async fn carry(&self, client: OwnedFd, inner: OwnedFd, caller: Caller, place: OwnedSemaphorePermit) {
        let Self { state, sleeper, calls, covers, .. } = self;
        let (Ok(client), Ok(inner)) = (End::new(client), End::new(inner)) else { return };
        let gate = (!covers.is_empty()).then(|| Gate::new(covers, &self.budget));
        let mut tap = Tap::new(state, sleeper, calls, caller, &self.budget, gate);
        let mut relay = Relay::new(client, inner, &self.pipes, &self.budget);
        let running = async {
            loop {
                let stop = relay.run(&mut tap).await?;
                tap.catch_up();
                match stop {
                    Stop::Asleep => tokio::select! {
                        biased;
                        woken = sleeper.stir() => {
                            if let Err(answer) = woken {
                                return Ok(Some(answer));
                            }
                        }
                        // A suspension can be long: nobody's place is held meanwhile.
                        gone = relay.client.gone() => {
                            gone?;
                            return Ok(None);
                        }
                    },
                    Stop::Done => return io::Result::Ok(None),
                    Stop::Refused(answer) => return Ok(Some(answer)),
                    Stop::Lost => {
                        let why = "Docker in this berth ended before it answered; it may be back in a moment, see `berth logs`";
                        return Ok(Some(Answer::new(502, why)));
                    }
                }
            }
        };
        let answer = tokio::select! {
            biased;
            done = running => done.ok().flatten(),
            () = self.cut.cancelled() => None,
        };
        if answer.is_none() {
            // Whoever has just come is in more of a hurry than what is over.
            drop(place);
            yield_now().await;
        }
        let head_only = tap.head_only();
        tap.end(relay.client.socket(), answer.as_ref().map(|answer| answer.status));
        if let Some(answer) = answer
            && let Ok(client) = relay.client.into_stream()
        {
            answer.finish(&client, head_only).await;
        }
    }

    /// Answers in Docker's stead, and writes that down.
    async fn refuse(&self, client: OwnedFd, mut caller: Caller, answer: Answer, began: Now) {
        caller.command = tap::command(&client, caller.pid);
        let head = match self.patience.try_acquire() {
            Ok(_turn) => match watch_socket(client) {
                Ok(client) => answer.send(&client).await,
                Err(_) => return,
            },
            Err(_) => {
                answer.send_now(&client);
                self.calls.record(&caller, http::refused(&[], answer.status, began, now()));
                tokio::select! {
                    () = self.lingering.keep(client) => {}
                    () = self.cut.cancelled() => self.lingering.clear(),
                }
                return;
            }
        };
        self.calls.record(&caller, http::refused(&head, answer.status, began, now()));
    }

    /// A place for the owner; the reason for everybody else.
    fn admit(&self, uid: u32) -> Result<OwnedSemaphorePermit, Answer> {
        let owner = &self.owner.name;
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

    /// A connection to the inner Docker, woken and waited for while it starts.
    async fn reach(&self, client: &OwnedFd) -> Result<OwnedFd, Answer> {
        self.sleeper.awake().await?;
        let began = Instant::now();
        let mut engine = self.state.watch_engine();
        let mut stop = self.state.watch_stop();
        let mut pause = Duration::from_millis(20);
        loop {
            if self.state.stopping() {
                return Err(Answer::new(503, "this berth is being stopped; run the command again to start it"));
            }
            let known = engine.borrow_and_update().clone();
            match self.inner.connect_unwatched().await {
                Ok(inner) => return Ok(inner),
                Err(Unreachable::Absent) => {}
                Err(Unreachable::Closed) if known != Engine::Ready => {}
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
            if began.elapsed() >= patience || hung_up(client) {
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

/// Host uid and pid of the process that connected, as they were at connect(2).
pub(super) fn peer(client: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let peer = getsockopt(&client, PeerCredentials)?;
    Ok((peer.uid(), u32::try_from(peer.pid()).unwrap_or(0)))
}

#[cfg(test)]
mod tests;
