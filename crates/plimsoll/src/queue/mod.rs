//! A queue between threads that is bounded in items **and** bytes, and counts for each producer what it did not deliver.
//!
//! | | what happens |
//! |---|---|
//! | **full** | [`WhenFull`] decides: the new value is dropped, the oldest are, or the value is given back. `send` never waits |
//! | **too large** | a value above the byte limit never gets in and displaces nothing: dropped and counted, or given back |
//! | **late** | nothing expires; [`Stats::oldest_age`] says how long the oldest has waited |
//! | **closed** | by either end or a [`Monitor`]: `send` gives values back, what is queued can be received, then `None` |
//! | **senders gone** | as closed: the receiver drains what is left |
//! | **receiver gone** | what is queued is dropped and counted as abandoned; `send` gives values back |
//! | **killed** | what is queued is lost with the process: at most [`Limits`] |
//!
//! Memory: at most `max_bytes` of values as they weigh themselves ([`Weigh`]), and in each of two rings that take turns
//! at most `max_items` places of the size of `T` and 32 bytes (twice that while a ring grows); room beyond 1,024 places is
//! given back once less than a quarter of it is used. A value is weighed once, before it gets in: what is released is what
//! was charged. What was received no longer counts: who takes everything at once may hold as much again.
//!
//! One synchronous core behind one lock, held for some tens of nanoseconds and never while a value is weighed or dropped.
//! Order is first in, first out. At most [`PRODUCERS_MAX`] names; no counter is ever reset.

mod core;
mod error;
mod stats;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use self::core::{Batch, Core, Fallen};
use crate::clock::{Clock, CoarseClock};
pub use error::{RecvError, Refusal, SendError};
pub use stats::{Counters, DropReason, ProducerStats, Stats, Tally};

/// Names that have counters of their own; the last place is shared by all that come later, under [`OTHERS`].
pub const PRODUCERS_MAX: usize = 64;
/// The name under which producers beyond [`PRODUCERS_MAX`] are counted together.
pub const OTHERS: &str = "others";
/// The name of the producer that [`bounded`] returns.
pub const FIRST_PRODUCER: &str = "main";

/// What a value weighs against the queue's byte limit.
pub trait Weigh {
    /// The bytes it holds: what would be freed by dropping it, as well as it knows. Asked once, before it is queued.
    fn weight_bytes(&self) -> u64;
}

impl Weigh for Vec<u8> {
    fn weight_bytes(&self) -> u64 {
        self.capacity() as u64
    }
}

impl Weigh for String {
    fn weight_bytes(&self) -> u64 {
        self.capacity() as u64
    }
}

impl Weigh for Box<[u8]> {
    fn weight_bytes(&self) -> u64 {
        self.len() as u64
    }
}

impl Weigh for Box<str> {
    fn weight_bytes(&self) -> u64 {
        self.len() as u64
    }
}

/// The bounds of a queue. Both hold; 0 lets nothing in (but values of weight 0 with `max_bytes` 0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Values that may wait.
    pub max_items: usize,
    /// Bytes that they may weigh together.
    pub max_bytes: u64,
}

/// What happens to a value for which there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenFull {
    /// It is dropped and counted: what waits is older and stays.
    DropNewest,
    /// The oldest make room for it, and are counted as displaced, each with its own producer.
    DropOldest,
    /// It is given back: its sender decides.
    Reject,
}

/// What became of a value that was not given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sent {
    /// It waits for the receiver.
    Queued,
    /// It waits for the receiver, and so many older ones were dropped for it.
    Displaced(u64),
    /// It was dropped and counted.
    Dropped,
}

struct Shared<T> {
    core: Mutex<Core<T>>,
    /// For the receiver, when something came or nothing can come any more.
    changed: Condvar,
    clock: Arc<dyn Clock>,
}

