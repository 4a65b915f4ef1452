//! What ends a sleep: time, a nudge, or one of at most [`WAKES_MAX`] kernel events. Nothing that signals without end can make
//! it spin: a dead wake is dropped, one that fires more than [`WAKE_FIRES_MAX`] times a second is not listened to for
//! [`MUTED`], and then its guard does not count either.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd as _, BorrowedFd};
use rustix::io::Errno;

use super::board::WakeCounts;
use crate::gauge::{Wake, WakeKind};

/// Kernel events that one governor listens to.
pub const WAKES_MAX: usize = 15;
/// How often in a second one of them may end a sleep.
pub const WAKE_FIRES_MAX: u32 = 20;
/// The second in which that is counted, and for which it is not listened to after that.
const MUTED: Duration = Duration::from_secs(1);

/// The wakes, each with its recent past.
pub(super) struct Waits {
    slots: Vec<Slot>,
}

struct Slot {
    wake: Wake,
    counted_from: Duration,
    fires: u32,
    muted_until: Duration,
}

impl Slot {
    fn is_heard(&self, now: Duration) -> bool {
        now >= self.muted_until
    }

    /// Counts one event; false when it was one too many.
    fn fires(&mut self, now: Duration) -> bool {
        if now.saturating_sub(self.counted_from) >= MUTED {
            self.counted_from = now;
            self.fires = 0;
        }
        self.fires += 1;
        if self.fires > WAKE_FIRES_MAX {
            self.muted_until = now + MUTED;
        }
        self.fires <= WAKE_FIRES_MAX
    }
}

impl Waits {
    pub(super) fn new(wakes: Vec<Wake>) -> Waits {
        let slot = |wake| Slot { wake, counted_from: Duration::ZERO, fires: 0, muted_until: Duration::ZERO };
        Waits { slots: wakes.into_iter().take(WAKES_MAX).map(slot).collect() }
    }

    /// The lowest raw usage above `bytes` at which a threshold that is listened to fires.
    pub(super) fn guard_above(&self, bytes: u64, now: Duration) -> Option<u64> {
        let heard = self.slots.iter().filter(|slot| slot.is_heard(now));
        heard.filter_map(|slot| slot.wake.guard_bytes).filter(|guard| *guard > bytes).min()
    }

    /// Sleeps until something happens or `timeout` is over, and counts what it was. True when only the time was over.
    pub(super) fn sleep(
        &mut self,
        nudge: BorrowedFd<'_>,
        timeout: Duration,
        now: impl Fn() -> Duration,
        counts: &mut WakeCounts,
    ) -> bool {
        let before = now();
        let (ready, got) = {
            // One place more than wakes: the nudge. Places not in use watch for nothing.
            let mut set: [PollFd<'_>; WAKES_MAX + 1] = std::array::from_fn(|i| match i.checked_sub(1) {
                None => PollFd::from_borrowed_fd(nudge, PollFlags::IN),
                Some(i) => match self.slots.get(i).filter(|slot| slot.is_heard(before)) {
                    Some(slot) => PollFd::from_borrowed_fd(slot.wake.as_fd(), slot.wake.kind.poll_flags()),
                    None => PollFd::from_borrowed_fd(nudge, PollFlags::empty()),
                },
            });
            let time = Timespec::try_from(timeout).ok();
            let got = poll(&mut set[..=self.slots.len()], time.as_ref());
            (set.map(|entry| entry.revents()), got)
        };
        match got {
            Ok(0) => {
                counts.timeout_total += 1;
                return true;
            }
            Ok(_) => {}
            Err(Errno::INTR) => return false,
            Err(_) => {
                // It cannot poll (out of kernel memory): sleep all the same, never spin.
                std::thread::sleep(timeout);
                counts.timeout_total += 1;
                return true;
            }
        }
        if !ready[0].is_empty() {
            counts.nudge_total += 1;
            let mut count = [0; 8];
            rustix::io::read(nudge, &mut count[..]).ok();
        }
        let after = now();
        // From the back, so that removing one does not move those still to come.
        for i in (0..self.slots.len()).rev() {
            // Places that watch for nothing repeat the nudge's descriptor: only its errors show there.
            if ready[i + 1].is_empty() || !self.slots[i].is_heard(before) {
                continue;
            }
            let slot = &mut self.slots[i];
            if is_dead(slot.wake.kind, ready[i + 1]) || slot.wake.clear().is_err() {
                counts.dead_total += 1;
                self.slots.swap_remove(i);
                continue;
            }
            match slot.wake.kind {
                WakeKind::Threshold => counts.threshold_total += 1,
                WakeKind::Pressure => counts.pressure_total += 1,
                WakeKind::Events => counts.events_total += 1,
                WakeKind::Offered => counts.offered_total += 1,
            }
            if !slot.fires(after) {
                counts.muted_total += 1;
            }
        }
        false
    }
}

