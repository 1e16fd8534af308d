//! Sleep: the berth frozen while nobody uses it, thawed by the next use, and barred when an administrator says so.
//!
//! ```text
//!           idle.freeze_after without a use, no container runs, no call under way
//!   awake ───────────────────────────────────────────────────────────────────────► asleep
//!     ▲ ◄─────────────── a connection, a client's byte, Use, Stop ──────────────────── │
//!     │                                                                              │
//!     └── Resume ── suspended ◄────────────────────── Suspend ───────────────────────┘ (from both)
//! ```
//!
//! All by the shim itself, through descriptors of the payload's `cgroup.freeze` that were opened while it was still root: a frozen berth
//! wakes without the node. One thread decides, accepts and relays, and nothing is awaited between a decision and the freezing: a
//! connection is either seen before (and counts) or accepted afterwards (and thaws).
//!
//! What only looks (polls) thaws the berth, for an answer needs its Docker, but is no use: after [`GRACE`] it sleeps again. A suspended
//! berth executes nothing any more: bytes do not wake it, and when it is stopped it is killed where it stands.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering},
    },
    time::Duration,
};

use berth_protocol::{Idle, Sleep};
use berth_runtime::{cgroup::Freezer, container::forget_code, error::chain};
use tokio::{
    io::Interest,
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::{
    answer::Answer,
    state::{Engine, State, now_ms},
};
use crate::{descriptor, link::Event};

/// How long a berth stays awake that was woken by something which turned out to be no use; less where `freeze_after` is less.
const GRACE: i64 = 10_000;
/// Of it at least so much, so that whoever woke it gets his answer.
const LEAST_GRACE: i64 = 1_000;
/// How often a node that does not stop an idle berth is told again.
const REMIND: i64 = 60_000;
/// What a shim has to say when its berth has fallen asleep is said by then.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Longest wait at a time: the clock of the host may be set.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);
/// How long a suspended berth may take to stand still before that is reported all the same; what is in the kernel stops when it leaves it.
const STANDSTILL: Duration = Duration::from_millis(500);

/// Whether the berth may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    Awake,
    Asleep(Sleep),
    /// By an administrator; why.
    Suspended(String),
}

impl Rest {
    pub(crate) fn suspended(&self) -> Option<&str> {
        match self {
            Rest::Suspended(reason) => Some(reason),
            _ => None,
        }
    }
}

/// Puts one berth to sleep and wakes it.
#[derive(Debug)]
pub(crate) struct Sleeper {
    state: Arc<State>,
    /// Name of the berth's owner, for answers.
    owner: String,
    freezer: Freezer,
    idle: watch::Sender<Idle>,
    rest: watch::Sender<Rest>,
    /// The same as `rest` being [`Rest::Awake`], for the path of every byte.
    awake: AtomicBool,
    /// Calls under way that are no use.
    looks: AtomicU32,
    looked: Notify,
    /// Milliseconds since the epoch, as all times here.
    woken_at: AtomicI64,
    idle_too_long: watch::Sender<Option<Sleep>>,
}

/// A call under way that is no use of the berth but wants its answer, until dropped.
#[derive(Debug)]
pub(crate) struct Look<'a>(&'a Sleeper);

impl Sleeper {
    pub(crate) fn new(state: Arc<State>, owner: &str, freezer: Freezer, idle: Idle) -> Self {
        Self {
            state,
            owner: owner.to_owned(),
            freezer,
            idle: watch::Sender::new(idle),
            rest: watch::Sender::new(Rest::Awake),
            awake: AtomicBool::new(true),
            looks: AtomicU32::new(0),
            looked: Notify::new(),
            woken_at: AtomicI64::new(0),
            idle_too_long: watch::Sender::new(None),
        }
    }

    /// To be called for each new connection of the owner, and before anything is passed on to the berth: wakes it. An error is what the
    /// client is told instead.
    pub(crate) async fn awake(&self) -> Result<(), Answer> {
        if self.awake.load(Ordering::Relaxed) { Ok(()) } else { self.wake() }
    }

    /// Before a byte of a connection that is open already is passed on: wakes the berth, or waits until it is not suspended any more. An
    /// error means that it cannot be woken.
    pub(crate) async fn stir(&self) -> Result<(), Answer> {
        let mut rest = self.rest.subscribe();
        while !self.awake.load(Ordering::Relaxed) {
            if rest.wait_for(|rest| rest.suspended().is_none()).await.is_err() {
                break;
            }
            self.wake()?;
        }
        Ok(())
    }

