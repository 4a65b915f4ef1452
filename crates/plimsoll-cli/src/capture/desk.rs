//! Where the supervise loop, the faces and the capture thread meet: what is asked for, what was done. One short lock, no I/O inside.
//!
//! At most one request of each trigger waits (five); a second one of the same kind joins it. The thread sleeps until one does.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::due::{Due, Trigger};
use super::wait::Pause;
use crate::snapshot::{CaptureView, HeapView};

/// The desk.
pub(crate) struct Desk {
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    due: Due,
    waiting: [bool; 5],
    running: bool,
    /// A capture that was given up goes on in the program: what that grows by is no reason for another.
    late: bool,
    closed: bool,
    view: HeapView,
}

/// What the thread is woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A capture, and the ticket that it serves.
    Due(Trigger, u64),
    /// It is time to look after the one that is late.
    Late,
    /// Nothing more: the supervisor ends.
    Closed,
}

/// How often a capture that is late is looked after.
const LATE_LOOK: Duration = Duration::from_secs(1);

/// What a person's request led to, once it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The same trigger led to a capture not long ago.
    CoolingDown(Duration),
    /// No program runs.
    NoProgram,
    /// `--heap=off`, or the supervisor ends.
    Off,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refused::CoolingDown(left) => write!(f, "cooling down for another {}", plimsoll::units::duration(*left)),
            Refused::NoProgram => f.write_str("no program runs"),
            Refused::Off => f.write_str("captures are off (--heap=off)"),
        }
    }
}

impl Desk {
    /// Nothing waits, no program runs.
    pub(crate) fn new(mode: &str, every: Duration) -> Desk {
        let view = HeapView { mode: mode.to_owned(), every_seconds: every.as_secs_f64(), ..HeapView::default() };
        let inner =
            Inner { due: Due::new(every), waiting: [false; 5], running: false, late: false, closed: false, view };
        Desk { inner: Mutex::new(inner), changed: Condvar::new() }
    }

    /// A program started.
    pub(crate) fn life_began(&self, now: Duration) {
        let mut inner = self.inner.lock();
        inner.due.life_began(now);
        inner.view.self_test = None;
    }

    /// It ended: what was asked for and not begun is given up.
    pub(crate) fn life_ended(&self) {
        let mut inner = self.inner.lock();
        inner.due.life_ended();
        if std::mem::take(&mut inner.waiting)[Trigger::Asked as usize] {
            inner.view.served_total = inner.view.asked_total;
            inner.view.answer =
                Some(CaptureView { failed: Some("the program ended".into()), ..CaptureView::default() });
        }
    }

    /// The regular look: is something due by itself?
    pub(crate) fn look(&self, now: Duration, charged_bytes: Option<u64>) {
        let mut inner = self.inner.lock();
        if inner.running || inner.late || inner.closed {
            return;
        }
        if let Some(trigger) = inner.due.look(now, charged_bytes) {
            inner.waiting[trigger as usize] = true;
            self.changed.notify_one();
        }
    }

    /// Asks for a capture. Returns the ticket: it is served once `served_total` has reached it.
    ///
    /// # Errors
    /// Why there will be none.
    pub(crate) fn ask(&self, trigger: Trigger, now: Duration) -> Result<u64, Refused> {
        let mut inner = self.inner.lock();
        let wait = inner.due.wait(trigger, now);
        let refused = match () {
            () if inner.closed => Some(Refused::Off),
            () if !inner.due.has_program() => Some(Refused::NoProgram),
            () if !wait.is_zero() => Some(Refused::CoolingDown(wait)),
            () => None,
        };
        if let Some(refused) = refused {
            *inner.view.refused_total.entry(reason(&refused).to_owned()).or_default() += 1;
            return Err(refused);
        }
        inner.waiting[trigger as usize] = true;
        if trigger == Trigger::Asked {
            inner.view.asked_total += 1;
        }
        self.changed.notify_one();
        Ok(inner.view.asked_total)
    }

    /// Waits for the next request, and marks it as running.
    pub(super) fn next(&self, now: &dyn Fn() -> Duration) -> Next {
        let mut inner = self.inner.lock();
        loop {
            if inner.closed {
                return Next::Closed;
            }
            if let Some(trigger) = Trigger::ALL.into_iter().find(|trigger| inner.waiting[*trigger as usize]) {
                inner.waiting[trigger as usize] = false;
                // What the regular look has noticed until now, this one shows.
                inner.waiting[Trigger::HighWater as usize] = false;
                inner.waiting[Trigger::Periodic as usize] = false;
                inner.running = true;
                inner.due.begun(trigger, now());
                inner.view.running = Some(trigger.as_str().to_owned());
                return Next::Due(trigger, inner.view.asked_total);
            }
            if !inner.late {
                self.changed.wait(&mut inner);
            } else if self.changed.wait_for(&mut inner, LATE_LOOK).timed_out() {
                return Next::Late;
            }
        }
    }

