//! A store in the order of time behind a lock of the service: the oldest entries go first.
//!
//! Slices of at most [`SLICE`] (1 ms) under the lock, with a look at the clock every [`BATCH`] entries; between two, others get the lock. The
//! container gives the room back as well: [`Segmented`] block by block; a `VecDeque` by one copy of what is left, about 1 ms for each 4 MiB.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::SLICE;
use crate::clock::{Clock, MonotonicClock};
use crate::event::{Ask, Outcome, Pass, Profile};
use crate::reclaim::Reclaim;

/// Entries that are removed between two looks at the clock.
pub const BATCH: usize = 64;
/// Entries in one block of a [`Segmented`].
pub const BLOCK: usize = 256;

/// What [`TimeOrdered`] needs of a container. Implement it for a type of your own to count what entries own, and to remove what belongs to
/// them elsewhere: an index that keeps them alive is memory that was not given back.
pub trait Ordered: Send {
    /// What it holds, unused capacity included, in bytes.
    fn held_bytes(&self) -> u64;

    /// Removes the oldest entry; how many bytes that frees, at the latest with the next [`compact`](Ordered::compact). `None`: empty.
    fn remove_oldest(&mut self) -> Option<u64>;

    /// Gives unused capacity back where it is worth it; how many bytes that was.
    fn compact(&mut self) -> u64;
}

/// Counts `size_of` of its entries. Giving capacity back copies what is left: for more than a few MiB take a [`Segmented`].
impl<T: Send> Ordered for VecDeque<T> {
    fn held_bytes(&self) -> u64 {
        (self.capacity() * size_of::<T>()) as u64
    }

    fn remove_oldest(&mut self) -> Option<u64> {
        self.pop_front().map(|_| size_of::<T>() as u64)
    }

    fn compact(&mut self) -> u64 {
        let before = self.capacity();
        if before - self.len() > self.len() / 8 {
            self.shrink_to(self.len() + self.len() / 16);
        }
        ((before - self.capacity()) * size_of::<T>()) as u64
    }
}

/// A queue in blocks of [`BLOCK`] entries: growing never copies, and an emptied block is free at once, so giving room back costs the same
/// for a thousand entries and for a billion.
///
/// # Examples
/// ```
/// use plimsoll::reclaim::adapt::{Ordered as _, Segmented};
/// let mut queue: Segmented<u64> = (0..1_000).collect();
/// assert_eq!((queue.len(), queue.held_bytes()), (1_000, 8 * 1_024));
/// for n in 0..600 {
///     assert_eq!(queue.pop_front(), Some(n));
/// }
/// assert_eq!(queue.held_bytes(), 8 * 512, "two blocks of four are gone");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Segmented<T> {
    blocks: VecDeque<VecDeque<T>>,
    len: usize,
}

impl<T> Segmented<T> {
    /// An empty one; allocates nothing.
    pub fn new() -> Segmented<T> {
        Segmented { blocks: VecDeque::new(), len: 0 }
    }

    /// Adds the newest entry.
    pub fn push_back(&mut self, entry: T) {
        self.len += 1;
        match self.blocks.back_mut().filter(|block| block.len() < BLOCK) {
            Some(block) => block.push_back(entry),
            None => {
                let mut block = VecDeque::with_capacity(BLOCK);
                block.push_back(entry);
                self.blocks.push_back(block);
            }
        }
    }

    /// Takes the oldest entry.
    pub fn pop_front(&mut self) -> Option<T> {
        let block = self.blocks.front_mut()?;
        let entry = block.pop_front();
        self.len -= usize::from(entry.is_some());
        if block.is_empty() {
            self.blocks.pop_front();
        }
        entry
    }

    /// The oldest entry.
    pub fn front(&self) -> Option<&T> {
        self.blocks.front()?.front()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.blocks.iter().flatten()
    }
}

