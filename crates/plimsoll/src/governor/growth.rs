//! How fast it grows: a straight line through the last [`SAMPLES`] confirmed readings, by least squares. Pure, fixed size.
//!
//! The sampler looks the more often the less room is left, so the last 16 readings always span a time that is in
//! proportion to the time that is left: 16 s at rest, a quarter of a second at the least. Readings closer than [`SPACING`]
//! share a place, so that the stairs of batched counters and of allocators that ask for a MiB at a time are no slope.

use std::time::Duration;

/// Readings that are kept.
pub const SAMPLES: usize = 16;
/// Readings closer together than this share one place: the newer one replaces the older.
///
/// Measured on a Python program that grows 1 MiB at a time at 50 MiB/s: 4 ms say 15 MiB/s with a confidence of 0.27.
pub const SPACING: Duration = Duration::from_millis(16);
/// Readings older than this many of the latest gaps are left out, so that a long rest does not flatten a new ramp.
const HORIZON_GAPS: u64 = 8;
/// Readings younger than this are never left out: stairs need a few steps to be seen as a slope.
const HORIZON_LEAST: Duration = Duration::from_millis(200);
/// At least so many of the newest readings are used, however old.
const NEWEST: usize = 3;
/// Errors of the slope are judged against the slope, or against this when it is smaller: 64 KiB a second.
const FLOOR_BYTES_PER_SECOND: f64 = 65536.0;

/// A growth rate and how well a straight line describes what was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// The slope of the charged bytes; negative when they shrink.
    pub bytes_per_second: f64,
    /// 0..=1: one minus the slope's standard error as a part of the slope (or of 64 KiB/s when it is smaller), times
    /// (n − 1) / n for n readings. Below about 0.5 the slope says little.
    pub confidence: f64,
}

/// The last readings, in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Track {
    at_ns: [u64; SAMPLES],
    bytes: [u64; SAMPLES],
    len: u8,
    newest: u8,
}

impl Track {
    pub(super) const EMPTY: Track = Track { at_ns: [0; SAMPLES], bytes: [0; SAMPLES], len: 0, newest: 0 };

    /// The place of the reading that is `back` older than the newest.
    fn place(&self, back: usize) -> usize {
        (usize::from(self.newest) + SAMPLES - back) % SAMPLES
    }

    pub(super) fn push(&mut self, at: Duration, bytes: u64) {
        let at_ns = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        let crowded = self.len >= 2 && at_ns.saturating_sub(self.at_ns[self.place(1)]) < SPACING.as_nanos() as u64;
        if self.len == 0 {
            self.len = 1;
        } else if !crowded {
            self.newest = (self.newest + 1) % SAMPLES as u8;
            self.len = (self.len + 1).min(SAMPLES as u8);
        }
        let place = self.place(0);
        // Time never goes back; a reading that claims so counts as taken at the same moment.
        let floor = if self.len >= 2 { self.at_ns[self.place(1)] } else { 0 };
        self.at_ns[place] = at_ns.max(floor);
        self.bytes[place] = bytes;
    }

