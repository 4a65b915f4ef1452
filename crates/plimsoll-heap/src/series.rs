//! One figure over time: what trends and verdicts are made of, whatever it was read from. Points are kept in order of time, at
//! most [`POINTS_MAX`] (10⁵) of them; more are thinned to the median of equal spans.
//!
//! A value is a count of bytes, or of things; a point knows the variance of its value (0 where it was counted) and the life
//! of the process that it was read in.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::digest::{Digest, Kind};

/// The most points that one series keeps. A sample a minute for two months.
pub const POINTS_MAX: usize = 100_000;
/// The most keys of a kind that are made into series of digests; the largest by their last value stay.
pub const KEYS_MAX: usize = 2_000;
/// The most points of all series of one kind of digests together (64 MiB).
pub const KEYS_POINTS_MAX: usize = 1 << 21;
/// How much later than now a reading may be and is still believed, in seconds: two machines' clocks differ. See [`of_one_time`].
pub const AHEAD_MAX_SECONDS: f64 = 3_600.0;
/// Shorter gaps between readings never part them, in seconds.
pub const GAP_MAX_SECONDS: f64 = 30.0 * 86_400.0;
/// … nor do gaps of less than so many usual ones.
pub const GAPS_MAX: f64 = 10.0;

/// What a value counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    #[default]
    Bytes,
    /// Things: descriptors, threads, objects.
    Count,
}

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// When, in seconds since 1970.
    pub unix_seconds: f64,
    /// How much.
    pub value: f64,
    /// Variance of `value` from sampling, in its unit squared: 0 where it was counted.
    pub variance: f64,
    /// Tells one life of the process from the next; 0 where that is not known.
    pub life: u64,
}

impl Point {
    /// A counted value of a life that is not known.
    #[must_use]
    pub fn counted(unix_seconds: f64, value: f64) -> Point {
        Point { unix_seconds, value, variance: 0.0, life: 0 }
    }
}

/// One figure over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// What it is a series of: a class, a stack, an owner path, `rss`, `fds socket`.
    pub key: String,
    /// What its values count.
    pub unit: Unit,
    points: Vec<Point>,
}

impl Series {
    /// A series of these points, in whatever order they come; those without a finite time or value are left out.
    #[must_use]
    pub fn new(key: impl Into<String>, unit: Unit, points: impl IntoIterator<Item = Point>) -> Series {
        let finite = |p: &Point| p.unix_seconds.is_finite() && p.value.is_finite() && p.variance.is_finite();
        let mut points: Vec<Point> = points.into_iter().filter(finite).collect();
        points.sort_by(|a, b| a.unix_seconds.total_cmp(&b.unix_seconds));
        let mut series = Series { key: key.into(), unit, points };
        if series.points.len() > POINTS_MAX {
            series.points = thin(&series.points, POINTS_MAX / 2);
        }
        series
    }

    /// The points, in order of time.
    #[must_use]
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// From the first point to the last, in seconds; 0 with fewer than two.
    #[must_use]
    pub fn span_seconds(&self) -> f64 {
        match (self.points.first(), self.points.last()) {
            (Some(first), Some(last)) => last.unix_seconds - first.unix_seconds,
            _ => 0.0,
        }
    }

    /// The part of it between two times (seconds since 1970), both included.
    #[must_use]
    pub fn between(&self, from: f64, until: f64) -> Series {
        let points = self.points.iter().filter(|p| (from..=until).contains(&p.unix_seconds)).copied().collect();
        Series { key: self.key.clone(), unit: self.unit, points }
    }
}

/// The median of each of `spans` equal spans of time, life by life, in order of time; an empty span gives none.
fn thin(points: &[Point], spans: usize) -> Vec<Point> {
    let mut thinned: Vec<Point> = equal_spans(&by_life(points), spans).into_iter().map(middle).collect();
    thinned.sort_by(|a, b| a.unix_seconds.total_cmp(&b.unix_seconds));
    thinned
}

