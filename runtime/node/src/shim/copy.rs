//! Bytes both ways between two stream sockets, untouched.
//!
//! Each direction ends by itself: an end of input becomes a half-close on the other side (X03), a receiver that closed makes the
//! sender's next write fail, and a reset ends both. There is no idle timeout (X05). A direction reads only when what it read before is
//! written, so memory stays flat (X06); what it could not write is on the shim's one account, and while that is tight it only peeks. When it
//! carries much that nobody has to look at it goes through a pipe by splice(2), of which there are few ([`pipe::Pool`](super::pipe::Pool)).
//!
//! One read and one write for each message: a short read empties a stream socket, so nobody asks again (descriptors in a message would cut
//! it short too, but Docker's protocol has none), and only a receiver that was full once is watched for room.

use std::{
    future::poll_fn,
    io,
    num::NonZeroU64,
    os::fd::OwnedFd,
    sync::OnceLock,
    task::{Context, Poll, ready},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, fcntl_dupfd_cloexec},
    net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt::set_socket_send_buffer_size},
    pipe::{SpliceFlags, splice},
    thread::{nanosleep, set_current_timer_slack},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    answer::Answer,
    http::{Budget, Store},
    pipe::{Lease, Pool},
    scratch,
};
use crate::descriptor::watch;

/// A connected, non-blocking stream socket.
pub(crate) type Stream = AsyncFd<OwnedFd>;

/// Reads of at least this many bytes count towards splicing.
const LARGE: usize = 16 * 1024;
/// Short reads behind a large one during which the sender is taken to be busy still.
const BUSY: u32 = 4;
/// How long a busy sender is left alone: long enough for the rest of a chunk, which Docker writes in three parts (4096 bytes, up to 28 KiB,
/// and its end), and shorter than a quick one needs to fill its socket.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 25_000 };
/// Large reads in a row after which a direction asks for a pipe, and when so much is known to follow.
const STREAK: u32 = 8;
const SHORT_STREAK: u32 = 1;
const MUCH: u64 = 256 * 1024;
/// Rounds without a wait after which others get their turn.
const TURN: u32 = 16;
/// What may be under way to a receiver of a stream, in bytes, if the host allows that much: the fewer waits for room, the better.
const UNDER_WAY: usize = 1 << 20;

/// The two directions of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the client to the inner Docker.
    Up,
    Down,
}

/// What stands beside a connection; nothing, unless said otherwise.
pub(crate) trait Beside {
    /// Nothing of the client's may be passed on before the berth is woken.
    fn asleep(&self) -> bool {
        false
    }

    /// Bytes that may go on without being shown to [`Beside::passed`].
    fn unseen(&self, _: Direction) -> u64 {
        u64::MAX
    }

    /// These bytes were passed on.
    fn passed(&mut self, _: Direction, _bytes: &[u8]) {}

    /// So many bytes were passed on, no more than [`Beside::unseen`].
    fn passed_unseen(&mut self, _: Direction, _bytes: u64) {}

    /// The client was read from, and what it said was passed on as far as that could be.
    fn moved(&mut self, _client: &OwnedFd) {}

    /// The inner Docker will say no more, and everything was passed on.
    fn said_all(&mut self) {}

    /// Nothing of an answer to the call under way has come yet: one can be given instead.
    fn unanswered(&mut self) -> bool {
        false
    }

    /// True when what the client sends has to go through [`Beside::admit`] first.
    fn gated(&self) -> bool {
        false
    }

    /// What may go on of `bytes`, and of what was held before.
    fn admit(&mut self, _bytes: &[u8]) -> Vec<u8> {
        Vec::new()
    }