/// Whether what poll reported means that this descriptor will never do its work again. An error beside `PRI` is the ordinary
/// way of `memory.events`; for a pressure trigger it means that the group is gone.
fn is_dead(kind: WakeKind, ready: PollFlags) -> bool {
    let broken = ready.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL);
    match kind {
        WakeKind::Threshold | WakeKind::Offered => broken && !ready.contains(PollFlags::IN),
        WakeKind::Pressure => broken,
        WakeKind::Events => broken && !ready.contains(PollFlags::PRI),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;
    use crate::clock::{Clock as _, ManualClock};

    const LONG: Duration = Duration::from_secs(30);

    fn event() -> OwnedFd {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd")
    }

    fn signal(fd: &OwnedFd) {
        rustix::io::write(fd, &1u64.to_ne_bytes()).expect("room for one more");
    }

    fn threshold(guard_bytes: u64) -> (OwnedFd, Wake) {
        let fd = event();
        let other = fd.try_clone().expect("a second descriptor");
        (fd, Wake { fd: other, kind: WakeKind::Threshold, guard_bytes: Some(guard_bytes) })
    }

    #[test]
    fn time_a_nudge_and_a_threshold_end_a_sleep() {
        let (nudge, (kernel, wake)) = (event(), threshold(100));
        let clock = ManualClock::default();
        let mut waits = Waits::new(vec![wake]);
        let mut counts = WakeCounts::default();
        assert!(waits.sleep(nudge.as_fd(), Duration::from_millis(1), || clock.now(), &mut counts));
        signal(&nudge);
        assert!(!waits.sleep(nudge.as_fd(), LONG, || clock.now(), &mut counts));
        signal(&kernel);
        assert!(!waits.sleep(nudge.as_fd(), LONG, || clock.now(), &mut counts));
        // Both were drained: nothing is left that would end the next one.
        assert!(waits.sleep(nudge.as_fd(), Duration::ZERO, || clock.now(), &mut counts));
        let expected = WakeCounts { timeout_total: 2, nudge_total: 1, threshold_total: 1, ..WakeCounts::default() };
        assert_eq!(counts, expected);
    }

    #[test]
    fn the_lowest_guard_above_counts_and_a_muted_one_does_not() {
        let (nudge, (low, low_wake), (_high, high_wake)) = (event(), threshold(100), threshold(200));
        let clock = ManualClock::default();
        let mut waits = Waits::new(vec![high_wake, low_wake]);
        let mut counts = WakeCounts::default();
        assert_eq!(waits.guard_above(99, clock.now()), Some(100));
        assert_eq!(waits.guard_above(100, clock.now()), Some(200));
        assert_eq!(waits.guard_above(200, clock.now()), None);
        for _ in 0..=WAKE_FIRES_MAX {
            signal(&low);
            assert!(!waits.sleep(nudge.as_fd(), LONG, || clock.now(), &mut counts));
        }
        assert_eq!((counts.threshold_total, counts.muted_total), (u64::from(WAKE_FIRES_MAX) + 1, 1));
        // Fires on, but is not heard: neither as a wake nor as a guard.
        signal(&low);
        assert!(waits.sleep(nudge.as_fd(), Duration::ZERO, || clock.now(), &mut counts));
        assert_eq!(waits.guard_above(99, clock.now()), Some(200));
        clock.advance(MUTED);
        assert_eq!(waits.guard_above(99, clock.now()), Some(100));
        assert!(!waits.sleep(nudge.as_fd(), LONG, || clock.now(), &mut counts), "what it missed is heard then");
    }

    #[test]
    fn slow_firing_is_never_muted() {
        let (nudge, (kernel, wake)) = (event(), threshold(100));
        let clock = ManualClock::default();
        let mut waits = Waits::new(vec![wake]);
        let mut counts = WakeCounts::default();
        for _ in 0..10 * WAKE_FIRES_MAX {
            clock.advance(MUTED / WAKE_FIRES_MAX);
            signal(&kernel);
            assert!(!waits.sleep(nudge.as_fd(), LONG, || clock.now(), &mut counts));
        }
        assert_eq!(counts.muted_total, 0);
    }

    #[test]
    fn a_dead_wake_is_dropped_and_the_others_stay() {
        // A pipe without a writer hangs up for ever.
        let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
        drop(writer);
        let dead = |fd| Wake { fd, kind: WakeKind::Pressure, guard_bytes: None };
        let (nudge, (kernel, wake)) = (event(), threshold(100));
        let clock = ManualClock::default();
        let mut waits = Waits::new(vec![dead(reader), wake]);
        let mut counts = WakeCounts::default();
        assert!(!waits.sleep(nudge.as_fd(), LONG, || clock.now(), &mut counts));
        assert_eq!(counts.dead_total, 1);
        assert!(waits.sleep(nudge.as_fd(), Duration::ZERO, || clock.now(), &mut counts), "it is gone");
        signal(&kernel);
        assert!(!waits.sleep(nudge.as_fd(), LONG, || clock.now(), &mut counts));
        assert_eq!(counts.threshold_total, 1);
    }

    #[test]
    fn what_poll_says_of_each_kind() {
        let (err, pri, hup) = (PollFlags::ERR, PollFlags::PRI, PollFlags::HUP);
        for (kind, ready, dead) in [
            (WakeKind::Threshold, PollFlags::IN, false),
            (WakeKind::Threshold, PollFlags::IN | err, false),
            (WakeKind::Threshold, err, true),
            (WakeKind::Pressure, pri, false),
            (WakeKind::Pressure, pri | err, true),
            (WakeKind::Pressure, hup, true),
            (WakeKind::Events, pri | err, false),
            (WakeKind::Events, err, true),
            (WakeKind::Events, PollFlags::NVAL, true),
        ] {
            assert_eq!(is_dead(kind, ready), dead, "{kind:?} {ready:?}");
        }
    }
}