    /// The slope, or `None` with fewer than three readings or all of them at one moment.
    pub(super) fn growth(&self) -> Option<Growth> {
        let len = usize::from(self.len);
        if len < NEWEST {
            return None;
        }
        let at = |back: usize| self.at_ns[self.place(back)];
        let (end_ns, end_bytes) = (at(0), self.bytes[self.place(0)] as f64);
        let gap_ns = (at(0) - at(1)).max(at(1) - at(2));
        let horizon_ns = gap_ns.saturating_mul(HORIZON_GAPS).max(HORIZON_LEAST.as_nanos() as u64);
        let (mut n, mut t, mut b, mut tt, mut tb, mut bb) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
        for back in 0..len {
            let age_ns = end_ns - at(back);
            if back >= NEWEST && age_ns > horizon_ns {
                break;
            }
            // Counted from the newest reading, so that the sums stay small and exact.
            let seconds = -(age_ns as f64) / 1e9;
            let bytes = self.bytes[self.place(back)] as f64 - end_bytes;
            n += 1.0;
            t += seconds;
            b += bytes;
            tt += seconds * seconds;
            tb += seconds * bytes;
            bb += bytes * bytes;
        }
        let spread = tt - t * t / n;
        if spread <= 1e-12 {
            return None;
        }
        let together = tb - t * b / n;
        let slope = together / spread;
        let unexplained = (bb - b * b / n - slope * together).max(0.0);
        let error = (unexplained / (n - 2.0) / spread).sqrt();
        let fit = 1.0 - error / slope.abs().max(FLOOR_BYTES_PER_SECOND);
        Some(Growth { bytes_per_second: slope, confidence: fit.clamp(0.0, 1.0) * (n - 1.0) / n })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn track(readings: impl IntoIterator<Item = (f64, f64)>) -> Track {
        let mut track = Track::EMPTY;
        for (ms, bytes) in readings {
            track.push(Duration::from_secs_f64(ms / 1e3), bytes as u64);
        }
        track
    }

    fn near(growth: Option<Growth>, bytes_per_second: f64, tolerance: f64) -> bool {
        growth.is_some_and(|g| (g.bytes_per_second - bytes_per_second).abs() <= tolerance)
    }

    #[test]
    fn two_readings_are_no_line() {
        assert_eq!(Track::EMPTY.growth(), None);
        assert_eq!(track([(0.0, 0.0), (100.0, 5.0)]).growth(), None);
        assert_eq!(track([(5.0, 1.0), (5.0, 2.0), (5.0, 3.0)]).growth(), None, "all at one moment");
    }

    #[test]
    fn a_straight_line_is_found_with_full_fit() {
        for rate in [1e3, 50e6, 1e9, -20e6] {
            let line = track((0..40).map(|i| (f64::from(i) * 10.0, 1e9 + rate * f64::from(i) * 0.01)));
            let growth = line.growth().expect("a line");
            assert!((growth.bytes_per_second / rate - 1.0).abs() < 1e-3, "{rate}: {growth:?}");
            assert!(growth.confidence > 0.88, "{rate}: {growth:?}");
        }
    }

    #[test]
    fn rest_is_a_sure_zero_and_noise_is_no_slope() {
        let rest = track((0..16).map(|i| (f64::from(i) * 1000.0, 5e6))).growth().expect("a line");
        assert_eq!(rest.bytes_per_second, 0.0);
        assert!(rest.confidence > 0.85, "{rest:?}");
        // ±8 MB around the same value, every second.
        let noise = track((0..16).map(|i| (f64::from(i) * 1000.0, 100e6 + if i % 2 == 0 { 8e6 } else { -8e6 })));
        let noise = noise.growth().expect("a line");
        assert!(noise.confidence < 0.3, "{noise:?}");
    }

    #[test]
    fn jitter_of_batched_counters_does_not_hide_the_slope() {
        // 200 MB/s, seen through a counter that moves in steps of 1 MiB, every 5 ms.
        let steps = track((0..16).map(|i| {
            let bytes = 200e6 * f64::from(i) * 0.005;
            (f64::from(i) * 5.0, (bytes / 1048576.0).floor() * 1048576.0)
        }));
        let growth = steps.growth().expect("a line");
        assert!(near(Some(growth), 200e6, 20e6) && growth.confidence > 0.7, "{growth:?}");
    }

    #[test]
    fn a_long_rest_does_not_flatten_a_new_ramp() {
        let rest = (0..20).map(|i| (f64::from(i) * 1000.0, 20e6));
        let ramp = [100.0, 160.0, 200.0, 230.0, 250.0].map(|ms| (19_000.0 + ms, 20e6 + ms * 1e6));
        let growth = track(rest.chain(ramp)).growth().expect("a line");
        assert!(near(Some(growth), 1e9, 0.2e9) && growth.confidence > 0.5, "{growth:?}");
    }

    #[test]
    fn readings_that_crowd_share_a_place() {
        let mut crowd = Track::EMPTY;
        crowd.push(Duration::ZERO, 0);
        for i in 1..=10_000u64 {
            crowd.push(Duration::from_micros(i * 100), i * 100);
        }
        // A second of readings every 0.1 ms: 16 places, 14 of them at least 16 ms apart.
        let (oldest, newest) = (crowd.at_ns[crowd.place(15)], crowd.at_ns[crowd.place(0)]);
        assert!(crowd.len == 16 && newest - oldest >= 224_000_000, "{} ns", newest - oldest);
        assert!(near(crowd.growth(), 1e6, 1e3), "{:?}", crowd.growth());
    }

    proptest! {
        #[test]
        fn it_never_panics_and_stays_in_its_bounds(readings in prop::collection::vec((any::<u64>(), any::<u64>()), 0..50)) {
            let mut track = Track::EMPTY;
            for (at, bytes) in readings {
                track.push(Duration::from_nanos(at), bytes);
                if let Some(growth) = track.growth() {
                    prop_assert!(growth.bytes_per_second.is_finite(), "{growth:?}");
                    prop_assert!((0.0..=1.0).contains(&growth.confidence), "{growth:?}");
                }
            }
        }

        /// Readings in ascending order: the slope lies between the smallest and the largest slope of neighbours.
        #[test]
        fn the_slope_is_one_that_occurred(steps in prop::collection::vec((4_000_000u64..1_000_000_000, 0u64..1 << 30), 3..40)) {
            let (mut at, mut bytes, mut track) = (0, 0, Track::EMPTY);
            track.push(Duration::ZERO, 0);
            let (mut least, mut most) = (f64::INFINITY, 0f64);
            for (gap, more) in steps {
                at += gap;
                bytes += more;
                track.push(Duration::from_nanos(at), bytes);
                let slope = more as f64 / gap as f64 * 1e9;
                least = least.min(slope);
                most = most.max(slope);
            }
            let growth = track.growth().expect("at least four readings");
            let slack = 1.0 + most * 1e-6;
            prop_assert!(growth.bytes_per_second >= least - slack && growth.bytes_per_second <= most + slack);
        }
    }
}