impl<T> FromIterator<T> for Segmented<T> {
    fn from_iter<I: IntoIterator<Item = T>>(entries: I) -> Segmented<T> {
        let mut queue = Segmented::new();
        entries.into_iter().for_each(|entry| queue.push_back(entry));
        queue
    }
}

impl<T: Send> Ordered for Segmented<T> {
    fn held_bytes(&self) -> u64 {
        (self.blocks.len() * BLOCK * size_of::<T>()) as u64
    }

    fn remove_oldest(&mut self) -> Option<u64> {
        self.pop_front().map(|_| size_of::<T>() as u64)
    }

    fn compact(&mut self) -> u64 {
        if self.blocks.capacity() > 2 * self.blocks.len() + 16 {
            self.blocks.shrink_to(self.blocks.len() + 16);
        }
        0
    }
}

/// A time-ordered container behind a lock, as a store.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use parking_lot::Mutex;
/// use plimsoll::event::{Ask, Outcome, Pass};
/// use plimsoll::reclaim::{Reclaim as _, adapt::{Segmented, TimeOrdered}};
///
/// let events: Arc<Mutex<Segmented<u64>>> = Arc::new(Mutex::new((0..1_000).collect()));
/// let store = TimeOrdered::new(Arc::clone(&events));
/// assert_eq!(store.reclaim(Ask::new(4_096, Pass::Destructive)), Outcome::new(4_096, true));
/// assert_eq!(events.lock().front(), Some(&512), "the oldest went");
/// assert_eq!(store.held_bytes(), 4_096, "and the room that they took");
/// ```
pub struct TimeOrdered<C> {
    inner: Arc<Mutex<C>>,
    profile: Profile,
    clock: Arc<dyn Clock>,
}

impl<C: Ordered> TimeOrdered<C> {
    /// A store of what the service holds in `inner`. It gives spare capacity in the compact pass and entries in the destructive one.
    pub fn new(inner: Arc<Mutex<C>>) -> TimeOrdered<C> {
        let profile = Profile::default().only(&[Pass::Compact, Pass::Destructive]);
        TimeOrdered { inner, profile, clock: Arc::new(MonotonicClock) }
    }

    /// With another profile: other passes that remove entries, a floor, a cost.
    #[must_use]
    pub fn with_profile(self, profile: Profile) -> TimeOrdered<C> {
        TimeOrdered { profile, ..self }
    }

    /// One slice under the lock: how many bytes were removed, and whether the container is empty.
    fn slice(&self, most_bytes: u64) -> (u64, bool) {
        let mut inner = self.inner.lock();
        let until = self.clock.now() + SLICE / 2;
        let mut removed = 0;
        loop {
            for _ in 0..BATCH {
                match inner.remove_oldest() {
                    Some(bytes) => removed += bytes,
                    None => return (removed, true),
                }
                if removed >= most_bytes {
                    return (removed, false);
                }
            }
            if self.clock.now() >= until {
                return (removed, false);
            }
        }
    }
}

impl<C: Ordered> Reclaim for TimeOrdered<C> {
    fn held_bytes(&self) -> u64 {
        self.inner.lock().held_bytes()
    }

    fn profile(&self) -> Profile {
        self.profile
    }

    fn reclaim(&self, ask: Ask) -> Outcome {
        if ask.pass == Pass::Compact {
            return Outcome::new(self.inner.lock().compact(), false);
        }
        let until = self.clock.now() + ask.deadline / 2;
        let most = ask.bytes.min(self.held_bytes().saturating_sub(self.profile.floor_bytes));
        let (mut removed, mut empty) = (0, false);
        while removed < most && !empty && self.clock.now() < until {
            let (bytes, is_empty) = self.slice(most - removed);
            removed += bytes;
            empty = is_empty;
            // Who waits for the lock gets it now.
            std::thread::sleep(Duration::from_micros(50));
        }
        let left = {
            let mut inner = self.inner.lock();
            inner.compact();
            inner.held_bytes()
        };
        Outcome::new(removed, left > self.profile.floor_bytes)
    }
}

