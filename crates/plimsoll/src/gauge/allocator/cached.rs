//! Readings of an allocator, kept: dear ones are not repeated before they are paid off, and their cost is told.
//!
//! A reading is good for its time to live, and the next one is taken no sooner than `cost ÷ share` after the last: at
//! a share of 1 %, one that took 49 ms is not repeated for 4.9 s, whatever the time to live. Who asks meanwhile, or while
//! another thread reads, gets the last one with its age. [`Cached::last_live`] never reads and takes no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Allocator, Heap};
use crate::clock::{Clock, MonotonicClock};
use crate::gauge::Unread;
use crate::last_words::LastLive;

/// How long a reading is good for, where the allocator does not say otherwise.
pub const DEFAULT_TTL: Duration = Duration::from_secs(1);
/// The part of one core that readings may take.
pub const DEFAULT_SHARE: f64 = 0.01;
/// The shortest time between two purges.
pub const PURGE_INTERVAL: Duration = Duration::from_secs(5);

/// A reading and how old it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// What was read.
    pub heap: Heap,
    /// How long ago.
    pub age: Duration,
}

/// What readings cost, wall time: also the time that the allocator's locks made others wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Costs {
    /// Readings taken.
    pub reads_total: u64,
    /// Requests that were answered with an older reading because the next one was not paid off yet.
    pub postponed_total: u64,
    /// Purges done.
    pub purges_total: u64,
    /// The last reading.
    pub last: Duration,
    /// The dearest reading.
    pub max: Duration,
    /// All readings.
    pub sum: Duration,
    /// The dearest purge.
    pub purge_max: Duration,
}

/// What a purge did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purged {
    /// It was asked to give back, and this is what it took.
    Done(Duration),
    /// Less than [`PURGE_INTERVAL`] after the last one, or while another thread reads or purges.
    TooSoon,
}

struct Source {
    allocator: Box<dyn Allocator>,
    purged: Option<Duration>,
}

#[derive(Default)]
struct Kept {
    heap: Option<Heap>,
    at: Duration,
    costs: Costs,
}

/// An allocator behind a cache.
///
/// # Examples
/// ```
/// use plimsoll::gauge::{Unread, allocator::Cached};
///
/// let live = Cached::new(|| Ok::<u64, Unread>(180 << 20));
/// assert_eq!(live.read().heap.live_bytes, Ok(180 << 20));
/// assert_eq!(live.costs().reads_total, 1);
/// ```
pub struct Cached {
    source: Mutex<Source>,
    kept: Mutex<Kept>,
    ttl: Duration,
    share: f64,
    clock: Arc<dyn Clock>,
    name: &'static str,
    /// For who must not wait: the last live bytes and when, in ns; 0 is never.
    live: AtomicU64,
    live_at_ns: AtomicU64,
}

impl Cached {
    /// Readings of this allocator with its own time to live, at most [`DEFAULT_SHARE`] of a core.
    pub fn new(allocator: impl Allocator + 'static) -> Cached {
        Cached {
            ttl: allocator.ttl(),
            name: allocator.name(),
            source: Mutex::new(Source { allocator: Box::new(allocator), purged: None }),
            kept: Mutex::default(),
            share: DEFAULT_SHARE,
            clock: Arc::new(MonotonicClock),
            live: AtomicU64::new(0),
            live_at_ns: AtomicU64::new(0),
        }
    }

    /// How long a reading is good for.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Cached {
        self.ttl = ttl;
        self
    }

    /// The part of one core that readings may take, brought into 0.0001..=1.
    #[must_use]
    pub fn share(mut self, share: f64) -> Cached {
        self.share = if share.is_nan() { DEFAULT_SHARE } else { share.clamp(1e-4, 1.0) };
        self
    }

    /// Takes the time from here. For tests.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Cached {
        self.clock = clock;
        self
    }

    /// The allocator's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The newest reading: taken now if the last one is too old, paid off, and nobody else is reading.
    pub fn read(&self) -> Sample {
        let now = self.clock.now();
        {
            let mut kept = self.kept.lock();
            if let Some(heap) = kept.heap {
                let age = now.saturating_sub(kept.at);
                let paid = kept.costs.last.div_f64(self.share);
                if age < self.ttl.max(paid) {
                    kept.costs.postponed_total += u64::from(age >= self.ttl);
                    return Sample { heap, age };
                }
            }
        }
        match self.source.try_lock() {
            Some(mut source) => self.take(&mut source),
            None => self.wait_or_last(),
        }
    }

    /// Somebody else is reading: the last reading will do. Where there is none yet, theirs is waited for.
    fn wait_or_last(&self) -> Sample {
        match self.last() {
            Some(sample) => sample,
            None => {
                let mut source = self.source.lock();
                match self.last() {
                    Some(sample) => sample,
                    None => self.take(&mut source),
                }
            }
        }
    }

    fn take(&self, source: &mut Source) -> Sample {
        let began = self.clock.now();
        let heap = source.allocator.read();
        let at = self.clock.now();
        let cost = at.saturating_sub(began);
        if let Ok(live) = heap.live_bytes {
            self.live.store(live, Ordering::Relaxed);
            self.live_at_ns.store(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX).max(1), Ordering::Release);
        }
        let mut kept = self.kept.lock();
        (kept.heap, kept.at) = (Some(heap), at);
        let costs = &mut kept.costs;
        costs.reads_total += 1;
        (costs.last, costs.max, costs.sum) = (cost, costs.max.max(cost), costs.sum + cost);
        Sample { heap, age: Duration::ZERO }
    }

    /// The last reading, whatever its age; `None` before the first. Never reads.
    pub fn last(&self) -> Option<Sample> {
        let kept = self.kept.lock();
        kept.heap.map(|heap| Sample { heap, age: self.clock.now().saturating_sub(kept.at) })
    }

    /// The last live bytes and their age, for [last words](crate::last_words::LastWords::live): never reads, takes no lock.
    pub fn last_live(self: &Arc<Cached>) -> LastLive {
        let cached = Arc::clone(self);
        Arc::new(move || {
            let at = cached.live_at_ns.load(Ordering::Acquire);
            let live = cached.live.load(Ordering::Relaxed);
            (at != 0).then(|| (live, cached.clock.now().saturating_sub(Duration::from_nanos(at))))
        })
    }

    /// Has the allocator give back what it does not use, at most once per [`PURGE_INTERVAL`]. The next [`Cached::read`] reads
    /// again, so that what it gave back is seen.
    ///
    /// # Errors
    /// The allocator cannot, or refused.
    pub fn purge(&self) -> Result<Purged, Unread> {
        let began = self.clock.now();
        let Some(mut source) = self.source.try_lock() else { return Ok(Purged::TooSoon) };
        if source.purged.is_some_and(|at| began.saturating_sub(at) < PURGE_INTERVAL) {
            return Ok(Purged::TooSoon);
        }
        source.purged = Some(began);
        source.allocator.purge()?;
        let took = self.clock.now().saturating_sub(began);
        let mut kept = self.kept.lock();
        kept.costs.purges_total += 1;
        kept.costs.purge_max = kept.costs.purge_max.max(took);
        // Old enough for any time to live; the cost still has to be paid off.
        kept.at = kept.at.min(began.saturating_sub(self.ttl));
        Ok(Purged::Done(took))
    }

    /// What readings have cost.
    pub fn costs(&self) -> Costs {
        self.kept.lock().costs
    }
}

impl std::fmt::Debug for Cached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cached").field("name", &self.name).field("last", &self.last()).finish_non_exhaustive()
    }
}
