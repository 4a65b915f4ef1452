//! A profile: what is live, by call stack, class or mapping. Values in bytes and objects; for sampled profiles the variance of each
//! (bytes²), which is what makes a difference between two of them a finding or noise.
//!
//! At most [`crate::parse::ENTRIES_MAX`] entries and [`crate::parse::FRAMES_MAX`] frames.

pub mod diff;
mod site;

use std::collections::HashMap;

use crate::digest::{Digest, Kind, Row};

pub use site::{SKIPPED, is_plumbing, is_plumbing_file};

/// Rows of a digest, of each kind: the largest.
pub const DIGEST_ROWS: usize = 200;
/// Frames in the key of a stack, from the leaking function on.
pub const KEY_FRAMES: usize = 4;
/// Mapped files that are kept of one profile.
pub const MAPPED_MAX: usize = 1 << 10;

/// How the figures of a profile came about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// Everything was counted.
    Counted,
    /// One sample each so many bytes on average; figures are scaled up to what was allocated.
    Every {
        /// Mean bytes between samples.
        bytes: u64,
    },
    /// Sampled, at a rate that the file does not say: no error bars can be given.
    Unknown,
}

impl Sampling {
    /// Variance of an estimate of so many bytes: rate × bytes (jemalloc, `PROFILING_INTERNALS.md`; Go and V8 sample alike).
    #[must_use]
    pub fn variance(self, bytes: f64) -> f64 {
        match self {
            Sampling::Counted | Sampling::Unknown => 0.0,
            Sampling::Every { bytes: rate } => rate as f64 * bytes.max(0.0),
        }
    }
}

/// A function, class or mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Its name; for an address without a symbol `mapping+0xoffset`.
    pub name: String,
    /// Source file, where it is known; of an address without a symbol the file that is mapped there.
    pub file: String,
    /// Line, 0 where it is not known.
    pub line: u32,
    /// Of an address without a symbol: where in the mapped file; else 0.
    pub offset: u64,
}

impl Frame {
    /// An address that nothing names: `name+0xoffset` of the mapped file, the same wherever it is loaded.
    pub(crate) fn address(file: &str, offset: u64) -> Frame {
        let name = file.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("?");
        Frame { name: format!("{name}+{offset:#x}"), file: file.to_owned(), line: 0, offset }
    }
}

/// A mapped file that frames without a symbol are in ([`Frame::offset`] is not 0), and how to tell that file from another of its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapped {
    /// Its path, as the program saw it; [`Frame::file`] of those frames.
    pub file: String,
    /// Its inode; 0 where the profile does not say.
    pub inode: u64,
    /// It was removed, or another put in its place, while the program ran.
    pub is_deleted: bool,
    /// Its build id in hexadecimal digits; empty where the profile does not say.
    pub build: String,
}

/// What is live of one stack, class or mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Indices of its frames, the leaf first; one for a class or mapping.
    pub frames: Vec<u32>,
    /// Bytes, scaled up where they were sampled.
    pub bytes: f64,
    /// Objects, scaled up where they were sampled.
    pub count: f64,
}

/// What is live.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// What an entry stands for.
    pub kind: Kind,
    /// When it was taken, nanoseconds since 1970; 0 where the file does not say.
    pub unix_ns: u64,
    /// How the figures came about.
    pub sampling: Sampling,
    /// Build ids of the program's files: two profiles that share none are of different builds, and addresses do not compare.
    pub builds: Vec<String>,
    /// The frames.
    pub frames: Vec<Frame>,
    /// The entries.
    pub entries: Vec<Entry>,
    /// Files that frames without a symbol are in; at most [`MAPPED_MAX`].
    pub mapped: Vec<Mapped>,
    /// Figures of the whole process, by name: `rss`, `pss`.
    pub totals: Vec<(&'static str, u64)>,
}

impl Profile {
    pub(crate) fn new(kind: Kind, sampling: Sampling) -> Profile {
        Profile {
            kind,
            unix_ns: 0,
            sampling,
            builds: Vec::new(),
            frames: Vec::new(),
            entries: Vec::new(),
            mapped: Vec::new(),
            totals: Vec::new(),
        }
    }

    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> f64 {
        self.entries.iter().fold(0.0, |sum, entry| sum + entry.bytes)
    }

