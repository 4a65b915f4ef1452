//! What the ends of a queue share: the core behind its lock, two condition variables, the overflow behind a lock of its own.
//!
//! Whoever changes the core gives the guard to one of [`Shared::publish`], [`Shared::vacate`] or [`Shared::settle_all`], which releases it
//! and then wakes who waits for that change; nobody is woken and no value is weighed, written or dropped under the lock.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use super::buffer::{Buffer, Tickets};
use super::core::{Core, Ring, RoomMade, Sleeper, Wish};
use super::credit::Credits;
use super::lock::{self, Condvar, Mutex, MutexGuard};
use super::part::Part;
use super::{Overflow, PRODUCERS_MAX, Stats};
use crate::clock::Clock;

pub(super) struct Shared<T> {
    inner: Mutex<Inner<T>>,
    pub(super) tickets: Tickets,
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

struct Inner<T> {
    core: Core<T>,
    credits: Credits<T>,
}

/// What a guard sees of what was sent on credit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum View {
    /// Nothing: credit stays where it is.
    Settled,
    /// It is counted, and lies in parts; nobody has credit meanwhile.
    Counted,
    /// It is in its order; nobody has credit meanwhile.
    Whole,
}

/// The queue, as long as this is held.
pub(super) struct Guard<'a, T> {
    inner: MutexGuard<'a, Inner<T>>,
    view: View,
}

impl<'a, T> Guard<'a, T> {
    #[inline]
    fn new(inner: MutexGuard<'a, Inner<T>>, view: View) -> Guard<'a, T> {
        let mut guard = Guard { inner, view };
        guard.call_in();
        guard
    }

    #[inline]
    fn call_in(&mut self) {
        let Inner { core, credits } = &mut *self.inner;
        match self.view {
            View::Settled => {}
            View::Counted => credits.call_in_parts(core),
            View::Whole => credits.call_in(core),
        }
    }

    /// Puts a value in on new credit, if there is enough for it and more; else gives it back.
    pub(super) fn put_on_new_credit(
        &mut self,
        buffer: &Arc<Buffer<T>>,
        value: T,
        bytes: u64,
        producer: usize,
        at: Duration,
        tickets: &Tickets,
    ) -> Result<(), T> {
        let Inner { core, credits } = &mut *self.inner;
        if credits.top_up(core, buffer, producer, bytes) {
            buffer.put(value, bytes, producer, at, tickets)
        } else {
            Err(value)
        }
    }

    /// From now on it sees all in its order.
    pub(super) fn see_whole(&mut self) {
        if self.view != View::Whole {
            self.view = View::Whole;
            self.call_in();
        }
    }

    /// All that waits, in exchange for an empty ring and empty parts. Says how many.
    pub(super) fn take_all(&mut self, ring: &mut Ring<T>, parts: &mut Vec<Part<T>>) -> usize {
        let Inner { core, credits } = &mut *self.inner;
        credits.take_parts(parts);
        core.take_all(ring)
    }

    /// All that waits, into the hand of a batcher.
    pub(super) fn take_in_hand(&mut self, ring: &mut Ring<T>, parts: &mut Vec<Part<T>>) {
        let Inner { core, credits } = &mut *self.inner;
        core.take_in_hand(ring, credits.oldest_ms());
        credits.take_parts(parts);
    }

    /// This sender is gone.
    pub(super) fn end_credit(&mut self, buffer: &Arc<Buffer<T>>) {
        self.inner.credits.sender_left(buffer);
    }

    /// The receiver goes to sleep.
    pub(super) fn sleep(&mut self, how: Sleeper, wish: Wish) {
        self.inner.credits.forget_idle();
        self.inner.core.wait.sleep(how, wish);
    }

    /// Releases the lock until the condition is signalled, or at most so long.
    pub(super) fn wait(&mut self, condition: &Condvar, longest: Option<Duration>) {
        self.lend();
        match longest {
            None => condition.wait(&mut self.inner),
            Some(longest) => _ = condition.wait_for(&mut self.inner, longest),
        }
        self.call_in();
    }

    #[inline]
    fn lend(&mut self) {
        if self.view != View::Settled {
            let Inner { core, credits } = &mut *self.inner;
            credits.lend_again(core);
        }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lend();
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = Core<T>;

    #[inline]
    fn deref(&self) -> &Core<T> {
        &self.inner.core
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Core<T> {
        &mut self.inner.core
    }
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
        let inner = Mutex::new(Inner { core, credits: Credits::new() });
        Shared { inner, tickets: Tickets::new(), arrived, room, clock, patience, drops_newest, overflow }
    }

    #[inline]
    pub(super) fn lock(&self) -> Guard<'_, T> {
        Guard::new(lock::lock(&self.inner), View::Whole)
    }

    /// For who takes all or nothing: what was sent on credit is counted, but not in its order yet.
    #[inline]
    pub(super) fn lock_unordered(&self) -> Guard<'_, T> {
        Guard::new(lock::lock(&self.inner), View::Counted)
    }

    /// For who needs only the oldest: what was sent on credit may be left out, which came later.
    #[inline]
    pub(super) fn lock_settled(&self) -> Guard<'_, T> {
        Guard::new(lock::lock(&self.inner), View::Settled)
    }

    /// Something came: wakes the receiver if it waits for that.
    #[inline]
    pub(super) fn publish(&self, mut core: Guard<'_, T>) {
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
    pub(super) fn vacate(&self, mut core: Guard<'_, T>) {
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
    pub(super) fn settle_all(&self, mut core: Guard<'_, T>) {
        let made = core.wait.room_made();
        self.publish(core);
        self.wake_senders(made);
    }

    /// Whether values lie in the buffers of senders.
    #[cfg(all(test, not(loom)))]
    pub(super) fn is_any_on_credit(&self) -> bool {
        self.inner.lock().credits.is_any_on_credit()
    }

    /// Places that are kept for values on credit.
    #[cfg(all(test, not(loom)))]
    pub(super) fn places_on_credit(&self) -> usize {
        self.inner.lock().credits.places()
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
        let mut core = self.lock();
        core.stats(now, &mut stats);
        // What senders turned away by themselves is known now.
        self.publish(core);
        stats
    }

    /// Hands a value to the overflow; whether it was kept. A value that it gives back is dropped here.
    pub(super) fn spill(&self, value: T, bytes: u64, producer: usize, at: Duration) -> bool {
        let name = self.lock().name(producer);
        let mut spilling = Spilling { shared: self, producer, bytes, at, kept: false };
        let fell = self.overflow.as_ref().map(|overflow| overflow.lock().keep(value, &name));
        spilling.kept = matches!(fell, Some(Ok(())));
        spilling.kept
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

/// A value on its way into the overflow: counted however that ends, also when the store panics.
struct Spilling<'a, T> {
    shared: &'a Shared<T>,
    producer: usize,
    bytes: u64,
    at: Duration,
    kept: bool,
}

impl<T> Drop for Spilling<'_, T> {
    fn drop(&mut self) {
        let mut core = self.shared.lock();
        core.spilled(self.producer, self.bytes, self.kept, self.at);
        self.shared.publish(core);
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
