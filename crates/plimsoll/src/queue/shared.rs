//! What the ends of a queue share: the core behind its lock, two condition variables, the overflow behind a lock of its own.
//!
//! Whoever changes the core gives the guard to one of [`Shared::publish`], [`Shared::vacate`] or [`Shared::settle_all`], which releases it
//! and then wakes who waits for that change; nothing is woken, weighed, written or dropped under the lock.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::core::{Core, RoomMade, Sleeper};
use super::lock::{self, Condvar, Mutex, MutexGuard};
use super::{Overflow, PRODUCERS_MAX, Stats};
use crate::clock::Clock;

pub(super) struct Shared<T> {
    core: Mutex<Core<T>>,
    /// For the receiver, when something came or nothing can come any more.
    pub(super) arrived: Condvar,
    /// For senders, when there is room.
    pub(super) room: Condvar,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) patience: Option<Duration>,
    /// What a sender does that turns away by itself; else it gives back.
    pub(super) drops_newest: bool,
    overflow: Option<Mutex<Box<dyn Overflow<T>>>>,
}

impl<T> Shared<T> {
    pub(super) fn new(
        core: Core<T>,
        clock: Arc<dyn Clock>,
        patience: Option<Duration>,
        drops_newest: bool,
        overflow: Option<Box<dyn Overflow<T>>>,
    ) -> Shared<T> {
        let overflow = overflow.map(Mutex::new);
        let (arrived, room) = (Condvar::new(), Condvar::new());
        Shared { core: Mutex::new(core), arrived, room, clock, patience, drops_newest, overflow }
    }

    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, Core<T>> {
        lock::lock(&self.core)
    }

    /// Something came: wakes the receiver if it waits for that.
    #[inline]
    pub(super) fn publish(&self, mut core: MutexGuard<'_, Core<T>>) {
        let wake = core.wait.wish().is_some_and(|wish| core.grants(wish));
        if wake {
            let sleeper = core.wait.wake();
            drop(core);
            self.wake_receiver(sleeper);
        }
    }

    #[cold]
    fn wake_receiver(&self, sleeper: Sleeper) {
        match sleeper {
            Sleeper::Awake => {}
            Sleeper::Thread => _ = self.arrived.notify_one(),
            Sleeper::Task(waker) => waker.wake(),
        }
    }

    /// Something left: wakes the senders that wait for room.
    #[inline]
    pub(super) fn vacate(&self, mut core: MutexGuard<'_, Core<T>>) {
        let made = core.wait.room_made();
        drop(core);
        self.wake_senders(made);
    }

    fn wake_senders(&self, made: RoomMade) {
        if made.threads {
            self.room.notify_all();
        }
        for (_, waker) in made.tasks {
            waker.wake();
        }
    }

    /// Something changed for both ends.
    pub(super) fn settle_all(&self, mut core: MutexGuard<'_, Core<T>>) {
        let made = core.wait.room_made();
        self.publish(core);
        self.wake_senders(made);
    }

    pub(super) fn close(&self) {
        let mut core = self.lock();
        core.close();
        self.settle_all(core);
    }

    pub(super) fn stats(&self) -> Stats {
        let now = self.clock.now();
        // Room is made before the lock is taken.
        let mut stats = Stats { producers: Vec::with_capacity(PRODUCERS_MAX), ..Stats::default() };
        self.lock().stats(now, &mut stats);
        stats
    }

    /// Hands a value to the overflow; whether it was kept. A value that it gives back is dropped here.
    pub(super) fn spill(&self, value: T, bytes: u64, producer: usize, at: Duration) -> bool {
        let name = self.lock().name(producer);
        let fell = self.overflow.as_ref().map(|overflow| overflow.lock().keep(value, &name));
        let kept = matches!(fell, Some(Ok(())));
        let mut core = self.lock();
        core.spilled(producer, bytes, kept, at);
        self.publish(core);
        kept
    }

    /// Up to `most` values that lie in the overflow, behind what is in `out`; how many. They count as given out.
    pub(super) fn unspill(&self, most: u64, out: &mut Vec<T>) -> u64 {
        let Some(overflow) = &self.overflow else { return 0 };
        let most = most.min(self.lock().kept());
        let before = out.len();
        {
            let mut overflow = overflow.lock();
            out.extend(std::iter::from_fn(|| overflow.next()).take(usize::try_from(most).unwrap_or(usize::MAX)));
        }
        let count = (out.len() - before) as u64;
        let mut core = self.lock();
        core.unspilled(count, count < most);
        self.settle_all(core);
        count
    }

    /// So many values from the overflow are where they should be.
    pub(super) fn settle_overflow(&self, count: u64) {
        if let Some(overflow) = &self.overflow
            && count > 0
        {
            overflow.lock().settle(count);
        }
    }
}

/// Sees a queue, and may close it, without being one of its ends: the queue ends as if it were not there.
pub struct Monitor<T>(pub(super) Arc<Shared<T>>);

impl<T> Monitor<T> {
    /// Gauges and counters; also after both ends are gone.
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    /// Ends the queue for every sender: nothing more is taken in, what waits can still be received.
    pub fn close(&self) {
        self.0.close();
    }
}

impl<T> Clone for Monitor<T> {
    fn clone(&self) -> Self {
        Monitor(Arc::clone(&self.0))
    }
}

macro_rules! debug_by_stats {
    ($($end:ident)*) => {$(
        impl<T> fmt::Debug for super::$end<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($end)).field("stats", &self.stats()).finish_non_exhaustive()
            }
        }
    )*};
}
debug_by_stats!(Sender Receiver Monitor);