    /// True while the berth is frozen, asleep or suspended.
    pub(crate) fn asleep(&self) -> bool {
        !self.awake.load(Ordering::Relaxed)
    }

    /// A call under way that is no use: it is let finish.
    pub(crate) fn look(&self) -> Look<'_> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        Look(self)
    }

    /// Whoever must do something when the berth falls asleep, wakes, or is suspended.
    pub(crate) fn watch(&self) -> watch::Receiver<Rest> {
        self.rest.subscribe()
    }

    /// Since when and why the node should have stopped it; `None` as soon as somebody uses it again.
    pub(crate) fn idle_too_long(&self) -> Option<Sleep> {
        self.facts().due().stop.filter(|&at| at <= now_ms()).and_then(|_| self.idle_too_long.borrow().clone())
    }

    pub(crate) fn rest(&self) -> Rest {
        self.rest.borrow().clone()
    }

    pub(crate) fn set_idle(&self, idle: Idle) {
        self.idle.send_if_modified(|known| std::mem::replace(known, idle) != idle);
    }

    /// Barred until [`Sleeper::resume`]; returns when it stands still. Another reason replaces the one that is there.
    pub(crate) async fn suspend(&self, reason: String) -> Result<(), String> {
        if self.state.stopping() {
            // What is on its way out is not kept, only ended sooner.
            self.settle(Rest::Suspended(reason));
            self.state.ask_stop(Duration::ZERO);
            return Ok(());
        }
        self.freezer.freeze().map_err(|e| chain(&e))?;
        self.settle(Rest::Suspended(reason));
        let _ = timeout(STANDSTILL, self.standstill()).await;
        Ok(())
    }

    /// Not suspended any more; that is a use. Nothing for a berth that was not.
    pub(crate) fn resume(&self) -> Result<(), String> {
        if self.rest.borrow().suspended().is_none() {
            return Ok(());
        }
        self.freezer.thaw().map_err(|e| chain(&e))?;
        self.state.usage.touch();
        self.thawed();
        Ok(())
    }

    /// Before the berth is told to stop: one that is frozen heeds nothing. False when it is not to run another instruction.
    pub(crate) fn let_end(&self) -> bool {
        if self.rest.borrow().suspended().is_some() {
            return false;
        }
        self.wake().is_ok()
    }

    fn wake(&self) -> Result<(), Answer> {
        let rest = self.rest.borrow().clone();
        match rest {
            Rest::Awake => Ok(()),
            Rest::Suspended(reason) => Err(self.barred(&reason)),
            Rest::Asleep(_) => match self.freezer.thaw() {
                Ok(()) => {
                    self.thawed();
                    Ok(())
                }
                Err(error) => {
                    let why = chain(&error);
                    tracing::error!(error = why, "not thawed");
                    Err(Answer::new(503, format!("this berth sleeps and cannot be woken ({why}); start it afresh with `berth restart`")))
                }
            },
        }
    }

    fn barred(&self, reason: &str) -> Answer {
        let owner = &self.owner;
        Answer::new(
            403,
            format!(
                "the berth of {owner} is suspended by an administrator: {reason}. Ask your administrator; it goes on with: berth resume {owner}"
            ),
        )
    }

    fn thawed(&self) {
        self.woken_at.store(now_ms(), Ordering::Relaxed);
        self.settle(Rest::Awake);
        self.state.tell(Event::Thawed);
    }

    fn settle(&self, rest: Rest) {
        self.awake.store(rest == Rest::Awake, Ordering::Relaxed);
        self.rest.send_replace(rest);
    }

    async fn standstill(&self) {
        let Ok(events) = self.freezer.events().try_clone_to_owned() else { return };
        let Ok(events) = descriptor::watch(events, Interest::PRIORITY) else { return };
        while !self.freezer.frozen().unwrap_or(true) {
            match events.ready(Interest::PRIORITY).await {
                Ok(mut ready) => ready.clear_ready(),
                Err(_) => return,
            }
        }
    }

    /// Watches the clock for ever.
    pub(crate) async fn watch_over(&self) {
        let (mut containers, mut engine) = (self.state.containers.subscribe(), self.state.watch_engine());
        let (mut rest, mut idle) = (self.rest.subscribe(), self.idle.subscribe());
        let mut stop = self.state.watch_stop();
        let mut told = i64::MIN;
        loop {
            let now = now_ms();
            let mut due = self.facts().due();
            if self.state.stopping() {
                return;
            }
            if due.stop.is_some_and(|at| at <= now) {
                let reminder = told.saturating_add(REMIND);
                if reminder <= now {
                    told = now;
                    self.tell_idle_too_long(now);
                    continue;
                }
                due.stop = Some(reminder);
            } else {
                told = i64::MIN;
                self.idle_too_long.send_replace(None);
            }
            if due.freeze.is_some_and(|at| at <= now) {
                self.fall_asleep(now);
                // A night's rest needs little code.
                if timeout(LAST_WORDS, rest.wait_for(|rest| *rest == Rest::Awake)).await.is_err() {
                    let _ = forget_code();
                }
                continue;
            }
            let next = [due.freeze, due.stop]
                .into_iter()
                .flatten()
                .min()
                .map_or(LOOK_AGAIN, |at| Duration::from_millis(u64::try_from(at - now).unwrap_or(0)).min(LOOK_AGAIN));
            // A use that begins needs no look before the time comes; one that ends does.
            let in_use = self.state.usage.under_way();
            tokio::select! {
                () = sleep(next) => {}
                () = self.state.usage.changed(), if in_use => {}
                () = self.looked.notified(), if due.looked_at => {}
                _ = containers.changed() => {}
                _ = engine.changed() => {}
                _ = rest.changed() => {}
                _ = idle.changed() => {}
                _ = stop.changed() => {}
            }
        }
    }

    fn facts(&self) -> Facts {
        let containers = self.state.containers.borrow();
        Facts {
            idle: *self.idle.borrow(),
            last_use: self.state.usage.last(),
            in_use: self.state.usage.under_way(),
            looked_at: self.looks.load(Ordering::Relaxed) > 0,
            empty: containers.running == Some(0),
            ready: self.state.engine() == Engine::Ready,
            woken_at: self.woken_at.load(Ordering::Relaxed),
            rest: match &*self.rest.borrow() {
                Rest::Awake => Resting::No,
                Rest::Asleep(_) => Resting::Asleep,
                Rest::Suspended(_) => Resting::Suspended,
            },
        }
    }

    fn fall_asleep(&self, now: i64) {
        let reason = format!("nobody used it for {}, and no container ran in it", span(self.idle.borrow().freeze_after.unwrap_or(0)));
        match self.freezer.freeze() {
            Ok(()) => {
                let since = Sleep { since: now, reason };
                self.settle(Rest::Asleep(since.clone()));
                self.state.tell(Event::Frozen { sleep: since, last_used_at: self.state.usage.last() });
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "not frozen");
                // Tried again like after something that turned out to be no use.
                self.woken_at.store(now, Ordering::Relaxed);
            }
        }
    }

    fn tell_idle_too_long(&self, now: i64) {
        let reason = format!("nobody used it for {}, and no container ran in it", span(self.idle.borrow().stop_after.unwrap_or(0)));
        let since = self.idle_too_long.borrow().clone().unwrap_or(Sleep { since: now, reason });
        self.idle_too_long.send_replace(Some(since.clone()));
        self.state.tell(Event::IdleTooLong { sleep: since, last_used_at: self.state.usage.last() });
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.0.looks.fetch_sub(1, Ordering::Relaxed);
        self.0.looked.notify_waiters();
    }
}

