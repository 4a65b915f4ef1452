//! What changed between two profiles, by stack, class or mapping: objects and bytes before, after and the difference, each with its
//! error bar where it was sampled. Bytes throughout.
//!
//! Both sides are scaled to what was allocated, so two rates compare; the variance of a difference is the sum of both, rate × bytes
//! each. What is within [`NOISE_WIDTH`] standard deviations of nothing is noise, and said to be. Most of what two profiles of a
//! default rate differ by is.

use std::collections::BTreeMap;

use super::{Profile, Sampling};
use crate::digest::{Kind, Row};

/// Standard deviations within which a difference is noise: one in 370 of what did not change is beyond them.
pub const NOISE_WIDTH: f64 = 3.0;

/// What became of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Not there before.
    New,
    /// Not there any more.
    Gone,
    /// More bytes.
    Grown,
    /// Fewer bytes.
    Shrunk,
    /// As many bytes.
    Same,
}

/// One key, before and after.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Stack, class or mapping, as [`Profile::key`] writes it.
    pub key: String,
    /// Bytes before.
    pub before_bytes: u64,
    /// Bytes after.
    pub after_bytes: u64,
    /// Objects before.
    pub before_count: u64,
    /// Objects after.
    pub after_count: u64,
    /// [`NOISE_WIDTH`] standard deviations of the difference in bytes; 0 where both sides were counted.
    pub error_bytes: f64,
    /// What became of it.
    pub fate: Fate,
}

impl Change {
    /// Bytes after less bytes before.
    #[must_use]
    pub fn delta_bytes(&self) -> i64 {
        signed(self.after_bytes).saturating_sub(signed(self.before_bytes))
    }

    /// Objects after less objects before.
    #[must_use]
    pub fn delta_count(&self) -> i64 {
        signed(self.after_count).saturating_sub(signed(self.before_count))
    }

    /// The difference is no larger than sampling makes it.
    #[must_use]
    pub fn is_noise(&self) -> bool {
        self.error_bytes > 0.0 && (self.delta_bytes() as f64).abs() < self.error_bytes
    }
}

/// Two profiles compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Diff {
    /// What a key names.
    pub kind: Kind,
    /// What surely grew most first; then what surely shrank, then what is within the noise.
    pub changes: Vec<Change>,
    /// All keys together.
    pub total: Change,
    /// What a reader must know of the two: other builds, other rates, no error bars.
    pub notes: Vec<String>,
}

/// Compares two profiles.
///
/// # Errors
/// A sentence, when they are of different kinds: stacks do not compare with classes.
///
/// # Examples
///
/// ```
/// use plimsoll_heap::{parse::jvm, profile::diff::diff};
///
/// let read = |text: &str| jvm::read(text.as_bytes()).unwrap().0;
/// let found = diff(&read("1: 2 64 [B\nTotal 2 64\n"), &read("1: 9 288 [B\nTotal 9 288\n")).unwrap();
/// assert_eq!((found.changes[0].key.as_str(), found.changes[0].delta_bytes()), ("byte[]", 224));
/// ```
pub fn diff(before: &Profile, after: &Profile) -> Result<Diff, String> {
    if before.kind != after.kind {
        return Err(format!("one is by {}, the other by {}", before.kind.word(), after.kind.word()));
    }
    let mut notes = Vec::new();
    match (before.sampling, after.sampling) {
        (Sampling::Every { bytes: a }, Sampling::Every { bytes: b }) if a != b => {
            notes.push(format!("sampled every {a} and every {b} bytes; both are scaled to what was allocated"));
        }
        (Sampling::Unknown, _) | (_, Sampling::Unknown) => {
            notes.push("a sampling rate is not known: no error bars, and small differences mean nothing".to_owned());
        }
        (Sampling::Counted, Sampling::Every { .. }) | (Sampling::Every { .. }, Sampling::Counted) => {
            notes.push("one was counted, the other sampled".to_owned());
        }
        _ => {}
    }
    let known = !before.builds.is_empty() && !after.builds.is_empty();
    let other_build = known && !before.builds.iter().any(|build| after.builds.contains(build));
    let has_addresses =
        [before, after].iter().any(|p| p.frames.iter().any(|f| f.offset > 0 || f.name.starts_with("0x")));
    if other_build {
        notes.push(if has_addresses {
            "of different builds: what has no symbol does not compare".to_owned()
        } else {
            "of different builds: what was renamed or moved is new here and gone there".to_owned()
        });
    }
    Ok(of_rows(before.kind, &before.rows(), &after.rows(), notes))
}

