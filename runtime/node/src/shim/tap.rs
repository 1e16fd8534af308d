//! What stands beside one connection of the user: follows its calls ([`http`](super::http)), writes each down when it is over, and keeps the
//! berth awake while one is under way.

use std::{os::fd::OwnedFd, task::Context, time::Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerPidfd};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags, open},
};

use super::{
    answer::Answer,
    calls::{Caller, Calls},
    copy::{Beside, Direction},
    http::{self, Conversation, Gate, Now},
    pulse::Beat,
    sleep::{Look, Sleeper},
    state::{State, now_ms},
    usage::Use,
};

/// What passes in at most so many bytes is followed later: whoever waits for it mostly answers at once, and that should not find us at work.
const SHORT: usize = 1024;
/// Most bytes and parts that are left for later: many connections may have some.
const MOST_LATER: (usize, usize) = (2048, 16);

/// Beside one connection.
#[derive(Debug)]
pub(crate) struct Tap<'a> {
    state: &'a State,
    sleeper: &'a Sleeper,
    calls: &'a Calls,
    caller: Caller,
    named: bool,
    conversation: Conversation,
    gate: Option<Gate<'a>>,
    refusal: Option<Answer>,
    in_use: Option<Use<'a>>,
    looking: Option<Look<'a>>,
    later: Later,
}

/// What was passed on and is not followed yet.
#[derive(Debug, Default)]
struct Later {
    bytes: Vec<u8>,
    /// Whose they are, how many, and when they passed.
    parts: Vec<(Direction, usize, Now)>,
    /// When they are followed at the latest.
    due: Option<Beat>,
}

impl<'a> Tap<'a> {
    /// `caller` without its command, which is read when the first bytes have gone on: by then the inner Docker has something to do.
    pub(crate) fn new(
        state: &'a State,
        sleeper: &'a Sleeper,
        calls: &'a Calls,
        caller: Caller,
        budget: &http::Budget,
        gate: Option<Gate<'a>>,
    ) -> Self {
        let conversation = Conversation::new(budget);
        let later = Later::default();
        Self { state, sleeper, calls, caller, named: false, conversation, gate, refusal: None, in_use: None, looking: None, later }
    }

    /// Follows what was left for later; whatever else is told or asked comes behind it.
    pub(crate) fn catch_up(&mut self) {
        if self.later.parts.is_empty() {
            return;
        }
        let Later { mut bytes, mut parts, due } = std::mem::take(&mut self.later);
        let mut rest = &bytes[..];
        for (direction, length, at) in parts.drain(..) {
            let (part, behind) = rest.split_at(length);
            self.follow(direction, part, at);
            rest = behind;
        }
        bytes.clear();
        self.later = Later { bytes, parts, due };
        self.keep_awake();
    }

    fn follow(&mut self, direction: Direction, bytes: &[u8], at: Now) {
        let Self { conversation, calls, caller, .. } = self;
        match direction {
            Direction::Up => conversation.sent(bytes, at),
            Direction::Down => conversation.received(bytes, at, |call| calls.record(caller, call)),
        }
    }

    fn leave_for_later(&mut self, direction: Direction, bytes: &[u8]) {
        self.later.bytes.extend_from_slice(bytes);
        self.later.parts.push((direction, bytes.len(), now()));
        if self.later.bytes.len() >= MOST_LATER.0 || self.later.parts.len() >= MOST_LATER.1 {
            self.catch_up();
        } else if self.in_use.is_none() && self.looking.is_none() {
            // It may be a call.
            self.looking = Some(self.sleeper.look());
        }
    }

    /// The answer to the call under way has no body.
    pub(crate) fn head_only(&self) -> bool {
        self.conversation.head_only()
    }

    /// The connection is over. `refused`: the status with which Berth itself answered the last call.
    pub(crate) fn end(mut self, client: &OwnedFd, refused: Option<u16>) {
        self.name_caller(client);
        self.catch_up();
        let Self { mut conversation, calls, caller, .. } = self;
        let record = |call| calls.record(&caller, call);
        match refused {
            Some(status) => conversation.refused(status, now(), record),
            None => conversation.end(now(), record),
        }
    }

    /// Finds out the caller's command, once.
    pub(crate) fn name_caller(&mut self, client: &OwnedFd) {
        if !std::mem::replace(&mut self.named, true) {
            self.caller.command = command(client, self.caller.pid);
        }
    }

