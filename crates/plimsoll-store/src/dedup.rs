//! Events that were sent twice are taken once: a window over what came lately, by source, stream and sequence number.
//!
//! A sender that is not sure whether an event arrived sends it again; a number that rises with each of its events, in it both times, lets
//! the receiver see that. The first one counts. An event without a number always passes: nobody can tell it from another.
//!
//! Bounded by a number of events, default 10,000, and the length of a source's name ([`MAX_SOURCE_BYTES`]): at most about 4 MB, 1 MB with
//! names of 20 bytes. When it is full, the event that was seen longest ago is forgotten, and would pass again; seeing an event again makes
//! it new. One window for one thread; nothing in it waits.

use hashlink::LinkedHashSet;

/// Default of [`Dedup::new`]: 10,000 events.
pub const DEFAULT_DEDUP_EVENTS: usize = 10_000;
/// Events of a source with a longer name are not looked at: they pass, counted.
pub const MAX_SOURCE_BYTES: usize = 255;

/// Tells events that came before from new ones; see the top of the module.
///
/// # Examples
/// ```
/// use plimsoll_store::Dedup;
///
/// let mut dedup = Dedup::default();
/// assert!(dedup.is_new("worker-3", "events", Some(17)));
/// assert!(!dedup.is_new("worker-3", "events", Some(17)), "it was sent again");
/// assert!(dedup.is_new("worker-4", "events", Some(17)), "another one's");
/// assert!(dedup.is_new("worker-3", "events", None) && dedup.is_new("worker-3", "events", None));
/// assert_eq!(dedup.stats().duplicates_total, 1);
/// ```
#[derive(Debug)]
pub struct Dedup {
    /// Seen longest ago first.
    seen: LinkedHashSet<Key>,
    capacity: usize,
    stats: DedupStats,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    /// The source's length in a byte, source, stream: a name may have any bytes.
    names: Box<[u8]>,
    sequence: u64,
}

/// What a window did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DedupStats {
    /// Events that it remembers.
    pub held_events: u64,
    /// Events that had come before.
    pub duplicates_total: u64,
    /// Events that it forgot because it was full.
    pub forgotten_total: u64,
    /// Events that passed without a look: no number, or a name that is too long.
    pub unnumbered_total: u64,
}

impl Dedup {
    /// A window over the last `events` events; 0 lets everything pass.
    pub fn new(events: usize) -> Dedup {
        Dedup { seen: LinkedHashSet::new(), capacity: events, stats: DedupStats::default() }
    }

    /// Whether an event was not seen before, as far back as the window goes; from now on it was.
    pub fn is_new(&mut self, source: &str, stream: &str, sequence: Option<u64>) -> bool {
        let names = source.len() + 1 + stream.len();
        let fits = names <= MAX_SOURCE_BYTES && self.capacity > 0;
        let Some((sequence, first)) = sequence.zip(u8::try_from(source.len()).ok()).filter(|_| fits) else {
            self.stats.unnumbered_total += 1;
            return true;
        };
        let names = [&[first], source.as_bytes(), stream.as_bytes()].concat().into_boxed_slice();
        let key = Key { names, sequence };
        if self.seen.to_back(&key) {
            self.stats.duplicates_total += 1;
            return false;
        }
        if self.seen.len() >= self.capacity && self.seen.pop_front().is_some() {
            self.stats.forgotten_total += 1;
        }
        self.seen.insert(key);
        true
    }

    /// The figures of this moment.
    pub fn stats(&self) -> DedupStats {
        DedupStats { held_events: self.seen.len() as u64, ..self.stats }
    }

    /// Forgets everything and gives its memory back: what is sent again afterwards passes.
    pub fn clear(&mut self) {
        self.seen = LinkedHashSet::new();
    }
}

impl Default for Dedup {
    fn default() -> Dedup {
        Dedup::new(DEFAULT_DEDUP_EVENTS)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_do_not_run_together_and_long_ones_pass() {
        let mut dedup = Dedup::default();
        assert!(dedup.is_new("ab", "c", Some(1)) && dedup.is_new("a", "bc", Some(1)));
        assert!(dedup.is_new("a\0b", "c", Some(2)) && dedup.is_new("a", "b\0c", Some(2)));
        let long = "x".repeat(MAX_SOURCE_BYTES);
        assert!(dedup.is_new(&long, "s", Some(1)) && dedup.is_new(&long, "s", Some(1)));
        assert_eq!(dedup.stats(), DedupStats { held_events: 4, unnumbered_total: 2, ..DedupStats::default() });
        dedup.clear();
        assert!(dedup.is_new("ab", "c", Some(1)));
        let mut none = Dedup::new(0);
        assert!(none.is_new("a", "b", Some(1)) && none.is_new("a", "b", Some(1)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Against a list that is searched: the least recently seen is forgotten, never more than the capacity is held.
        #[test]
        fn it_is_the_list_of_what_was_seen_last(events in prop::collection::vec((0u8..3, 0u64..12), 0..200), capacity in 1usize..9) {
            let mut dedup = Dedup::new(capacity);
            let mut list: VecDeque<(u8, u64)> = VecDeque::new();
            for event in events {
                let known = list.iter().position(|seen| *seen == event);
                if let Some(at) = known {
                    list.remove(at);
                }
                list.push_back(event);
                if list.len() > capacity {
                    list.pop_front();
                }
                prop_assert_eq!(dedup.is_new(&format!("s{}", event.0), "events", Some(event.1)), known.is_none());
                prop_assert_eq!(dedup.stats().held_events, list.len() as u64);
            }
        }
    }
}
