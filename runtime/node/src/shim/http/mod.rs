//! HTTP/1.1 followed on the side: from the bytes that pass in both directions to one [`Finished`] for each call. Data to data: nothing here
//! reads, writes or changes what passes.
//!
//! ```text
//! client ──► head ──► body ──┬─────────────► head …            inner Docker ──► head ──► body ──► (call finished) head …
//!              │             │ may upgrade: Decision, counted       │              │ 1xx: the same call's next head
//!              │             └── by the response's head ◄───────────┤              │ 101, hijack: Blind, a stream
//!              └ not understood: Blind                              └ not understood: Blind
//! ```
//!
//! What cannot be followed (garbage, ambiguous framing, a head past 64 KiB, more than [`MOST_OPEN`] calls in the pipeline) ends the following
//! of the connection for good: the rest is counted, as one call that is [`Outcome::Unparsed`]. Memory: heads that come in parts and small
//! JSON bodies, on one [`Budget`] for the whole shim.

mod body;
mod describe;
mod gate;
mod head;
mod json;
mod store;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use berth_protocol::Outcome;

use self::{
    body::Body,
    describe::{Description, describe},
    head::{Gathered, Gathering, RequestHead, ResponseHead},
};
pub(crate) use self::{
    describe::clean,
    gate::{Cover, Gate},
    store::{Budget, Store},
};

/// Calls of one connection that may wait for their answers.
const MOST_OPEN: usize = 64;
/// Most of a body that is kept on the side.
const MOST_BODY: usize = 64 * 1024;

/// The moment at which bytes passed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Milliseconds since the epoch.
    pub(crate) wall: i64,
    pub(crate) clock: Instant,
}

/// A call that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    /// As in [`berth_protocol::Call`], all of these.
    pub(crate) at: i64,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) image: Option<String>,
    pub(crate) container: Option<String>,
    pub(crate) status: Option<u16>,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) duration: Duration,
    pub(crate) outcome: Outcome,
}

/// A call that waits for the end of its answer.
#[derive(Debug)]
struct Open {
    at: i64,
    began: Instant,
    about: Description,
    /// It asked to become a stream.
    upgrade: bool,
    /// It is one.
    upgraded: bool,
    unparsed: bool,
    status: Option<u16>,
    request_bytes: u64,
    response_bytes: u64,
    /// Body of a request, then of an answer, that is kept on the side.
    kept: Option<Store>,
}

/// Where the client's bytes stand. Calls are named by their number on the connection.
#[derive(Debug)]
enum Up {
    Head(Gathering),
    Body(Body, u64),
    /// Everything of a call was sent that may become a stream: so many bytes behind it belong to the stream, or to nobody knows what.
    Decision(u64, u64),
    /// No longer followed; counted to this call.
    Blind(u64),
}

#[derive(Debug)]
enum Down {
    Head(Gathering),
    Body(Body),
    /// No longer followed; counted to the first call.
    Blind,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conversation {
    budget: Budget,
    open: VecDeque<Open>,
    /// Number of the first open call.
    first: u64,
    up: Up,
    down: Down,
    /// The inner Docker said that this answer is its last.
    closes: bool,
}

impl Conversation {
    pub(crate) fn new(budget: &Budget) -> Self {
        let head = || Gathering::new(budget);
        Self { budget: budget.clone(), open: VecDeque::new(), first: 0, up: Up::Head(head()), down: Down::Head(head()), closes: false }
    }

    /// Bytes from the client that may pass unseen: [`Conversation::sent_unseen`] is enough for so many.
    pub(crate) fn unseen_up(&self) -> u64 {
        match &self.up {
            Up::Head(_) => 0,
            Up::Body(_, number) if self.keeps(*number) => 0,
            Up::Body(body, _) => body.unseen(),
            Up::Decision(..) | Up::Blind(_) => u64::MAX,
        }
    }

    /// The same for bytes to the client.
    pub(crate) fn unseen_down(&self) -> u64 {
        match &self.down {
            Down::Head(_) => 0,
            Down::Body(_) if self.keeps(self.first) => 0,
            Down::Body(body) => body.unseen(),
            Down::Blind => u64::MAX,
        }
    }

    fn keeps(&self, number: u64) -> bool {
        self.numbered(number).is_some_and(|open| open.kept.is_some())
    }

    /// A use of the berth is under way.
    pub(crate) fn uses(&self) -> bool {
        self.open.iter().any(|open| !open.about.looks)
    }

    /// A call is under way.
    pub(crate) fn busy(&self) -> bool {
        !self.open.is_empty()
    }