    fn keep_awake(&mut self) {
        let uses = self.conversation.uses();
        let looks = !uses && self.conversation.busy();
        if uses != self.in_use.is_some() {
            self.in_use = uses.then(|| self.state.usage.begin());
        }
        if looks != self.looking.is_some() {
            self.looking = looks.then(|| self.sleeper.look());
        }
    }
}

impl Beside for Tap<'_> {
    fn asleep(&self) -> bool {
        self.sleeper.asleep()
    }

    fn unseen(&self, direction: Direction) -> u64 {
        match direction {
            Direction::Up if self.gate.is_some() => 0,
            // What was left for later may change it.
            _ if !self.later.parts.is_empty() => 0,
            Direction::Up => self.conversation.unseen_up(),
            Direction::Down => self.conversation.unseen_down(),
        }
    }

    fn gated(&self) -> bool {
        self.gate.is_some()
    }

    fn admit(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut pass = Vec::new();
        if let Some(gate) = &mut self.gate {
            match gate.take(bytes, &mut pass) {
                Err(answer) => self.refusal = Some(answer),
                Ok(()) if gate.is_open() => self.gate = None,
                Ok(()) => {}
            }
        }
        pass
    }

    fn refusal(&mut self) -> Option<Answer> {
        let answer = self.refusal.take()?;
        self.catch_up();
        if let Some(gate) = self.gate.take() {
            // As if it had passed, so that it is written down.
            self.conversation.sent(gate.held(), now());
        }
        Some(answer)
    }

    fn all_but_one_answered(&mut self) -> bool {
        self.catch_up();
        self.conversation.calls() <= 1
    }

    fn admit_rest(&mut self) -> Vec<u8> {
        self.gate.take().map_or_else(Vec::new, |gate| gate.held().to_vec())
    }

    fn passed(&mut self, direction: Direction, bytes: &[u8]) {
        // Of a stream there is nothing to follow.
        if bytes.len() <= SHORT && self.unseen(direction) < u64::MAX {
            return self.leave_for_later(direction, bytes);
        }
        self.catch_up();
        self.follow(direction, bytes, now());
        self.keep_awake();
    }

    fn passed_unseen(&mut self, direction: Direction, bytes: u64) {
        self.catch_up();
        let Self { conversation, calls, caller, .. } = self;
        match direction {
            Direction::Up => conversation.sent_unseen(bytes),
            Direction::Down => conversation.received_unseen(bytes, now(), |call| calls.record(caller, call)),
        }
        self.keep_awake();
    }

    fn said_all(&mut self) {
        self.catch_up();
        let Self { conversation, calls, caller, .. } = self;
        conversation.said_all(now(), |call| calls.record(caller, call));
        self.keep_awake();
    }

    fn unanswered(&mut self) -> bool {
        self.catch_up();
        self.conversation.unanswered()
    }

    fn waits(&mut self, cx: &mut Context<'_>) {
        let pulse = &self.calls.pulse;
        if self.later.due.is_some_and(|due| pulse.is_over(due)) {
            self.catch_up();
            // Idle connections hold nothing.
            self.later = Later::default();
        } else if self.later.due.is_none() && !self.later.parts.is_empty() {
            self.later.due = Some(pulse.next(cx));
        }
    }

    fn moved(&mut self, client: &OwnedFd) {
        self.name_caller(client);
    }
}

pub(crate) fn now() -> Now {
    Now { wall: now_ms(), clock: Instant::now() }
}

/// Name of the process at the other end; empty when it has ended. Never its arguments: they can hold secrets.
pub(crate) fn command(client: &OwnedFd, pid: u32) -> String {
    // Pins the process that connected; before Linux 6.5 there is none, and a pid used again would be another one's.
    let pinned = getsockopt(client, PeerPidfd).ok();
    let mut name = [0; 64];
    let read = open(format!("/proc/{pid}/comm"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| rustix::io::read(&file, &mut name));
    let length = read.unwrap_or(0);
    let ended = pinned.is_some_and(|pidfd| {
        let mut pidfd = [PollFd::new(&pidfd, PollFlags::IN)];
        poll(&mut pidfd, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) != Ok(0)
    });
    if ended { String::new() } else { http::clean(String::from_utf8_lossy(&name[..length]).trim_end_matches('\n'), name.len()) }
}
