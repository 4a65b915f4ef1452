//! A queue between threads or tasks that is bounded in items **and** bytes, and counts for each producer what it did not deliver.
//!
//! | | what happens |
//! |---|---|
//! | **full** | [`WhenFull`] decides: the new value is dropped, the oldest are, the value is given back, its sender waits, or it overflows |
//! | **unfair** | each producer has a [share](GUARANTEED_RATIO) that no other can take: one that floods loses its own |
//! | **too large** | a value that its producer could never have queued gets nowhere and displaces nothing: dropped and counted, or given back |
//! | **the sum is full** | a queue with an [account](Builder::account) also obeys the cap over all queues of that ledger |
//! | **late** | nothing expires; [`Stats::oldest_age`] says how long the oldest has waited |
//! | **closed** | by either end or a [`Monitor`]: `send` gives values back, what is queued can be received, then `None` |
//! | **senders gone** | as closed: the receiver drains what is left |
//! | **receiver gone** | what is queued is dropped and counted as abandoned; `send` gives values back |
//! | **a future is dropped** | nothing that was queued is lost; a value that still waited for room is counted as cancelled |
//! | **killed** | what is queued is lost with the process: at most [`Limits`] |
//!
//! Memory: at most `max_bytes` of values as they weigh themselves ([`Weigh`]), and in each of two rings that take turns
//! at most `max_items` places of the size of `T` and 32 bytes (twice that while a ring grows); in the buffers of those who
//! send often as many again, all together. Room beyond 1,024 places is given back once less than a quarter of it is used, that of a
//! buffer when its sender pauses. A value is weighed once, before it gets in: what is released is what
//! was charged. What was received no longer counts: who takes everything at once may hold as much again. What a
//! [batcher](batch) took counts until it is written.
//!
//! One synchronous core behind one lock, held for some tens of nanoseconds and never while a value is weighed, dropped or written. Who sends
//! often is lent room and puts most of its values into a buffer of its own, without that lock; whoever looks at the queue sees
//! them too. Threads sleep on it and tasks of any runtime do; both ends may be mixed. Order is first in, first out, among all
//! senders. At most [`PRODUCERS_MAX`] names; no counter is ever reset.

pub mod batch;
mod buffer;
mod core;
mod credit;
mod error;
mod lock;
#[cfg(all(test, loom))]
mod models;
mod overflow;
mod part;
mod receiver;
mod sender;
mod shared;
mod stats;
#[cfg(all(test, not(loom)))]
mod tests;
mod weigh;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::core::GUARANTEED_RATIO;
use self::core::{Core, Policy};
use crate::clock::{Clock, CoarseClock};
use crate::reclaim::ledger::Account;
pub use error::{RecvError, Refusal, SendError};
pub use overflow::Overflow;
pub use receiver::Receiver;
pub use sender::{SendFuture, Sender};
pub use shared::Monitor;
use shared::Shared;
pub use stats::{Counters, DropReason, OverflowStats, ProducerStats, Stats, Tally};
pub use weigh::Weigh;

/// Names that have counters of their own; the last place is shared by all that come later, under [`OTHERS`].
pub const PRODUCERS_MAX: usize = 64;
/// The name under which producers beyond [`PRODUCERS_MAX`] are counted together.
pub const OTHERS: &str = "others";
/// The name of the producer that [`bounded`] returns.
pub const FIRST_PRODUCER: &str = "main";

/// The bounds of a queue. Both hold; 0 lets nothing in (but values of weight 0 with `max_bytes` 0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Values that may be queued.
    pub max_items: usize,
    /// Bytes that they may weigh together.
    pub max_bytes: u64,
}

/// What happens to a value for which there is no room.
#[non_exhaustive]
pub enum WhenFull<T> {
    /// It is dropped and counted: what waits is older and stays. (Where it would stay within its producer's share, which others held
    /// before that producer came, their newest make room.)
    DropNewest,
    /// Older ones make room for it, and are counted as displaced, each with its own producer: the oldest of whoever is furthest
    /// beyond its share.
    DropOldest,
    /// It is given back: its sender decides.
    Reject,
    /// Its sender waits for room, at most so long; then it is given back.
    WaitUntil(Duration),
    /// It goes to this store, and comes back in its order.
    Overflow(Box<dyn Overflow<T>>),
}

impl<T> fmt::Debug for WhenFull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WhenFull::DropNewest => f.write_str("DropNewest"),
            WhenFull::DropOldest => f.write_str("DropOldest"),
            WhenFull::Reject => f.write_str("Reject"),
            WhenFull::WaitUntil(patience) => f.debug_tuple("WaitUntil").field(patience).finish(),
            WhenFull::Overflow(_) => f.write_str("Overflow(_)"),
        }
    }
}

/// What became of a value that was not given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sent {
    /// It waits for the receiver.
    Queued,
    /// It waits for the receiver, and so many older ones were dropped for it.
    Displaced(u64),
    /// It waits for the receiver in the overflow.
    Overflowed,
    /// It was dropped and counted.
    Dropped,
}

