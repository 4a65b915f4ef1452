//! Whether and when the child is started again: a pure decision over how its lives ended.
//!
//! Back-off: the first delay (100 ms), doubled for each life that was shorter than [`CALM`] (60 s), at most
//! [`MAX_BACKOFF`] (30 s), each ± 20 % jitter so that a fleet does not restart in step. Crash loop: [`LOOP_ENDS`] (5)
//! ends within [`LOOP_WINDOW`] (60 s) stop the restarting; `--max-restarts` stops it by number.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::reason::Reason;

/// A life at least this long resets the back-off.
pub(crate) const CALM: Duration = Duration::from_secs(60);
/// The longest wait between two lives.
pub(crate) const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// The first wait when none is given.
#[cfg(test)]
pub(crate) const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// So many ends of a life …
pub(crate) const LOOP_ENDS: usize = 5;
/// … within this time are a crash loop.
pub(crate) const LOOP_WINDOW: Duration = Duration::from_secs(60);

/// After which ends the child is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// After a stop for memory or a kernel OOM kill.
    pub(crate) on_memory: bool,
    /// After an exit with another code than 0, a signal, an OOM kill, or an end whose status is unknown.
    pub(crate) on_failure: bool,
    /// After an exit with code 0 too.
    pub(crate) on_success: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { on_memory: true, on_failure: true, on_success: false }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.on_success, self.on_memory, self.on_failure) {
            (true, ..) => "always",
            (false, true, true) => "on-memory,on-failure",
            (false, true, false) => "on-memory",
            (false, false, true) => "on-failure",
            (false, false, false) => "never",
        })
    }
}

impl std::str::FromStr for Policy {
    type Err = String;

    /// `never`, `always`, `on-memory`, `on-failure`, or the last two joined by a comma.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut policy = Policy { on_memory: false, on_failure: false, on_success: false };
        let words: Vec<&str> = text.split(',').map(str::trim).collect();
        for word in &words {
            match *word {
                "on-memory" => policy.on_memory = true,
                "on-failure" => policy.on_failure = true,
                "always" if words.len() == 1 => {
                    return Ok(Policy { on_memory: true, on_failure: true, on_success: true });
                }
                "never" if words.len() == 1 => return Ok(policy),
                "always" | "never" => return Err(format!("{word:?} stands alone, it cannot be combined")),
                other => {
                    return Err(format!(
                        "unknown policy {other:?}: expected never, always, on-memory, on-failure or on-memory,on-failure"
                    ));
                }
            }
        }
        Ok(policy)
    }
}

impl Policy {
    /// Whether an end for this reason is followed by another life.
    fn wants(&self, reason: Reason, code: Option<i32>) -> bool {
        match reason {
            Reason::Memory => self.on_memory,
            Reason::OomKill => self.on_memory || self.on_failure,
            Reason::Exit => {
                if code == Some(0) {
                    self.on_success
                } else {
                    self.on_failure
                }
            }
            Reason::Signal | Reason::Unknown | Reason::Usage => self.on_failure,
        }
    }
}

/// What comes after the end of a life.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Another life after this wait.
    Restart(Duration),
    /// No other life, and why not.
    End(Why),
}

/// Why there is no other life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// A person or the system asked for the end.
    Asked,
    /// The policy does not restart after such an end.
    Policy,
    /// Too many ends in a short time.
    CrashLoop,
    /// `--max-restarts` is used up.
    MaxRestarts,
}

/// The memory of past ends.
#[derive(Clone, Debug)]
pub(crate) struct Restarts {
    policy: Policy,
    first: Duration,
    max: Option<u32>,
    /// Restarts so far.
    pub(crate) total: u64,
    short_lives: u32,
    ends: VecDeque<Duration>,
}

impl Restarts {
    /// No life has ended yet. `first` is the first back-off, `max` the greatest number of restarts (`None`: no bound).
    pub(crate) fn new(policy: Policy, first: Duration, max: Option<u32>) -> Restarts {
        Restarts { policy, first, max, total: 0, short_lives: 0, ends: VecDeque::with_capacity(LOOP_ENDS) }
    }

    /// Decides after a life that ended at `now` (any monotonic origin) and had lasted `lived`.
    /// `jitter_ratio` is a fresh random number in 0..=1.
    pub(crate) fn decide(
        &mut self,
        now: Duration,
        lived: Duration,
        reason: Reason,
        code: Option<i32>,
        asked: bool,
        jitter_ratio: f64,
    ) -> Verdict {
        if asked {
            return Verdict::End(Why::Asked);
        }
        if !self.policy.wants(reason, code) {
            return Verdict::End(Why::Policy);
        }
        if self.max.is_some_and(|max| self.total >= u64::from(max)) {
            return Verdict::End(Why::MaxRestarts);
        }
        while self.ends.front().is_some_and(|end| now.saturating_sub(*end) > LOOP_WINDOW) {
            self.ends.pop_front();
        }
        self.ends.push_back(now);
        if self.ends.len() >= LOOP_ENDS {
            return Verdict::End(Why::CrashLoop);
        }
        self.short_lives = if lived >= CALM { 0 } else { self.short_lives.saturating_add(1) };
        self.total += 1;
        Verdict::Restart(backoff(self.first, self.short_lives, jitter_ratio))
    }
}

