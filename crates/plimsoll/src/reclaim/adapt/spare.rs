//! Capacity given back: `clear` and `remove` free no memory of a `Vec` or `HashMap`, these do.
//!
//! Each leaves a sixteenth of room, and does nothing while less than an eighth is unused. The rest is moved: a `Vec` at about 4 MiB a
//! millisecond, a `HashMap` at about 20,000 entries a millisecond. For more than that under one lock, split it in shards and compact one
//! shard per slice.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};

/// Whether so much unused capacity is worth giving back.
fn worth(capacity: usize, len: usize) -> bool {
    capacity - len > len / 8
}

/// Gives unused capacity of a `Vec` back; how many bytes.
pub fn vec<T>(vec: &mut Vec<T>) -> u64 {
    let before = vec.capacity();
    if worth(before, vec.len()) {
        vec.shrink_to(vec.len() + vec.len() / 16);
    }
    ((before - vec.capacity()) * size_of::<T>()) as u64
}

/// Gives unused capacity of a `VecDeque` back; how many bytes.
pub fn deque<T>(deque: &mut VecDeque<T>) -> u64 {
    let before = deque.capacity();
    if worth(before, deque.len()) {
        deque.shrink_to(deque.len() + deque.len() / 16);
    }
    ((before - deque.capacity()) * size_of::<T>()) as u64
}

/// Gives unused capacity of a `HashMap` back; how many bytes. Its tables come in powers of two, of which 7/8 are used: only halves can be
/// given back.
///
/// # Examples
/// ```
/// let mut map: std::collections::HashMap<u64, u64> = (0..100_000).map(|n| (n, n)).collect();
/// map.retain(|key, _| *key < 1_000);
/// assert!(map.capacity() > 4_000, "removing frees no room");
/// assert!(plimsoll::reclaim::adapt::spare::map(&mut map) > 0);
/// assert!(map.capacity() < 2_000);
/// ```
pub fn map<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) -> u64 {
    let before = map_bytes(map);
    if map.capacity() > 2 * map.len() {
        map.shrink_to(map.len() + map.len() / 16);
    }
    before - map_bytes(map)
}

/// What the table of a `HashMap` takes, without what its entries own: an entry and a byte for each bucket. After removals a lower bound: a
/// place that was used and is free again is in no number that a `HashMap` tells, until it is compacted or grows.
pub fn map_bytes<K, V, S>(map: &HashMap<K, V, S>) -> u64 {
    let buckets = if map.capacity() == 0 { 0 } else { (map.capacity() * 8 / 7).next_power_of_two() };
    (buckets * (size_of::<(K, V)>() + 1)) as u64
}

#[cfg(test)]
mod tests {
    #[test]
    fn capacity_falls_and_is_told() {
        let mut vec: Vec<u64> = (0..10_000).collect();
        vec.truncate(5_000);
        assert_eq!(super::vec(&mut vec), (10_000 - vec.capacity() as u64) * 8);
        assert!(vec.capacity() < 5_400);
        assert_eq!(super::vec(&mut vec), 0, "and once is enough");
        let mut deque: std::collections::VecDeque<u64> = (0..10_000).collect();
        deque.truncate(100);
        assert!(super::deque(&mut deque) > 70_000 && deque.capacity() < 200);
    }
}