/// Points in order of time, reordered so that those of a life stand together, the life that began first before the others: processes
/// that run side by side take turns in time. What is in that order already is not copied.
pub(crate) fn by_life(points: &[Point]) -> Cow<'_, [Point]> {
    let mut begun: HashMap<u64, usize> = HashMap::new();
    let mut runs = 0;
    for run in points.chunk_by(|a, b| a.life == b.life) {
        runs += 1;
        let next = begun.len();
        begun.entry(run[0].life).or_insert(next);
    }
    if runs == begun.len() {
        return Cow::Borrowed(points);
    }
    let mut ordered = points.to_vec();
    ordered.sort_by_key(|point| begun[&point.life]);
    Cow::Owned(ordered)
}

/// The points of each of about `spans` equal spans of time, life by life; empty spans are left out. Takes them [`by_life`]; where lives
/// overlap, the time of all of them together is divided, so that there are no more spans.
pub(crate) fn equal_spans(points: &[Point], spans: usize) -> Vec<&[Point]> {
    let first = points.iter().map(|p| p.unix_seconds).fold(f64::INFINITY, f64::min);
    let last = points.iter().map(|p| p.unix_seconds).fold(first, f64::max);
    let lives = points.chunk_by(|a, b| a.life == b.life);
    let lived: f64 = lives.map(|life| life[life.len() - 1].unix_seconds - life[0].unix_seconds).sum();
    let width = ((last - first).max(lived) / spans.max(1) as f64).max(f64::MIN_POSITIVE);
    let span = |p: &Point| ((p.unix_seconds - first) / width) as usize;
    points.chunk_by(|a, b| span(a) == span(b) && a.life == b.life).collect()
}

/// One point in place of several: their mean time and median value, and the variance of their mean.
pub(crate) fn middle(points: &[Point]) -> Point {
    let n = points.len() as f64;
    Point {
        unix_seconds: points.iter().map(|p| p.unix_seconds).sum::<f64>() / n,
        value: median(points.iter().map(|p| p.value).collect()),
        variance: points.iter().map(|p| p.variance).sum::<f64>() / (n * n),
        life: points.first().map_or(0, |p| p.life),
    }
}

/// The median; 0 of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    let n = values.len();
    if n == 0 {
        return 0.0;
    }
    let (below, middle, _) = values.select_nth_unstable_by(n / 2, f64::total_cmp);
    let middle = *middle;
    if n % 2 == 1 { middle } else { f64::midpoint(middle, below.iter().copied().fold(f64::NEG_INFINITY, f64::max)) }
}

/// A series for each key of this kind in the digests. Where a digest has rows of the kind but not of the key, the key was 0.
///
/// Of more than [`KEYS_MAX`] keys the largest, by their greatest value, are kept; of so many digests that all their points would be more
/// than [`KEYS_POINTS_MAX`], fewer keys. Nothing is held of a key that is not kept but its name and greatest value.
#[must_use]
pub fn of_digests<'a>(digests: impl IntoIterator<Item = &'a Digest>, kind: Kind) -> Vec<Series> {
    let has_rows = |digest: &&Digest| digest.rows.iter().any(|row| row.kind == kind);
    let mut order: Vec<&Digest> = digests.into_iter().filter(has_rows).collect();
    order.sort_by_key(|digest| digest.unix_ns);
    let keys = largest_keys(&order, kind, KEYS_MAX.min(KEYS_POINTS_MAX / order.len().max(1)));
    let places: HashMap<&str, usize> = keys.iter().enumerate().map(|(at, key)| (*key, at)).collect();
    let mut points: Vec<Vec<Point>> = keys.iter().map(|_| Vec::new()).collect();
    for digest in order {
        let mut told: HashMap<usize, Point> = HashMap::new();
        for row in digest.rows.iter().filter(|row| row.kind == kind) {
            if let Some(at) = places.get(row.key.as_str()) {
                let point = told.entry(*at).or_insert_with(|| empty(digest));
                point.value += row.bytes as f64;
                point.variance += row.variance;
            }
        }
        for (at, points) in points.iter_mut().enumerate() {
            // A figure of the process that was not read is missing; a class that is not there has no bytes.
            points.extend(told.remove(&at).or_else(|| (kind != Kind::Total).then(|| empty(digest))));
        }
    }
    keys.into_iter().zip(points).map(|(key, points)| Series::new(key, unit_of(kind, key), points)).collect()
}

