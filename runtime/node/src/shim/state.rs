//! What the shim's tasks know of their berth, and how the node hears of it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{broadcast, watch},
    time::sleep,
};

use berth_protocol::PublishedPort;

use super::{ports::Board, usage::Usage};
use crate::link::Event;

/// Events that a node connection may be behind before it is dropped.
const BACKLOG: usize = 64;
/// Least time between two reports of the inner Docker's state: the berth can change it as fast as it likes.
const PACE: Duration = Duration::from_millis(100);

/// The inner Docker, as far as the shim knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// Not heard of yet.
    Starting,
    Ready,
    /// Ended, and expected back; why.
    Down(String),
    /// Will not come by itself; why.
    Failed(String),
}

/// The inner containers, as far as they are known; kept by the task that follows the inner Docker's events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Containers {
    /// Running, paused or between two restarts; `None` while nobody could look.
    pub(crate) running: Option<u32>,
    /// What they publish, with how that stands on the host.
    pub(crate) ports: Vec<PublishedPort>,
}

/// Shared by all tasks.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) usage: Usage,
    pub(crate) containers: watch::Sender<Containers>,
    pub(crate) ports: Board,
    engine: watch::Sender<Engine>,
    /// When PID 1 is killed; `None` while nobody wants a stop.
    stop: watch::Sender<Option<Instant>>,
    events: broadcast::Sender<Event>,
    /// The image's own init runs as PID 1: nobody reports readiness, it has to be asked.
    handed_over: AtomicBool,
    /// Milliseconds since the epoch.
    pub(crate) started_at: i64,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            usage: Usage::new(),
            containers: watch::Sender::default(),
            ports: Board::default(),
            engine: watch::Sender::new(Engine::Starting),
            stop: watch::Sender::new(None),
            events: broadcast::Sender::new(BACKLOG),
            handed_over: AtomicBool::new(false),
            started_at: now_ms(),
        }
    }

    pub(crate) fn engine(&self) -> Engine {
        self.engine.borrow().clone()
    }

    pub(crate) fn watch_engine(&self) -> watch::Receiver<Engine> {
        self.engine.subscribe()
    }

    pub(crate) fn set_engine(&self, engine: Engine) {
        self.engine.send_if_modified(|known| {
            let changed = *known != engine;
            *known = engine;
            changed
        });
    }

    /// Wakes whoever waits for the engine, which may have come further than its state tells.
    pub(crate) fn stir_engine(&self) {
        self.engine.send_modify(|_| {});
    }

    pub(crate) fn handed_over(&self) -> bool {
        self.handed_over.load(Ordering::Relaxed)
    }

    pub(crate) fn set_handed_over(&self) {
        self.handed_over.store(true, Ordering::Relaxed);
    }

    /// Asks for an end within `time`; of several wishes the earliest holds.
    pub(crate) fn ask_stop(&self, time: Duration) {
        let deadline = Instant::now().checked_add(time);
        let first = self.stop.borrow().is_none();
        self.stop.send_if_modified(|known| match (*known, deadline) {
            (Some(known), Some(deadline)) if known <= deadline => false,
            (_, Some(deadline)) => known.replace(deadline) != Some(deadline),
            (_, None) => false,
        });
        if first {
            self.tell(Event::Stopping);
        }
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }

    pub(crate) fn watch_stop(&self) -> watch::Receiver<Option<Instant>> {
        self.stop.subscribe()
    }

    /// Tells every node connection.
    pub(crate) fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Reports the engine's changes for ever; quick ones are told as one.
    pub(crate) async fn report_engine(&self) {
        let mut engine = self.watch_engine();
        engine.mark_changed();
        while engine.changed().await.is_ok() {
            let event = match engine.borrow_and_update().clone() {
                Engine::Starting => None,
                Engine::Ready => Some(Event::Ready),
                Engine::Down(reason) | Engine::Failed(reason) => Some(Event::NotReady { reason }),
            };
            event.into_iter().for_each(|event| self.tell(event));
            sleep(PACE).await;
        }
    }
}

pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_wish_to_stop_holds_and_is_told_once() {
        let state = State::new();
        let mut events = state.listen();
        state.ask_stop(Duration::from_secs(10));
        let first = *state.stop.borrow();
        state.ask_stop(Duration::from_secs(60));
        assert_eq!(*state.stop.borrow(), first);
        state.ask_stop(Duration::ZERO);
        assert!(*state.stop.borrow() < first);
        assert_eq!(events.try_recv().unwrap(), Event::Stopping);
        assert!(events.try_recv().is_err());
    }

    #[test]
    fn an_endless_deadline_is_an_error_of_nobody() {
        let state = State::new();
        state.ask_stop(Duration::from_millis(u64::MAX));
        assert!(state.stopping());
    }
}