/// Compares rows of one kind: of two profiles, or of two digests.
#[must_use]
pub fn of_rows(kind: Kind, before: &[Row], after: &[Row], notes: Vec<String>) -> Diff {
    type Side = (u64, u64, f64);
    let mut keys: BTreeMap<&str, [Option<Side>; 2]> = BTreeMap::new();
    for (side, rows) in [before, after].into_iter().enumerate() {
        for row in rows.iter().filter(|row| row.kind == kind) {
            let place = &mut keys.entry(&row.key).or_default()[side];
            let (bytes, count, variance) = place.unwrap_or_default();
            *place = Some((bytes.saturating_add(row.bytes), count.saturating_add(row.count), variance + row.variance));
        }
    }
    let mut total = [(0, 0, 0.0); 2];
    let mut changes: Vec<Change> = Vec::with_capacity(keys.len());
    for (key, sides) in &keys {
        for (sum, side) in total.iter_mut().zip(sides) {
            let (bytes, count, variance): Side = side.unwrap_or_default();
            *sum = (u64::saturating_add(sum.0, bytes), u64::saturating_add(sum.1, count), sum.2 + variance);
        }
        changes.push(change(key, *sides));
    }
    let rank = |c: &Change| match (c.is_noise(), c.delta_bytes()) {
        (true, _) => 2,
        (false, delta) if delta < 0 => 1,
        (false, _) => 0,
    };
    changes.sort_by(|a, b| {
        rank(a)
            .cmp(&rank(b))
            .then(b.delta_bytes().unsigned_abs().cmp(&a.delta_bytes().unsigned_abs()))
            .then(a.key.cmp(&b.key))
    });
    Diff { kind, changes, total: change("total", total.map(Some)), notes }
}

fn change(key: &str, [before, after]: [Option<(u64, u64, f64)>; 2]) -> Change {
    let (b, a) = (before.unwrap_or_default(), after.unwrap_or_default());
    let fate = match (before.is_some(), after.is_some(), a.0.cmp(&b.0)) {
        (false, _, _) => Fate::New,
        (_, false, _) => Fate::Gone,
        (_, _, std::cmp::Ordering::Greater) => Fate::Grown,
        (_, _, std::cmp::Ordering::Less) => Fate::Shrunk,
        (_, _, std::cmp::Ordering::Equal) => Fate::Same,
    };
    Change {
        key: key.to_owned(),
        before_bytes: b.0,
        after_bytes: a.0,
        before_count: b.1,
        after_count: a.1,
        error_bytes: NOISE_WIDTH * (b.2 + a.2).max(0.0).sqrt(),
        fate,
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Entry, Frame};

    fn profile(rate: u64, entries: &[(&str, f64)]) -> Profile {
        let sampling = if rate == 0 { Sampling::Counted } else { Sampling::Every { bytes: rate } };
        let mut profile = Profile::new(Kind::Stack, sampling);
        for (name, bytes) in entries {
            let at = profile.frames.len() as u32;
            profile.frames.push(Frame { name: (*name).into(), ..Frame::default() });
            profile.entries.push(Entry { frames: vec![at], bytes: *bytes, count: 1.0 });
        }
        profile
    }

    #[test]
    fn a_constant_cache_under_sampling_is_no_change() {
        // Twelve real dumps of a cache of about 49,000 KiB, sampled every 512 KiB, in KiB.
        let dumps =
            [54.3, 66.6, 48.6, 50.7, 49.7, 56.3, 46.1, 45.6, 50.7, 55.8, 44.6, 53.8].map(|kib: f64| kib * 1_024_000.0);
        for pair in dumps.windows(2) {
            let of = |bytes| profile(512 << 10, &[("fill_cache", bytes)]);
            let found = diff(&of(pair[0]), &of(pair[1])).unwrap();
            assert!(found.changes[0].is_noise(), "{:?}", found.changes[0]);
        }
    }

    #[test]
    fn what_surely_grew_comes_first_and_noise_last() {
        let before = profile(1 << 10, &[("noise", 9e6), ("leak", 1e6), ("gone", 5e6)]);
        let after = profile(4 << 10, &[("noise", 8.9e6), ("leak", 6e6), ("new", 2e6)]);
        let found = diff(&before, &after).unwrap();
        let order: Vec<_> = found.changes.iter().map(|c| (c.key.as_str(), c.fate)).collect();
        let expected = [("leak", Fate::Grown), ("new", Fate::New), ("gone", Fate::Gone), ("noise", Fate::Shrunk)];
        assert_eq!(order, expected);
        assert_eq!(found.total.delta_bytes(), 1_900_000);
        assert_eq!(found.notes, ["sampled every 1024 and every 4096 bytes; both are scaled to what was allocated"]);
        let error = NOISE_WIDTH * (1_024.0 * 1e6 + 4_096.0 * 6e6_f64).sqrt();
        assert!((found.changes[0].error_bytes - error).abs() < 1.0);
    }

    #[test]
    fn what_was_counted_has_no_error() {
        let found = diff(&profile(0, &[("Map", 10.0)]), &profile(0, &[("Map", 11.0)])).unwrap();
        assert_eq!((found.changes[0].error_bytes, found.changes[0].is_noise()), (0.0, false));
        assert!(found.notes.is_empty());
    }

    #[test]
    fn other_builds_are_noticed() {
        let build = |name: &str| Profile { builds: vec![name.to_owned()], ..profile(9, &[("a", 1.0)]) };
        assert!(diff(&build("x"), &build("x")).unwrap().notes.is_empty());
        assert!(diff(&build("x"), &build("y")).unwrap().notes[0].starts_with("of different builds"));
        let classes = Profile { kind: Kind::Class, ..profile(0, &[]) };
        assert_eq!(diff(&build("x"), &classes).unwrap_err(), "one is by stack, the other by class");
    }
}
