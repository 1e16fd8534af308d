//! Events as they come: the store is read once for all who watch, whenever it has changed.
//!
//! A stream first reads what it missed from the store, then takes what the [`Feed`] hands on. The feed's ring is all that is held for slow
//! readers: who falls out of it is told so ([`Told::Reset`]) and dropped.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{Stream, stream};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::{Error, Service, authorise, not_found};
use crate::{
    authz::{Access, Operation as Op},
    chain,
    domain::{Caller, Event, EventFilter, Problem, Refusal, Role},
    store::{self, Store},
};

/// Events held for those who have not read them yet.
const RING: usize = 1_024;
/// Changes come in lots; the store is read once for them.
const PACE: Duration = Duration::from_millis(20);
/// A store that cannot be read is asked again so soon.
const RETRY: Duration = Duration::from_secs(1);
/// Streams of one caller, and of all together but for admins.
pub(super) const MOST_OWN: u32 = 16;
const MOST: u32 = 512;

/// What a stream says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Events after this one follow.
    Ready(i64),
    /// Events up to this one are missing.
    Reset(i64),
    Event(Arc<Event>),
}

pub(super) struct Feed {
    sender: broadcast::Sender<Arc<Event>>,
    places: Arc<Places>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(RING), places: Arc::default() }
    }
}

impl Feed {
    /// Streams that are open.
    pub(super) fn open(&self) -> u32 {
        self.places.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

impl Service {
    /// Hands on what is new, until `soft` is cancelled.
    pub async fn feed_events(self: Arc<Self>, soft: CancellationToken) {
        let mut changes = self.store.changes();
        let work = async {
            let mut at = None;
            loop {
                changes.mark_unchanged();
                let pause = match self.hand_on(&mut at).await {
                    Ok(()) => changes.changed().await.map(|()| PACE).unwrap_or(RETRY),
                    Err(error) => {
                        tracing::warn!(error = chain(&error), "cannot read events");
                        RETRY
                    }
                };
                tokio::time::sleep(pause).await;
            }
        };
        // Wherever it waits: the end of the server waits for this.
        soft.run_until_cancelled(work).await;
    }

    /// Reads what came after `at`, which is the head at first.
    async fn hand_on(&self, at: &mut Option<i64>) -> Result<(), store::Error> {
        let mut reader = self.store.reader().await?;
        let mut last = match *at {
            Some(last) => last,
            None => store::events::bounds(&mut reader).await?.1,
        };
        loop {
            *at = Some(last);
            let events = store::events::after(&mut reader, last).await?;
            let more = store::events::is_full(&events);
            for event in events {
                last = event.seq;
                // Nobody may be there.
                let _ = self.feed.sender.send(Arc::new(event));
            }
            *at = Some(last);
            if !more {
                return Ok(());
            }
        }
    }

    /// What changes from now on, or since the event `last`, as far as the caller may see it.
    pub async fn events(
        &self,
        caller: &Caller,
        subject: Option<String>,
        last: Option<i64>,
    ) -> Result<impl Stream<Item = Told> + Send + use<>, Error> {
        let owner = match authorise(caller, Op::FollowEvents)? {
            Access::All => None,
            _ => Some(caller.name.clone()),
        };
        if let (Some(_), Some(subject)) = (&owner, &subject)
            && *subject != caller.name
        {
            return Err(not_found("subject", &super::shorten(subject)));
        }
        let place = Places::take(&self.feed.places, caller).ok_or_else(|| {
            Problem::new(Refusal::TooMany, "too_many_streams", format!("{} has too many streams of events open", caller.name))
                .hint(format!("close one of them; one caller has {MOST_OWN} at most"))
        })?;
        // Before the first look, so that nothing falls between the two.
        let receiver = self.feed.sender.subscribe();
        let mut reader = self.store.reader().await?;
        let (first, head) = store::events::bounds(&mut reader).await?;
        drop(reader);
        let at = last.unwrap_or(head);
        let lost = at > head || at < first - 1;
        let (told, at) = if lost { (Told::Reset(head), head) } else { (Told::Ready(at), at) };
        let watch = Watch {
            store: Arc::clone(&self.store),
            receiver,
            filter: EventFilter { owner, subject },
            at,
            pending: VecDeque::from([told]),
            phase: Phase::Missed,
            _place: place,
        };
        Ok(stream::unfold(watch, Watch::next))
    }
}

enum Phase {
    /// Reads from the store what there was before.
    Missed,
    Live,
    Over,
}

struct Watch {
    store: Arc<Store>,
    receiver: broadcast::Receiver<Arc<Event>>,
    filter: EventFilter,
    /// The last event that was looked at.
    at: i64,
    pending: VecDeque<Told>,
    phase: Phase,
    _place: Place,
}

impl Watch {
    async fn next(mut self) -> Option<(Told, Self)> {
        loop {
            if let Some(told) = self.pending.pop_front() {
                return Some((told, self));
            }
            match self.phase {
                Phase::Missed => match self.missed().await {
                    Ok(true) => {}
                    Ok(false) => self.phase = Phase::Live,
                    Err(error) => {
                        tracing::warn!(error = chain(&error), "cannot read events");
                        return None;
                    }
                },
                Phase::Live => match self.receiver.recv().await {
                    Ok(event) if event.seq <= self.at => {}
                    Ok(event) => {
                        self.at = event.seq;
                        if self.filter.takes(&event) {
                            return Some((Told::Event(event), self));
                        }
                    }
                    Err(RecvError::Lagged(_)) => {
                        self.phase = Phase::Over;
                        let head = self.head().await.unwrap_or(self.at);
                        return Some((Told::Reset(head), self));
                    }
                    Err(RecvError::Closed) => return None,
                },
                Phase::Over => return None,
            }
        }
    }

    /// Reads some of what was missed; true when there may be more.
    async fn missed(&mut self) -> Result<bool, store::Error> {
        let mut reader = self.store.reader().await?;
        let events = store::events::after(&mut reader, self.at).await?;
        let more = store::events::is_full(&events);
        self.at = events.last().map_or(self.at, |event| event.seq);
        let wanted = events.into_iter().filter(|event| self.filter.takes(event));
        self.pending.extend(wanted.map(|event| Told::Event(Arc::new(event))));
        Ok(more)
    }

    async fn head(&self) -> Result<i64, store::Error> {
        let mut reader = self.store.reader().await?;
        Ok(store::events::bounds(&mut reader).await?.1)
    }
}

/// Open streams by caller.
#[derive(Default)]
struct Places(Mutex<HashMap<String, u32>>);

struct Place {
    places: Arc<Places>,
    name: String,
}

impl Places {
    fn take(places: &Arc<Self>, caller: &Caller) -> Option<Place> {
        let mut taken = places.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: u32 = taken.values().sum();
        let own = taken.get(&caller.name).copied().unwrap_or_default();
        // Users never lock an admin out.
        if own >= MOST_OWN || (all >= MOST && caller.role != Role::Admin) {
            return None;
        }
        taken.insert(caller.name.clone(), own + 1);
        Some(Place { places: Arc::clone(places), name: caller.name.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.name) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.name);
            }
        }
    }
}
