//! The control laws of others, as they describe them, for comparison only. Each is given its own marks as shares of the limit; where a
//! peer keeps a reserve of 20–30 % below the limit first, it is spared that here.

use std::time::Duration;

use plimsoll::testkit::Seen;

/// What a law does at one tick.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Act {
    /// Order the cache to evict so many bytes.
    pub(crate) evict_bytes: u64,
    /// Let the cache hold at most so many bytes until the next tick.
    pub(crate) clamp_bytes: Option<u64>,
    /// Purge the allocator.
    pub(crate) purge: bool,
}

/// A control law over one cache.
pub(crate) trait Law {
    /// Called every 100 ms.
    fn tick(&mut self, seen: &Seen, limit_bytes: u64) -> Act;
}

fn share(bytes: u64, limit: u64) -> f64 {
    bytes as f64 / limit as f64
}

fn part(bytes: u64, ratio: f64) -> u64 {
    (bytes as f64 * ratio.clamp(0.0, 1.0)) as u64
}

/// RisingWave's memory manager: marks 72, 81 and 90 %, weights 1, 1.5 and 2; the sum over use is the share of the LRU span to drop.
/// Memoryless, 10 Hz.
pub(crate) struct RisingWave;

impl Law for RisingWave {
    fn tick(&mut self, seen: &Seen, limit: u64) -> Act {
        let used = share(seen.protected_bytes, limit);
        let above = |low: f64, high: f64| (used.min(high) - low).max(0.0);
        let wanted = above(0.72, 0.81) + 1.5 * above(0.81, 0.90) + 2.0 * above(0.90, f64::INFINITY);
        let held = seen.held_bytes[0];
        Act { evict_bytes: part(held, wanted / used.max(1e-9)), ..Act::default() }
    }
}

/// The first fix of incident 1: above the cap (85 %), keep (1/N)·0.9 of the store, N being use over cap.
pub(crate) struct Seed;

impl Law for Seed {
    fn tick(&mut self, seen: &Seen, limit: u64) -> Act {
        let n = share(seen.protected_bytes, limit) / 0.85;
        let keep = if n > 1.0 { 0.9 / n } else { 1.0 };
        Act { evict_bytes: part(seen.held_bytes[0], 1.0 - keep), ..Act::default() }
    }
}

/// Plain hysteresis with matrixone's marks: from 85 % (92 %) on until below 80 % (88 %) it evicts down to the leave mark, once a second.
#[derive(Default)]
pub(crate) struct Hysteresis {
    soft: bool,
    hard: bool,
    last: Option<Duration>,
}

impl Law for Hysteresis {
    fn tick(&mut self, seen: &Seen, limit: u64) -> Act {
        let used = share(seen.protected_bytes, limit);
        self.soft = used >= 0.85 || (self.soft && used > 0.80);
        self.hard = used >= 0.92 || (self.hard && used > 0.88);
        let due = self.last.is_none_or(|last| seen.at - last >= Duration::from_secs(1));
        if !due || !self.soft {
            return Act::default();
        }
        self.last = Some(seen.at);
        let target = if self.hard { 0.50 } else { 0.80 };
        let cache = part(seen.held_bytes[0], 1.0);
        // The cache's own target: 80 % of use in soft, half of what it holds in hard.
        let evict = if self.hard { part(cache, target) } else { part(limit, used - target) };
        Act { evict_bytes: evict.min(cache), ..Act::default() }
    }
}

/// Threshold and GC, as the OpenTelemetry memory limiter: above 80 % it forces a collection (a purge here), with a back-off while that
/// does not help, and refuses what comes in until below the same mark.
#[derive(Default)]
pub(crate) struct ThresholdGc {
    wait: Duration,
    last: Option<(Duration, u64)>,
}

impl Law for ThresholdGc {
    fn tick(&mut self, seen: &Seen, limit: u64) -> Act {
        if share(seen.protected_bytes, limit) < 0.80 {
            self.wait = Duration::ZERO;
            self.last = None;
            return Act::default();
        }
        let mut act = Act { clamp_bytes: Some(seen.held_bytes[0]), ..Act::default() };
        if self.last.is_none_or(|(at, _)| seen.at - at >= self.wait) {
            let helped = self.last.is_none_or(|(_, before)| seen.protected_bytes < before / 20 * 19);
            self.wait = if helped { Duration::from_secs(1) } else { (self.wait * 2).min(Duration::from_secs(30)) };
            self.last = Some((seen.at, seen.protected_bytes));
            act.purge = true;
        }
        act
    }
}
