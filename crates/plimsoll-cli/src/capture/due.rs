//! When a capture is due. Pure: the time is passed in; each trigger has a cooldown of its own, so that none starves another
//! and none becomes a loop.
//!
//! | trigger | when | at most |
//! |---|---|---|
//! | start | [`SETTLED`] after the program started: the capture's self-test | once a life |
//! | periodic | every `every` (30 min by default) | – |
//! | high-water | a tenth above the highest figure that was captured, and [`STEP_BYTES`] | one in `every` |
//! | level | `--on LEVEL=snapshot` | one in `every` |
//! | asked | `plimsoll heap snapshot` | one at a time |
//!
//! What a running capture makes the program grow by is not the program's: while one runs nothing is noticed, and what is held when it has
//! [settled](SETTLES) is the highest figure that was captured.

use std::time::Duration;

/// How long after its start a program is captured first.
pub(crate) const SETTLED: Duration = Duration::from_secs(2);
/// How long after a capture the figure is that of the program again: the governor may read seldom, and the runtime frees late.
pub(crate) const SETTLES: Duration = Duration::from_secs(10);
/// The interval when none is given.
pub(crate) const EVERY: Duration = Duration::from_secs(30 * 60);
/// The least growth above the highest captured figure that counts as a new high, in bytes.
pub(crate) const STEP_BYTES: u64 = 16 << 20;

/// Self-tests of one life before it is said that captures do not work.
pub(crate) const TESTS: u32 = 3;

/// Why a capture is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Trigger {
    /// The program has started.
    Start,
    /// The interval is over.
    Periodic,
    /// Memory is higher than ever.
    HighWater,
    /// A stage asks for it.
    Level,
    /// A person asks for it.
    Asked,
}

impl Trigger {
    /// All of them, in the order in which they are served.
    pub(crate) const ALL: [Trigger; 5] =
        [Trigger::Asked, Trigger::Level, Trigger::Start, Trigger::HighWater, Trigger::Periodic];

    /// The word in file names, metrics and output.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Trigger::Start => "start",
            Trigger::Periodic => "periodic",
            Trigger::HighWater => "high-water",
            Trigger::Level => "level",
            Trigger::Asked => "asked",
        }
    }

    /// The trigger of that name.
    pub(crate) fn from_name(name: &str) -> Option<Trigger> {
        Trigger::ALL.into_iter().find(|trigger| trigger.as_str() == name)
    }
}

/// What has been captured in this life of the program, and when.
#[derive(Clone, Debug)]
pub(crate) struct Due {
    every: Duration,
    started: Option<Duration>,
    /// When each trigger last led to a capture, by its number.
    last: [Option<Duration>; 5],
    newest: Option<Duration>,
    highest_bytes: u64,
    /// When a capture ended of which nobody has seen yet what it left behind.
    settling: Option<Duration>,
    /// Self-tests of this life that failed: a program may still be loading.
    failed_tests: u32,
}

impl Due {
    /// Nothing captured; no program runs.
    pub(crate) fn new(every: Duration) -> Due {
        Due { every, started: None, last: [None; 5], newest: None, highest_bytes: 0, settling: None, failed_tests: 0 }
    }

    /// A program started: its life begins, cooldowns go on.
    pub(crate) fn life_began(&mut self, now: Duration) {
        self.started = Some(now);
        self.last[Trigger::Start as usize] = None;
        self.highest_bytes = 0;
        self.settling = None;
        self.failed_tests = 0;
    }

    /// The program ended.
    pub(crate) fn life_ended(&mut self) {
        self.started = None;
    }

    /// Whether a program runs.
    pub(crate) fn has_program(&self) -> bool {
        self.started.is_some()
    }

    /// What is due by itself now, with `charged_bytes` held.
    pub(crate) fn look(&mut self, now: Duration, charged_bytes: Option<u64>) -> Option<Trigger> {
        let lived = now.saturating_sub(self.started?);
        if lived < SETTLED {
            return None;
        }
        if self.last[Trigger::Start as usize].is_none() {
            return Some(Trigger::Start);
        }
        if self.settling.is_some_and(|ended| now.saturating_sub(ended) >= SETTLES) {
            self.highest_bytes = self.highest_bytes.max(charged_bytes.unwrap_or(0));
            self.settling = None;
        }
        let high = self.highest_bytes.saturating_add(STEP_BYTES.max(self.highest_bytes / 10));
        let is_higher = self.settling.is_none() && charged_bytes.is_some_and(|charged| charged >= high);
        if is_higher && self.wait(Trigger::HighWater, now).is_zero() {
            return Some(Trigger::HighWater);
        }
        let since = self.newest.map_or(lived, |newest| now.saturating_sub(newest));
        (since >= self.every).then_some(Trigger::Periodic)
    }

    /// How long `trigger` has to wait until it may lead to a capture again.
    pub(crate) fn wait(&self, trigger: Trigger, now: Duration) -> Duration {
        match (trigger, self.last[trigger as usize]) {
            (Trigger::HighWater | Trigger::Level, Some(last)) => (last + self.every).saturating_sub(now),
            _ => Duration::ZERO,
        }
    }

    /// A capture begins, for `trigger`.
    pub(crate) fn begun(&mut self, trigger: Trigger, now: Duration) {
        self.last[trigger as usize] = Some(now);
        self.newest = Some(now);
    }

