//! A profile: what is live, by call stack, class or mapping. Values in bytes and objects; for sampled profiles the variance of each
//! (bytes²), which is what makes a difference between two of them a finding or noise.
//!
//! At most [`crate::parse::ENTRIES_MAX`] entries, [`crate::parse::FRAMES_MAX`] frames and [`TEXT_BYTES_MAX`] of their names.

pub mod diff;
mod frames;
mod site;

use std::collections::HashMap;
use std::sync::Arc;

use crate::digest::{Digest, Kind, MAX_KEY_BYTES, Row};

pub use frames::TEXT_BYTES_MAX;
pub(crate) use frames::{Frames, Texts, cut};
pub use site::{SKIPPED, is_plumbing, is_plumbing_file};

/// Rows of a digest, of each kind: the largest.
pub const DIGEST_ROWS: usize = 200;
/// Frames in the key of a stack, from the leaking function on.
pub const KEY_FRAMES: usize = 4;
/// Rows of a profile: the largest; all others are one row more.
pub const ROWS_MAX: usize = 1 << 16;
/// The row of all others.
const ALL_OTHERS: &str = "(all others)";
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
    pub name: Arc<str>,
    /// Source file, where it is known; of an address without a symbol the file that is mapped there.
    pub file: Arc<str>,
    /// Line, 0 where it is not known.
    pub line: u32,
    /// Of an address without a symbol: where in the mapped file; else 0.
    pub offset: u64,
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
    /// and up to three callers that are neither, `leak_small ← serve ← main`; of a longer one [`MAX_KEY_BYTES`] (1 KiB).
    #[must_use]
    pub fn key(&self, entry: &Entry) -> String {
        let frame = |at: &u32| self.frames.get(*at as usize);
        let frames: Vec<&Frame> = entry.frames.iter().filter_map(frame).collect();
        let told = site::told(&frames, site::is_skipped);
        key_of(told.map(|frame| site::short(&frame.name)))
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

    /// The rows, one a key, the most bytes first; of more than [`ROWS_MAX`] (65,536) the largest, and all others in one.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        self.largest(ROWS_MAX)
    }

    /// The largest rows, and all others in one. Only what is told of is written out: of a million stacks each key may be a KB.
    fn largest(&self, most: usize) -> Vec<Row> {
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        // Of each frame, the number of its name, and whether it is skipped.
        let known: Vec<(u32, bool)> = self
            .frames
            .iter()
            .map(|frame| {
                let next = numbers.len() as u32;
                (*numbers.entry(site::short(&frame.name)).or_insert(next), site::is_skipped(frame))
            })
            .collect();
        let mut sums: HashMap<[u32; KEY_FRAMES], (f64, f64)> = HashMap::new();
        for entry in &self.entries {
            let frames: Vec<&(u32, bool)> = entry.frames.iter().filter_map(|at| known.get(*at as usize)).collect();
            let mut key = [u32::MAX; KEY_FRAMES];
            let told = site::told(&frames, |frame| frame.1);
            key.iter_mut().zip(told).for_each(|(place, frame)| *place = frame.0);
            let (bytes, count) = sums.entry(key).or_default();
            *bytes += entry.bytes;
            *count += entry.count;
        }
        let mut names = vec![""; numbers.len()];
        numbers.into_iter().for_each(|(name, number)| names[number as usize] = name);
        let name = |number: &u32| names.get(*number as usize).copied();
        let mut sums: Vec<([u32; KEY_FRAMES], (f64, f64))> = sums.into_iter().collect();
        let by_name = |key: &[u32; KEY_FRAMES]| key.map(|number| name(&number));
        sums.sort_by(|(a, (a_bytes, _)), (b, (b_bytes, _))| {
            whole(*b_bytes).cmp(&whole(*a_bytes)).then_with(|| by_name(a).cmp(&by_name(b)))
        });
        let rest = sums.split_off(most.min(sums.len()));
        // Long keys that begin alike are one.
        let mut rows: HashMap<String, (f64, f64)> = HashMap::new();
        let told = sums.iter().map(|(key, sum)| (key_of(key.iter().map_while(name)), sum));
        for (key, (bytes, count)) in told.chain(rest.iter().map(|(_, sum)| (ALL_OTHERS.to_owned(), sum))) {
            let sum = rows.entry(key).or_default();
            (sum.0, sum.1) = (sum.0 + bytes, sum.1 + count);
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
        let mut rows = self.largest(DIGEST_ROWS);
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

/// Names as one key.
fn key_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut key = String::new();
    for name in names.take(KEY_FRAMES) {
        if !key.is_empty() {
            key.push_str(" ← ");
        }
        key.push_str(name);
        if key.len() > MAX_KEY_BYTES {
            key.truncate(cut(&key, MAX_KEY_BYTES).len());
            key.push('…');
            break;
        }
    }
    if key.is_empty() { "(no stack)".to_owned() } else { key }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each entry a stack of these names, of so many bytes.
    fn profile(entries: &[(&[&str], f64)]) -> Profile {
        let mut profile = Profile::new(Kind::Stack, Sampling::Counted);
        let mut frames = Frames::default();
        for (names, bytes) in entries {
            let mut stack = Vec::new();
            for name in *names {
                let frame = frames.named(name);
                stack.push(frames.index(frame, &mut profile.frames).unwrap());
            }
            profile.entries.push(Entry { frames: stack, bytes: *bytes, count: 1.0 });
        }
        profile
    }

    #[test]
    fn rows_are_the_largest_and_all_others_in_one() {
        let told =
            profile(&[(&["malloc", "a", "b"], 5.0), (&["a", "b"], 3.0), (&["c"], 2.0), (&["d"], 1.0), (&[], 1.0)]);
        let rows = |most| told.largest(most).into_iter().map(|row| (row.key, row.bytes, row.count)).collect::<Vec<_>>();
        let row = |key: &str, bytes, count| (key.to_owned(), bytes, count);
        assert_eq!(rows(9), [row("a ← b", 8, 2), row("c", 2, 1), row("(no stack)", 1, 1), row("d", 1, 1)]);
        assert_eq!(rows(1), [row("a ← b", 8, 2), row(ALL_OTHERS, 4, 3)]);
        assert!(told.entries.iter().all(|entry| told.rows().iter().any(|row| row.key == told.key(entry))));
    }

    #[test]
    fn a_key_is_bounded_however_long_its_names_are() {
        let long = ["é".repeat(300), "x".repeat(5_000), "y".repeat(5_000)];
        let told = profile(&[(&[&long[0], &long[1]], 2.0), (&[&long[0], &long[1], &long[2]], 1.0)]);
        let rows = told.rows();
        assert_eq!((rows.len(), rows[0].bytes), (1, 3), "what begins alike is one");
        assert!(rows[0].key.len() <= MAX_KEY_BYTES + 3 && rows[0].key.ends_with("x…"), "{}", rows[0].key.len());
    }
}