impl<T> Shared<T> {
    /// Changes the core and wakes the receiver if it waits for that.
    fn change<R>(&self, change: impl FnOnce(&mut Core<T>) -> R) -> R {
        let mut core = self.core.lock();
        let result = change(&mut core);
        let wake = core.asleep && core.is_settled();
        core.asleep &= !wake;
        drop(core);
        if wake {
            self.changed.notify_one();
        }
        result
    }

    fn stats(&self) -> Stats {
        let now = self.clock.now();
        // Room is made before the lock is taken.
        let mut stats = Stats { producers: Vec::with_capacity(PRODUCERS_MAX), ..Stats::default() };
        self.core.lock().stats(now, &mut stats);
        stats
    }
}

/// A queue with these bounds. More producers: [`Sender::named`].
///
/// # Examples
/// ```
/// use plimsoll::queue::{DropReason, Limits, Sent, WhenFull, bounded};
///
/// let (sender, mut receiver) = bounded(Limits { max_items: 100, max_bytes: 10 }, WhenFull::DropNewest);
/// let stderr = sender.named("stderr");
/// assert_eq!(sender.send(vec![0u8; 8]).unwrap(), Sent::Queued);
/// assert_eq!(stderr.send(vec![0u8; 8]).unwrap(), Sent::Dropped); // 16 bytes are more than 10
/// drop((sender, stderr));
///
/// let mut all = Vec::new();
/// assert_eq!(receiver.recv_all(&mut all), 1);
/// assert_eq!(receiver.recv(), None); // drained, and nobody is left to send
/// let lost = receiver.stats().producers[1].counters.dropped_for(DropReason::Full);
/// assert_eq!((lost.items, lost.bytes), (1, 8));
/// ```
pub fn bounded<T: Weigh>(limits: Limits, when_full: WhenFull) -> (Sender<T>, Receiver<T>) {
    bounded_with_clock(limits, when_full, Arc::new(CoarseClock))
}

/// As [`bounded`], with the clock from which ages are told.
pub fn bounded_with_clock<T: Weigh>(
    limits: Limits,
    when_full: WhenFull,
    clock: Arc<dyn Clock>,
) -> (Sender<T>, Receiver<T>) {
    let mut core = Core::new(limits, when_full);
    let producer = core.producer(FIRST_PRODUCER);
    let shared = Arc::new(Shared { core: Mutex::new(core), changed: Condvar::new(), clock });
    (Sender { shared: Arc::clone(&shared), producer }, Receiver { shared, batch: Batch::new() })
}

/// The end that sends, for one producer. A clone counts as the same producer.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    producer: usize,
}

impl<T: Weigh> Sender<T> {
    /// Sends, without ever waiting for room.
    ///
    /// # Errors
    /// The value back, when the queue is closed; with [`WhenFull::Reject`] also when there is no room or never will be.
    pub fn send(&self, value: T) -> Result<Sent, SendError<T>> {
        let (bytes, at) = (value.weight_bytes(), self.shared.clock.now());
        // Declared before the lock is taken, dropped after it is released.
        let mut fallen = Fallen::default();
        self.shared.change(|core| core.offer(value, bytes, self.producer, at, &mut fallen))
    }
}

impl<T> Sender<T> {
    /// A sender with counters under this name. The same name means the same counters.
    pub fn named(&self, name: &str) -> Sender<T> {
        let mut core = self.shared.core.lock();
        core.sender_came();
        let producer = core.producer(name);
        drop(core);
        Sender { shared: Arc::clone(&self.shared), producer }
    }

    /// Ends the queue for every sender: nothing more is taken in, what waits can be received.
    pub fn close(&self) {
        self.shared.change(Core::close);
    }

    /// Gauges and counters.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Something that sees the queue without keeping it open.
    pub fn monitor(&self) -> Monitor<T> {
        Monitor(Arc::clone(&self.shared))
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.core.lock().sender_came();
        Sender { shared: Arc::clone(&self.shared), producer: self.producer }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.change(Core::sender_left);
    }
}

