//! Known courses, and what is measured of them.

use super::*;
use crate::series::{Point, Unit};

const HOUR: f64 = 3_600.0;

fn series(hours: usize, value: impl Fn(f64) -> f64) -> Series {
    let points = (0..hours * 6).map(|i| (i as f64 / 6.0, i)).map(|(hour, i)| {
        let noise = ((i as f64 * 12.9898).sin() * 43_758.545_3).fract();
        Point::counted(hour * HOUR, value(hour) + noise)
    });
    Series::new("x", Unit::Bytes, points)
}

#[test]
fn a_line_has_its_slope_and_its_interval() {
    let trend = measure(&series(48, |h| 1_000.0 + 10.0 * h), &Setup::default()).unwrap();
    assert!((trend.slope * HOUR - 10.0).abs() < 0.1, "{trend:?}");
    assert!(trend.slope_low * HOUR < 10.0 && trend.slope_high * HOUR > 10.0, "{trend:?}");
    assert_eq!((trend.shape, trend.lives, trend.rhythm), (Shape::Line, 1, None));
    assert!((trend.growth - 480.0).abs() < 10.0 && trend.p_rise < 1e-9 && trend.p_slope < 1e-9, "{trend:?}");
}

#[test]
fn a_rhythm_is_no_slope_and_does_not_hide_one() {
    let wave = |h: f64| 150.0 * (h / 24.0 * std::f64::consts::TAU + 3.0).sin();
    for (hours, slope) in [(24, 0.0), (30, 0.0), (72, 0.0), (36, 10.0), (72, 10.0)] {
        let trend = measure(&series(hours, |h| 1_000.0 + wave(h) + slope * h), &Setup::default()).unwrap();
        assert!((trend.slope * HOUR - slope).abs() < 0.7, "{hours} h, {slope}: {trend:?}");
        assert!(trend.rhythm.is_some_and(|half| (half - 150.0).abs() < 20.0), "{trend:?}");
    }
}

#[test]
fn a_filled_cache_bends() {
    let trend = measure(&series(48, |h| 1_000.0 + 40.0 * h.min(12.0)), &Setup::default()).unwrap();
    let Shape::Bend { before, after } = trend.shape else { panic!("{trend:?}") };
    assert!((before * HOUR - 40.0).abs() < 8.0 && (after * HOUR).abs() < 2.0, "{trend:?}");
    assert!((trend.from_unix / HOUR - 12.0).abs() < 3.0, "{trend:?}");
}

#[test]
fn a_step_is_a_step() {
    let trend = measure(&series(48, |h| if h < 20.0 { 1_000.0 } else { 1_300.0 }), &Setup::default()).unwrap();
    let Shape::Steps { count: 1, rise } = trend.shape else { panic!("{trend:?}") };
    assert!((rise - 300.0).abs() < 5.0);
}

#[test]
fn too_little_is_not_measured() {
    assert_eq!(measure(&series(1, |h| h), &Setup::default()), None);
    assert_eq!(measure(&Series::default(), &Setup::default()), None);
}

#[test]
fn student_is_wider_than_normal() {
    // Tables: t(10) above 2.764: 0.01; t(5) above 3.365: 0.01.
    assert!((student_tail(2.764, 10.0) - 0.01).abs() < 5e-4, "{}", student_tail(2.764, 10.0));
    assert!((student_tail(3.365, 5.0) - 0.01).abs() < 1e-3);
    assert!((student_tail(0.0, 5.0) - 0.5).abs() < 1e-6);
}

#[test]
fn what_only_rises_is_no_walk_that_goes_nowhere() {
    let blocks = |value: fn(usize) -> f64| {
        let of = |i: usize| Block { at: i as f64, age: i as f64, value: value(i), floor: value(i), ..Block::default() };
        (0..120).map(of).collect::<Vec<Block>>()
    };
    // Uneven steps upwards; up and down; a wave; too few steps.
    assert!(walk(&blocks(|i| (i / 10) as f64 + [0.0, 0.3, -0.2][i / 10 % 3])) < 0.001);
    assert!(walk(&blocks(|i| [5.0, 9.0, 4.0, 7.0][i / 10 % 4])) > 0.2);
    assert!(walk(&blocks(|i| (i as f64 / 19.0).sin())) > 0.2);
    assert_eq!(walk(&blocks(|i| i as f64)[..3]), 1.0);
}