    /// What is held although no more will come.
    fn admit_rest(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// The answer to a call that may not go on, once everything before it has.
    fn refusal(&mut self) -> Option<Answer> {
        None
    }

    /// No call but the last is under way.
    fn all_but_one_answered(&mut self) -> bool {
        true
    }

    /// Nothing more can be done now; the caller's task is woken for whatever this has to do by itself.
    fn waits(&mut self, _: &mut Context<'_>) {}
}

struct Nothing;

impl Beside for Nothing {}

/// Lets the calling thread sleep as short as it asks, not [50 µs longer](https://man7.org/linux/man-pages/man2/PR_SET_TIMERSLACK.2const.html).
pub(crate) fn nap_exactly() {
    // Longer naps are slower streams, no more.
    let _ = set_current_timer_slack(NonZeroU64::new(1));
}

/// Carries both directions until both have ended; an error as in [`Relay::run`].
pub(crate) async fn relay(a: OwnedFd, b: OwnedFd, pipes: &Pool) -> io::Result<()> {
    let budget = Budget::default();
    Relay::new(End::new(a)?, End::new(b)?, pipes, &budget).run(&mut Nothing).await.map(drop)
}

/// One side of a connection.
#[derive(Debug)]
pub(crate) struct End {
    /// Watched for what comes only: each message that the other side takes would wake us for the room that it leaves.
    socket: Stream,
    /// A duplicate that is watched for room, since the first time that there was none.
    room: OnceLock<Stream>,
}

impl End {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: watch(socket, Interest::READABLE)?, room: OnceLock::new() })
    }

    pub(crate) fn socket(&self) -> &OwnedFd {
        self.socket.get_ref()
    }

    /// Back to a stream that is watched both ways.
    pub(crate) fn into_stream(self) -> io::Result<Stream> {
        crate::descriptor::watch_socket(self.socket.into_inner())
    }

    /// Returns when the other end has closed both ways, or is gone; bytes that wait to be read, and a half-close, are no reason.
    pub(crate) async fn gone(&self) -> io::Result<()> {
        // Asked for nothing but urgent data, epoll(7) tells of hang-ups and errors alone.
        let watched = watch(fcntl_dupfd_cloexec(self.socket.get_ref(), 3)?, Interest::PRIORITY)?;
        while !hung_up(self.socket.get_ref()) {
            watched.ready(Interest::PRIORITY).await?.clear_ready();
        }
        Ok(())
    }

    /// To be called when a write would block: the next [`End::poll_room`] waits.
    fn full(&self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.room.get() {
            None => {
                let duplicate = fcntl_dupfd_cloexec(self.socket.get_ref(), 3)?;
                let _ = self.room.set(watch(duplicate, Interest::WRITABLE)?);
            }
            Some(room) => {
                if let Poll::Ready(Ok(mut ready)) = room.poll_write_ready(cx) {
                    ready.clear_ready();
                }
            }
        }
        Ok(())
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.room.get() {
            Some(room) => room.poll_write_ready(cx).map(|ready| ready.map(drop)),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// Why a relay stands still.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Both directions have ended.
    Done,
    /// The client says something to a berth that sleeps.
    Asleep,
    /// The client asks for something that Berth refuses; calls before it are answered.
    Refused(Answer),
    /// The inner Docker went before it said a word to the call under way.
    Lost,
}

/// A connection between a client and the inner Docker.
#[derive(Debug)]
pub(crate) struct Relay<'p> {
    pub(crate) client: End,
    inner: End,
    up: Way<'p>,
    down: Way<'p>,
    refusal: Option<Answer>,
}

impl<'p> Relay<'p> {
    pub(crate) fn new(client: End, inner: End, pipes: &'p Pool, budget: &'p Budget) -> Self {
        let way = |direction| Way {
            direction,
            pipes,
            budget,
            held: budget.store(usize::MAX),
            at: 0,
            pipe: None,
            full: false,
            // The client has mostly said something when it is accepted.
            eager: direction == Direction::Up,
            streak: 0,
            busy: 0,
            ending: false,
            over: false,
            widened: false,
        };
        Self { client, inner, up: way(Direction::Up), down: way(Direction::Down), refusal: None }
    }

    /// Carries both directions until there is a reason to stop; to be called again after [`Stop::Asleep`].
    ///
    /// An error means that one side is gone, not just done: the caller drops both sockets, which tells the other as a direct connection would.
    pub(crate) async fn run(&mut self, tap: &mut impl Beside) -> io::Result<Stop> {
        poll_fn(|cx| self.poll(cx, tap)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, tap: &mut impl Beside) -> Poll<io::Result<Stop>> {
        let Self { client, inner, up, down, refusal } = self;
        // Answers first: their end is written down before the client's is noticed.
        if let Poll::Ready(Some(stop)) = down.poll(cx, inner, client, tap)? {
            return Poll::Ready(Ok(stop));
        }
        if refusal.is_none() {
            match up.poll(cx, client, inner, tap)? {
                Poll::Ready(Some(Stop::Refused(answer))) => *refusal = Some(answer),
                Poll::Ready(Some(stop)) => return Poll::Ready(Ok(stop)),
                Poll::Ready(None) | Poll::Pending => {}
            }
            tap.moved(client.socket());
        }
        if refusal.is_some() && tap.all_but_one_answered() {
            return Poll::Ready(Ok(refusal.take().map_or(Stop::Done, Stop::Refused)));
        }
        if up.over && down.over {
            return Poll::Ready(Ok(Stop::Done));
        }
        tap.waits(cx);
        Poll::Pending
    }
}

/// One direction.
#[derive(Debug)]
struct Way<'p> {
    direction: Direction,
    pipes: &'p Pool,
    budget: &'p Budget,
    /// Read, and from `at` on not written yet.
    held: Store,
    at: usize,
    pipe: Option<Lease<'p>>,
    /// The receiver had no room.
    full: bool,
    /// Read without waiting to be told that there is something.
    eager: bool,
    streak: u32,
    /// Reads during which the sender is taken to have more in a moment.
    busy: u32,
    /// The sender will send no more.
    ending: bool,
    over: bool,
    /// The receiver's socket was given room for a stream.
    widened: bool,
}