    /// All objects.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.entries.iter().fold(0.0, |sum, entry| sum + entry.count)
    }

    /// The key of an entry: for a stack the function that is to blame — the first that is neither allocator nor standard library —
    /// and up to three callers that are neither, `leak_small ← serve ← main`.
    #[must_use]
    pub fn key(&self, entry: &Entry) -> String {
        let frame = |at: &u32| self.frames.get(*at as usize);
        let frames: Vec<&Frame> = entry.frames.iter().filter_map(frame).collect();
        let blamed = site::blamed(&frames);
        let mut frames = frames.into_iter().skip(blamed);
        let callers = |frame: &&Frame| !site::is_skipped(frame);
        let names = frames.next().into_iter().chain(frames.filter(callers)).take(KEY_FRAMES);
        let names: Vec<&str> = names.map(|f| site::short(&f.name)).collect();
        if names.is_empty() { "(no stack)".to_owned() } else { names.join(" ← ") }
    }

    /// Where the blamed function is: `src/main.rs:12`; empty where it is not known.
    #[must_use]
    pub fn place(&self, entry: &Entry) -> String {
        let frames: Vec<&Frame> = entry.frames.iter().filter_map(|at| self.frames.get(*at as usize)).collect();
        match frames.get(site::blamed(&frames)) {
            Some(frame) if !frame.file.is_empty() && frame.offset == 0 => format!("{}:{}", frame.file, frame.line),
            _ => String::new(),
        }
    }

    /// Notes that a frame without a symbol is in this file.
    pub(crate) fn maps(&mut self, mapped: Mapped) {
        if self.mapped.len() < MAPPED_MAX && self.mapped.iter().all(|known| known.file != mapped.file) {
            self.mapped.push(mapped);
        }
    }

    /// The rows, one a key, the most bytes first.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: HashMap<String, (f64, f64)> = HashMap::new();
        for entry in &self.entries {
            let (bytes, count) = rows.entry(self.key(entry)).or_default();
            *bytes += entry.bytes;
            *count += entry.count;
        }
        let row = |(key, (bytes, count)): (String, (f64, f64))| Row {
            kind: self.kind,
            key,
            bytes: whole(bytes),
            count: whole(count),
            variance: self.sampling.variance(bytes),
        };
        let mut rows: Vec<Row> = rows.into_iter().map(row).collect();
        rows.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.key.cmp(&b.key)));
        rows
    }

    /// The largest [`DIGEST_ROWS`] rows, the rest in one, and the totals.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut rows = self.rows();
        if let Some(rest) = rows.split_off_checked(DIGEST_ROWS) {
            let sum = |of: fn(&Row) -> u64| rest.iter().map(of).fold(0_u64, u64::saturating_add);
            let variance = rest.iter().map(|row| row.variance).sum();
            let key = "(all others)".to_owned();
            rows.push(Row { kind: self.kind, key, bytes: sum(|r| r.bytes), count: sum(|r| r.count), variance });
        }
        let total = |(key, bytes): &(&'static str, u64)| total(key, *bytes, 0.0);
        if self.totals.is_empty() {
            rows.push(total_of_entries(self));
        }
        rows.extend(self.totals.iter().map(total));
        Digest { unix_ns: self.unix_ns, rows, ..Digest::default() }
    }
}

fn total_of_entries(profile: &Profile) -> Row {
    let bytes = profile.bytes();
    Row { count: whole(profile.count()), ..total("live", whole(bytes), profile.sampling.variance(bytes)) }
}

fn total(key: &str, bytes: u64, variance: f64) -> Row {
    Row { kind: Kind::Total, key: key.to_owned(), bytes, count: 1, variance }
}

/// A figure that is neither negative nor larger than can be counted.
pub(crate) fn whole(value: f64) -> u64 {
    value.max(0.0).round() as u64
}

trait SplitOff<T> {
    /// What is beyond `at`; `None` where nothing is.
    fn split_off_checked(&mut self, at: usize) -> Option<Vec<T>>;
}

impl<T> SplitOff<T> for Vec<T> {
    fn split_off_checked(&mut self, at: usize) -> Option<Vec<T>> {
        (self.len() > at).then(|| self.split_off(at))
    }
}

/// Frames by what they are, so that each is kept once.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    known: HashMap<Frame, u32>,
}

impl Frames {
    /// The index of this frame, a new one where it is not known; `None` when there are too many.
    pub(crate) fn index(&mut self, frame: Frame, all: &mut Vec<Frame>) -> Option<u32> {
        if let Some(at) = self.known.get(&frame) {
            return Some(*at);
        }
        if all.len() >= crate::parse::FRAMES_MAX {
            return None;
        }
        let at = u32::try_from(all.len()).ok()?;
        all.push(frame.clone());
        self.known.insert(frame, at);
        Some(at)
    }
}