/// Everything that a decision rests on.
#[derive(Clone, Copy, Debug)]
struct Facts {
    idle: Idle,
    last_use: i64,
    in_use: bool,
    looked_at: bool,
    /// No container runs, and that is known.
    empty: bool,
    ready: bool,
    woken_at: i64,
    rest: Resting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resting {
    No,
    Asleep,
    Suspended,
}

/// When what is to be done, as things stand; `None`: not before something changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    freeze: Option<i64>,
    stop: Option<i64>,
    /// Only a call that is no use keeps it awake.
    looked_at: bool,
}

impl Facts {
    fn due(&self) -> Due {
        let Idle { freeze_after, stop_after } = self.idle;
        let quiet = self.empty && !self.in_use && self.rest != Resting::Suspended;
        let after = |seconds: u32| self.last_use.saturating_add(i64::from(seconds) * 1000);
        let freeze = freeze_after.filter(|_| quiet && self.ready && self.rest == Resting::No).map(|seconds| {
            let grace = (i64::from(seconds) * 1000).clamp(LEAST_GRACE, GRACE);
            after(seconds).max(self.woken_at.saturating_add(grace))
        });
        Due {
            freeze: freeze.filter(|_| !self.looked_at),
            stop: stop_after.filter(|_| quiet).map(after),
            looked_at: freeze.is_some() && self.looked_at,
        }
    }
}

