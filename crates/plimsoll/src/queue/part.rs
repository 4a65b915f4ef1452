//! What one sender sent on credit, in its order: the values one behind another, and beside them, in runs, what is known of them. Where values
//! weigh the same and nobody else sends meanwhile, a thousand values have one run, and all that passes from one processor to the other is
//! the values themselves.

use super::core::{Entry, KEPT_ITEMS};

/// What is known of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) bytes: u64,
    /// When it came, in milliseconds; wraps after 49 days.
    pub(super) at_ms: u32,
    pub(super) producer: u32,
    /// Its place among what lies in several parts; wraps.
    pub(super) ticket: u32,
}

impl Note {
    pub(super) fn entry<T>(self, value: T) -> Entry<T> {
        let Note { bytes, at_ms, producer, .. } = self;
        Entry { value: Some(value), bytes, at_ms, producer }
    }
}

/// So many values of which the same is known.
struct Run {
    note: Note,
    count: u32,
}

pub(super) struct Part<T> {
    values: Vec<T>,
    runs: Vec<Run>,
}

impl<T> Part<T> {
    pub(super) const fn new() -> Part<T> {
        Part { values: Vec::new(), runs: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The note of the oldest.
    pub(super) fn first(&self) -> Option<&Note> {
        self.runs.first().map(|run| &run.note)
    }

    #[inline]
    pub(super) fn push(&mut self, value: T, note: Note) {
        match self.runs.last_mut() {
            Some(run) if run.note == note => run.count += 1,
            _ => self.runs.push(Run { note, count: 1 }),
        }
        self.values.push(value);
    }

    /// Moves everything out of `other` to the end of this.
    pub(super) fn append(&mut self, other: &mut Part<T>) {
        if self.is_empty() {
            std::mem::swap(self, other);
        } else {
            self.values.append(&mut other.values);
            self.runs.append(&mut other.runs);
        }
    }

    fn pouring(&mut self) -> Pouring<'_, T> {
        Pouring { values: self.values.drain(..), runs: self.runs.drain(..) }
    }

    /// Moves the values behind what is in `out`; without a copy where nothing is, and it has no more room than this.
    fn pour_values(&mut self, out: &mut Vec<T>) {
        self.runs.clear();
        if out.is_empty() && out.capacity() <= self.values.capacity() {
            std::mem::swap(&mut self.values, out);
        } else {
            out.append(&mut self.values);
        }
    }

    /// After a burst that is over: room for four times what lies here is too much.
    pub(super) fn give_room_back(&mut self) {
        fn give_back<T>(kept: &mut Vec<T>) {
            if kept.capacity() > KEPT_ITEMS && kept.len() < kept.capacity() / 4 {
                kept.shrink_to(kept.len().max(KEPT_ITEMS));
            }
        }
        give_back(&mut self.values);
        give_back(&mut self.runs);
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn places(&self) -> usize {
        self.values.capacity().max(self.runs.capacity())
    }
}

/// Empties these parts as [`merge`] does; what was room for far more than lay in one is given back.
pub(super) fn pour<T>(parts: &mut [Part<T>], pass: impl FnMut(T, Note)) {
    parts.iter_mut().for_each(Part::give_room_back);
    merge(parts.iter_mut(), pass);
}

/// As [`pour`], to the end of `out`.
pub(super) fn pour_values<T>(parts: &mut [Part<T>], out: &mut Vec<T>) {
    parts.iter_mut().for_each(Part::give_room_back);
    let mut full = parts.iter_mut().filter(|part| !part.is_empty());
    match (full.next(), full.next()) {
        (Some(only), None) => only.pour_values(out),
        _ => {
            out.reserve(parts.iter().map(|part| part.values.len()).sum());
            merge(parts.iter_mut(), |value, _| out.push(value));
        }
    }
}

/// A part that is being emptied.
struct Pouring<'a, T> {
    values: std::vec::Drain<'a, T>,
    runs: std::vec::Drain<'a, Run>,
}

impl<T> Pouring<'_, T> {
    fn ticket(&self) -> Option<u32> {
        self.runs.as_slice().first().map(|run| run.note.ticket)
    }

    /// Passes the oldest run on; false: there is none.
    fn pass_run(&mut self, pass: &mut impl FnMut(T, Note)) -> bool {
        let Some(Run { note, count }) = self.runs.next() else { return false };
        self.values.by_ref().take(count as usize).for_each(|value| pass(value, note));
        true
    }
}

/// Passes on what lies in these parts in the order in which it was sent: the next is the first with the least ticket.
pub(super) fn merge<'a, T: 'a>(parts: impl Iterator<Item = &'a mut Part<T>>, mut pass: impl FnMut(T, Note)) {
    let mut parts = parts.filter(|part| !part.is_empty());
    let Some(first) = parts.next() else { return };
    let Some(second) = parts.next() else {
        let mut alone = first.pouring();
        while alone.pass_run(&mut pass) {}
        return;
    };
    let mut parts: Vec<_> = [first, second].into_iter().chain(parts).map(Part::pouring).collect();
    while parts.len() > 1 {
        // Tickets wrap: they are compared as distances from one of them.
        let Some(base) = parts[0].ticket() else { return };
        let rank = |ticket: u32| ticket.wrapping_sub(base) as i32;
        let ranks = parts.iter().enumerate().filter_map(|(place, part)| Some((rank(part.ticket()?), place)));
        let (mut first, mut second) = ((i32::MAX, 0), i32::MAX);
        for (rank, place) in ranks {
            if rank < first.0 {
                (first, second) = ((rank, place), first.0);
            } else {
                second = second.min(rank);
            }
        }
        let part = &mut parts[first.1];
        while part.ticket().is_some_and(|ticket| rank(ticket) <= second) {
            part.pass_run(&mut pass);
        }
        if part.ticket().is_none() {
            parts.swap_remove(first.1);
        }
    }
    for part in &mut parts {
        while part.pass_run(&mut pass) {}
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Values that say their ticket, in a part.
    fn part(tickets: &[u32]) -> Part<u32> {
        let mut part = Part::new();
        tickets.iter().for_each(|ticket| part.push(*ticket, Note { bytes: 1, at_ms: 0, producer: 0, ticket: *ticket }));
        part
    }

    #[test]
    fn parts_are_poured_in_the_order_of_their_tickets_also_where_those_wrap() {
        let last = u32::MAX;
        let parts = || [part(&[last - 1, last - 1, 0, 3]), part(&[]), part(&[last, 1, 1]), part(&[2, 4])];
        let expected = [last - 1, last - 1, last, 0, 1, 1, 2, 3, 4];
        let (mut all, mut values) = (Vec::new(), vec![7]);
        pour(&mut parts(), |value, note| all.push((value, note.ticket)));
        assert_eq!(all, expected.map(|ticket| (ticket, ticket)));
        pour_values(&mut parts(), &mut values);
        assert_eq!(values, [&[7][..], &expected].concat(), "behind what is there");
    }

    #[test]
    fn one_part_alone_is_handed_over_and_no_vector_loses_room() {
        let (mut parts, mut out) = ([part(&[1, 2, 3])], Vec::new());
        let place = parts[0].values.as_ptr();
        pour_values(&mut parts, &mut out);
        assert_eq!((out.as_slice(), out.as_ptr()), (&[1, 2, 3][..], place), "without a copy");
        let mut roomy = Vec::with_capacity(100);
        pour_values(&mut [part(&[4])], &mut roomy);
        assert_eq!((roomy.as_slice(), roomy.capacity() >= 100), (&[4][..], true));
        assert!(parts[0].is_empty() && parts[0].first().is_none());
    }
}
