//! The most frequent of many, in the memory of a few: *space-saving* (A. Metwally, D. Agrawal, A. El Abbadi: Efficient Computation of
//! Frequent and Top-k Elements in Data Streams, ICDT 2005), with weights.
//!
//! With room for k: whatever makes up more than 1/k of all lines is there, and a count is at most [`Counted::over_lines`] too high, never
//! too low. Until k different templates were seen, every count is exact.

use std::hash::{BuildHasher, RandomState};

/// See the top of the file.
#[derive(Clone, Debug)]
pub struct Sketch {
    capacity: usize,
    hasher: RandomState,
    /// Hash and lines of each entry stand by themselves: they are what is searched.
    hashes: Vec<u64>,
    lines: Vec<u64>,
    entries: Vec<Entry>,
    total_lines: u64,
    total_bytes: u64,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    template: Vec<u8>,
    bytes: u64,
    over_lines: u64,
    over_bytes: u64,
}

/// A template and how much of it there was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// The template.
    pub template: Vec<u8>,
    /// Lines of it; at most [`Counted::over_lines`] too many.
    pub lines: u64,
    /// Their bytes, line ends included; at most [`Counted::over_bytes`] too many.
    pub bytes: u64,
    /// What `lines` may be too high by. 0: exact.
    pub over_lines: u64,
    /// What `bytes` may be too high by.
    pub over_bytes: u64,
}

impl Sketch {
    /// Room for `capacity` templates, at least one. Finding one costs a look at each: some hundred are cheap, thousands are not.
    pub fn new(capacity: usize) -> Sketch {
        Sketch {
            capacity: capacity.max(1),
            hasher: RandomState::new(),
            hashes: Vec::new(),
            lines: Vec::new(),
            entries: Vec::new(),
            total_lines: 0,
            total_bytes: 0,
        }
    }

    /// Counts `lines` lines of `template` with `bytes` bytes together.
    pub fn add(&mut self, template: &[u8], lines: u64, bytes: u64) {
        self.total_lines += lines;
        self.total_bytes += bytes;
        let hash = self.hasher.hash_one(template);
        if let Some(at) =
            self.hashes.iter().position(|h| *h == hash).filter(|at| self.entries[*at].template == template)
        {
            self.lines[at] += lines;
            self.entries[at].bytes += bytes;
        } else if self.entries.len() < self.capacity {
            self.hashes.push(hash);
            self.lines.push(lines);
            self.entries.push(Entry { template: template.to_vec(), bytes, ..Entry::default() });
        } else if let Some((at, least)) = self.lines.iter().copied().enumerate().min_by_key(|(_, lines)| *lines) {
            self.hashes[at] = hash;
            self.lines[at] = least + lines;
            let entry = &mut self.entries[at];
            entry.template.clear();
            entry.template.extend_from_slice(template);
            (entry.over_lines, entry.over_bytes) = (least, entry.bytes);
            entry.bytes += bytes;
        }
    }

    /// Lines counted, of all templates; exact.
    pub fn total_lines(&self) -> u64 {
        self.total_lines
    }

    /// Bytes counted; exact.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// How many templates are kept; with [`Sketch::is_full`] there may have been more.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// As many templates as there is room for: further ones displaced the rarest.
    pub fn is_full(&self) -> bool {
        self.entries.len() == self.capacity
    }

    /// What is kept, most bytes first.
    pub fn counted(&self) -> Vec<Counted> {
        Sketch::sum(&[self])
    }

    /// What several sketches have together, most bytes first. What one of them lacks, it may have displaced: that much is added to what
    /// the count may be off by.
    pub fn sum(sketches: &[&Sketch]) -> Vec<Counted> {
        let mut all: Vec<Counted> = Vec::new();
        for (i, sketch) in sketches.iter().enumerate() {
            for (entry, lines) in sketch.entries.iter().zip(&sketch.lines) {
                if all.iter().any(|known| known.template == entry.template) {
                    continue;
                }
                let mut counted = Counted { template: entry.template.clone(), ..Counted::default() };
                counted.add(entry, *lines);
                for (j, other) in sketches.iter().enumerate().filter(|(j, _)| *j != i) {
                    match other.entries.iter().position(|e| e.template == entry.template) {
                        Some(at) => counted.add(&other.entries[at], other.lines[at]),
                        // An earlier one was looked through: this one would be known.
                        None if other.is_full() && j != i => counted.miss(other),
                        None => {}
                    }
                }
                all.push(counted);
            }
        }
        all.sort_by(|a, b| (b.bytes, &a.template).cmp(&(a.bytes, &b.template)));
        all
    }
}

impl Counted {
    fn add(&mut self, entry: &Entry, lines: u64) {
        self.lines += lines;
        self.bytes += entry.bytes;
        self.over_lines += entry.over_lines;
        self.over_bytes += entry.over_bytes;
    }

    fn miss(&mut self, sketch: &Sketch) {
        let Some((at, least)) = sketch.lines.iter().copied().enumerate().min_by_key(|(_, lines)| *lines) else {
            return;
        };
        self.lines += least;
        self.over_lines += least;
        self.bytes += sketch.entries[at].bytes;
        self.over_bytes += sketch.entries[at].bytes;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn with_room_for_all_every_count_is_exact() {
        let mut sketch = Sketch::new(3);
        for (template, lines) in [("a", 1), ("b", 5), ("a", 2), ("c", 1)] {
            sketch.add(template.as_bytes(), lines, lines * 10);
        }
        let all: Vec<_> = sketch.counted().into_iter().map(|c| (c.template, c.lines, c.bytes, c.over_lines)).collect();
        assert_eq!(all, [(b"b".to_vec(), 5, 50, 0), (b"a".to_vec(), 3, 30, 0), (b"c".to_vec(), 1, 10, 0)]);
        assert_eq!((sketch.total_lines(), sketch.total_bytes()), (9, 90));
    }

    proptest! {
        #[test]
        fn the_frequent_are_there_and_the_bound_holds(
            stream in proptest::collection::vec((0..40_u8, 1..5_u64), 1..600),
            capacity in 2..20_usize,
            cut in 0..600_usize,
        ) {
            let cut = cut.min(stream.len());
            let mut exact = BTreeMap::new();
            let (mut one, mut two) = (Sketch::new(capacity), Sketch::new(capacity));
            for (i, (what, lines)) in stream.iter().enumerate() {
                *exact.entry(vec![*what]).or_insert(0) += lines;
                if i < cut { &mut one } else { &mut two }.add(&[*what], *lines, lines * 7);
            }
            let total: u64 = exact.values().sum();
            prop_assert_eq!(one.total_lines() + two.total_lines(), total);
            let counted = Sketch::sum(&[&one, &two]);
            for found in &counted {
                let really = exact[&found.template];
                prop_assert!(really <= found.lines && found.lines <= really + found.over_lines, "{:?}: {}", found, really);
            }
            for (template, lines) in exact {
                let frequent = lines > total / capacity as u64 + total / capacity as u64;
                prop_assert!(!frequent || counted.iter().any(|found| found.template == template), "{:?}", template);
            }
        }
    }
}
