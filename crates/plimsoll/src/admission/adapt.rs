//! A limit on requests in flight that finds itself: it grows while it is used and latency stays, and shrinks when latency grows.
//!
//! Each window (100 ms, or twice the latency, and at least [`SAMPLES_MIN`] requests) the median latency is held against the base: the
//! lowest median of this and the last half minute. Above `tolerance` × base the limit is cut in proportion, else, if it was reached, it
//! grows: by a quarter until the first cut, by a twentieth (at least 1) afterwards. Under lasting overload the base itself would creep up
//! with what queues inside; so each half minute one window runs at half the limit and sets it anew. (After TCP Vegas, Brakmo 1995, and
//! Netflix' concurrency-limits.) Pure; time is passed in.
//!
//! A request whose asker went away counts when it had already taken longer than the limit allows: its time is a lower bound then, and where
//! all go away nothing else is heard. A shorter one says nothing. A window most of which went away can cut the limit, but sets no base.

use std::time::Duration;

/// Requests that a window needs at least.
pub const SAMPLES_MIN: usize = 10;
/// Latencies of one window that are kept; later ones replace earlier ones.
const SAMPLES_MAX: usize = 128;
const WINDOW: Duration = Duration::from_millis(100);
/// How long a base is believed.
const EPOCH: Duration = Duration::from_secs(30);
const CUT_MIN: f64 = 0.5;

/// The settings of a limit that finds itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adapt {
    /// It never falls below, and starts here. Default 4.
    pub min: usize,
    /// It never rises above. Default 10,000.
    pub max: usize,
    /// Latency may rise to so many times the unloaded one. Default 1.5; above 1.
    pub tolerance: f64,
}

impl Default for Adapt {
    fn default() -> Adapt {
        Adapt { min: 4, max: 10_000, tolerance: 1.5 }
    }
}

#[derive(Debug)]
pub(super) struct Finder {
    settings: Adapt,
    limit: f64,
    /// Before the first cut it grows fast.
    was_cut: bool,
    window_began: Duration,
    samples: Vec<u64>,
    next: usize,
    /// Of this window: those that were finished, and those whose askers went away.
    finished: usize,
    gone: usize,
    /// The limit was reached in this window.
    reached: bool,
    /// This window runs at half the limit.
    probing: bool,
    epoch_began: Duration,
    /// The lowest median of this epoch and of the one before, in nanoseconds.
    lowest: [u64; 2],
    last: u64,
}

impl Finder {
    pub(super) fn new(settings: Adapt) -> Finder {
        Finder {
            settings,
            limit: settings.min.max(1) as f64,
            was_cut: false,
            window_began: Duration::ZERO,
            samples: Vec::with_capacity(SAMPLES_MAX),
            next: 0,
            finished: 0,
            gone: 0,
            reached: false,
            probing: false,
            epoch_began: Duration::ZERO,
            lowest: [u64::MAX; 2],
            last: 0,
        }
    }

    /// How many may be in flight now.
    pub(super) fn limit(&self) -> usize {
        let limit = if self.probing { self.limit / 2.0 } else { self.limit };
        (limit as usize).max(1)
    }

    pub(super) fn base(&self) -> Option<Duration> {
        let base = self.lowest[0].min(self.lowest[1]);
        (base != u64::MAX).then(|| Duration::from_nanos(base))
    }

    /// The limit stood in somebody's way.
    pub(super) fn reached(&mut self) {
        self.reached = true;
    }

    /// The longest median that is no reason for a cut, in nanoseconds.
    fn allowed(&self) -> f64 {
        self.lowest[0].min(self.lowest[1]) as f64 * self.settings.tolerance.max(1.01)
    }

