//! What can wait for a moment, all at once.
//!
//! Not a timer of the event loop: while one is set, each wait for events carries its rest as a timeout, which the kernel sets and takes back
//! every time. This one is set once for all who wait.

use std::{
    future::poll_fn,
    io,
    os::fd::OwnedFd,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use rustix::{
    io::{fcntl_dupfd_cloexec, read},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime},
};
use tokio::io::Interest;

use crate::descriptor::watch;

/// From the first who waits to the beat.
pub(crate) const MOMENT: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) struct Pulse {
    timer: OwnedFd,
    beats: AtomicU64,
    waiting: Mutex<Vec<Waker>>,
}

/// A beat that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Beat(u64);

impl Pulse {
    pub(crate) fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self { timer, beats: AtomicU64::new(0), waiting: Mutex::default() })
    }

    /// The next beat, which wakes the task.
    pub(crate) fn next(&self, cx: &Context<'_>) -> Beat {
        let mut waiting = self.waiting();
        if waiting.is_empty() {
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            let moment = Timespec { tv_nsec: i64::from(MOMENT.subsec_nanos()), ..zero };
            // Fails on no timer that could be made.
            let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: zero, it_value: moment });
        }
        waiting.push(cx.waker().clone());
        Beat(self.beats.load(Ordering::Relaxed))
    }

    pub(crate) fn is_over(&self, beat: Beat) -> bool {
        self.beats.load(Ordering::Relaxed) > beat.0
    }

    /// Waits for the next beat.
    pub(crate) async fn beat(&self) {
        let mut beat = None;
        poll_fn(|cx| match beat {
            Some(beat) if self.is_over(beat) => Poll::Ready(()),
            // Woken by somebody else: that waker may be another one.
            _ => {
                beat.get_or_insert(self.next(cx));
                Poll::Pending
            }
        })
        .await;
    }

    /// Beats, for ever.
    pub(crate) async fn run(&self) -> io::Result<()> {
        let watched = watch(fcntl_dupfd_cloexec(&self.timer, 3)?, Interest::READABLE)?;
        loop {
            let mut ready = watched.readable().await?;
            // The timer is set only when nobody waits, so it has come; a read that finds nothing is no beat.
            if read(watched.get_ref(), &mut [0; 8]).is_ok() {
                self.beats.fetch_add(1, Ordering::Relaxed);
                let woken = std::mem::take(&mut *self.waiting());
                woken.into_iter().for_each(Waker::wake);
            }
            ready.clear_ready();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn all_who_wait_are_woken_together_and_again_the_next_time() {
        let pulse = Pulse::new().unwrap();
        let work = async {
            for round in 1..=3 {
                let began = Instant::now();
                tokio::join!(pulse.beat(), pulse.beat(), async {
                    tokio::task::yield_now().await;
                    pulse.beat().await;
                });
                assert!(began.elapsed() >= MOMENT);
                assert_eq!(pulse.beats.load(Ordering::Relaxed), round);
                assert!(pulse.waiting().is_empty());
            }
        };
        tokio::select! {
            ended = pulse.run() => panic!("{ended:?}"),
            () = work => {}
        }
    }
}