    /// A capture failed. True: it was the self-test, and it is tried again at the next look, because the program may still be
    /// loading.
    pub(crate) fn failed(&mut self, trigger: Trigger) -> bool {
        if trigger != Trigger::Start {
            return false;
        }
        self.failed_tests += 1;
        let again = self.failed_tests < TESTS;
        if again {
            self.last[Trigger::Start as usize] = None;
        }
        again
    }

    /// A capture has ended; by what was read last, the program holds so much.
    pub(crate) fn ended(&mut self, now: Duration, charged_bytes: Option<u64>) {
        self.highest_bytes = self.highest_bytes.max(charged_bytes.unwrap_or(0));
        self.settling = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A capture began, ended in the same second, and has settled.
    fn captured(due: &mut Due, trigger: Trigger, second: u64, charged_bytes: u64) {
        due.begun(trigger, at(second));
        due.ended(at(second), Some(charged_bytes));
        due.look(at(second) + SETTLES, Some(charged_bytes));
    }

    #[test]
    fn the_first_capture_of_a_life_is_its_self_test() {
        let mut due = Due::new(EVERY);
        assert_eq!(due.look(at(100), Some(MIB)), None, "no program runs");
        due.life_began(at(100));
        assert_eq!(due.look(at(101), Some(MIB)), None);
        assert_eq!(due.look(at(105), Some(MIB)), Some(Trigger::Start));
        captured(&mut due, Trigger::Start, 105, MIB);
        assert_eq!(due.look(at(106), Some(MIB)), None);
        due.life_ended();
        assert_eq!(due.look(at(9000), Some(900 * MIB)), None);
        due.life_began(at(9000));
        assert_eq!(due.look(at(9006), None), Some(Trigger::Start), "the next life is tested, too");
    }

    #[test]
    fn a_self_test_that_fails_is_tried_three_times() {
        let mut due = Due::new(EVERY);
        due.life_began(at(0));
        for (second, again) in [(5, true), (35, true), (65, false)] {
            assert_eq!(due.look(at(second), None), Some(Trigger::Start));
            due.begun(Trigger::Start, at(second));
            assert_eq!(due.failed(Trigger::Start), again, "at {second}");
        }
        assert_eq!(due.look(at(95), None), None);
        assert!(!due.failed(Trigger::Periodic), "only the self-test is tried again at once");
    }

    #[test]
    fn the_interval_counts_from_the_newest_capture_of_any_kind() {
        let mut due = Due::new(at(1800));
        due.life_began(at(0));
        captured(&mut due, Trigger::Start, 5, 100 * MIB);
        assert_eq!(due.look(at(1804), Some(100 * MIB)), None);
        assert_eq!(due.look(at(1805), Some(100 * MIB)), Some(Trigger::Periodic));
        due.begun(Trigger::Asked, at(1805));
        assert_eq!(due.look(at(3604), Some(100 * MIB)), None);
        assert_eq!(due.look(at(3605), Some(100 * MIB)), Some(Trigger::Periodic));
    }

    #[test]
    fn a_new_high_is_a_tenth_more_and_has_its_own_cooldown() {
        let mut due = Due::new(at(1800));
        due.life_began(at(0));
        captured(&mut due, Trigger::Start, 5, 300 * MIB);
        assert_eq!(due.look(at(20), Some(329 * MIB)), None);
        assert_eq!(due.look(at(20), Some(330 * MIB)), Some(Trigger::HighWater));
        captured(&mut due, Trigger::HighWater, 20, 340 * MIB);
        assert_eq!(due.look(at(50), Some(400 * MIB)), None, "cooling down");
        assert_eq!(due.wait(Trigger::HighWater, at(50)), at(1770));
        assert_eq!(due.wait(Trigger::Level, at(40)), Duration::ZERO, "another's cooldown is not its own");
        assert_eq!(due.look(at(1820), Some(400 * MIB)), Some(Trigger::HighWater));
        let mut small = Due::new(at(1800));
        small.life_began(at(0));
        captured(&mut small, Trigger::Start, 5, 10 * MIB);
        assert_eq!(small.look(at(10), Some(25 * MIB)), None, "a few MiB are no new high");
        assert_eq!(small.look(at(10), Some(26 * MIB)), Some(Trigger::HighWater));
    }

    #[test]
    fn what_a_capture_made_grow_is_no_new_high() {
        let mut due = Due::new(at(1800));
        due.life_began(at(0));
        captured(&mut due, Trigger::Start, 5, 100 * MIB);
        due.begun(Trigger::Asked, at(100));
        // The governor's last reading is an old one: what the runtime keeps shows only later.
        due.ended(at(103), Some(100 * MIB));
        assert_eq!(due.look(at(104), Some(100 * MIB)), None);
        assert_eq!(due.look(at(112), Some(380 * MIB)), None, "it has not settled");
        assert_eq!(due.look(at(133), Some(400 * MIB)), None, "this is what it left behind");
        assert_eq!(due.look(at(163), Some(439 * MIB)), None);
        assert_eq!(due.look(at(163), Some(440 * MIB)), Some(Trigger::HighWater));
    }

    #[test]
    fn names_are_read_back() {
        for trigger in Trigger::ALL {
            assert_eq!(Trigger::from_name(trigger.as_str()), Some(trigger));
        }
        assert_eq!(Trigger::from_name("sometimes"), None);
    }
}
