//! One message to many subscribers, each at its own pace, in memory that is bounded for each of them **and** in sum.
//!
//! A message is serialised once and kept once, in a ring that all share; a subscriber is a position in it. What a subscriber has
//! not finished reading may weigh [`BEHIND_BYTES`] (1 MiB); who is further behind is removed, before `publish` returns, and the
//! others lose nothing. A stalled subscriber costs at most 200 bytes beside the ring (`cargo bench -p plimsoll --bench broadcast`).
//!
//! | | what happens |
//! |---|---|
//! | **a slow subscriber** | removed by the first message that puts it past the bound, counted by [`Reason`]; [`Subscriber::next`] and [`Removal`] say so at once, also while its task is stuck in a write. Tell a WebSocket client [`CLOSE_TRY_AGAIN_LATER`] |
//! | **soft bound** | with [`Bounds::soft`], behind by so much is allowed for so long; who catches up in between starts afresh. Judged at each message and at [`Broadcast::look`] |
//! | **the sum is full** | the furthest behind are removed until the message fits. Where that would not make room, as readers' hands or other accounts hold it, `publish` gives the message back; of those in the ring only the furthest behind are told then, and nobody if even all of them could not make room |
//! | **too large** | a message heavier than a subscriber may be behind is given back |
//! | **too many, too fast** | [`Broadcast::subscribe`] refuses, with a time after which to try again, and counts |
//! | **late** | who subscribes gets what is published from then on |
//! | **closed** | also when the last [`Broadcast`] is dropped (one that a reclaim controller was given is one): nothing more is taken, what is in the ring can be read, then [`Ended::Closed`] |
//! | **nobody subscribed** | a message is counted and dropped |
//! | **killed** | what was not read is lost with the process |
//!
//! Memory: the ring holds at most `behind_bytes`, an eighth more and one message, each message with the overhead of its place (a block's head of
//! some 70 bytes, for up to [`BLOCK_MESSAGES`], and its empty places, for less than an eighth of `behind_bytes`, are not counted); what readers
//! hold in their [`Batch`]es counts against `total_bytes` too, until it is dropped. A ledger account can be charged with all of it, and a
//! broadcast is a store that gives back ([`Reclaim`]).
//!
//! One synchronous core behind one lock, which is never held while a message is weighed or read, or while anybody is woken (a message's own
//! `Drop` must not call the broadcast). No runtime is needed: [`Subscriber::next`] is a future for any, [`Subscriber::next_timeout`] is for threads.

mod core;
mod error;
#[cfg(all(test, loom))]
mod models;
mod rate;
mod ring;
mod stats;
mod subscriber;
mod sync;
#[cfg(all(test, not(loom)))]
mod tests;

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use self::core::Core;
use self::sync::Mutex;
use crate::clock::{Clock, CoarseClock};
use crate::event::{Ask, Outcome, Pass, Profile};
use crate::queue::Weigh;
use crate::reclaim::Reclaim;
use crate::reclaim::ledger::Account;
pub use error::{
    CLOSE_GOING_AWAY, CLOSE_TRY_AGAIN_LATER, Ended, PublishError, Reason, Refusal, Removed, SubscribeError,
};
pub use ring::BLOCK_MESSAGES;
pub use stats::Stats;
pub use subscriber::{Batch, Iter, Removal, Subscriber};

/// What a subscriber may be behind: 1 MiB.
pub const BEHIND_BYTES: u64 = 1 << 20;
/// What all messages that are still in memory may weigh: 64 MiB.
pub const TOTAL_BYTES: u64 = 64 << 20;
/// Subscribers at one time: 10,000.
pub const SUBSCRIBERS: usize = 10_000;
/// New subscribers a second, on average: 500.
pub const SUBSCRIBE_PER_SECOND: u32 = 500;
/// New subscribers at once: 1,000.
pub const SUBSCRIBE_BURST: u32 = 1_000;
/// Subscribers woken without letting go of the lock in between.
const WAKE_AT_ONCE: usize = 64;