    /// From now on a capture is late: nothing is noticed, and [`Desk::next`] asks for it to be looked after.
    pub(super) fn await_late(&self) {
        self.inner.lock().late = true;
    }

    /// It is late no longer, and has become this capture; by what was read last, the program holds so much.
    pub(super) fn late_ended(&self, became: Option<CaptureView>, now: Duration, charged_bytes: Option<u64>) {
        let mut inner = self.inner.lock();
        inner.late = false;
        inner.due.ended(now, charged_bytes);
        if became.is_some() {
            inner.view.last = became;
        }
    }

    /// Changes what is shown.
    pub(super) fn show(&self, change: impl FnOnce(&mut HeapView)) {
        change(&mut self.inner.lock().view);
    }

    /// A capture has ended; by what was read last, the program holds so much. Returns whether a failed self-test is tried again: one
    /// that something else had to stand in for has failed, too.
    pub(super) fn done(
        &self,
        trigger: Trigger,
        ticket: u64,
        answer: CaptureView,
        now: Duration,
        charged_bytes: Option<u64>,
    ) -> bool {
        let mut inner = self.inner.lock();
        let wrong = answer.failed.as_ref().or(answer.fell_back.as_ref());
        let again = wrong.is_some() && inner.due.failed(trigger);
        let found = wrong.cloned().unwrap_or_else(|| "ok".to_owned());
        inner.running = false;
        inner.due.ended(now, charged_bytes);
        let view = &mut inner.view;
        view.running = None;
        // What did not work at the start and does now, works: jemalloc may only have had nothing to write yet.
        if trigger == Trigger::Start && !again || view.self_test.is_some() && found == "ok" {
            view.self_test = Some(found);
        }
        if trigger == Trigger::Asked {
            view.served_total = ticket;
            view.answer = Some(answer.clone());
        }
        if answer.failed.is_none() {
            view.last = Some(answer);
        }
        again
    }

    /// What is shown.
    pub(crate) fn view(&self) -> HeapView {
        self.inner.lock().view.clone()
    }

    /// Ends the thread: what runs gives up soon, what waits is never begun.
    pub(super) fn close(&self) {
        self.inner.lock().closed = true;
        self.changed.notify_all();
    }
}

impl Pause for Desk {
    fn pause(&self, time: Duration) -> bool {
        let mut inner = self.inner.lock();
        if !inner.closed && !time.is_zero() {
            self.changed.wait_while_for(&mut inner, |inner| !inner.closed, time);
        }
        !inner.closed
    }
}

