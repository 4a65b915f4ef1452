//! The lines of a report, both ways: datagrams of at most [`DATAGRAM_BYTES_MAX`] (8 KiB) and [`LINES_MAX`] (512) lines.
//!
//! A line is `KEY=` and words `word=value` with one blank between them; a value is a number or a lower-case word, and the last word
//! may be `name=` with the rest of the line (at most [`NAME_BYTES_MAX`] bytes, no control characters). The first line of every
//! datagram is `PLIMSOLL_REPORT=1`, the version. What is not known is left out, never 0; a reader skips keys and words that it
//! does not know. A report that does not fit one datagram goes on in the next: `MORE=1` ends all parts but the last, of which
//! there are at most [`PARTS_MAX`]; lines beyond are cut and counted. Writing and reading allocate nothing.

use std::fmt::{self, Write as _};

/// The version that stands in the first line.
pub const VERSION: u32 = 1;
/// The longest datagram in bytes.
pub const DATAGRAM_BYTES_MAX: usize = 8 << 10;
/// The most lines in one datagram.
pub const LINES_MAX: usize = 512;
/// The most datagrams of one report.
pub const PARTS_MAX: u32 = 8;
/// The longest name in bytes; a longer one is cut.
pub const NAME_BYTES_MAX: usize = 64;

const FIRST: &str = "PLIMSOLL_REPORT=";
const MORE: &str = "MORE=1\n";

/// The keys that this version writes.
pub mod key {
    /// Which report this is a part of: `report`, `part` (from 1), `at_ms` (the kernel's monotonic clock).
    pub const PART: &str = "PART";
    /// The library: its version as the name.
    pub const LIBRARY: &str = "LIBRARY";
    /// `protected_bytes`, `live_bytes`, `live_age_ms`, `accounted_bytes`, `threshold_bytes`.
    pub const MEMORY: &str = "MEMORY";
    /// `level`, `blind`, `soft`, `leaving`, `growth_bytes_per_second`, `confidence_ratio`, `time_to_limit_ms`.
    pub const LEVEL: &str = "LEVEL";
    /// All accounts: `count`, `held_bytes`; the largest follow.
    pub const ACCOUNTS: &str = "ACCOUNTS";
    /// One account: `held_bytes`, `cap_bytes`, `clamp_bytes`, `refused_total`, `forced_bytes_total`.
    pub const ACCOUNT: &str = "ACCOUNT";
    /// One queue: `items`, `bytes`, `oldest_ms`, `max_items`, `max_bytes`, `peak_items`, `peak_bytes`, `closed`, `producers`.
    pub const QUEUE: &str = "QUEUE";
    /// One producer of the queue before it: `accepted_items_total`, `accepted_bytes_total`, `delivered_items_total`.
    pub const PRODUCER: &str = "PRODUCER";
    /// What the producer before it lost, for the reason that is the name: `items_total`, `bytes_total`.
    pub const DROPPED: &str = "DROPPED";
    /// What was given back to the producer before it, for the reason that is the name: `items_total`, `bytes_total`.
    pub const REFUSED: &str = "REFUSED";
    /// `ordered_bytes_total`, `claimed_bytes_total`, `withdrawn_bytes_total`, `in_flight_bytes`, `stuck`, `stuck_total`, `purges_total`.
    pub const RECLAIM: &str = "RECLAIM";
    /// One store: `held_bytes`, `asked_bytes_total`, `claimed_bytes_total`, `late_total`, `late_ms`, `panics_total`.
    pub const STORE: &str = "STORE";
    /// Any other figure: `value`; its name ends in its unit, that of a counter in `_total`.
    pub const GAUGE: &str = "GAUGE";
    /// What became of the sender's datagrams: `sent_total`, `full_total`, `gone_total`, `denied_total`, `failed_total`,
    /// `cut_lines_total`, `panics_total`.
    pub const SENDER: &str = "SENDER";
    /// `leaving` (1: I leave for memory; 0: no longer), `deadline_ms`, `protected_bytes`, `threshold_bytes`, `at_unix_ms`.
    pub const LEAVE: &str = "LEAVE";
    /// One line of the last words: free text.
    pub const WORDS: &str = "WORDS";
}

/// A value of a word. `Option`: `None` is left out.
pub trait Value: Copy {
    /// Writes `word=value` and a blank before it where it is not the first; nothing for `None`.
    fn put(self, word: &str, line: &mut Line<'_>);
}

macro_rules! values {
    ($($kind:ty)*) => {$(
        impl Value for $kind {
            fn put(self, word: &str, line: &mut Line<'_>) {
                line.word(word, format_args!("{self}"));
            }
        }
    )*};
}
values!(u64 u32 usize crate::level::Level);

impl Value for f64 {
    fn put(self, word: &str, line: &mut Line<'_>) {
        if self.is_finite() {
            line.word(word, format_args!("{self}"));
        }
    }
}

impl Value for bool {
    fn put(self, word: &str, line: &mut Line<'_>) {
        line.word(word, format_args!("{}", u8::from(self)));
    }
}

impl<T: Value> Value for Option<T> {
    fn put(self, word: &str, line: &mut Line<'_>) {
        if let Some(value) = self {
            value.put(word, line);
        }
    }
}

/// One line that is being written.
pub struct Line<'a> {
    bytes: &'a mut [u8],
    len: usize,
    empty: bool,
    fits: bool,
}

