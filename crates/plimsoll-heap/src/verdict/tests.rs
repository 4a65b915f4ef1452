//! Known courses, and the word for each.

use super::*;
use crate::series::Point;

fn series(hours: usize, value: impl Fn(f64) -> f64) -> Series {
    let points = (0..hours * 6).map(|i| (i as f64 / 6.0, i)).map(|(hour, i)| {
        let noise = ((i as f64 * 12.9898).sin() * 43_758.545_3).fract();
        Point::counted(hour * HOUR, value(hour) + noise)
    });
    Series::new("x", Unit::Bytes, points)
}

fn word(series: &Series) -> &'static str {
    judge(series, &Setup::default()).state.as_str()
}

#[test]
fn the_word_for_each_course() {
    type Course = fn(f64) -> f64;
    let table: [(&str, usize, Course, &str); 15] = [
        ("flat", 48, |_| 1_000.0, "stable"),
        ("a day's wave", 24, |h| 1_000.0 + 200.0 * (h / 24.0 * std::f64::consts::TAU + 3.2).sin(), "stable"),
        ("a leak", 36, |h| 1_000.0 + 10.0 * h, "leaking"),
        (
            "a leak under a wave",
            72,
            |h| 1_000.0 + 10.0 * h + 100.0 * (h / 24.0 * std::f64::consts::TAU).sin(),
            "leaking",
        ),
        ("a leak under a sawtooth", 48, |h| 1_000.0 + 10.0 * h + 300.0 * (h / 1.7).fract(), "leaking"),
        ("a sawtooth", 48, |h| 1_000.0 + 300.0 * (h / 2.3).fract(), "stable"),
        ("a cache that fills", 48, |h| 1_000.0 + 400.0 * (1.0 - (-h / 6.0).exp()), "plateau"),
        ("a cache nearly full", 24, |h| 1_000.0 + 1_000.0 * (1.0 - (-h / 12.0).exp()), "growing"),
        ("a step", 48, |h| if h < 20.0 { 1_000.0 } else { 1_400.0 }, "plateau"),
        ("a stair", 72, |h| 1_000.0 + 60.0 * (h / 6.0).floor(), "leaking"),
        ("a table that doubles", 40, |h| 1_000.0 + 100.0 * (h.max(1.0)).log2().ceil().exp2(), "leaking"),
        ("a table half full", 40, |h| 1_000.0 + 100.0 * (1.45 * h).max(1.0).log2().ceil().exp2(), "leaking"),
        ("a table that is full", 40, |h| 1_000.0 + 100.0 * (h.clamp(1.0, 7.0)).log2().ceil().exp2(), "plateau"),
        ("an hour of slow growth", 6, |h| 1_000.0 + 12.0 * h, "growing"),
        ("a fall", 48, |h| 1_000.0 - 5.0 * h, "stable"),
    ];
    for (name, hours, course, expected) in table {
        let verdict = judge(&series(hours, course), &Setup::default());
        assert_eq!(verdict.state.as_str(), expected, "{name}: {verdict:#?}");
        assert!((0.0..=0.99).contains(&verdict.confidence) && !verdict.reasons[0].is_empty(), "{name}: {verdict:?}");
    }
}

#[test]
fn too_little_says_so() {
    let few = series(1, |h| h);
    let verdict = judge(&few, &Setup::default());
    assert_eq!(verdict.state, State::InsufficientData);
    assert_eq!(verdict.reasons, ["6 readings over 50 min: at least 8 at different times are needed"]);
    assert_eq!(word(&Series::default()), "insufficient-data");
}

#[test]
fn the_limit_is_reached_within_an_interval() {
    let leak = series(48, |h| 1_000.0 + 10.0 * h);
    let verdict = judge(&leak, &Setup::default().limit(Some(2_000.0)));
    let eta = verdict.time_to_limit.unwrap();
    assert!((eta.seconds / HOUR - 52.0).abs() < 2.0, "{eta:?}");
    assert!(eta.soonest_seconds < eta.seconds && eta.seconds < eta.latest_seconds.unwrap(), "{eta:?}");
    assert_eq!(judge(&series(48, |_| 9.0), &Setup::default().limit(Some(90.0))).time_to_limit, None);
}

#[test]
fn restarts_do_not_hide_a_leak() {
    let mut points: Vec<Point> = series(96, |h| 1_000.0 + 12.0 * (h % 32.0)).points().to_vec();
    points.iter_mut().for_each(|p| p.life = (p.unix_seconds / HOUR / 32.0) as u64);
    assert_eq!(word(&Series::new("x", Unit::Bytes, points.iter().copied())), "leaking");
    points.iter_mut().for_each(|p| p.life = 0);
    assert_eq!(word(&Series::new("x", Unit::Bytes, points)), "leaking");
}