/// The bounds of a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// What a subscriber may be behind, in bytes: whoever is further is removed at once. Default [`BEHIND_BYTES`].
    pub behind_bytes: u64,
    /// A lower bound that may be passed for a time. Default none.
    pub soft: Option<Soft>,
    /// What all messages in memory may weigh, those in readers' hands included. Default [`TOTAL_BYTES`].
    pub total_bytes: u64,
    /// Subscribers at one time, those included that were removed and whose handle is not dropped yet. Default [`SUBSCRIBERS`].
    pub subscribers: usize,
    /// New subscribers a second on average; 0: no limit. Default [`SUBSCRIBE_PER_SECOND`].
    pub subscribe_per_second: u32,
    /// New subscribers at once. Default [`SUBSCRIBE_BURST`].
    pub subscribe_burst: u32,
}

/// A bound that may be passed for a time (as Redis' `client-output-buffer-limit` has it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Soft {
    /// Further behind than so many bytes …
    pub bytes: u64,
    /// … for so long without a break.
    pub time: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            behind_bytes: BEHIND_BYTES,
            soft: None,
            total_bytes: TOTAL_BYTES,
            subscribers: SUBSCRIBERS,
            subscribe_per_second: SUBSCRIBE_PER_SECOND,
            subscribe_burst: SUBSCRIBE_BURST,
        }
    }
}

struct Shared<M> {
    core: Mutex<Core<M>>,
    clock: Arc<dyn Clock>,
}

impl<M> Shared<M> {
    /// Changes the core, then wakes everybody who waits for a message, and those whose removal that was.
    fn change<R>(&self, change: impl FnOnce(&mut Core<M>, &mut Vec<Waker>) -> R) -> R {
        let (mut removed, mut panicked) = (Vec::new(), None);
        let mut wakers = [const { None }; WAKE_AT_ONCE];
        let mut core = self.core.lock();
        let result = change(&mut core, &mut removed);
        let mut waiting = core.take_waiting();
        loop {
            let count = core.next_wakers(&mut waiting, &mut wakers);
            let is_last = waiting.is_empty();
            if is_last {
                core.give_list_back(std::mem::take(&mut waiting));
            }
            drop(core);
            wake_all(wakers[..count].iter_mut().filter_map(Option::take), &mut panicked);
            if is_last {
                break;
            }
            core = self.core.lock();
        }
        wake_all(removed.into_iter(), &mut panicked);
        panicked.map_or(result, |panic| resume_unwind(panic))
    }

    /// The same, where no message has come.
    fn remove(&self, change: impl FnOnce(&mut Core<M>, &mut Vec<Waker>) -> u64) -> u64 {
        let (mut removed, mut panicked) = (Vec::new(), None);
        let result = change(&mut self.core.lock(), &mut removed);
        wake_all(removed.into_iter(), &mut panicked);
        panicked.map_or(result, |panic| resume_unwind(panic))
    }
}

/// Wakes all of them, also after one of them has panicked; the first panic is left in `panicked`.
fn wake_all(mut wakers: impl Iterator<Item = Waker>, panicked: &mut Option<Box<dyn Any + Send>>) {
    while let Err(panic) = catch_unwind(AssertUnwindSafe(|| wakers.by_ref().for_each(Waker::wake))) {
        panicked.get_or_insert(panic);
    }
}

/// The end that publishes. Cheap to clone; all clones are the same broadcast, which is closed when the last is dropped; a
/// clone that is [registered](crate::reclaim::Controller::register) with a controller lives as long as that.
///
/// # Examples
/// ```
/// use plimsoll::broadcast::{Bounds, Broadcast, Ended, Reason};
///
/// let live = Broadcast::new(Bounds { behind_bytes: 4096, ..Bounds::default() });
/// let (mut quick, mut stalled) = (live.subscribe()?, live.subscribe()?);
/// for n in 0..10 {
///     live.publish(vec![n; 1000]).unwrap();
///     let batch = quick.try_next()?.expect("just published");
///     assert_eq!(batch.iter().map(|message| message[0]).collect::<Vec<u8>>(), [n]);
/// }
/// let Err(Ended::Removed(removed)) = stalled.try_next() else { panic!("10,000 bytes are more than 4,096") };
/// assert_eq!(removed.reason, Reason::Behind);
/// assert_eq!(live.stats().removed_for(Reason::Behind), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Broadcast<M> {
    shared: Arc<Shared<M>>,
}