impl Line<'_> {
    /// A word and its value.
    pub fn put(&mut self, word: &str, value: impl Value) -> &mut Self {
        value.put(word, self);
        self
    }

    /// The name, which ends the line: control characters become `?`, what is longer than [`NAME_BYTES_MAX`] is cut.
    pub fn name(&mut self, name: &str) {
        self.names([name]);
    }

    /// A name in pieces.
    pub(super) fn names<const N: usize>(&mut self, pieces: [&str; N]) {
        self.blank();
        self.write_str("name=").ok();
        let mut room = NAME_BYTES_MAX;
        for piece in pieces {
            let cut = cut(piece, room);
            room -= cut.len();
            self.clean(cut);
        }
    }

    /// Free text instead of words.
    fn clean(&mut self, text: &str) {
        for c in text.chars() {
            self.write_char(if c.is_control() { '?' } else { c }).ok();
        }
    }

    fn word(&mut self, word: &str, value: fmt::Arguments<'_>) {
        self.blank();
        write!(self, "{word}={value}").ok();
    }

    fn blank(&mut self) {
        if !std::mem::take(&mut self.empty) {
            self.write_char(' ').ok();
        }
    }
}

impl fmt::Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match self.bytes.get_mut(self.len..self.len + text.len()) {
            Some(room) => {
                room.copy_from_slice(text.as_bytes());
                self.len += text.len();
                Ok(())
            }
            None => {
                self.fits = false;
                Err(fmt::Error)
            }
        }
    }
}

/// At most so many bytes of a text, cut at a character.
pub(super) fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

/// A datagram that is being written. Made once, used again.
pub struct Part {
    bytes: Box<[u8; DATAGRAM_BYTES_MAX]>,
    len: usize,
    lines: usize,
}

impl Part {
    /// An empty one; all that it will ever need is allocated here.
    pub fn new() -> Part {
        Part { bytes: Box::new([0; DATAGRAM_BYTES_MAX]), len: 0, lines: 0 }
    }

    /// Begins a new datagram: the version.
    pub fn begin(&mut self) {
        (self.len, self.lines) = (0, 0);
        // Fits: the datagram is empty.
        self.raw(|line| write!(line, "{FIRST}{VERSION}").ok());
    }

    /// Adds a line; false, and nothing is added, where it does not fit.
    pub fn line(&mut self, key: &str, words: impl Fn(&mut Line<'_>)) -> bool {
        self.raw(|line| {
            write!(line, "{key}=").ok();
            words(line);
            Some(())
        })
    }

    /// Adds a line of free text.
    pub fn text(&mut self, key: &str, text: &str) -> bool {
        self.raw(|line| {
            write!(line, "{key}=").ok();
            line.clean(text);
            Some(())
        })
    }

    fn raw(&mut self, write: impl FnOnce(&mut Line<'_>) -> Option<()>) -> bool {
        // The room for `MORE=1` is kept free.
        let room = DATAGRAM_BYTES_MAX - MORE.len();
        let mut line = Line { bytes: &mut self.bytes[self.len..room], len: 0, empty: true, fits: true };
        write(&mut line);
        line.write_char('\n').ok();
        let fits = line.fits && self.lines + 1 < LINES_MAX;
        if fits {
            self.len += line.len;
            self.lines += 1;
        }
        fits
    }

    /// Says that the report goes on.
    fn more(&mut self) {
        self.bytes[self.len..self.len + MORE.len()].copy_from_slice(MORE.as_bytes());
        self.len += MORE.len();
    }

    /// The datagram.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Default for Part {
    fn default() -> Part {
        Part::new()
    }
}

/// Writes one report, part after part.
pub struct Writer<'a> {
    part: &'a mut Part,
    report: u64,
    number: u32,
    at_ms: u64,
    send: &'a mut dyn FnMut(&[u8]) -> bool,
    heard: bool,
    cut: u64,
}

impl<'a> Writer<'a> {
    /// Begins report number `report`. `send` takes each datagram; false: it was not taken, and the rest is not sent either.
    pub fn new(part: &'a mut Part, report: u64, at_ms: u64, send: &'a mut dyn FnMut(&[u8]) -> bool) -> Writer<'a> {
        let mut writer = Writer { part, report, number: 0, at_ms, send, heard: true, cut: 0 };
        writer.next();
        writer
    }

    fn next(&mut self) {
        self.number += 1;
        self.part.begin();
        let (report, number, at_ms) = (self.report, self.number, self.at_ms);
        self.part.line(key::PART, |line| {
            line.put("report", report).put("part", number).put("at_ms", at_ms);
        });
    }

