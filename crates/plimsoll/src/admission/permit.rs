//! What a request holds: a [`Permit`] while it is worked on, a [`Ticket`] while it waits for one.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;

use super::class::Kind;
use super::error::{Reason, Refused};
use super::gate::Shared;
use super::lane::Ended;
use super::peer::Peer;

/// A peer's count that is to be given back; `bool`: the entry is his own.
pub(super) type Counted = Option<(Peer, bool)>;

/// A request that was let in. Its slot is free again when the last clone is dropped: what streams its answer takes one along. It keeps the
/// permit that it was asked for [within](super::Arrival::within), whichever gate gave that one.
#[derive(Clone)]
pub struct Permit {
    held: Arc<Held>,
    /// Of a request within the one that it was given to.
    is_nested: bool,
}

struct Held {
    /// `None`: exempt, or within another, which has the slot.
    shared: Option<Arc<Shared>>,
    gate: usize,
    kind: Kind,
    counted: Counted,
    came: Duration,
    began: Duration,
    deadline: Option<Duration>,
    abandoned: AtomicBool,
    /// What it is part of, let in by this gate or by another one.
    outer: Option<Permit>,
}

impl Permit {
    pub(super) fn slot(
        shared: &Arc<Shared>,
        kind: Kind,
        counted: Counted,
        (came, began): (Duration, Duration),
        deadline: Option<Duration>,
        outer: Option<Permit>,
    ) -> Permit {
        let (gate, shared) = (shared.id(), Some(Arc::clone(shared)));
        let abandoned = AtomicBool::new(false);
        let held = Held { shared, gate, kind, counted, came, began, deadline, abandoned, outer };
        Permit { held: Arc::new(held), is_nested: false }
    }

    /// Without a slot.
    pub(super) fn free(shared: &Shared, kind: Kind, now: Duration, outer: Option<Permit>) -> Permit {
        let abandoned = AtomicBool::new(false);
        let (gate, came, began) = (shared.id(), now, now);
        let (shared, counted, deadline) = (None, None, None);
        let held = Held { shared, gate, kind, counted, came, began, deadline, abandoned, outer };
        Permit { held: Arc::new(held), is_nested: false }
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.held.kind
    }

    /// How long it waited for its slot.
    pub fn waited(&self) -> Duration {
        self.held.began.saturating_sub(self.held.came)
    }

    /// What is left, at `now` of the gate's clock, of the time that the request itself allowed, the wait included. `None`: it set none.
    pub fn time_left(&self, now: Duration) -> Option<Duration> {
        self.held.deadline.map(|deadline| deadline.saturating_sub(now))
    }

    /// The work is not finished, its asker went away: its time counts for [`Slots::Adaptive`](super::Slots::Adaptive) only if it was longer
    /// than that allows already. Of a request within this one it says nothing, and does nothing.
    pub fn abandon(&self) {
        if !self.is_nested {
            self.held.abandoned.store(true, Ordering::Relaxed);
        }
    }

    /// For a request within this one that needs no slot.
    pub(super) fn nested(&self) -> Permit {
        Permit { held: Arc::clone(&self.held), is_nested: true }
    }

    /// Of this permit and those that it is within, the ones of this gate, the innermost first.
    pub(super) fn links_of(&self, shared: &Shared) -> impl Iterator<Item = &Permit> {
        let gate = shared.id();
        std::iter::successors(Some(self), |permit| permit.held.outer.as_ref())
            .filter(move |permit| permit.held.gate == gate)
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.held.deadline
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            let (went_away, began) = (self.abandoned.load(Ordering::Relaxed), self.began);
            let ended = if went_away { Ended::WentAway { began } } else { Ended::Finished { began } };
            shared.release(self.kind.work, self.counted.take(), ended);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("kind", &self.held.kind).field("waited", &self.waited()).finish_non_exhaustive()
    }
}

/// What became of a seat in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Waits,
    Granted,
    Expired,
    Closed,
    /// The permit, or the refusal, was taken.
    Taken,
}

/// A place in a lane's line.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) came: Duration,
    pub(super) deadline: Duration,
    /// Part of a request that was let in.
    pub(super) is_nested: bool,
    pub(super) state: Mutex<(Outcome, Option<Waker>)>,
}

impl Seat {
    /// Says what became of it; whom to wake. `None`: it waits no more, because its ticket was dropped.
    pub(super) fn settle(&self, outcome: Outcome) -> Option<Option<Waker>> {
        let mut state = self.state.lock();
        if state.0 != Outcome::Waits {
            return None;
        }
        state.0 = outcome;
        Some(state.1.take())
    }
}

/// A request that waits for a slot: a future of its permit. Dropping it gives the place, or the slot, back.
///
/// # Cancel safety
/// It may be polled and dropped at will.
pub struct Ticket {
    pub(super) shared: Arc<Shared>,
    pub(super) kind: Kind,
    pub(super) counted: Counted,
    pub(super) deadline: Option<Duration>,
    pub(super) outer: Option<Permit>,
    pub(super) seat: Arc<Seat>,
}

impl Ticket {
    fn poll_ready(&mut self, waker: &Waker) -> Poll<Result<Permit, Refused>> {
        let mut state = self.seat.state.lock();
        let reason = match state.0 {
            Outcome::Waits => {
                match &mut state.1 {
                    Some(kept) => kept.clone_from(waker),
                    none => *none = Some(waker.clone()),
                }
                return Poll::Pending;
            }
            Outcome::Granted => {
                state.0 = Outcome::Taken;
                // The gate's lock is taken before a seat's, never inside it.
                drop(state);
                let times = (self.seat.came, self.shared.now());
                // The slot came in time, and is taken too late: a task that was polled late, a thread that did not run.
                if self.deadline.is_some_and(|deadline| times.1 >= deadline) {
                    self.shared.release(self.kind.work, None, Ended::Unused);
                    let counted = self.counted.take();
                    return Poll::Ready(Err(self.shared.refuse_counted(Reason::Expired, self.kind, counted)));
                }
                self.shared.let_in(self.kind);
                let (counted, outer) = (self.counted.take(), self.outer.take());
                let permit = Permit::slot(&self.shared, self.kind, counted, times, self.deadline, outer);
                return Poll::Ready(Ok(permit));
            }
            Outcome::Expired => Reason::Expired,
            Outcome::Closed | Outcome::Taken => Reason::Closed,
        };
        state.0 = Outcome::Taken;
        drop(state);
        Poll::Ready(Err(self.shared.refuse_counted(reason, self.kind, self.counted.take())))
    }

    /// Blocks the thread until there is a slot or the time is over.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn wait(mut self) -> Result<Permit, Refused> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        loop {
            if let Poll::Ready(result) = self.poll_ready(&waker) {
                return result;
            }
            std::thread::park();
        }
    }
}

impl Future for Ticket {
    type Output = Result<Permit, Refused>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_ready(context.waker())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.seat.state.lock().0, Outcome::Taken);
        match outcome {
            Outcome::Taken => {}
            // The slot came, and nobody is left to use it.
            Outcome::Granted => self.shared.release(self.kind.work, self.counted.take(), Ended::Unused),
            Outcome::Waits | Outcome::Expired | Outcome::Closed => {
                self.shared.abandon(self.kind.work, &self.seat, self.counted.take());
            }
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("kind", &self.kind).finish_non_exhaustive()
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