impl<C> std::fmt::Debug for TimeOrdered<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TimeOrdered").field("profile", &self.profile).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn the_oldest_go_and_the_capacity_with_them() {
        let queue: VecDeque<[u8; 1024]> = std::iter::repeat_n([1; 1024], 10_000).collect();
        let before = queue.held_bytes();
        let inner = Arc::new(Mutex::new(queue));
        let store = TimeOrdered::new(Arc::clone(&inner));
        let outcome = store.reclaim(Ask::new(before / 2, Pass::Destructive));
        assert!(outcome.claimed_bytes >= before / 2 && outcome.more);
        assert!(store.held_bytes() <= before / 2 + before / 16, "{} of {before} left", store.held_bytes());
    }

    #[test]
    fn a_floor_is_kept_and_an_empty_store_says_so() {
        let inner = Arc::new(Mutex::new((0..1_024_u64).collect::<Segmented<u64>>()));
        let profile = Profile::default().floor(4_096);
        let store = TimeOrdered::new(Arc::clone(&inner)).with_profile(profile);
        assert_eq!(store.reclaim(Ask::new(u64::MAX, Pass::Destructive)), Outcome::new(4_096, false));
        let store = TimeOrdered::new(inner);
        assert_eq!(store.reclaim(Ask::new(u64::MAX, Pass::Destructive)), Outcome::new(4_096, false));
        assert_eq!(store.held_bytes(), 0);
    }

    /// An entry that takes a while to remove: 20 µs.
    struct Slow(u64);
    impl Ordered for Slow {
        fn held_bytes(&self) -> u64 {
            self.0
        }
        fn remove_oldest(&mut self) -> Option<u64> {
            let until = MonotonicClock.now() + Duration::from_micros(20);
            while MonotonicClock.now() < until {}
            self.0 = self.0.checked_sub(1)?;
            Some(1)
        }
        fn compact(&mut self) -> u64 {
            0
        }
    }

    #[test]
    fn others_get_the_lock_between_slices() {
        let inner = Arc::new(Mutex::new(Slow(u64::MAX)));
        let store = TimeOrdered::new(Arc::clone(&inner));
        let done = AtomicBool::new(false);
        let waits = std::thread::scope(|scope| {
            scope.spawn(|| {
                let outcome = store
                    .reclaim(Ask { deadline: Duration::from_millis(400), ..Ask::new(u64::MAX, Pass::Destructive) });
                done.store(true, Ordering::Release);
                assert!(outcome.claimed_bytes > 64 && outcome.more, "{outcome:?}: it stops at its deadline");
            });
            let mut waits = Vec::new();
            while !done.load(Ordering::Acquire) {
                let before = MonotonicClock.now();
                drop(inner.lock());
                waits.push(MonotonicClock.now() - before);
                std::thread::sleep(Duration::from_millis(2));
            }
            waits
        });
        let mut waits = waits;
        waits.sort_unstable();
        // A batch of 64 takes 1.3 ms here; a busy machine may add to single waits, not to half of them.
        assert!(waits[waits.len() / 2] < Duration::from_millis(10), "{waits:?}");
        assert!(waits.len() > 10, "{}", waits.len());
    }

    #[test]
    fn a_segmented_queue_is_a_queue() {
        let mut queue = Segmented::new();
        let mut model = VecDeque::new();
        for n in 0..5_000_u64 {
            queue.push_back(n);
            model.push_back(n);
            if n % 3 == 0 {
                assert_eq!(queue.pop_front(), model.pop_front());
            }
            assert_eq!((queue.len(), queue.front()), (model.len(), model.front()));
        }
        assert!(queue.iter().eq(model.iter()));
        assert!(queue.held_bytes() <= (model.len() as u64 + 2 * BLOCK as u64) * 8);
        while queue.pop_front().is_some() {}
        assert!(queue.is_empty() && queue.held_bytes() == 0);
    }
}