/// `first` × 2^(n−1) for the n-th short life in a row, at most [`MAX_BACKOFF`], then ± 20 %.
fn backoff(first: Duration, short_lives: u32, jitter_ratio: f64) -> Duration {
    let doubled = first.saturating_mul(1_u32 << short_lives.saturating_sub(1).min(20)).min(MAX_BACKOFF);
    doubled.mul_f64(0.8 + 0.4 * jitter_ratio.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn policies_read_back_as_written() {
        for text in ["never", "always", "on-memory", "on-failure", "on-memory,on-failure"] {
            assert_eq!(text.parse::<Policy>().expect(text).to_string(), text);
        }
        assert_eq!("on-failure, on-memory".parse::<Policy>(), Ok(Policy::default()));
        for bad in ["", "sometimes", "always,never", "never,on-memory", "on-memory,,on-failure"] {
            assert!(bad.parse::<Policy>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn which_ends_are_followed_by_another_life() {
        // (reason, code, never, on-memory, on-failure, default, always)
        let table = [
            (Reason::Memory, Some(0), [false, true, false, true, true]),
            (Reason::OomKill, None, [false, true, true, true, true]),
            (Reason::Exit, Some(0), [false, false, false, false, true]),
            (Reason::Exit, Some(3), [false, false, true, true, true]),
            (Reason::Signal, None, [false, false, true, true, true]),
            (Reason::Unknown, None, [false, false, true, true, true]),
        ];
        let policies = ["never", "on-memory", "on-failure", "on-memory,on-failure", "always"];
        for (reason, code, expected) in table {
            for (policy, expected) in policies.iter().zip(expected) {
                let mut restarts = Restarts::new(policy.parse().expect("policy"), FIRST_BACKOFF, None);
                let verdict = restarts.decide(s(1000), s(100), reason, code, false, 0.5);
                assert_eq!(matches!(verdict, Verdict::Restart(_)), expected, "{reason:?} {code:?} {policy}");
            }
        }
    }

    #[test]
    fn an_asked_end_is_final_whatever_the_policy() {
        let mut restarts = Restarts::new("always".parse().expect("policy"), FIRST_BACKOFF, None);
        assert_eq!(restarts.decide(s(9), s(9), Reason::Exit, Some(0), true, 0.5), Verdict::End(Why::Asked));
    }

    #[test]
    fn back_off_doubles_is_capped_and_forgets_after_a_calm_life() {
        let delays: Vec<f64> = (1..=10).map(|n| backoff(FIRST_BACKOFF, n, 0.5).as_secs_f64()).collect();
        let expected = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0];
        for (got, want) in delays.iter().zip(expected) {
            assert!((got - want).abs() < 1e-9, "{delays:?}");
        }
        assert_eq!(backoff(FIRST_BACKOFF, 0, 0.5), FIRST_BACKOFF);
        assert_eq!(backoff(FIRST_BACKOFF, 1, 0.0), Duration::from_millis(80));
        assert_eq!(backoff(FIRST_BACKOFF, 1, 1.0), Duration::from_millis(120));
        assert_eq!(backoff(FIRST_BACKOFF, u32::MAX, 1.0), MAX_BACKOFF.mul_f64(1.2));

        let mut restarts = Restarts::new(Policy::default(), FIRST_BACKOFF, None);
        let mut decide = |now, lived| restarts.decide(now, lived, Reason::Memory, None, false, 0.5);
        assert_eq!(decide(s(100), s(1)), Verdict::Restart(Duration::from_millis(100)));
        assert_eq!(decide(s(102), s(1)), Verdict::Restart(Duration::from_millis(200)));
        assert_eq!(decide(s(900), s(700)), Verdict::Restart(Duration::from_millis(100)));
    }

    #[test]
    fn five_ends_in_a_minute_are_a_crash_loop_and_slower_ones_are_not() {
        let mut fast = Restarts::new(Policy::default(), FIRST_BACKOFF, None);
        let verdicts: Vec<bool> = (0..5)
            .map(|n| matches!(fast.decide(s(100 + n), s(1), Reason::Exit, Some(1), false, 0.5), Verdict::Restart(_)))
            .collect();
        assert_eq!(verdicts, [true, true, true, true, false]);
        assert_eq!(fast.total, 4);

        let mut slow = Restarts::new(Policy::default(), FIRST_BACKOFF, None);
        for n in 0..50 {
            let verdict = slow.decide(s(100 + n * 16), s(15), Reason::Exit, Some(1), false, 0.5);
            assert!(matches!(verdict, Verdict::Restart(_)), "end {n}: {verdict:?}");
        }
    }

    #[test]
    fn the_number_of_restarts_can_be_bounded() {
        let mut restarts = Restarts::new(Policy::default(), FIRST_BACKOFF, Some(1));
        assert!(matches!(restarts.decide(s(1), s(1), Reason::Memory, None, false, 0.5), Verdict::Restart(_)));
        assert_eq!(restarts.decide(s(2), s(1), Reason::Memory, None, false, 0.5), Verdict::End(Why::MaxRestarts));
    }
}