/// What one attempt to carry something came to.
enum Step {
    /// So many bytes were read and passed on, or are held.
    Carried(usize),
    /// Something of what was held was passed on.
    Again,
    /// The receiver has no room.
    Full,
    /// Nothing there.
    Empty,
    End,
    Closed,
}

impl Way<'_> {
    /// Carries until there is nothing more to do now; `None` when this direction has ended.
    fn poll(&mut self, cx: &mut Context<'_>, from: &End, to: &End, tap: &mut impl Beside) -> Poll<io::Result<Option<Stop>>> {
        let mut turn = 0;
        while !self.over {
            turn += 1;
            if turn > TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.full {
                ready!(to.poll_room(cx))?;
                self.full = false;
            }
            let step = if self.pipe.as_ref().is_some_and(|pipe| pipe.held > 0) {
                self.empty_pipe(to, tap)?
            } else if self.at < self.held.bytes().len() {
                self.empty_hold(to, tap)?
            } else if self.ending {
                Step::End
            } else if self.direction == Direction::Up
                && let Some(answer) = tap.refusal()
            {
                return Poll::Ready(Ok(Some(Stop::Refused(answer))));
            } else {
                let mut ready = match std::mem::take(&mut self.eager) {
                    true => None,
                    false => Some(ready!(from.socket.poll_read_ready(cx))?),
                };
                if self.direction == Direction::Up && tap.asleep() {
                    return Poll::Ready(Ok(Some(Stop::Asleep)));
                }
                let (step, emptied) = match self.read(from, to, tap) {
                    Err(_) if self.direction == Direction::Down && tap.unanswered() => return Poll::Ready(Ok(Some(Stop::Lost))),
                    done => done?,
                };
                if let Some(ready) = ready.as_mut().filter(|_| emptied) {
                    ready.clear_ready();
                }
                step
            };
            match step {
                Step::Carried(length) if length >= LARGE => {
                    self.streak = self.streak.saturating_add(1);
                    self.busy = BUSY;
                }
                Step::Carried(_) => {
                    self.busy = self.busy.saturating_sub(1);
                    self.streak = 0;
                    self.pipe = self.pipe.take().filter(|pipe| pipe.held > 0);
                }
                Step::Again => {}
                Step::Full => {
                    to.full(cx)?;
                    self.full = true;
                }
                // Nothing is in the pipe: others may have it meanwhile.
                Step::Empty => self.pipe = None,
                Step::End => {
                    if let Some(stop) = self.end(from, to, tap)? {
                        return Poll::Ready(Ok(Some(stop)));
                    }
                }
                Step::Closed => {
                    // Fails only on a socket that is closed already.
                    let _ = shutdown(from.socket(), Shutdown::Read);
                    self.over = true;
                }
            }
        }
        Poll::Ready(Ok(None))
    }

    /// The sender has ended, and everything before that was passed on or is held.
    fn end(&mut self, from: &End, to: &End, tap: &mut impl Beside) -> io::Result<Option<Stop>> {
        if !std::mem::replace(&mut self.ending, true) && self.direction == Direction::Up && tap.gated() {
            self.held.hold(&tap.admit_rest());
            return Ok(None);
        }
        if self.direction == Direction::Down {
            tap.said_all();
        }
        if hung_up(from.socket()) {
            // Not a half-close: nobody is there to read what the other side may still say.
            return match self.direction {
                Direction::Down if tap.unanswered() => Ok(Some(Stop::Lost)),
                _ => Err(io::ErrorKind::ConnectionReset.into()),
            };
        }
        let _ = shutdown(to.socket(), Shutdown::Write);
        self.over = true;
        Ok(None)
    }

    /// Reads something and passes it on; true when the sender's socket is empty now.
    fn read(&mut self, from: &End, to: &End, tap: &mut impl Beside) -> io::Result<(Step, bool)> {
        let unseen = tap.unseen(self.direction);
        let wanted = if unseen == u64::MAX || unseen < MUCH { STREAK } else { SHORT_STREAK };
        if self.streak >= wanted && unseen >= LARGE as u64 {
            self.pipe = self.pipe.take().or_else(|| self.pipes.lend());
            if let Some(pipe) = &mut self.pipe {
                if !std::mem::replace(&mut self.widened, true) {
                    // What it is by default does too.
                    let _ = set_socket_send_buffer_size(to.socket(), UNDER_WAY);
                }
                let most = usize::try_from(unseen).map_or(pipe.capacity(), |unseen| unseen.min(pipe.capacity()));
                return match again(|| splice(from.socket(), None, pipe.input(), None, most, FLAGS)) {
                    Ok(0) => Ok((Step::End, false)),
                    Ok(length) => {
                        pipe.held = length;
                        Ok((Step::Carried(length), false))
                    }
                    // The pipe is empty here, so this can only mean the socket.
                    Err(Errno::AGAIN) => Ok((Step::Empty, true)),
                    Err(error) => Err(error.into()),
                };
            }
            self.streak = 0;
        }
        self.pipe = None;
        if self.direction == Direction::Up && tap.gated() {
            return self.read_gated(from, tap);
        }
        // Whatever cannot be written at once has to be kept; when there is much of that already, it is left where it is.
        let peek = self.budget.tight();
        scratch::with(|buffer| {
            let flags = if peek { RecvFlags::PEEK } else { RecvFlags::empty() };
            let length = match again(|| recv(from.socket(), &mut *buffer, flags)) {
                Ok((_, 0)) => return Ok((Step::End, false)),
                Ok((_, length)) => length,
                Err(Errno::AGAIN) => return Ok((Step::Empty, true)),
                Err(error) => return Err(error.into()),
            };
            let written = match again(|| send(to.socket(), &buffer[..length], SendFlags::NOSIGNAL)) {
                Ok(written) => written,
                Err(Errno::AGAIN) => 0,
                Err(error) if closed(error) => return Ok((Step::Closed, false)),
                Err(error) => return Err(error.into()),
            };
            if written > 0 {
                tap.passed(self.direction, &buffer[..written]);
            }
            if !peek {
                self.held.hold(&buffer[written..length]);
            } else if written > 0 {
                let mut rest = written;
                while rest > 0 {
                    match again(|| recv(from.socket(), &mut buffer[..rest], RecvFlags::empty()))? {
                        (_, 0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                        (_, length) => rest -= length,
                    }
                }
            }
            let step = if peek && written == 0 { Step::Full } else { Step::Carried(length) };
            let short = length < buffer.len() && !peek;
            if short && self.busy > 0 {
                // Each part would wake us, and we the receiver: many at once cost less.
                let _ = nanosleep(&NAP);
                return Ok((step, false));
            }
            Ok((step, short))
        })
    }

    /// Reads what has to be admitted first.
    fn read_gated(&mut self, from: &End, tap: &mut impl Beside) -> io::Result<(Step, bool)> {
        scratch::with(|buffer| {
            let length = match again(|| recv(from.socket(), &mut *buffer, RecvFlags::empty())) {
                Ok((_, 0)) => return Ok((Step::End, false)),
                Ok((_, length)) => length,
                Err(Errno::AGAIN) => return Ok((Step::Empty, true)),
                Err(error) => return Err(error.into()),
            };
            self.held.hold(&tap.admit(&buffer[..length]));
            Ok((Step::Carried(length), length < buffer.len()))
        })
    }

    fn empty_hold(&mut self, to: &End, tap: &mut impl Beside) -> io::Result<Step> {
        let rest = &self.held.bytes()[self.at..];
        match again(|| send(to.socket(), rest, SendFlags::NOSIGNAL)) {
            Ok(written) => {
                tap.passed(self.direction, &rest[..written]);
                self.at += written;
                if self.at == self.held.bytes().len() {
                    self.held.clear();
                    self.at = 0;
                }
                Ok(Step::Again)
            }
            Err(Errno::AGAIN) => Ok(Step::Full),
            Err(error) if closed(error) => Ok(Step::Closed),
            Err(error) => Err(error.into()),
        }
    }

    fn empty_pipe(&mut self, to: &End, tap: &mut impl Beside) -> io::Result<Step> {
        let Some(pipe) = &mut self.pipe else { return Ok(Step::Empty) };
        match again(|| splice(pipe.output(), None, to.socket(), None, pipe.held, FLAGS)) {
            Ok(written) => {
                pipe.held -= written;
                tap.passed_unseen(self.direction, written as u64);
                Ok(Step::Again)
            }
            Err(Errno::AGAIN) => Ok(Step::Full),
            Err(error) if closed(error) => Ok(Step::Closed),
            Err(error) => Err(error.into()),
        }
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// True when the other end has closed both ways, or is gone.
pub(crate) fn hung_up(socket: &OwnedFd) -> bool {
    let mut socket = [PollFd::new(socket, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut socket, Some(&now)).is_ok() && socket[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

fn closed(error: Errno) -> bool {
    matches!(error, Errno::PIPE | Errno::CONNRESET)
}

fn again<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}