/// A queue with these bounds. More producers: [`Sender::named`]; more choices: [`Builder`].
///
/// # Examples
/// ```
/// use plimsoll::queue::{DropReason, Limits, Sent, WhenFull, bounded};
///
/// let (sender, mut receiver) = bounded(Limits { max_items: 100, max_bytes: 10 }, WhenFull::DropNewest);
/// assert_eq!(sender.send(vec![0u8; 8]).unwrap(), Sent::Queued);
/// assert_eq!(sender.send(vec![0u8; 8]).unwrap(), Sent::Dropped); // 16 bytes are more than 10
/// drop(sender);
///
/// let mut all = Vec::new();
/// assert_eq!(receiver.recv_all(&mut all), 1);
/// assert_eq!(receiver.recv(), None); // drained, and nobody is left to send
/// let lost = receiver.stats().producers[0].counters.dropped_for(DropReason::Full);
/// assert_eq!((lost.items, lost.bytes), (1, 8));
/// ```
///
/// Two producers, of which one floods:
/// ```
/// use plimsoll::queue::{Limits, Sent, WhenFull, bounded};
///
/// let (noisy, _receiver) = bounded(Limits { max_items: 8, max_bytes: 1_000 }, WhenFull::DropNewest);
/// let quiet = noisy.named("quiet");
/// let kept = (0..1_000).filter(|_| noisy.send(vec![0u8; 10]).unwrap() == Sent::Queued).count();
/// assert_eq!(kept, 6); // the common half and its own quarter
/// assert_eq!(quiet.send(vec![0u8; 10]).unwrap(), Sent::Queued);
/// assert_eq!(quiet.send(vec![0u8; 10]).unwrap(), Sent::Queued);
/// ```
pub fn bounded<T: Weigh>(limits: Limits, when_full: WhenFull<T>) -> (Sender<T>, Receiver<T>) {
    Builder::new(limits, when_full).build()
}

/// How a queue is to be. [`bounded`] is a builder with its defaults.
///
/// # Examples
/// A cap of 1 MiB over the sum of two queues that may have 1 MiB each:
/// ```
/// use plimsoll::queue::{Builder, Limits, Refusal, WhenFull};
/// use plimsoll::reclaim::ledger::Ledger;
///
/// let ledger = Ledger::with_cap(1 << 20);
/// let limits = Limits { max_items: 1_000, max_bytes: 1 << 20 };
/// let (requests, _r) = Builder::new(limits, WhenFull::Reject).account(ledger.account("requests")?).build();
/// let (events, _e) = Builder::new(limits, WhenFull::Reject).account(ledger.account("events")?).build();
/// assert!(requests.send(vec![0u8; 700 << 10]).is_ok());
/// assert_eq!(events.send(vec![0u8; 700 << 10]).unwrap_err().refusal, Refusal::SumFull);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub struct Builder<T> {
    limits: Limits,
    when_full: WhenFull<T>,
    guaranteed_ratio: f64,
    account: Option<Account>,
    clock: Arc<dyn Clock>,
}

impl<T> Builder<T> {
    /// A queue with these bounds, [`GUARANTEED_RATIO`], no account and the [`CoarseClock`].
    pub fn new(limits: Limits, when_full: WhenFull<T>) -> Builder<T> {
        let clock = Arc::new(CoarseClock);
        Builder { limits, when_full, guaranteed_ratio: GUARANTEED_RATIO, account: None, clock }
    }

    /// The part of the queue, 0..=1, that is divided equally among the producers that have a [`Sender`]; the rest is common. 0: first
    /// come, first served. 1: each its equal part and no more.
    pub fn guaranteed_ratio(mut self, ratio: f64) -> Builder<T> {
        self.guaranteed_ratio = ratio;
        self
    }

    /// Charges what is queued to this account, so that its cap and its ledger's hold over the sum of several queues. Charged ahead, in
    /// steps of 64 KiB or a sixteenth of `max_bytes`, whichever is less: at most two such steps are charged and not used.
    pub fn account(mut self, account: Account) -> Builder<T> {
        self.account = Some(account);
        self
    }

    /// The clock from which ages and gap records are told.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Builder<T> {
        self.clock = clock;
        self
    }

    /// The queue's two ends. The sender counts as [`FIRST_PRODUCER`]; drop it when only named ones send: it has a share.
    pub fn build(self) -> (Sender<T>, Receiver<T>) {
        self.build_named(FIRST_PRODUCER)
    }

    /// As [`Builder::build`], with a first producer of this name.
    pub fn build_named(mut self, name: &str) -> (Sender<T>, Receiver<T>) {
        let (policy, patience, overflow) = match std::mem::replace(&mut self.when_full, WhenFull::Reject) {
            WhenFull::DropNewest => (Policy::DropNewest, None, None),
            WhenFull::DropOldest => (Policy::DropOldest, None, None),
            WhenFull::Reject => (Policy::Reject, None, None),
            WhenFull::WaitUntil(patience) => (Policy::Wait, Some(patience), None),
            WhenFull::Overflow(overflow) => (Policy::Overflow, None, Some(overflow)),
        };
        let kept = overflow.as_ref().map_or(0, |overflow| overflow.kept());
        let core = Core::new(&mut self, policy, kept);
        let shared =
            Arc::new(Shared::new(core, Arc::clone(&self.clock), patience, policy == Policy::DropNewest, overflow));
        (Sender::first(&shared, name), Receiver::new(shared))
    }
}

impl<T> fmt::Debug for Builder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("limits", &self.limits)
            .field("when_full", &self.when_full)
            .field("guaranteed_ratio", &self.guaranteed_ratio)
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}