    /// A request took so long, from its slot to its answer.
    pub(super) fn sample(&mut self, now: Duration, latency: Duration) {
        self.finished += 1;
        self.take(now, u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// A request had taken so long when its asker went away.
    pub(super) fn went_away(&mut self, now: Duration, after: Duration) {
        let nanos = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        if nanos as f64 > self.allowed() {
            self.gone += 1;
            self.take(now, nanos);
        }
    }

    fn take(&mut self, now: Duration, nanos: u64) {
        match self.samples.len() < SAMPLES_MAX {
            true => self.samples.push(nanos),
            false => self.samples[self.next % SAMPLES_MAX] = nanos,
        }
        self.next += 1;
        let window = WINDOW.max(Duration::from_nanos(self.last.saturating_mul(2)).min(EPOCH / 8));
        if now.saturating_sub(self.window_began) >= window && self.samples.len() >= SAMPLES_MIN {
            self.judge(now);
        }
    }

    fn judge(&mut self, now: Duration) {
        let middle = self.samples.len() / 2;
        let median = *self.samples.select_nth_unstable(middle).1;
        self.samples.clear();
        (self.next, self.window_began, self.last) = (0, now, median);
        let reached = std::mem::take(&mut self.reached);
        let (finished, gone) = (std::mem::take(&mut self.finished), std::mem::take(&mut self.gone));
        let is_measured = finished > gone;
        if std::mem::take(&mut self.probing) && is_measured {
            // What was believed before is forgotten: the service may have become slower for good.
            self.lowest = [median, u64::MAX];
            return;
        }
        if now.saturating_sub(self.epoch_began) >= EPOCH {
            self.epoch_began = now;
            // An epoch in which nothing was measured leaves the base as it was.
            if self.lowest[0] != u64::MAX {
                self.lowest = [u64::MAX, self.lowest[0]];
            }
            self.probing = reached;
        }
        if is_measured {
            self.lowest[0] = self.lowest[0].min(median);
        }
        let allowed = self.allowed();
        if median as f64 > allowed {
            self.limit *= (allowed / median as f64).max(CUT_MIN);
            self.was_cut = true;
        } else if reached {
            let part = if self.was_cut { 0.05 } else { 0.25 };
            self.limit += (self.limit * part).max(1.0);
        }
        self.limit = self.limit.clamp(self.settings.min.max(1) as f64, self.settings.max.max(1) as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    /// A service with `servers` that take `work_ms` each, offered `offered` requests a millisecond for `seconds`, in whole events: what
    /// was answered a second and the 99th percentile of its latency in the last two thirds, and the limit at the end.
    fn simulate(
        finder: &mut Finder,
        from_ms: u64,
        servers: usize,
        work_ms: u64,
        offered: f64,
        seconds: u64,
    ) -> (f64, u64) {
        let mut free = vec![0u64; servers];
        let mut ends: BinaryHeap<Reverse<(u64, u64)>> = BinaryHeap::new();
        let (mut owed, mut latencies) = (0.0, Vec::new());
        for now in from_ms..from_ms + seconds * 1000 {
            while let Some(&Reverse((end, began))) = ends.peek() {
                if end > now {
                    break;
                }
                ends.pop();
                finder.sample(Duration::from_millis(now), Duration::from_millis(end - began));
                if now > from_ms + seconds * 333 {
                    latencies.push(end - began);
                }
            }
            owed += offered;
            while owed >= 1.0 {
                owed -= 1.0;
                if ends.len() >= finder.limit() {
                    finder.reached();
                    continue;
                }
                let server = free.iter_mut().min().expect("servers");
                *server = (*server).max(now) + work_ms;
                ends.push(Reverse((*server, now)));
            }
        }
        latencies.sort_unstable();
        let p99 = latencies[latencies.len() * 99 / 100];
        (latencies.len() as f64 / (seconds as f64 * 0.667), p99)
    }

    #[test]
    fn under_twice_the_load_the_servers_stay_busy_and_nothing_queues_for_long() {
        for (servers, work_ms) in [(1, 20), (4, 10), (16, 50), (64, 10)] {
            let mut finder = Finder::new(Adapt { min: 1, ..Adapt::default() });
            let capacity = servers as f64 / work_ms as f64;
            let (done, p99) = simulate(&mut finder, 0, servers, work_ms, capacity * 2.0, 70);
            assert!(done >= capacity * 1000.0 * 0.9, "{servers} × {work_ms} ms: {done:.0} a second, {finder:?}");
            assert!(p99 <= work_ms * 2, "{servers} × {work_ms} ms: p99 {p99} ms, limit {}", finder.limit());
        }
    }

    #[test]
    fn a_service_that_becomes_three_times_slower_for_good_is_learnt() {
        let mut finder = Finder::new(Adapt { min: 1, ..Adapt::default() });
        simulate(&mut finder, 0, 8, 10, 1.6, 20);
        let (done, _) = simulate(&mut finder, 20_000, 8, 30, 1.6, 100);
        assert!(done >= 8.0 / 30.0 * 1000.0 * 0.85, "{done:.0} a second at limit {}", finder.limit());
    }

    /// A service whose requests share what it can do: `capacity` milliseconds of work in each, at most one of them for one request. Who asks
    /// goes away after a second. How many were answered a second.
    fn share(finder: &mut Finder, from_ms: u64, capacity: f64, work_ms: f64, offered: f64, seconds: u64) -> f64 {
        const STEP: u64 = 5;
        let mut here: Vec<(u64, f64)> = Vec::new();
        let mut done = 0;
        for now in (from_ms..from_ms + seconds * 1000).step_by(STEP as usize) {
            let part = (capacity / here.len() as f64).min(1.0) * STEP as f64;
            here.retain_mut(|(came, left)| {
                *left -= part;
                let (at, took) = (Duration::from_millis(now), Duration::from_millis(now - *came));
                match (*left <= 0.0, now - *came >= 1_000) {
                    (true, _) => {
                        done += 1;
                        finder.sample(at, took);
                    }
                    (false, true) => finder.went_away(at, took),
                    (false, false) => return true,
                }
                false
            });
            for _ in 0..(offered * STEP as f64) as usize {
                match here.len() < finder.limit() {
                    true => here.push((now, work_ms)),
                    false => finder.reached(),
                }
            }
        }
        f64::from(done) / seconds as f64
    }

    #[test]
    fn where_all_go_away_before_they_are_answered_the_limit_falls_until_some_are() {
        let mut finder = Finder::new(Adapt::default());
        share(&mut finder, 0, 400.0, 10.0, 60.0, 20);
        assert!(finder.limit() > 450, "{finder:?}");
        // Twenty times slower, and a tenth of the capacity: what is there at once takes longer than anybody waits.
        share(&mut finder, 20_000, 40.0, 200.0, 2.0, 20);
        let done = share(&mut finder, 40_000, 40.0, 200.0, 2.0, 40);
        assert!(done >= 200.0 * 0.7, "{done:.0} a second of 200, {finder:?}");
    }

    #[test]
    fn who_goes_away_early_says_nothing_and_who_goes_away_late_sets_no_base() {
        let mut finder = Finder::new(Adapt { min: 4, ..Adapt::default() });
        let millis = Duration::from_millis;
        for n in 0..400 {
            finder.reached();
            finder.sample(millis(n * 10), millis(10));
        }
        let grown = finder.limit();
        assert!(grown > 100, "{grown}");
        (400..800).for_each(|n| finder.went_away(millis(n * 10), millis(14)));
        assert_eq!((finder.limit(), finder.base()), (grown, Some(millis(10))));
        // For two minutes: whatever was to be measured meanwhile was not.
        for n in 800..12_800 {
            finder.reached();
            finder.went_away(millis(n * 10), millis(1_000));
        }
        assert_eq!((finder.limit(), finder.base()), (4, Some(millis(10))));
    }

    #[test]
    fn a_limit_that_nobody_reaches_does_not_grow_and_bounds_hold() {
        let mut finder = Finder::new(Adapt { min: 3, max: 5, ..Adapt::default() });
        let mut feed = |latency: u64, reached: bool, from: u64| {
            for n in 0..200 {
                if reached {
                    finder.reached();
                }
                finder.sample(Duration::from_millis(from + n * 10), Duration::from_millis(latency));
            }
            finder.limit()
        };
        assert_eq!(feed(10, false, 0), 3);
        assert_eq!(feed(10, true, 2_000), 5);
        assert_eq!(feed(500, true, 4_000), 3);
    }
}