/// The keys of the greatest values, at most so many, the greatest first.
fn largest_keys<'a>(digests: &[&'a Digest], kind: Kind, most: usize) -> Vec<&'a str> {
    let mut greatest: HashMap<&str, u64> = HashMap::new();
    for row in digests.iter().flat_map(|digest| &digest.rows).filter(|row| row.kind == kind) {
        let value = greatest.entry(&row.key).or_default();
        *value = row.bytes.max(*value);
    }
    let mut keys: Vec<_> = greatest.into_iter().collect();
    keys.sort_unstable_by_key(|(key, value)| (std::cmp::Reverse(*value), *key));
    keys.truncate(most);
    keys.into_iter().map(|(key, _)| key).collect()
}

/// Of times in order (seconds since 1970), those that may be judged together: none later than an hour ([`AHEAD_MAX_SECONDS`]) after `now`,
/// and nothing before the last gap that is longer than 30 days ([`GAP_MAX_SECONDS`]) and ten usual gaps ([`GAPS_MAX`]). A clock that was
/// wrong for a while puts a single reading years away, and all others would then be one moment.
#[must_use]
pub fn of_one_time(times: &[f64], now: f64) -> std::ops::Range<usize> {
    let until = times.partition_point(|time| *time <= now + AHEAD_MAX_SECONDS);
    let gaps: Vec<f64> = times[..until].windows(2).map(|pair| pair[1] - pair[0]).collect();
    let most = GAP_MAX_SECONDS.max(GAPS_MAX * median(gaps.clone()));
    let from = gaps.iter().rposition(|gap| *gap > most).map_or(0, |at| at + 1);
    from..until
}

fn empty(digest: &Digest) -> Point {
    Point { unix_seconds: digest.unix_ns as f64 / 1e9, value: 0.0, variance: 0.0, life: digest.life }
}