#[test]
fn processes_side_by_side_do_not_hide_a_leak() {
    // Two workers that hold differently much, read in turns, one by one or five at a time.
    for run in [1, 5] {
        let worker = |at: usize| (at / run % 2) as u64;
        let mut points: Vec<Point> = series(96, |h| 1_000.0 + 12.0 * h).points().to_vec();
        let both = points.iter_mut().enumerate();
        both.for_each(|(at, p)| (p.life, p.value) = (11 + worker(at), p.value + 400.0 * worker(at) as f64));
        let verdict = judge(&Series::new("x", Unit::Bytes, points.clone()), &Setup::default().limit(Some(4_000.0)));
        let trend = verdict.trend.unwrap();
        assert_eq!((verdict.state, trend.lives, trend.is_parallel), (State::Leaking, 2, true), "{verdict:?}");
        assert!((trend.slope * HOUR - 12.0).abs() < 0.5 && (trend.growth - 95.0 * 12.0).abs() < 60.0, "{trend:?}");
        // Now is the level of the one that was read last, the second.
        assert!((trend.level - 1_400.0 - 95.0 * 12.0).abs() < 40.0, "{trend:?}");
        assert!(verdict.reasons.iter().any(|why| why.starts_with("2 processes")), "{verdict:?}");
        // As steady, side by side.
        points
            .iter_mut()
            .enumerate()
            .for_each(|(at, p)| p.value = 1_000.0 + 400.0 * worker(at) as f64 + (at % 3) as f64);
        assert_eq!(word(&Series::new("x", Unit::Bytes, points)), "stable");
    }
}

#[test]
fn what_the_allocator_keeps_is_not_a_leak() {
    let setup = Setup::default();
    let rss = series(48, |h| 1_000.0 + 10.0 * h);
    let flat = series(48, |h| 700.0 + 20.0 * (h / 5.0).sin());
    let judged = split(judge(&rss, &setup), &rss, &flat, &setup);
    assert!(judged.is_retention && judged.rss.state == State::Growing, "{judged:?}");
    assert!(judged.rss.reasons[0].starts_with("not a leak: "), "{judged:?}");
    let leaks = series(48, |h| 700.0 + 9.5 * h);
    let judged = split(judge(&rss, &setup), &rss, &leaks, &setup);
    assert!(!judged.is_retention && judged.rss.state == State::Leaking, "{judged:?}");
    assert!((judged.live_share.unwrap() - 0.95).abs() < 0.05);
}

#[test]
fn among_many_keys_chance_is_not_taken_for_a_leak() {
    // The smaller the share of true ones, the stricter the bound.
    assert_eq!(benjamini_hochberg(vec![0.5, 0.009, 0.3, 0.7], 0.01), 0.0025);
    assert_eq!(benjamini_hochberg(vec![0.002, 0.004, 0.3, 0.7], 0.01), 0.004);
    let mut keys: Vec<Series> =
        (0..60).map(|k| series(24, move |h| 500.0 + ((h * 7.0 + f64::from(k)) * 9.1).sin())).collect();
    keys.push(series(24, |h| 500.0 + 9.0 * h));
    let leaking = judge_all(&keys, &Setup::default()).iter().filter(|v| v.state == State::Leaking).count();
    assert_eq!(leaking, 1);
}

#[test]
fn a_table_that_doubles_is_said_to() {
    // A snapshot each ten minutes, the last of them at one level.
    let table = |i: usize| 1e6 + 64.0 * (700.0 * i as f64).max(1.0).log2().ceil().exp2();
    let points = (4..46).map(|i| Point::counted(i as f64 * 600.0, table(i)));
    let verdict = judge(&Series::new("app.cache → Map", Unit::Bytes, points), &Setup::default());
    assert_eq!(verdict.state, State::Growing, "{verdict:#?}");
    assert!(verdict.reasons[0].contains("a table that doubles"), "{:?}", verdict.reasons);
}

#[test]
fn a_part_that_creeps_is_stable_beside_a_large_whole_only() {
    // 240 in a day.
    let leak = || judge(&series(24, |h| 1_000.0 + 10.0 * h), &Setup::default().limit(Some(5_000.0)));
    assert_eq!(leak().of_part(23_000.0, Unit::Bytes).state, State::Leaking);
    let creeps = leak().of_part(25_000.0, Unit::Bytes);
    assert_eq!((creeps.state, creeps.time_to_limit), (State::Stable, None));
    assert!(creeps.reasons[0].starts_with("creeps, by 2"), "{:?}", creeps.reasons);
    assert_eq!(leak().of_part(0.0, Unit::Bytes).state, State::Leaking);
    let flat = judge(&series(24, |_| 1_000.0), &Setup::default());
    assert_eq!(flat.clone().of_part(1e9, Unit::Bytes), flat);
}