/// The end that receives. There is one; dropping it abandons what is queued.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// What was last taken all at once: empty between calls, its room is used again.
    batch: Batch<T>,
}

impl<T> Receiver<T> {
    /// The oldest value; waits for one. `None` when the queue is closed (or its senders gone) and drained.
    pub fn recv(&mut self) -> Option<T> {
        let mut core = self.shared.core.lock();
        while !core.is_settled() {
            core.asleep = true;
            self.shared.changed.wait(&mut core);
        }
        core.take()
    }

    /// The oldest value; waits for one for at most `timeout` (0: does not wait).
    ///
    /// # Errors
    /// [`RecvError::Timeout`] when nothing came; [`RecvError::Closed`] when nothing can come any more.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvError> {
        self.within(timeout, |core, _| core.take())
    }

    /// Everything that waits, behind what is in `out` already; waits for something. Says how many: 0 when the queue is
    /// closed (or its senders gone) and drained. `out` is never cleared or shrunk here.
    pub fn recv_all(&mut self, out: &mut Vec<T>) -> usize {
        let mut core = self.shared.core.lock();
        while !core.is_settled() {
            core.asleep = true;
            self.shared.changed.wait(&mut core);
        }
        let count = core.take_all(&mut self.batch);
        drop(core);
        self.batch.pour(out);
        count
    }

    /// As [`Receiver::recv_all`], but waits for at most `timeout` (0: does not wait).
    ///
    /// # Errors
    /// [`RecvError::Timeout`] when nothing came; [`RecvError::Closed`] when nothing can come any more.
    pub fn recv_all_timeout(&mut self, out: &mut Vec<T>, timeout: Duration) -> Result<usize, RecvError> {
        let count = self.within(timeout, |core, batch| Some(core.take_all(batch)).filter(|count| *count > 0))?;
        self.batch.pour(out);
        Ok(count)
    }

    fn within<R>(
        &mut self,
        timeout: Duration,
        take: impl FnOnce(&mut Core<T>, &mut Batch<T>) -> Option<R>,
    ) -> Result<R, RecvError> {
        let mut core = self.shared.core.lock();
        if !core.is_settled() && !timeout.is_zero() {
            let unsettled = |core: &mut Core<T>| {
                core.asleep = !core.is_settled();
                core.asleep
            };
            self.shared.changed.wait_while_for(&mut core, unsettled, timeout);
            core.asleep = false;
        }
        match take(&mut core, &mut self.batch) {
            Some(taken) => Ok(taken),
            None if core.is_settled() => Err(RecvError::Closed),
            None => Err(RecvError::Timeout),
        }
    }

    /// Ends the queue for every sender: nothing more is taken in, what waits can still be received.
    pub fn close(&self) {
        self.shared.change(Core::close);
    }

    /// Gauges and counters.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Something that sees the queue without keeping it open.
    pub fn monitor(&self) -> Monitor<T> {
        Monitor(Arc::clone(&self.shared))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let abandoned = self.shared.core.lock().receiver_left();
        drop(abandoned);
    }
}

/// Sees a queue, and may close it, without being one of its ends: the queue ends as if it were not there.
pub struct Monitor<T>(Arc<Shared<T>>);

impl<T> Monitor<T> {
    /// Gauges and counters; also after both ends are gone.
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    /// Ends the queue for every sender: nothing more is taken in, what waits can still be received.
    pub fn close(&self) {
        self.0.change(Core::close);
    }
}

impl<T> Clone for Monitor<T> {
    fn clone(&self) -> Self {
        Monitor(Arc::clone(&self.0))
    }
}

macro_rules! debug_by_stats {
    ($($end:ident)*) => {$(
        impl<T> fmt::Debug for $end<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($end)).field("stats", &self.stats()).finish_non_exhaustive()
            }
        }
    )*};
}
debug_by_stats!(Sender Receiver Monitor);