/// `90` → `90 s`, `900` → `15 min`, `43200` → `12 h`.
fn span(seconds: u32) -> String {
    match seconds {
        s if s >= 7200 && s % 3600 == 0 => format!("{} h", s / 3600),
        s if s >= 120 && s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::{super::state::Containers, *};

    /// Two files in place of the kernel's.
    pub(crate) fn fake_freezer() -> (Freezer, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let (freeze, events) = (dir.path().join("cgroup.freeze"), dir.path().join("cgroup.events"));
        fs::write(&freeze, "0").unwrap();
        fs::write(&events, "populated 1\nfrozen 0\n").unwrap();
        let freeze = fs::OpenOptions::new().write(true).open(freeze).unwrap();
        (Freezer::from_files(freeze, fs::File::open(events).unwrap()), dir)
    }

    pub(crate) fn sleeper(state: &Arc<State>) -> (Sleeper, TempDir) {
        let (freezer, files) = fake_freezer();
        (Sleeper::new(Arc::clone(state), "alice", freezer, Idle::default()), files)
    }

    pub(crate) fn written(files: &TempDir) -> String {
        fs::read_to_string(files.path().join("cgroup.freeze")).unwrap()
    }

    const QUIET: Facts = Facts {
        idle: Idle { freeze_after: Some(60), stop_after: Some(600) },
        last_use: 1_000_000,
        in_use: false,
        looked_at: false,
        empty: true,
        ready: true,
        woken_at: 0,
        rest: Resting::No,
    };

    #[test]
    fn it_sleeps_when_nobody_used_it_and_nothing_runs_and_stops_when_that_lasts() {
        let due = |facts: Facts| (facts.due().freeze, facts.due().stop);
        assert_eq!(due(QUIET), (Some(1_060_000), Some(1_600_000)));
        assert_eq!(due(Facts { in_use: true, ..QUIET }), (None, None));
        assert_eq!(due(Facts { empty: false, ..QUIET }), (None, None));
        assert_eq!(due(Facts { rest: Resting::Suspended, ..QUIET }), (None, None));
        assert_eq!(due(Facts { rest: Resting::Asleep, ..QUIET }), (None, Some(1_600_000)));
        // A Docker that is down would not answer after a thaw either, and what it would say is unknown.
        assert_eq!(due(Facts { ready: false, ..QUIET }), (None, Some(1_600_000)));
        let never = Idle { freeze_after: None, stop_after: None };
        assert_eq!(due(Facts { idle: never, ..QUIET }), (None, None));
    }

    #[test]
    fn a_poll_wakes_it_for_a_short_while_only() {
        let looked = Facts { looked_at: true, ..QUIET }.due();
        assert_eq!((looked.freeze, looked.looked_at), (None, true));
        // Long after the last use, woken just now.
        let woken = Facts { woken_at: 5_000_000, ..QUIET };
        assert_eq!(woken.due().freeze, Some(5_000_000 + GRACE));
        assert_eq!(woken.due().stop, QUIET.due().stop);
        let hasty = Idle { freeze_after: Some(0), stop_after: None };
        assert_eq!(Facts { idle: hasty, ..woken }.due().freeze, Some(5_000_000 + LEAST_GRACE));
    }

    #[test]
    fn a_span_reads_like_one() {
        assert_eq!([span(90), span(900), span(43_200), span(0)], ["90 s", "15 min", "12 h", "0 s"]);
    }

    async fn rests(sleeper: &Sleeper, wanted: impl FnMut(&Rest) -> bool) {
        timeout(Duration::from_secs(10), sleeper.watch().wait_for(wanted)).await.expect("in time").unwrap();
    }

    #[tokio::test]
    async fn x08_it_falls_asleep_by_itself_and_the_next_to_come_wakes_it() {
        let state = Arc::new(State::new());
        let (sleeper, files) = sleeper(&state);
        let mut events = state.listen();
        state.set_engine(Engine::Ready);
        sleeper.set_idle(Idle { freeze_after: Some(0), stop_after: None });
        let work = async {
            // Nobody knows what runs.
            assert!(timeout(Duration::from_millis(200), rests(&sleeper, |r| *r != Rest::Awake)).await.is_err());
            let used = state.usage.begin();
            state.containers.send_replace(Containers { running: Some(0), ports: Vec::new() });
            assert!(timeout(Duration::from_millis(200), rests(&sleeper, |r| *r != Rest::Awake)).await.is_err());
            drop(used);
            rests(&sleeper, |r| matches!(r, Rest::Asleep(_))).await;
            assert_eq!((written(&files).as_str(), sleeper.asleep()), ("1", true));
            sleeper.awake().await.unwrap();
            assert_eq!((written(&files).as_str(), sleeper.asleep()), ("0", false));
            // That was no use: it sleeps again; a call under way is let finish.
            let look = sleeper.look();
            assert!(timeout(Duration::from_millis(1500), rests(&sleeper, |r| *r != Rest::Awake)).await.is_err());
            drop(look);
            rests(&sleeper, |r| matches!(r, Rest::Asleep(_))).await;
            sleeper.stir().await.unwrap();
            assert!(!sleeper.asleep());
        };
        tokio::select! {
            () = sleeper.watch_over() => panic!("nobody stops it"),
            () = work => {}
        }
        let told: Vec<Event> = std::iter::from_fn(|| events.try_recv().ok()).collect();
        assert!(matches!(told[..], [Event::Frozen { .. }, Event::Thawed, Event::Frozen { .. }, Event::Thawed]), "{told:?}");
    }

    #[tokio::test]
    async fn idle_too_long_is_told_and_a_use_takes_it_back() {
        let state = Arc::new(State::new());
        let (sleeper, _files) = sleeper(&state);
        let mut events = state.listen();
        state.containers.send_replace(Containers { running: Some(0), ports: Vec::new() });
        sleeper.set_idle(Idle { freeze_after: None, stop_after: Some(0) });
        let work = async {
            let told = timeout(Duration::from_secs(10), events.recv()).await.unwrap().unwrap();
            assert!(matches!(told, Event::IdleTooLong { .. }), "{told:?}");
            assert!(sleeper.idle_too_long().is_some());
            let used = state.usage.begin();
            assert!(sleeper.idle_too_long().is_none());
            drop(used);
        };
        tokio::select! {
            () = sleeper.watch_over() => panic!("nobody stops it"),
            () = work => {}
        }
    }

    #[tokio::test]
    async fn l07_suspended_it_refuses_with_the_reason_and_open_connections_wait() {
        let state = Arc::new(State::new());
        let (sleeper, files) = sleeper(&state);
        sleeper.suspend("it mines coins".into()).await.unwrap();
        assert_eq!(written(&files), "1");
        let refused = sleeper.awake().await.unwrap_err();
        assert_eq!(refused.status, 403);
        assert!(refused.message.contains("suspended by an administrator: it mines coins"), "{}", refused.message);
        assert!(timeout(Duration::from_millis(100), sleeper.stir()).await.is_err());
        assert_eq!(written(&files), "1");
        let waiting = async { sleeper.stir().await.unwrap() };
        let (resumed, ()) = tokio::join!(async { sleeper.resume() }, waiting);
        resumed.unwrap();
        assert_eq!((written(&files).as_str(), sleeper.asleep()), ("0", false));
        sleeper.awake().await.unwrap();
    }

    #[tokio::test]
    async fn l07_a_suspension_of_what_is_stopping_ends_it_at_once() {
        let state = Arc::new(State::new());
        let (sleeper, files) = sleeper(&state);
        state.ask_stop(Duration::from_secs(20));
        sleeper.suspend("now".into()).await.unwrap();
        assert_eq!(written(&files), "0");
        assert!(state.watch_stop().borrow().is_some_and(|at| at <= std::time::Instant::now()));
    }
}