/// Figures of the process that are no bytes.
fn unit_of(kind: Kind, key: &str) -> Unit {
    let counted = ["fds", "threads", "processes", "objects", "sockets"];
    match kind {
        Kind::Total if counted.iter().any(|word| key.starts_with(word)) => Unit::Count,
        _ => Unit::Bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Row;

    #[test]
    fn points_come_in_any_order_and_what_is_not_finite_is_left_out() {
        let at = [3.0, 1.0, f64::NAN, 2.0];
        let series = Series::new("x", Unit::Bytes, at.map(|t| Point::counted(t, t)));
        assert_eq!(series.points().iter().map(|p| p.value).collect::<Vec<_>>(), [1.0, 2.0, 3.0]);
        assert_eq!(series.span_seconds(), 2.0);
        assert_eq!(series.between(1.5, 2.5).points().len(), 1);
    }

    #[test]
    fn a_long_series_is_thinned() {
        let long = (0..3 * POINTS_MAX).map(|i| Point::counted(i as f64, i as f64));
        let series = Series::new("x", Unit::Bytes, long);
        assert!((POINTS_MAX / 3..=POINTS_MAX).contains(&series.points().len()), "{}", series.points().len());
        assert!(series.points().is_sorted_by(|a, b| a.value < b.value));
    }

    #[test]
    fn processes_that_take_turns_are_thinned_each_for_itself() {
        let turns =
            (0..3 * POINTS_MAX as u64).map(|i| Point { life: i % 2, ..Point::counted(i as f64, (i % 2) as f64) });
        let series = Series::new("x", Unit::Bytes, turns);
        assert!((POINTS_MAX / 3..=POINTS_MAX).contains(&series.points().len()), "{}", series.points().len());
        assert!(series.points().is_sorted_by(|a, b| a.unix_seconds <= b.unix_seconds));
        assert!(series.points().iter().all(|p| p.value == p.life as f64), "no median of two processes");
    }

    #[test]
    fn medians() {
        for (values, expected) in [(vec![], 0.0), (vec![5.0], 5.0), (vec![9.0, 1.0], 5.0), (vec![3.0, 1.0, 2.0], 2.0)] {
            assert_eq!(median(values), expected);
        }
    }

    #[test]
    fn keys_that_never_come_again_cost_no_more_than_their_names() {
        let row = |key: String, bytes| Row { kind: Kind::Owner, key, bytes, count: 1, variance: 0.0 };
        let digest = |at: u64| {
            let once = (0..40).map(|n| row(format!("once {at} {n}"), 10 + at % 7));
            let rows = once.chain([row("always".to_owned(), 1_000 + at)]).collect();
            Digest { unix_ns: at * 1_000_000_000, life: 7, rows, ..Digest::default() }
        };
        let digests: Vec<Digest> = (0..100).map(digest).collect();
        let series = of_digests(&digests, Kind::Owner);
        assert_eq!((series.len(), series[0].key.as_str(), series[0].points().len()), (KEYS_MAX, "always", 100));
        assert_eq!(series[0].points()[99].value, 1_099.0);
        // Those that are kept are the largest.
        assert!(series.iter().all(|one| one.points().iter().any(|p| p.value >= 13.0)));
        let few = |most| largest_keys(&digests.iter().collect::<Vec<_>>(), Kind::Owner, most);
        assert_eq!(few(2), ["always", "once 13 0"]);
        // Of very many digests fewer keys.
        let many = (0..KEYS_POINTS_MAX / 64).map(|at| &digests[at % 2]);
        assert_eq!(of_digests(many, Kind::Owner).len(), 64);
    }

    #[test]
    fn a_clock_that_was_wrong_takes_nothing_away() {
        let day = 86_400.0;
        let hours = |n: usize| (0..n).map(|at| 1.79e9 + at as f64 * 3_600.0).collect::<Vec<f64>>();
        let now = 1.79e9 + 2.0 * day;
        let with = |more: &[f64]| {
            let mut times = [hours(48).as_slice(), more].concat();
            times.sort_by(f64::total_cmp);
            of_one_time(&times, now)
        };
        assert_eq!(with(&[]), 0..48);
        assert_eq!(with(&[now + 3_650.0 * day]), 0..48, "ten years ahead");
        assert_eq!(with(&[now + 600.0]), 0..49, "another machine's clock");
        assert_eq!(with(&[0.0, 60.0]), 2..50, "1970");
        assert_eq!(with(&[1.79e9 - 20.0 * day]), 0..49, "three weeks without a reading");
        let monthly: Vec<f64> = (0..9).map(|at| 1.7e9 + f64::from(at) * 31.0 * day).collect();
        assert_eq!(of_one_time(&monthly, now), 0..9);
        assert_eq!(of_one_time(&[], now), 0..0);
    }

    #[test]
    fn a_class_that_is_not_there_has_no_bytes_and_a_figure_not_read_is_missing() {
        let row = |kind, key: &str, bytes| Row { kind, key: key.into(), bytes, count: 1, variance: 0.0 };
        let digest = |at, rows| Digest { unix_ns: at, life: 7, rows, ..Digest::default() };
        let digests = [
            digest(2_000_000_000, vec![row(Kind::Class, "Map", 50), row(Kind::Total, "rss", 9)]),
            digest(1_000_000_000, vec![row(Kind::Class, "Set", 10)]),
        ];
        let classes = of_digests(&digests, Kind::Class);
        let values = |s: &Series| s.points().iter().map(|p| (p.unix_seconds, p.value)).collect::<Vec<_>>();
        assert_eq!(classes.iter().map(|s| s.key.as_str()).collect::<Vec<_>>(), ["Map", "Set"]);
        assert_eq!(values(&classes[0]), [(1.0, 0.0), (2.0, 50.0)]);
        assert_eq!(values(&of_digests(&digests, Kind::Total)[0]), [(2.0, 9.0)]);
        assert_eq!(of_digests(&digests, Kind::Owner), []);
    }
}