fn reason(refused: &Refused) -> &'static str {
    match refused {
        Refused::CoolingDown(_) => "cooldown",
        Refused::NoProgram => "no-program",
        Refused::Off => "off",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::due::EVERY;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_request_waits_is_run_and_answers_its_ticket() {
        let desk = Desk::new("auto", EVERY);
        assert_eq!(desk.ask(Trigger::Asked, at(0)), Err(Refused::NoProgram));
        desk.life_began(at(0));
        let ticket = desk.ask(Trigger::Asked, at(1)).unwrap();
        assert_eq!(desk.ask(Trigger::Asked, at(1)), Ok(ticket + 1), "a second one joins the first");
        assert_eq!(desk.next(&|| at(1)), Next::Due(Trigger::Asked, 2));
        assert_eq!(desk.view().running.as_deref(), Some("asked"));
        desk.look(at(5), Some(1));
        let answer = CaptureView { id: "x".into(), ..CaptureView::default() };
        desk.done(Trigger::Asked, 2, answer, at(5), Some(7));
        let view = desk.view();
        assert_eq!((view.served_total, view.running, view.refused_total["no-program"]), (2, None, 1));
        assert_eq!(view.answer.unwrap().id, "x");
        desk.look(at(6), Some(1));
        assert_eq!(desk.next(&|| at(6)), Next::Due(Trigger::Start, 2), "what became due meanwhile was not begun twice");
    }

    #[test]
    fn a_high_that_was_noticed_before_a_person_asked_is_shown_by_what_they_asked_for() {
        const MIB: u64 = 1 << 20;
        let desk = Desk::new("auto", EVERY);
        desk.life_began(at(0));
        desk.look(at(5), Some(10 * MIB));
        desk.next(&|| at(5));
        desk.done(Trigger::Start, 0, CaptureView::default(), at(5), Some(10 * MIB));
        desk.look(at(15), Some(10 * MIB));
        desk.look(at(30), Some(100 * MIB));
        desk.ask(Trigger::Asked, at(31)).unwrap();
        assert_eq!(desk.next(&|| at(31)), Next::Due(Trigger::Asked, 1));
        desk.done(Trigger::Asked, 1, CaptureView::default(), at(33), Some(100 * MIB));
        desk.close();
        assert_eq!(desk.next(&|| at(32)), Next::Closed, "the high is not captured a second time");
    }

    #[test]
    fn while_a_capture_is_late_nothing_is_noticed_and_people_are_served() {
        const MIB: u64 = 1 << 20;
        let desk = Desk::new("auto", EVERY);
        desk.life_began(at(0));
        desk.look(at(5), Some(10 * MIB));
        desk.next(&|| at(5));
        desk.await_late();
        desk.done(Trigger::Start, 0, CaptureView::default(), at(35), Some(10 * MIB));
        desk.look(at(60), Some(900 * MIB));
        assert_eq!(desk.next(&|| at(60)), Next::Late, "what the snapshot grew by is no new high");
        desk.ask(Trigger::Asked, at(61)).unwrap();
        assert_eq!(desk.next(&|| at(61)), Next::Due(Trigger::Asked, 1));
        desk.done(Trigger::Asked, 1, CaptureView::default(), at(62), Some(900 * MIB));
        desk.late_ended(Some(CaptureView { id: "late".into(), ..CaptureView::default() }), at(70), Some(900 * MIB));
        assert_eq!(desk.view().last.unwrap().id, "late");
        desk.look(at(90), Some(900 * MIB));
        desk.close();
        assert_eq!(desk.next(&|| at(90)), Next::Closed);
    }

    #[test]
    fn a_level_has_its_cooldown_and_a_person_has_none() {
        let desk = Desk::new("auto", EVERY);
        desk.life_began(at(0));
        desk.ask(Trigger::Level, at(10)).unwrap();
        desk.next(&|| at(10));
        desk.done(Trigger::Level, 0, CaptureView::default(), at(10), None);
        assert_eq!(desk.ask(Trigger::Level, at(20)), Err(Refused::CoolingDown(at(1790))));
        assert!(desk.ask(Trigger::Asked, at(20)).is_ok());
        assert_eq!(desk.view().refused_total["cooldown"], 1);
    }

    #[test]
    fn a_self_test_that_something_else_stood_in_for_is_tried_again_and_says_what_failed() {
        let desk = Desk::new("pprof", EVERY);
        desk.life_began(at(0));
        let why = "pprof failed: no answer".to_owned();
        let instead = CaptureView { method: "smaps".into(), fell_back: Some(why.clone()), ..CaptureView::default() };
        for (second, again) in [(5, true), (35, true), (65, false)] {
            desk.look(at(second), None);
            assert_eq!(desk.next(&|| at(second)), Next::Due(Trigger::Start, 0));
            assert_eq!(desk.view().self_test, None);
            assert_eq!(desk.done(Trigger::Start, 0, instead.clone(), at(second), None), again);
        }
        assert_eq!(desk.view().self_test, Some(why));
        desk.ask(Trigger::Asked, at(70)).unwrap();
        desk.next(&|| at(70));
        desk.done(Trigger::Asked, 1, CaptureView::default(), at(70), None);
        assert_eq!(desk.view().self_test.as_deref(), Some("ok"), "it works by now");
    }

    #[test]
    fn a_program_that_ends_answers_who_waits() {
        let desk = Desk::new("auto", EVERY);
        desk.life_began(at(0));
        let ticket = desk.ask(Trigger::Asked, at(1)).unwrap();
        desk.life_ended();
        let view = desk.view();
        assert_eq!(view.served_total, ticket);
        assert_eq!(view.answer.unwrap().failed.as_deref(), Some("the program ended"));
    }

    #[test]
    fn closing_ends_the_wait_and_the_pauses() {
        let desk = Desk::new("auto", EVERY);
        desk.life_began(at(0));
        assert!(desk.pause(Duration::from_millis(1)));
        desk.close();
        assert!(!desk.pause(at(3600)));
        assert_eq!(desk.next(&|| at(0)), Next::Closed);
        assert_eq!(desk.ask(Trigger::Asked, at(1)), Err(Refused::Off));
    }
}