    /// The first call has had nothing of an answer though one was to come, and it is understood: one could be made up for it.
    pub(crate) fn unanswered(&self) -> bool {
        !self.closes
            && self.open.front().is_some_and(|open| !open.unparsed && !open.upgraded && open.response_bytes == 0)
            && matches!(&self.down, Down::Head(head) if head.length() == 0)
    }

    /// Calls under way.
    pub(crate) fn calls(&self) -> usize {
        self.open.len()
    }

    /// The answer to the first call has no body.
    pub(crate) fn head_only(&self) -> bool {
        self.open.front().is_some_and(|open| open.about.method == "HEAD")
    }

    /// The connection became a stream, or is not followed any more.
    #[cfg(test)]
    pub(crate) fn blind(&self) -> bool {
        matches!(self.up, Up::Blind(_))
    }

    fn numbered(&self, number: u64) -> Option<&Open> {
        self.open.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn numbered_mut(&mut self, number: u64) -> Option<&mut Open> {
        self.open.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn count_up(&mut self, number: u64, bytes: u64) {
        if let Some(open) = self.numbered_mut(number) {
            open.request_bytes += bytes;
        }
    }

    /// These bytes went to the inner Docker.
    pub(crate) fn sent(&mut self, mut bytes: &[u8], now: Now) {
        while !bytes.is_empty() {
            match &mut self.up {
                Up::Head(gathering) => {
                    let begun = gathering.length();
                    match gathering.take(bytes, |head| head::request(head, described)) {
                        Gathered::Partial => return,
                        Gathered::Whole { used, length, read: Some((about, body, upgrade)) } if self.open.len() < MOST_OPEN => {
                            self.request(about, body, upgrade, length, now);
                            bytes = &bytes[used..];
                        }
                        Gathered::Whole { .. } | Gathered::TooLong => return self.lose_up(begun + bytes.len() as u64, now),
                    }
                }
                Up::Body(body, number) => {
                    let number = *number;
                    let mut kept = self.open.get_mut((number.wrapping_sub(self.first)) as usize).and_then(|open| open.kept.as_mut());
                    let mut whole = true;
                    let followed = body.follow(bytes, |data| whole &= kept.as_mut().is_none_or(|kept| kept.keep(data)));
                    let ended = body.ended();
                    if !whole && let Some(open) = self.numbered_mut(number) {
                        open.kept = None;
                    }
                    let Ok(used) = followed else { return self.lose_up(bytes.len() as u64, now) };
                    self.count_up(number, used as u64);
                    bytes = &bytes[used..];
                    if ended {
                        self.request_ended(number);
                    }
                }
                Up::Decision(number, behind) => {
                    *behind += bytes.len() as u64;
                    let number = *number;
                    return self.count_up(number, bytes.len() as u64);
                }
                Up::Blind(number) => {
                    let number = *number;
                    return self.count_up(number, bytes.len() as u64);
                }
            }
        }
    }

    /// So many bytes went to the inner Docker, no more than [`Conversation::unseen_up`].
    pub(crate) fn sent_unseen(&mut self, bytes: u64) {
        match &mut self.up {
            Up::Head(_) => {}
            Up::Body(body, number) => {
                let number = *number;
                if let Body::Length(rest) = body {
                    *rest = rest.saturating_sub(bytes);
                }
                let ended = body.ended();
                self.count_up(number, bytes);
                if ended {
                    self.request_ended(number);
                }
            }
            Up::Decision(number, behind) => {
                *behind += bytes;
                let number = *number;
                self.count_up(number, bytes);
            }
            Up::Blind(number) => {
                let number = *number;
                self.count_up(number, bytes);
            }
        }
    }

    fn request(&mut self, about: Description, body: Body, upgrade: bool, length: u64, now: Now) {
        let number = self.first + self.open.len() as u64;
        let kept = about.creates.then(|| self.budget.store(MOST_BODY));
        self.open.push_back(Open {
            at: now.wall,
            began: now.clock,
            about,
            upgrade,
            upgraded: false,
            unparsed: false,
            status: None,
            request_bytes: length,
            response_bytes: 0,
            kept,
        });
        self.up = Up::Body(body, number);
        if body.ended() {
            self.request_ended(number);
        }
    }

    fn request_ended(&mut self, number: u64) {
        let mut decision = false;
        if let Some(open) = self.numbered_mut(number) {
            decision = open.upgrade || open.about.hijacks;
            if open.about.image.is_none() {
                open.about.image = open.kept.as_ref().and_then(|kept| json::text(kept.bytes(), "Image"));
            }
            open.kept = None;
        }
        self.up = if decision { Up::Decision(number, 0) } else { Up::Head(Gathering::new(&self.budget)) };
    }

    /// The rest of what the client sends is counted only: to the call whose body cannot be followed, or to a new one without a name.
    fn lose_up(&mut self, bytes: u64, now: Now) {
        let number = match self.up {
            Up::Body(_, number) | Up::Decision(number, _) | Up::Blind(number) if self.numbered(number).is_some() => number,
            _ => {
                self.open.push_back(Open {
                    at: now.wall,
                    began: now.clock,
                    about: Description::default(),
                    upgrade: false,
                    upgraded: false,
                    unparsed: true,
                    status: None,
                    request_bytes: 0,
                    response_bytes: 0,
                    kept: None,
                });
                self.first + self.open.len() as u64 - 1
            }
        };
        if let Some(open) = self.numbered_mut(number) {
            open.unparsed = true;
            open.kept = None;
            open.request_bytes += bytes;
        }
        self.up = Up::Blind(number);
    }

    /// These bytes went to the client. `done` gets each call that they end.
    pub(crate) fn received(&mut self, mut bytes: &[u8], now: Now, mut done: impl FnMut(Finished)) {
        while !bytes.is_empty() {
            if matches!(self.down, Down::Head(_)) && self.open.front().is_none_or(|open| open.unparsed) {
                self.lose_down(now);
            }
            match &mut self.down {
                Down::Head(gathering) => {
                    let begun = gathering.length();
                    match gathering.take(bytes, head::response) {
                        Gathered::Partial => return,
                        Gathered::Whole { used, length, read: Some(head) } => {
                            self.response(head, length, now, &mut done);
                            bytes = &bytes[used..];
                        }
                        Gathered::Whole { read: None, .. } | Gathered::TooLong => {
                            self.count_down(begun);
                            self.lose_down(now);
                        }
                    }
                }
                Down::Body(body) => {
                    let open = self.open.front_mut();
                    let mut kept = open.and_then(|open| open.kept.as_mut());
                    let mut whole = true;
                    let followed = body.follow(bytes, |data| whole &= kept.as_mut().is_none_or(|kept| kept.keep(data)));
                    let ended = body.ended();
                    if !whole && let Some(open) = self.open.front_mut() {
                        open.kept = None;
                    }
                    let Ok(used) = followed else {
                        self.lose_down(now);
                        continue;
                    };
                    self.count_down(used as u64);
                    bytes = &bytes[used..];
                    if ended {
                        self.answered(now, &mut done);
                    }
                }
                Down::Blind => return self.count_down(bytes.len() as u64),
            }
        }
    }

    /// So many bytes went to the client, no more than [`Conversation::unseen_down`].
    pub(crate) fn received_unseen(&mut self, bytes: u64, now: Now, mut done: impl FnMut(Finished)) {
        self.count_down(bytes);
        if let Down::Body(body @ Body::Length(_)) = &mut self.down {
            *body = Body::Length(body.unseen().saturating_sub(bytes));
            if body.ended() {
                self.answered(now, &mut done);
            }
        }
    }

    fn count_down(&mut self, bytes: u64) {
        if let Some(open) = self.open.front_mut() {
            open.response_bytes += bytes;
        }
    }

    fn response(&mut self, head: ResponseHead, length: u64, now: Now, done: &mut impl FnMut(Finished)) {
        let number = self.first;
        let Some(open) = self.open.front_mut() else { return };
        open.response_bytes += length;
        if matches!(head.status, 100 | 102..=199) {
            self.down = Down::Head(Gathering::new(&self.budget));
            return;
        }
        open.status = Some(head.status);
        let hijacked = head.status == 200 && head.unframed && (open.about.hijacks || open.upgrade);
        if head.status == 101 || hijacked || (open.about.method == "CONNECT" && matches!(head.status, 200..=299)) {
            open.upgraded = true;
            open.kept = None;
            self.down = Down::Blind;
            self.up = Up::Blind(number);
            return;
        }
        let bodiless = open.about.method == "HEAD" || matches!(head.status, 204 | 304);
        let body = if bodiless { Body::Length(0) } else { head.body };
        self.closes = head.closes || body == Body::UntilEnd;
        let request_over = !matches!(self.up, Up::Body(_, sent) if sent == number);
        if open.about.creates && request_over {
            open.kept = (head.status == 201 && open.about.container.is_none()).then(|| self.budget.store(MOST_BODY));
        }
        match self.up {
            // It did not become a stream: what was sent behind it in that belief is not to be understood any more.
            Up::Decision(sent, behind) if sent == number && behind > 0 => {
                open.request_bytes -= behind;
                self.up = Up::Head(Gathering::new(&self.budget));
                self.lose_up(behind, now);
            }
            Up::Decision(sent, _) if sent == number => self.up = Up::Head(Gathering::new(&self.budget)),
            _ => {}
        }
        self.down = Down::Body(body);
        if body.ended() {
            self.answered(now, done);
        }
    }

    /// The answer to the first call is complete.
    fn answered(&mut self, now: Now, done: &mut impl FnMut(Finished)) {
        if let Some(mut open) = self.open.pop_front() {
            self.first += 1;
            if open.about.creates && open.about.container.is_none() {
                open.about.container = open.kept.as_ref().and_then(|kept| json::text(kept.bytes(), "Id"));
            }
            let outcome = if open.unparsed { Outcome::Unparsed } else { Outcome::Answered };
            done(open.finish(outcome, now));
        }
        self.down = Down::Head(Gathering::new(&self.budget));
    }

    /// The inner Docker's answers are not understood: nobody knows what belongs to which call.
    fn lose_down(&mut self, now: Now) {
        if self.open.is_empty() {
            let begun = match &self.up {
                Up::Head(gathering) => gathering.length(),
                _ => 0,
            };
            // An answer to no call, or to one of which half a head is there.
            self.up = Up::Head(Gathering::new(&self.budget));
            self.lose_up(begun, now);
        }
        self.open.iter_mut().for_each(|open| open.unparsed = true);
        self.up = Up::Blind(self.first + self.open.len() as u64 - 1);
        self.down = Down::Blind;
    }

    /// The inner Docker said everything and the client has it.
    pub(crate) fn said_all(&mut self, now: Now, done: impl FnMut(Finished)) {
        let over = match self.down {
            Down::Body(Body::UntilEnd) => Some(Outcome::Answered),
            Down::Blind => self.open.front().filter(|open| open.upgraded).map(|_| Outcome::Upgraded),
            _ => None,
        };
        if let Some(outcome) = over {
            self.first += 1;
            self.open.pop_front().map(|open| open.finish(outcome, now)).into_iter().for_each(done);
            self.down = Down::Head(Gathering::new(&self.budget));
        }
    }

    /// The connection is over: whatever is open was cut, but what never was to be understood, and streams.
    pub(crate) fn end(&mut self, now: Now, done: impl FnMut(Finished)) {
        if let Up::Head(gathering) = &self.up
            && gathering.length() > 0
        {
            let begun = gathering.length();
            self.lose_up(begun, now);
        }
        self.finish_all(now, None, done);
    }

    /// Berth itself answered the last call, and the connection is over.
    pub(crate) fn refused(&mut self, status: u16, now: Now, done: impl FnMut(Finished)) {
        self.finish_all(now, Some(status), done);
    }

    fn finish_all(&mut self, now: Now, refused: Option<u16>, done: impl FnMut(Finished)) {
        self.first += self.open.len() as u64;
        let all = std::mem::take(&mut self.open).into_iter().map(|mut open| {
            let outcome = match &open {
                Open { upgraded: true, .. } => Outcome::Upgraded,
                Open { unparsed: true, .. } => Outcome::Unparsed,
                _ if refused.is_some() => Outcome::Refused,
                _ => Outcome::Cut,
            };
            if outcome == Outcome::Refused {
                open.status = refused;
            }
            open.finish(outcome, now)
        });
        all.for_each(done);
    }
}

impl Open {
    fn finish(self, outcome: Outcome, now: Now) -> Finished {
        let Description { method, path, image, container, .. } = self.about;
        Finished {
            at: self.at,
            method,
            path,
            image,
            container,
            status: self.status,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            duration: now.clock.saturating_duration_since(self.began),
            outcome,
        }
    }
}

fn described(head: RequestHead<'_>) -> (Description, Body, bool) {
    (describe(head.method, head.target), head.body, head.upgrade)
}

/// The one call that begins with these bytes, refused with `status`; one without a name when they are none.
pub(crate) fn refused(bytes: &[u8], status: u16, began: Now, now: Now) -> Finished {
    let mut conversation = Conversation::new(&Budget::default());
    conversation.sent(bytes, began);
    let mut first = None;
    conversation.refused(status, now, |call| {
        first.get_or_insert(call);
    });
    let nameless = || Finished {
        at: began.wall,
        method: String::new(),
        path: String::new(),
        image: None,
        container: None,
        status: None,
        request_bytes: bytes.len() as u64,
        response_bytes: 0,
        duration: now.clock.saturating_duration_since(began.clock),
        outcome: Outcome::Refused,
    };
    Finished { status: Some(status), outcome: Outcome::Refused, ..first.unwrap_or_else(nameless) }
}
