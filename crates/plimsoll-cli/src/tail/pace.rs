//! When to read: at once after quiet, in rounds of about a millisecond while data keeps coming. Pure; the clock is
//! passed in.
//!
//! A child that writes 200-byte lines as fast as it can would wake a naive reader for nearly each of them: measured on
//! a million lines, 480,000 wake-ups and 0.42 s of CPU, against 300 wake-ups and 0.03 s with this pace, and the child's
//! own `write` is 15 % cheaper because nobody has to be woken. The pause shrinks with the rate so that at most a
//! quarter of the pipe fills up meanwhile: pacing never makes the child wait.
//!
//! [`Patience`] is the one thing that does: a ring that is more than half full is given a millisecond at a time, of 200 ms
//! that grow back at 1 % of the time. A flood that outruns the spooler for a moment (430 MB/s fill a ring of 8 MiB in
//! 19 ms, and a busy machine stops a thread for longer) then waits in the pipe and loses nothing; a disk that is slow or
//! full for good holds the child back by 1 %, and what finds no room is dropped and counted.

use std::time::Duration;

/// The longest pause between two rounds of reading, and so the most that pacing delays a line.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(1);
/// Shorter pauses are not worth the system call: the timer's own slack is 50 µs.
const SHORTEST_PAUSE: Duration = Duration::from_micros(100);
/// A round that follows the last one after more than this is the first after quiet: it does not wait.
const QUIET: Duration = Duration::from_millis(2);

/// What one rest is asked to take.
const REST: Duration = Duration::from_millis(1);
/// The most that rests take in a row, beyond what grows back.
pub(super) const LONGEST_REST: Duration = Duration::from_millis(200);
/// One part in so many of the time that passes is given back.
const REGROWTH: u32 = 100;

/// How long the sink may still be waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    left: Duration,
    /// What a rest took beyond what was left; paid back first.
    owed: Duration,
    at: Duration,
}

impl Patience {
    pub(super) fn new(now: Duration) -> Patience {
        Patience { left: LONGEST_REST, owed: Duration::ZERO, at: now }
    }

    /// How long to rest now; zero when there is no patience left.
    pub(super) fn rest(&mut self, now: Duration) -> Duration {
        let grown = now.saturating_sub(self.at) / REGROWTH;
        self.left = (self.left + grown.saturating_sub(self.owed)).min(LONGEST_REST);
        self.owed = self.owed.saturating_sub(grown);
        self.at = now;
        if self.left >= REST { REST } else { Duration::ZERO }
    }

    /// A rest took so long: more than it was asked to, on a busy machine.
    pub(super) fn rested(&mut self, took: Duration) {
        self.owed += took.saturating_sub(self.left);
        self.left = self.left.saturating_sub(took);
    }
}

/// The pace of one tail thread, over both streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Bytes that may gather unread: a quarter of the smaller pipe.
    room_bytes: u64,
    last: Option<Round>,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    at: Duration,
    bytes: u64,
    /// Since the round before it.
    after: Duration,
}

impl Pace {
    /// A pace for pipes of which the smaller holds `pipe_bytes`.
    pub(super) fn new(pipe_bytes: usize) -> Pace {
        Pace { room_bytes: (pipe_bytes / 4) as u64, last: None }
    }

    /// How long to wait before reading what became readable at `now`; zero means at once.
    pub(super) fn pause(&self, now: Duration) -> Duration {
        let Some(last) = self.last.filter(|last| now.saturating_sub(last.at) < QUIET) else { return Duration::ZERO };
        // bytes/after is the rate; the time in which `room_bytes` come in is room/rate.
        let after_ns = u64::try_from(last.after.as_nanos()).unwrap_or(u64::MAX);
        let fill_ns = self.room_bytes.saturating_mul(after_ns) / last.bytes.max(1);
        let pause = Duration::from_nanos(fill_ns).min(LONGEST_PAUSE);
        if pause < SHORTEST_PAUSE { Duration::ZERO } else { pause }
    }

    /// A round of reading at `now` brought `bytes`.
    pub(super) fn read(&mut self, now: Duration, bytes: u64) {
        if bytes > 0 {
            let after =
                self.last.map_or(QUIET, |last| now.saturating_sub(last.at)).clamp(Duration::from_micros(1), QUIET);
            self.last = Some(Round { at: now, bytes, after });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// Rounds of `bytes` each `every` microseconds; the pause before the next one that follows after `then`.
    fn settled(bytes: u64, every_us: u64, then_us: u64) -> Duration {
        let mut pace = Pace::new(MIB);
        for round in 1..=5 {
            pace.read(Duration::from_micros(1_000_000 + round * every_us), bytes);
        }
        pace.pause(Duration::from_micros(1_000_000 + 5 * every_us + then_us))
    }

    #[test]
    fn the_first_read_after_quiet_does_not_wait() {
        assert_eq!(Pace::new(MIB).pause(Duration::from_secs(9)), Duration::ZERO);
        assert_eq!(settled(200, 10_000, 10_000), Duration::ZERO, "a line every 10 ms is read at once");
    }

    #[test]
    fn a_dense_stream_of_small_lines_is_read_once_a_millisecond() {
        assert_eq!(settled(200, 100, 100), LONGEST_PAUSE);
        assert_eq!(settled(200, 1, 1), LONGEST_PAUSE);
    }

    #[test]
    fn the_pause_shrinks_so_that_a_quarter_of_the_pipe_is_never_exceeded() {
        for (mb_per_second, most_us) in [(200, 1_000), (400, 656), (1_000, 263), (2_000, 132)] {
            let pause = settled(mb_per_second * 1_000, 1_000, 10);
            assert!(pause <= Duration::from_micros(most_us), "{mb_per_second} MB/s: {pause:?}");
            assert!(pause > Duration::ZERO, "{mb_per_second} MB/s");
        }
        assert_eq!(settled(10_000_000, 1_000, 10), Duration::ZERO, "10 GB/s is read without any pause");
    }

    #[test]
    fn a_small_pipe_is_never_left_alone_while_it_fills() {
        let mut pace = Pace::new(64 << 10);
        for round in 1..=5 {
            pace.read(Duration::from_millis(round), 400_000);
        }
        assert_eq!(pace.pause(Duration::from_micros(5_010)), Duration::ZERO);
    }

    #[test]
    fn patience_ends_and_grows_back_at_one_percent() {
        let mut now = Duration::from_secs(5);
        let mut patience = Patience::new(now);
        let mut rest_for = |length: Duration| {
            let (until, mut total) = (now + length, Duration::ZERO);
            while now < until {
                let rest = patience.rest(now);
                // Sleeping takes a little longer than asked; work in between takes as long again.
                let took = rest + rest / 10;
                patience.rested(took);
                total += took;
                now += took + Duration::from_millis(1);
            }
            total
        };
        let first = rest_for(Duration::from_secs(1));
        assert!(first >= LONGEST_REST && first <= LONGEST_REST + Duration::from_millis(15), "{first:?}");
        let later = rest_for(Duration::from_secs(10));
        assert!(later >= Duration::from_millis(80) && later <= Duration::from_millis(105), "{later:?}");
    }

    #[test]
    fn an_empty_round_does_not_count_as_data() {
        let mut pace = Pace::new(MIB);
        pace.read(Duration::from_millis(10), 100);
        pace.read(Duration::from_millis(14), 0);
        assert_eq!(pace.pause(Duration::from_millis(15)), Duration::ZERO);
    }
}