impl<M: Weigh> Broadcast<M> {
    /// Nobody subscribed, nothing published.
    pub fn new(bounds: Bounds) -> Broadcast<M> {
        Broadcast::with_clock(bounds, Arc::new(CoarseClock))
    }

    /// As [`Broadcast::new`], with the clock by which the soft bound and the rate of new subscribers are judged.
    pub fn with_clock(bounds: Bounds, clock: Arc<dyn Clock>) -> Broadcast<M> {
        Broadcast { shared: Arc::new(Shared { core: Mutex::new(Core::new(bounds, None)), clock }) }
    }

    /// As [`Broadcast::new`], and every message is charged to this account while it is in memory: its cap is a further bound over the sum.
    pub fn charged_to(bounds: Bounds, account: Account) -> Broadcast<M> {
        let core = Mutex::new(Core::new(bounds, Some(account)));
        Broadcast { shared: Arc::new(Shared { core, clock: Arc::new(CoarseClock) }) }
    }

    /// Publishes to everybody who is subscribed now; says how many that is. Never waits for any of them.
    ///
    /// # Errors
    /// The message back: it is too large, there is no room in the sum, or the broadcast is closed ([`Refusal`]).
    pub fn publish(&self, message: M) -> Result<u64, PublishError<M>> {
        let (bytes, now) = (message.weight_bytes(), self.shared.clock.now());
        self.shared.change(|core, removed| core.publish(message, bytes, now, removed))
    }
}

impl<M> Broadcast<M> {
    /// Subscribes, to what is published from now on.
    ///
    /// # Errors
    /// [`SubscribeError`]: too many, too many at once, or closed.
    pub fn subscribe(&self) -> Result<Subscriber<M>, SubscribeError> {
        let now = self.shared.clock.now();
        let mut core = self.shared.core.lock();
        let ticket = core.subscribe(now)?;
        let read_to = core.position(ticket);
        drop(core);
        Ok(Subscriber::new(Arc::clone(&self.shared), ticket, read_to))
    }

    /// Judges every subscriber now, and drops what all have read: for a timer where a soft bound must hold while nothing is published.
    pub fn look(&self) {
        let now = self.shared.clock.now();
        self.shared.remove(|core, removed| {
            core.look(now, removed);
            0
        });
    }

    /// Ends it for everybody: nothing more is taken, what is in the ring can be read.
    pub fn close(&self) {
        self.shared.change(|core, _| core.close());
    }

    /// Gauges and counters.
    pub fn stats(&self) -> Stats {
        self.shared.core.lock().stats()
    }
}

impl<M> Clone for Broadcast<M> {
    fn clone(&self) -> Broadcast<M> {
        self.shared.core.lock().publisher_came();
        Broadcast { shared: Arc::clone(&self.shared) }
    }
}

impl<M> Drop for Broadcast<M> {
    fn drop(&mut self) {
        let mut core = self.shared.core.lock();
        let last = core.publisher_left();
        drop(core);
        if last {
            self.close();
        }
    }
}

/// Compacting drops what everybody has read; the destructive pass removes the subscribers that are furthest behind, for [`Reason::Sum`].
///
/// A controller that a clone is registered with keeps it: such a broadcast is not closed by dropping the others, but by [`Broadcast::close`].
impl<M: Send + Sync> Reclaim for Broadcast<M> {
    fn held_bytes(&self) -> u64 {
        self.stats().alive_bytes
    }

    fn profile(&self) -> Profile {
        Profile::default().only(&[Pass::Compact, Pass::Destructive])
    }

    fn reclaim(&self, ask: Ask) -> Outcome {
        let given = self.shared.remove(|core, removed| {
            let compact = core.trim();
            match ask.pass {
                Pass::Destructive if compact < ask.bytes => compact + core.shed(ask.bytes - compact, removed),
                _ => compact,
            }
        });
        Outcome::new(given, ask.pass == Pass::Destructive && self.stats().ring_bytes > 0)
    }
}

impl<M> fmt::Debug for Broadcast<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcast").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Weigh for Arc<[u8]> {
    fn weight_bytes(&self) -> u64 {
        self.len() as u64
    }
}

impl Weigh for Arc<str> {
    fn weight_bytes(&self) -> u64 {
        self.len() as u64
    }
}
