//! A rate that a stream may print at: bytes a second, lines a second, or both. A bucket of tokens, one for each stream: it fills at the rate,
//! up to the burst; what is stored takes tokens, down to below zero by the last read (at most 64 KiB), so that afterwards it must rest
//! longer. What comes while it is empty is read, counted and dropped: the program never waits.

use std::time::Duration;

/// What a stream may print in a second, and at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In the long run, at least 1.
    pub per_second: u64,
    /// At once, after a rest; at least 1.
    pub burst: u64,
}

impl Rate {
    /// `per_second`, and at once what comes in [`Rate::BURST_SECONDS`] of it.
    pub fn new(per_second: u64) -> Rate {
        Rate { per_second, burst: per_second.saturating_mul(Rate::BURST_SECONDS) }
    }

    /// How many seconds of its rate make the default burst: 10.
    pub const BURST_SECONDS: u64 = 10;
}

/// The limits of each of a program's streams; none is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Bytes, line ends included.
    pub bytes: Option<Rate>,
    /// Line ends.
    pub lines: Option<Rate>,
}

impl RateLimit {
    /// Nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == RateLimit::default()
    }

    /// What is out of range, with its value.
    pub(crate) fn problems(&self) -> impl Iterator<Item = String> {
        let rates = [("bytes", self.bytes), ("lines", self.lines)];
        rates.into_iter().filter_map(|(name, rate)| {
            let Rate { per_second, burst } = rate?;
            (per_second == 0 || burst == 0).then(|| {
                format!("rate_limit of {name} is {per_second} a second, {burst} at once; allowed are 1 and more")
            })
        })
    }
}

/// The tokens of one stream.
#[derive(Clone, Debug)]
pub(crate) struct Buckets {
    bytes: Option<Bucket>,
    lines: Option<Bucket>,
}

impl Buckets {
    /// Full buckets; `None` if nothing is limited.
    pub(crate) fn new(limit: RateLimit, now: Duration) -> Option<Buckets> {
        let bucket = |rate: Rate| Bucket { rate, tokens: i128::from(rate.burst) * NANO, filled: now };
        (!limit.is_none()).then(|| Buckets { bytes: limit.bytes.map(bucket), lines: limit.lines.map(bucket) })
    }

    /// Whether what comes now may be stored.
    pub(crate) fn allow(&mut self, now: Duration) -> bool {
        [&mut self.bytes, &mut self.lines].into_iter().flatten().all(|bucket| bucket.fill(now) > 0)
    }

    /// So much was stored.
    pub(crate) fn take(&mut self, bytes: u64, lines: u64) {
        for (bucket, taken) in [(&mut self.bytes, bytes), (&mut self.lines, lines)] {
            if let Some(bucket) = bucket {
                bucket.tokens -= i128::from(taken) * NANO;
            }
        }
    }
}

/// Tokens are counted in billionths, so that no rate is lost to rounding.
const NANO: i128 = 1_000_000_000;

#[derive(Clone, Debug)]
struct Bucket {
    rate: Rate,
    tokens: i128,
    filled: Duration,
}

impl Bucket {
    fn fill(&mut self, now: Duration) -> i128 {
        let since = i128::try_from(now.saturating_sub(self.filled).as_nanos()).unwrap_or(i128::MAX / 2);
        let earned = since.saturating_mul(i128::from(self.rate.per_second));
        self.tokens = self.tokens.saturating_add(earned).min(i128::from(self.rate.burst) * NANO);
        self.filled = self.filled.max(now);
        self.tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Reads of `bytes` bytes and `lines` lines, one each millisecond: how many of them are stored in `seconds`.
    fn stored(limit: RateLimit, bytes: u64, lines: u64, seconds: u64) -> u64 {
        let mut buckets = Buckets::new(limit, ms(0)).unwrap();
        let reads = (0..seconds * 1000).filter(|at| {
            let allowed = buckets.allow(ms(*at));
            if allowed {
                buckets.take(bytes, lines);
            }
            allowed
        });
        reads.count() as u64
    }

    #[test]
    fn in_the_long_run_the_rate_and_at_once_the_burst() {
        let bytes = |per_second, burst| RateLimit { bytes: Some(Rate { per_second, burst }), lines: None };
        let lines = |per_second, burst| RateLimit { bytes: None, lines: Some(Rate { per_second, burst }) };
        // The last read may exceed it by itself.
        for (limit, read, each, seconds, expected) in [
            (bytes(1000, 1000), (100, 1), 100, 10, 1000 + 10_000),
            (bytes(1000, 5000), (100, 1), 100, 10, 5000 + 10_000),
            (bytes(1_000_000, 1), (65_536, 300), 65_536, 10, 10_000_000),
            (lines(7, 20), (100, 1), 1, 100, 20 + 700),
            (lines(1, 1), (100, 50), 50, 100, 100),
        ] {
            let got = stored(limit, read.0, read.1, seconds) * each;
            assert!((expected - each..=expected + 2 * each).contains(&got), "{limit:?}: {got}, expected {expected}");
        }
        let both = RateLimit { bytes: Some(Rate::new(1 << 40)), lines: Some(Rate { per_second: 10, burst: 1 }) };
        assert!((100..=102).contains(&stored(both, 1, 1, 10)), "the stricter one decides");
    }

    #[test]
    fn below_it_nothing_is_limited_and_time_that_stands_still_is_no_trouble() {
        let limit = RateLimit { bytes: Some(Rate::new(1000)), lines: None };
        assert_eq!(stored(limit, 1, 1, 60), 60_000);
        let mut buckets = Buckets::new(limit, ms(5)).unwrap();
        assert!(buckets.allow(ms(3)));
        buckets.take(20_000, 1);
        assert!(!buckets.allow(ms(5)) && !buckets.allow(ms(10_000)) && buckets.allow(ms(10_010)));
        assert!(Buckets::new(RateLimit::default(), ms(0)).is_none());
    }
}
