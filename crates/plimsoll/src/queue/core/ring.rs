//! What waits, in its order. First in, first out, but one producer's oldest or newest may be taken out of the middle.
//!
//! What was taken out leaves an empty place; when there are more empty places than full ones (and more than
//! [`EMPTY_MAX`]), the ring is packed. So it has at most twice the places of what waits, and taking out costs a step or two,
//! packed places included: the search for a producer's oldest goes on where the last one ended.

use std::collections::VecDeque;

/// A ring that was once longer than this gives room back when it is emptied.
pub(in crate::queue) const KEPT_ITEMS: usize = 1024;
/// Fewer empty places than this are not worth packing.
const EMPTY_MAX: usize = 64;

/// One value that waits.
pub(in crate::queue) struct Entry<T> {
    /// `None`: it was taken out.
    pub(in crate::queue) value: Option<T>,
    pub(in crate::queue) bytes: u64,
    /// When it came, in milliseconds; wraps after 49 days.
    pub(in crate::queue) at_ms: u32,
    pub(in crate::queue) producer: u32,
}

pub(in crate::queue) struct Ring<T> {
    entries: VecDeque<Entry<T>>,
    empty: usize,
    /// The place of the first entry, counted from the beginning of the queue.
    base: u64,
    /// The most entries since it was last empty.
    burst: usize,
}

/// From where a producer's oldest is to be looked for: none of its values waits before it.
#[derive(Clone, Copy, Default)]
pub(super) struct Cursor(u64);

impl<T> Ring<T> {
    pub(in crate::queue) const fn new() -> Ring<T> {
        Ring { entries: VecDeque::new(), empty: 0, base: 0, burst: 0 }
    }

    /// How many values wait.
    #[inline]
    pub(in crate::queue) fn len(&self) -> usize {
        self.entries.len() - self.empty
    }

    #[inline]
    pub(in crate::queue) fn push(&mut self, entry: Entry<T>) {
        self.entries.push_back(entry);
    }

    /// Before something leaves: until then it only grew.
    fn note_burst(&mut self) {
        self.burst = self.burst.max(self.entries.len());
    }

    /// The oldest, its weight in bytes and whose it is; gives room back once the last is taken.
    pub(in crate::queue) fn pop(&mut self) -> Option<(T, u64, usize)> {
        self.note_burst();
        let popped = loop {
            let entry = self.entries.pop_front()?;
            self.base += 1;
            if let Some(value) = entry.value {
                break (value, entry.bytes, entry.producer as usize);
            }
            self.empty -= 1;
        };
        if self.len() == 0 {
            self.base += self.entries.len() as u64;
            self.entries.clear();
            self.empty = 0;
            give_room_back(&mut self.entries, std::mem::take(&mut self.burst));
        }
        Some(popped)
    }

    pub(super) fn oldest(&self) -> Option<&Entry<T>> {
        self.entries.iter().find(|entry| entry.value.is_some())
    }

    /// Takes a producer's oldest out.
    pub(super) fn take_oldest(&mut self, producer: u32, from: &mut Cursor) -> Option<(T, u64)> {
        let first = usize::try_from(from.0.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let is_it = |entry: &Entry<T>| entry.producer == producer && entry.value.is_some();
        let at = first + self.entries.iter().skip(first).position(is_it)?;
        from.0 = self.base + at as u64 + 1;
        self.take_out(at)
    }

    /// Takes a producer's newest out.
    pub(super) fn take_newest(&mut self, producer: u32) -> Option<(T, u64)> {
        let is_it = |entry: &Entry<T>| entry.producer == producer && entry.value.is_some();
        let at = self.entries.iter().rposition(is_it)?;
        self.take_out(at)
    }

    fn take_out(&mut self, at: usize) -> Option<(T, u64)> {
        self.note_burst();
        let entry = self.entries.get_mut(at)?;
        let (value, bytes) = (entry.value.take()?, entry.bytes);
        self.empty += 1;
        while self.entries.front().is_some_and(|entry| entry.value.is_none()) {
            self.entries.pop_front();
            self.base += 1;
            self.empty -= 1;
        }
        Some((value, bytes))
    }

    /// Whether the empty places are too many; the caller packs and forgets its cursors.
    pub(super) fn is_sparse(&self) -> bool {
        self.empty > EMPTY_MAX && self.empty > self.len()
    }

    pub(super) fn pack(&mut self) {
        self.entries.retain(|entry| entry.value.is_some());
        self.empty = 0;
    }

    /// Everything, in exchange for an empty ring, whose room is used again.
    pub(in crate::queue) fn swap(&mut self, other: &mut Ring<T>) {
        debug_assert!(other.entries.is_empty(), "a ring is poured before it is used again");
        self.note_burst();
        other.base = self.base + self.entries.len() as u64;
        std::mem::swap(self, other);
    }

    /// Moves the values to the end of `out`; keeps its room for the next time.
    pub(in crate::queue) fn pour(&mut self, out: &mut Vec<T>) {
        out.extend(self.entries.drain(..).filter_map(|entry| entry.value));
        self.empty = 0;
        give_room_back(&mut self.entries, std::mem::take(&mut self.burst));
    }

    #[cfg(all(test, not(loom)))]
    pub(in crate::queue) fn room_items(&self) -> usize {
        self.entries.capacity()
    }

    #[cfg(all(test, not(loom)))]
    pub(in crate::queue) fn places(&self) -> usize {
        self.entries.len()
    }

    #[cfg(all(test, not(loom)))]
    pub(in crate::queue) fn push_for_test(&mut self, value: T, producer: usize) {
        self.push(Entry { value: Some(value), bytes: 1, at_ms: 0, producer: producer as u32 });
    }
}

/// The cursors of three producers, and packing, as the core does it.
#[cfg(all(test, not(loom)))]
#[derive(Default)]
pub(in crate::queue) struct Cursors([Cursor; 3]);

#[cfg(all(test, not(loom)))]
impl Cursors {
    pub(in crate::queue) fn take_oldest<T>(&mut self, ring: &mut Ring<T>, producer: usize) -> Option<T> {
        let taken = ring.take_oldest(producer as u32, &mut self.0[producer]);
        self.pack(ring);
        taken.map(|(value, _)| value)
    }

    pub(in crate::queue) fn take_newest<T>(&mut self, ring: &mut Ring<T>, producer: usize) -> Option<T> {
        let taken = ring.take_newest(producer as u32);
        self.pack(ring);
        taken.map(|(value, _)| value)
    }

    fn pack<T>(&mut self, ring: &mut Ring<T>) {
        if ring.is_sparse() {
            ring.pack();
            self.0 = Default::default();
        }
    }
}

/// After a burst that is over: room for four times what was used is too much.
fn give_room_back<T>(empty: &mut VecDeque<T>, used: usize) {
    if empty.capacity() > KEPT_ITEMS && used < empty.capacity() / 4 {
        empty.shrink_to(used.max(KEPT_ITEMS));
    }
}
