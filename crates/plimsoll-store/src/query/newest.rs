//! The newest n of the entries that come by, in whatever order: what `tail` keeps.

use std::collections::BTreeMap;

use super::entry::entry;
use crate::chunk::Item;
use crate::{Entry, EntryKind, Query, Stream};

/// See the top of the file.
pub(super) struct Newest {
    n: usize,
    /// Entries at or behind this position are not taken.
    below: u64,
    entries: BTreeMap<u64, Owned>,
}

/// An entry with its own text.
struct Owned {
    at_unix_ns: u64,
    stream: Stream,
    position: u64,
    text: Vec<u8>,
    /// With an empty text in place of `text`.
    kind: EntryKind<'static>,
}

impl Newest {
    pub(super) fn new(n: usize, below: u64) -> Newest {
        Newest { n, below, entries: BTreeMap::new() }
    }

    /// What there is, oldest first.
    pub(super) fn entries(&self) -> impl DoubleEndedIterator<Item = Entry<'_>> {
        self.entries.values().map(Owned::as_entry)
    }

    /// Keeps `item` if `query` wants it and it is new enough.
    pub(super) fn offer(&mut self, query: &Query, stream: Stream, item: Item<'_>) {
        if self.n == 0 || item.position >= self.below || self.has_all_from(item.position) {
            return;
        }
        let entry = entry(stream, item);
        if !query.takes(&entry) {
            return;
        }
        self.entries.insert(entry.position, Owned::of(&entry));
        if self.entries.len() > self.n {
            self.entries.pop_first();
        }
    }

    /// There are enough, all of them behind `position`.
    pub(super) fn has_all_from(&self, position: u64) -> bool {
        self.entries.len() >= self.n && self.entries.first_key_value().is_none_or(|(oldest, _)| *oldest > position)
    }
}

impl Owned {
    fn of(entry: &Entry<'_>) -> Owned {
        let (text, kind) = match entry.kind {
            EntryKind::Line { text, level, continued, unterminated } => {
                (text.to_vec(), EntryKind::Line { text: &[], level, continued, unterminated })
            }
            EntryKind::Gap { lines, bytes, from_unix_ns, to_unix_ns, reason } => {
                (Vec::new(), EntryKind::Gap { lines, bytes, from_unix_ns, to_unix_ns, reason })
            }
        };
        let Entry { at_unix_ns, stream, position, .. } = *entry;
        Owned { at_unix_ns, stream, position, text, kind }
    }

    fn as_entry(&self) -> Entry<'_> {
        let kind = match self.kind {
            EntryKind::Line { level, continued, unterminated, .. } => {
                EntryKind::Line { text: &self.text, level, continued, unterminated }
            }
            gap @ EntryKind::Gap { .. } => gap,
        };
        Entry { at_unix_ns: self.at_unix_ns, stream: self.stream, position: self.position, kind }
    }
}
