//! A `quick_cache` as a store: the entries that were used least go first. What it holds is its weight: give it a weighter that says bytes.
//!
//! `quick_cache` and not `moka`: four crates more instead of ten, 6,700 lines instead of 36,000, evictions at once instead of at some
//! maintenance, and a capacity that can be changed while running, which this needs. Entries' tables and slots (about 60 bytes each) stay for
//! those that come; what entries own is given back.
//!
//! It is lowered in steps, each shard under its own lock: the step is halved when one took more than [`SLICE`], and doubled below half of it.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, Weighter};

use super::SLICE;
use crate::clock::{Clock, MonotonicClock};
use crate::event::{Ask, Outcome, Pass, Profile};
use crate::reclaim::Reclaim;

/// The first step, as a part of what is asked for.
const FIRST_STEP: u64 = 64;

/// A cache of the crate `quick_cache`, as a store. Its own capacity is the most that it may ever hold; below that, it holds what it is let.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use plimsoll::event::{Ask, Pass};
/// use plimsoll::reclaim::{Reclaim as _, adapt::Lru};
/// use quick_cache::{Weighter, sync::Cache};
///
/// #[derive(Clone)]
/// struct Bytes;
/// impl Weighter<u64, Vec<u8>> for Bytes {
///     fn weight(&self, _key: &u64, value: &Vec<u8>) -> u64 {
///         value.capacity() as u64
///     }
/// }
/// let cache = Arc::new(Cache::with_weighter(1_000, 1 << 20, Bytes));
/// for n in 0..1_000 {
///     cache.insert(n, vec![0; 1_000]);
/// }
/// let store = Lru::new(Arc::clone(&cache));
/// let before = store.held_bytes();
/// let outcome = store.reclaim(Ask::new(before / 2, Pass::Idle));
/// assert!(outcome.claimed_bytes >= before / 2 && cache.weight() <= before / 2);
/// ```
pub struct Lru<K, V, We, B = DefaultHashBuilder, L = quick_cache::sync::DefaultLifecycle<K, V>> {
    cache: Arc<Cache<K, V, We, B, L>>,
    capacity: u64,
    profile: Profile,
    clock: Arc<dyn Clock>,
}

impl<K, V, We, B, L> Lru<K, V, We, B, L>
where
    K: Eq + Hash,
    V: Clone,
    We: Weighter<K, V> + Clone,
    B: BuildHasher + Clone,
    L: Lifecycle<K, V> + Clone,
{
    /// A store of what `cache` holds. It is asked in the idle and the destructive pass.
    pub fn new(cache: Arc<Cache<K, V, We, B, L>>) -> Lru<K, V, We, B, L> {
        let capacity = cache.capacity();
        let profile = Profile::default().only(&[Pass::Idle, Pass::Destructive]);
        Lru { cache, capacity, profile, clock: Arc::new(MonotonicClock) }
    }

    /// With another profile.
    #[must_use]
    pub fn with_profile(self, profile: Profile) -> Lru<K, V, We, B, L> {
        Lru { profile, ..self }
    }
}

impl<K, V, We, B, L> Reclaim for Lru<K, V, We, B, L>
where
    K: Eq + Hash + Send + Sync,
    V: Clone + Send + Sync,
    We: Weighter<K, V> + Clone + Send + Sync,
    B: BuildHasher + Clone + Send + Sync,
    L: Lifecycle<K, V> + Clone + Send + Sync,
{
    fn held_bytes(&self) -> u64 {
        self.cache.weight()
    }

    fn profile(&self) -> Profile {
        self.profile
    }

    fn reclaim(&self, ask: Ask) -> Outcome {
        let until = self.clock.now() + ask.deadline / 2;
        let before = self.cache.weight();
        let target = before.saturating_sub(ask.bytes).max(self.profile.floor_bytes);
        let mut step = (ask.bytes / FIRST_STEP).max(1);
        let mut now = self.clock.now();
        while self.cache.weight() > target && now < until {
            // Never 0: a cache of no capacity forgets what it learnt.
            let next = self.cache.weight().saturating_sub(step).max(target).max(self.cache.num_shards() as u64);
            self.cache.set_capacity(next);
            let after = self.clock.now();
            let took = after.saturating_sub(now);
            step = if took > SLICE {
                (step / 2).max(1)
            } else if took < SLICE / 2 {
                step.saturating_mul(2)
            } else {
                step
            };
            if next == self.cache.num_shards() as u64 {
                break;
            }
            now = after;
        }
        let left = self.cache.weight();
        Outcome::new(before.saturating_sub(left), left > self.profile.floor_bytes)
    }

    fn hold(&self, bytes: Option<u64>) {
        let bound = bytes.unwrap_or(u64::MAX).max(self.cache.weight()).min(self.capacity);
        self.cache.set_capacity(bound.max(self.cache.num_shards() as u64));
    }
}

impl<K, V, We, B, L> std::fmt::Debug for Lru<K, V, We, B, L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lru").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Bytes;
    impl Weighter<u64, Arc<[u8]>> for Bytes {
        fn weight(&self, _key: &u64, value: &Arc<[u8]>) -> u64 {
            value.len() as u64
        }
    }

    fn full() -> Arc<Cache<u64, Arc<[u8]>, Bytes>> {
        let cache = Arc::new(Cache::with_weighter(20_000, 20_000 * 1_024, Bytes));
        for n in 0..30_000 {
            cache.insert(n, vec![0; 1_024].into());
        }
        cache
    }

    #[test]
    fn those_used_least_go_first() {
        let cache = full();
        let kept: Vec<u64> = cache.iter().map(|(key, _)| key).take(2_000).collect();
        for _ in 0..8 {
            kept.iter().for_each(|key| drop(cache.get(key)));
        }
        let store = Lru::new(Arc::clone(&cache));
        let before = store.held_bytes();
        let outcome = store.reclaim(Ask::new(before / 4, Pass::Idle));
        assert!(outcome.claimed_bytes >= before / 4 && outcome.more, "{outcome:?} of {before}");
        // CLOCK-Pro is no exact LRU: three quarters would be chance.
        let left = kept.iter().filter(|key| cache.get(*key).is_some()).count();
        assert!(left > 1_800, "{left} of 2000 that were used are left");
    }

    #[test]
    fn it_does_not_refill_until_it_is_let() {
        let cache = full();
        let store = Lru::new(Arc::clone(&cache));
        let half = store.held_bytes() / 2;
        store.reclaim(Ask::new(half, Pass::Idle));
        let fill = || (0..30_000).for_each(|n| cache.insert(100_000 + n, vec![0; 1_024].into()));
        fill();
        assert!(store.held_bytes() <= half, "{} of {half}", store.held_bytes());
        store.hold(Some(half * 3 / 2));
        fill();
        assert!(store.held_bytes() > half && store.held_bytes() <= half * 3 / 2);
        store.hold(Some(1));
        assert!(store.held_bytes() > half, "a bound evicts nothing");
        store.hold(None);
        fill();
        assert!(store.held_bytes() > half * 7 / 4);
    }
}
