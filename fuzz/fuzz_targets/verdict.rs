//! The verdict: any series is judged, with finite figures.
#![no_main]

use plimsoll_heap::series::{Point, Series, Unit};
use plimsoll_heap::trend::Setup;
use plimsoll_heap::verdict::{judge, judge_all, split};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let number = |part: &[u8]| f64::from_bits(part.iter().fold(0, |sum, b| sum << 8 | u64::from(*b)));
    let points = bytes.chunks_exact(17).map(|part| Point {
        unix_seconds: number(&part[..8]),
        value: number(&part[8..16]),
        variance: 0.0,
        life: u64::from(part[16]),
    });
    let verdict = judge(&Series::new("x", Unit::Bytes, points.clone()), &Setup::default().limit(Some(1e9)));
    assert!(!verdict.reasons.is_empty() && (0.0..=1.0).contains(&verdict.confidence));
    // The same without lives, where falls may be restarts; as keys of one heap; and beside what lives of it.
    let unmarked: Vec<Point> = points.map(|point| Point { life: 0, ..point }).collect();
    let live = Series::new("live", Unit::Bytes, unmarked.iter().rev().map(|point| Point { value: point.value / 2.0, ..*point }));
    let keys = [Series::new("x", Unit::Bytes, unmarked), live];
    for (key, verdict) in keys.iter().zip(judge_all(&keys, &Setup::default())) {
        let judged = split(verdict, key, &keys[1], &Setup::default()).rss.of_part(1e12, Unit::Bytes);
        assert!(!judged.reasons.is_empty() && (0.0..=1.0).contains(&judged.confidence));
    }
});
