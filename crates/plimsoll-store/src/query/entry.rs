//! What a reader asks for, and what it gets.

use std::ops::ControlFlow;

use super::pattern::Pattern;
use crate::chunk::Item;
use crate::filter::Needed;
use crate::split::Found;
use crate::{GapReason, LogLevel, Stream};

/// Which entries are wanted. `Query::default()` is all of them.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Not before this time, nanoseconds since 1970-01-01 UTC.
    pub since_unix_ns: Option<u64>,
    /// Before this time.
    pub until_unix_ns: Option<u64>,
    /// Of these streams; none named is all.
    pub streams: Vec<Stream>,
    /// Lines that say that they are at least so bad; a line that says nothing is not.
    pub min_level: Option<LogLevel>,
    /// Lines in which this is found.
    pub pattern: Option<Pattern>,
}

impl Query {
    /// Whether `entry` is wanted. Level and pattern are asked of lines only: a gap of the time and the streams asked for always is, since
    /// nobody can say what its lines were.
    pub fn takes(&self, entry: &Entry<'_>) -> bool {
        if !self.takes_stream(entry.stream) {
            return false;
        }
        let (first, last) = match entry.kind {
            EntryKind::Gap { from_unix_ns, to_unix_ns, .. } => (from_unix_ns, to_unix_ns.max(entry.at_unix_ns)),
            EntryKind::Line { .. } => (entry.at_unix_ns, entry.at_unix_ns),
        };
        if self.since_unix_ns.is_some_and(|since| last < since)
            || self.until_unix_ns.is_some_and(|until| first >= until)
        {
            return false;
        }
        match entry.kind {
            EntryKind::Gap { .. } => true,
            EntryKind::Line { text, level, .. } => {
                level >= self.min_level && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(text))
            }
        }
    }

    /// What a chunk must have in its token filter, if anything.
    pub(super) fn needed(&self) -> Option<&Needed> {
        self.pattern.as_ref().map(Pattern::needed).filter(|needed| !needed.is_nothing())
    }

    /// The same question of lines that are known to have the pattern.
    pub(super) fn without_pattern(&self) -> Query {
        Query { pattern: None, streams: self.streams.clone(), ..*self }
    }

    pub(super) fn takes_stream(&self, stream: Stream) -> bool {
        self.streams.is_empty() || self.streams.contains(&stream)
    }
}

/// How many entries a query wants; see [`Reader::count`](crate::Reader::count).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Lines; of a line that is longer than `Settings::max_line_bytes`, each piece.
    pub lines: u64,
    /// Places where lines are missing.
    pub gaps: u64,
    /// Lines that are missing there, at least.
    pub gap_lines: u64,
}

impl Counted {
    /// Counts one more entry.
    pub fn count(&mut self, entry: &Entry<'_>) {
        self.add(match entry.kind {
            EntryKind::Line { .. } => Counted { lines: 1, ..Counted::default() },
            EntryKind::Gap { lines, .. } => Counted { lines: 0, gaps: 1, gap_lines: lines },
        });
    }

    pub(super) fn add(&mut self, more: Counted) {
        self.lines += more.lines;
        self.gaps += more.gaps;
        self.gap_lines += more.gap_lines;
    }
}

/// A line, or a place where lines are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// When its last byte was read, nanoseconds since 1970-01-01 UTC.
    pub at_unix_ns: u64,
    /// Where it came from.
    pub stream: Stream,
    /// Its place in the order of all entries; see the top of the module.
    pub position: u64,
    /// What it is.
    pub kind: EntryKind<'a>,
}

/// What an [`Entry`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind<'a> {
    /// A line, or a piece of one.
    Line {
        /// Its bytes, as they came, without the line end.
        text: &'a [u8],
        /// What it says about itself; each piece of a long line is judged for itself.
        level: Option<LogLevel>,
        /// The line goes on in the stream's next entry: it is longer than `Settings::max_line_bytes`.
        continued: bool,
        /// The line ended without a line end, because its writer did.
        unterminated: bool,
    },
    /// Lines that are missing.
    Gap {
        /// How many; exact if [`GapReason::is_exact`] says so, otherwise at least so many.
        lines: u64,
        /// Bytes that found no room, as far as they were counted.
        bytes: u64,
        /// When the first of them came, nanoseconds since 1970-01-01 UTC.
        from_unix_ns: u64,
        /// When the last of them came.
        to_unix_ns: u64,
        /// Why.
        reason: GapReason,
    },
}

/// What a frame's split gave, as a chunk would hold it.
pub(super) fn item(position: u64, at_unix_ns: u64, found: Found<'_>) -> Item<'_> {
    let level = match found {
        Found::Line { text, .. } => LogLevel::detect(text),
        Found::Gap { .. } => None,
    };
    Item { position, at_unix_ns, level, found }
}

pub(super) fn entry<'a>(stream: Stream, item: Item<'a>) -> Entry<'a> {
    let kind = match item.found {
        Found::Line { text, continued, unterminated } => {
            EntryKind::Line { text, level: item.level, continued, unterminated }
        }
        Found::Gap { lines, bytes, from_unix_ns, to_unix_ns, reason } => {
            EntryKind::Gap { lines, bytes, from_unix_ns, to_unix_ns, reason }
        }
    };
    Entry { at_unix_ns: item.at_unix_ns, stream, position: item.position, kind }
}

pub(super) fn offer(
    query: &Query,
    stream: Stream,
    item: Item<'_>,
    sink: &mut dyn FnMut(Entry<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let entry = entry(stream, item);
    if query.takes(&entry) { sink(entry) } else { ControlFlow::Continue(()) }
}