    /// Adds a line, in the next part where this one is full.
    pub fn line(&mut self, key: &str, words: impl Fn(&mut Line<'_>)) {
        if !self.heard || self.part.line(key, &words) {
            return;
        }
        if self.number < PARTS_MAX {
            self.part.more();
            self.heard = (self.send)(self.part.bytes());
            self.next();
            if !self.heard || self.part.line(key, &words) {
                return;
            }
        }
        self.cut += 1;
    }

    /// Sends the last part. Lines that had no room, and whether every part was taken.
    pub fn end(self) -> (u64, bool) {
        let heard = self.heard && (self.send)(self.part.bytes());
        (self.cut, heard)
    }
}

/// Why a datagram is no report that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// Longer than [`DATAGRAM_BYTES_MAX`], or of more than [`LINES_MAX`] lines.
    #[error("more than {DATAGRAM_BYTES_MAX} bytes or {LINES_MAX} lines")]
    TooLong,
    /// It does not begin with `PLIMSOLL_REPORT=`.
    #[error("does not begin with {FIRST}")]
    NoReport,
    /// It is of a version that is not known here.
    #[error("a version that is not known")]
    Version,
    /// A line, counted from 1, is not `KEY=` and words, or not text.
    #[error("line {0}: not KEY= and words")]
    Line(usize),
}

/// A datagram that was looked through: every line of it is well formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a>(&'a str);

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its key; one of [`key`], or one of a later version.
    pub key: &'a str,
    value: &'a str,
}

/// Reads a datagram. Allocates nothing.
///
/// # Errors
/// [`Malformed`]: nothing of it is to be used then.
pub fn read(bytes: &[u8]) -> Result<Datagram<'_>, Malformed> {
    if !bytes.starts_with(FIRST.as_bytes()) {
        return Err(Malformed::NoReport);
    }
    if bytes.len() > DATAGRAM_BYTES_MAX {
        return Err(Malformed::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Malformed::Line(bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1)
    })?;
    let (first, rest) = text.split_once('\n').ok_or(Malformed::Line(1))?;
    if first[FIRST.len()..].parse() != Ok(VERSION) {
        return Err(Malformed::Version);
    }
    for (n, line) in rest.lines().enumerate() {
        if n + 2 > LINES_MAX {
            return Err(Malformed::TooLong);
        }
        if !record(line).is_some_and(Record::is_well_formed) {
            return Err(Malformed::Line(n + 2));
        }
    }
    Ok(Datagram(rest))
}

fn record(line: &str) -> Option<Record<'_>> {
    let (key, value) = line.split_once('=')?;
    let plain = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    (plain && !line.contains(char::is_control)).then_some(Record { key, value })
}

impl<'a> Datagram<'a> {
    /// The lines after the first, in their order; `MORE=1` is not among them.
    pub fn records(self) -> impl Iterator<Item = Record<'a>> {
        self.0.lines().filter_map(record).filter(|record| record.key != "MORE")
    }

    /// Whether the report goes on in the next datagram.
    pub fn has_more(self) -> bool {
        self.0.ends_with(MORE)
    }
}

impl<'a> Record<'a> {
    /// Words and values, and the name behind them.
    fn split(self) -> (&'a str, &'a str) {
        match self.value.strip_prefix("name=") {
            Some(name) => ("", name),
            None => self.value.split_once(" name=").unwrap_or((self.value, "")),
        }
    }

    fn words(self) -> impl Iterator<Item = &'a str> {
        self.split().0.split(' ').filter(|word| !word.is_empty())
    }

    fn is_well_formed(self) -> bool {
        if matches!(self.key, key::WORDS | "MORE") {
            return true;
        }
        let lower = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'-' | b'0'..=b'9'))
        };
        let value = |text: &str| text.parse::<f64>().is_ok_and(f64::is_finite) || lower(text);
        self.words().all(|word| word.split_once('=').is_some_and(|(word, text)| lower(word) && value(text)))
    }

    /// The value of a word as it stands.
    pub fn word(self, word: &str) -> Option<&'a str> {
        self.words().find_map(|pair| pair.strip_prefix(word)?.strip_prefix('='))
    }

    /// The value of a word as a whole number.
    pub fn number(self, word: &str) -> Option<u64> {
        self.word(word)?.parse().ok()
    }

    /// The value of a word as a finite number.
    pub fn real(self, word: &str) -> Option<f64> {
        self.word(word)?.parse().ok().filter(|value: &f64| value.is_finite())
    }

    /// Whether the value of a word is 1.
    pub fn is(self, word: &str) -> bool {
        self.number(word) == Some(1)
    }

    /// The name, at most [`NAME_BYTES_MAX`] bytes of it; empty when there is none.
    pub fn name(self) -> &'a str {
        cut(self.split().1, NAME_BYTES_MAX)
    }

    /// All behind the key.
    pub fn text(self) -> &'a str {
        self.value
    }
}
