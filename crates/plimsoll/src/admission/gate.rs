//! The gate: level, peer, slot, in this order, behind one lock that is held for some tens of nanoseconds. No runtime is needed.
//!
//! Waiting is bounded in number and time by the lane's settings; one thread, started by the first request that waits and asleep until the
//! first deadline, refuses those whose time is over. It is joined when the last handle is dropped.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::class::{Class, Kind, Work};
use super::error::{Reason, Refused};
use super::lane::{Ended, Lane, LaneCore, Said, Slots};
use super::level_cell::LevelCell;
use super::peer::{PEERS, Peer, PeerFigures, Peers};
use super::permit::{Counted, Outcome, Permit, Seat, Ticket};
use super::shed::{Dice, Ramps};
use super::stats::Stats;
use crate::clock::{Clock, MonotonicClock};

/// Slots of the heavy pool for each core: 2.
pub const HEAVY_PER_CORE: usize = 2;
/// Heavy requests that may wait for each slot: 16.
pub const HEAVY_WAITING_PER_SLOT: usize = 16;
/// How long a heavy request may wait: 1 s.
pub const HEAVY_WAIT: Duration = Duration::from_secs(1);
/// The least time after which who was refused is told to try again: 1 s. Each is told between this and twice this, in protocols that have
/// whole seconds only rounded by chance.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The settings of a gate. By default it sheds by level and has a heavy pool, and nothing else is limited.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Where each class begins to be refused, by level.
    pub ramps: Ramps,
    /// The lane of light requests. Default: no limit, so nobody waits.
    pub light: Lane,
    /// The heavy pool. Default [`HEAVY_PER_CORE`] slots a core, [`HEAVY_WAITING_PER_SLOT`] places each, [`HEAVY_WAIT`].
    pub heavy: Lane,
    /// Requests that one peer may have here, those that wait included. Default: no limit.
    pub per_peer: Option<u32>,
    /// Where there is a cap by peer: requests of all those together that cannot be told ([`Peer::Unknown`]). Default: no limit, since it is
    /// most often all of them; [`Stats::unknown_peers_total`] counts them.
    pub unknown_peers: Option<u32>,
    /// Peers that have an entry of their own. Default [`PEERS`].
    pub peers: usize,
    /// Default [`RETRY_AFTER`].
    pub retry_after: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        let slots = HEAVY_PER_CORE * std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let waiting = slots * HEAVY_WAITING_PER_SLOT;
        Settings {
            ramps: Ramps::default(),
            light: Lane { slots: Slots::Unlimited, waiting: 0, wait: Duration::ZERO },
            heavy: Lane { slots: Slots::Fixed(slots), waiting, wait: HEAVY_WAIT },
            per_peer: None,
            unknown_peers: None,
            peers: PEERS,
            retry_after: RETRY_AFTER,
        }
    }
}

/// A request at the gate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival<'a> {
    /// What it is.
    pub kind: Kind,
    /// Who asks; `None`: no cap by peer applies.
    pub peer: Option<&'a Peer>,
    /// The request that it is part of, by the permit that the innermost gate gave it: nested work takes no second slot.
    pub within: Option<&'a Permit>,
    /// How much time the asker gives it, the wait included; a lane's own wait applies as well. What is within a request has no more than that
    /// has left, and what has none left is refused ([`Reason::Expired`]).
    pub time: Option<Duration>,
}

/// The gate's answer.
#[derive(Debug)]
pub enum Answer {
    /// Let in.
    Now(Permit),
    /// It may wait for a slot: a future, or [`Ticket::wait`].
    Wait(Ticket),
    /// Refused.
    Refused(Refused),
}

pub(super) struct Core {
    light: LaneCore,
    heavy: LaneCore,
    peers: Peers,
    stats: Stats,
    closed: bool,
    /// When the timer looks again; `Duration::MAX`: when it is told to.
    alarm: Duration,
    stop: bool,
}

impl Core {
    fn lane(&mut self, work: Work) -> &mut LaneCore {
        match work {
            Work::Light => &mut self.light,
            Work::Heavy => &mut self.heavy,
        }
    }
}

pub(super) struct Shared {
    core: Mutex<Core>,
    /// For the timer.
    changed: Condvar,
    clock: Arc<dyn Clock>,
    level: LevelCell,
    settings: Settings,
    dice: Dice,
    exempt: AtomicU64,
    waker_panics: AtomicU64,
}

impl Shared {
    /// Wakes all of them. A waker that panics is counted, and takes neither the thread nor the others with it.
    fn wake(&self, wakers: Vec<Waker>) {
        for waker in wakers {
            if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
                self.waker_panics.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Which gate it is, while it lives.
    pub(super) fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    fn refused(&self, core: &mut Core, reason: Reason, kind: Kind) -> Refused {
        core.stats.refused[kind.class as usize][reason as usize] += 1;
        Refused::new(reason, kind, self.settings.retry_after, [self.dice.roll(), self.dice.roll()])
    }

    /// Refuses one that was counted with its peer.
    pub(super) fn refuse_counted(&self, reason: Reason, kind: Kind, counted: Counted) -> Refused {
        let mut core = self.core.lock();
        if let Some((peer, own)) = counted {
            core.peers.leave(&peer, own);
        }
        self.refused(&mut core, reason, kind)
    }

    /// One that waited was let in, and takes its slot.
    pub(super) fn let_in(&self, kind: Kind) {
        self.core.lock().stats.admitted[kind.class as usize] += 1;
    }

    /// A slot is free.
    pub(super) fn release(&self, work: Work, counted: Counted, ended: Ended) {
        let now = self.now();
        let mut wakers = Vec::new();
        let mut core = self.core.lock();
        if let Some((peer, own)) = counted {
            core.peers.leave(&peer, own);
        }
        let lane = core.lane(work);
        lane.release(now, ended);
        lane.settle(now, &mut wakers);
        drop(core);
        self.wake(wakers);
    }

    /// One that waited has gone away.
    pub(super) fn abandon(&self, work: Work, seat: &Arc<Seat>, counted: Counted) {
        let mut core = self.core.lock();
        core.stats.abandoned_total += 1;
        if let Some((peer, own)) = counted {
            core.peers.leave(&peer, own);
        }
        core.lane(work).leave_line(seat);
    }

    /// Refuses those whose time is over until told to stop.
    fn keep_time(&self) {
        let mut core = self.core.lock();
        while !core.stop {
            let deadlines = [core.light.next_deadline(), core.heavy.next_deadline()];
            let Some(alarm) = deadlines.into_iter().flatten().min() else {
                core.alarm = Duration::MAX;
                self.changed.wait(&mut core);
                continue;
            };
            let now = self.now();
            if now < alarm {
                core.alarm = alarm;
                self.changed.wait_for(&mut core, alarm - now);
                continue;
            }
            let mut wakers = Vec::new();
            core.light.expire(now, &mut wakers);
            core.heavy.expire(now, &mut wakers);
            parking_lot::MutexGuard::unlocked(&mut core, || self.wake(wakers));
        }
    }

    fn close(&self, stop: bool) {
        let mut wakers = Vec::new();
        let mut core = self.core.lock();
        core.closed = true;
        core.stop |= stop;
        // With the last handle the timer goes: nobody may wait any more.
        core.light.close(stop, &mut wakers);
        core.heavy.close(stop, &mut wakers);
        drop(core);
        self.changed.notify_all();
        self.wake(wakers);
    }
}

struct Handle {
    shared: Arc<Shared>,
    timer: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close(true);
        let timer = self.timer.get_mut().take();
        // Not from a task that is dropped where it is woken: by the timer itself.
        if let Some(timer) = timer.filter(|timer| timer.thread().id() != std::thread::current().id()) {
            timer.join().ok();
        }
    }
}

/// Decides who is let in. Cheap to clone; all clones are the same gate.
///
/// # Examples
/// ```
/// use plimsoll::admission::{Answer, Arrival, Gate, Kind, LevelCell, Peer, Reason, Settings};
///
/// let gate = Gate::new(Settings { per_peer: Some(1), ..Settings::default() }, LevelCell::new());
/// let peer = Peer::name("tenant 7");
/// let arrival = Arrival { kind: Kind::LIGHT, peer: Some(&peer), ..Arrival::default() };
/// let Answer::Now(permit) = gate.admit(arrival) else { panic!("the first") };
/// let Answer::Refused(refused) = gate.admit(arrival) else { panic!("the second") };
/// assert_eq!(refused.reason, Reason::Peer);
/// drop(permit); // answered
/// assert!(matches!(gate.admit(arrival), Answer::Now(_)));
/// ```
#[derive(Clone)]
pub struct Gate(Arc<Handle>);

impl Gate {
    /// A gate that reads the level from this cell.
    pub fn new(settings: Settings, level: LevelCell) -> Gate {
        Gate::with_clock(settings, level, Arc::new(MonotonicClock))
    }

    /// As [`Gate::new`], with the clock by which waits and latencies are measured.
    pub fn with_clock(settings: Settings, level: LevelCell, clock: Arc<dyn Clock>) -> Gate {
        let core = Core {
            light: LaneCore::new(settings.light),
            heavy: LaneCore::new(settings.heavy),
            peers: Peers::new(settings.peers),
            stats: Stats::default(),
            closed: false,
            alarm: Duration::MAX,
            stop: false,
        };
        let seed = u64::try_from(clock.now().as_nanos()).unwrap_or(0);
        let shared = Shared {
            core: Mutex::new(core),
            changed: Condvar::new(),
            clock,
            level,
            settings,
            dice: Dice::new(seed),
            exempt: AtomicU64::new(0),
            waker_panics: AtomicU64::new(0),
        };
        Gate(Arc::new(Handle { shared: Arc::new(shared), timer: Mutex::new(None) }))
    }

    /// Asks to be let in. Never blocks.
    pub fn admit(&self, arrival: Arrival<'_>) -> Answer {
        let shared = &self.0.shared;
        let (kind, came) = (arrival.kind, shared.now());
        if kind.class == Class::Exempt {
            shared.exempt.fetch_add(1, Ordering::Relaxed);
            return Answer::Now(Permit::free(shared, kind, came, arrival.within.cloned()));
        }
        // What was let in by this gate; what another one let in is kept, and counts there.
        let outer = arrival.within;
        let within = outer.and_then(|permit| permit.links_of(shared).next());
        // What is part of a request has no more time than that has.
        let own = arrival.time.map(|time| came.saturating_add(time));
        let outers = outer.into_iter().flat_map(|permit| permit.links_of(shared)).filter_map(Permit::deadline);
        let deadline = own.into_iter().chain(outers).min();
        let mut core = shared.core.lock();
        if deadline.is_some_and(|deadline| came >= deadline) {
            return Answer::Refused(shared.refused(&mut core, Reason::Expired, kind));
        }
        if let Some(outer) = outer.filter(|permit| permit.links_of(shared).any(|link| covers(link.kind(), kind.work))) {
            core.stats.nested_total += 1;
            return Answer::Now(outer.nested());
        }
        if core.closed && within.is_none() {
            return Answer::Refused(shared.refused(&mut core, Reason::Closed, kind));
        }
        let mut counted = None;
        if within.is_none() {
            let probability = shared.settings.ramps.probability(kind.class, shared.level.used_ratio());
            if probability > 0.0 && shared.dice.roll() < probability {
                return Answer::Refused(shared.refused(&mut core, Reason::Level, kind));
            }
            if let (Some(peer), Some(cap)) = (arrival.peer, shared.settings.per_peer) {
                let is_unknown = *peer == Peer::Unknown;
                core.stats.unknown_peers_total += u64::from(is_unknown);
                let cap = if is_unknown { shared.settings.unknown_peers.unwrap_or(u32::MAX) } else { cap };
                let Some(own) = core.peers.enter(peer, cap) else {
                    return Answer::Refused(shared.refused(&mut core, Reason::Peer, kind));
                };
                counted = Some((peer.clone(), own));
            }
        }
        let lane = core.lane(kind.work);
        let said = lane.ask();
        match said {
            Said::Slot => {
                core.stats.admitted[kind.class as usize] += 1;
                drop(core);
                let outer = outer.cloned();
                Answer::Now(Permit::slot(shared, kind, counted, (came, came), deadline, outer))
            }
            Said::Wait if self.timer_runs() => {
                let until = came.saturating_add(lane.wait()).min(deadline.unwrap_or(Duration::MAX));
                let state = Mutex::new((Outcome::Waits, None));
                let seat = Arc::new(Seat { came, deadline: until, is_nested: within.is_some(), state });
                lane.sit(Arc::clone(&seat));
                let sooner = until < core.alarm;
                drop(core);
                if sooner {
                    shared.changed.notify_one();
                }
                let (shared, outer) = (Arc::clone(shared), outer.cloned());
                Answer::Wait(Ticket { shared, kind, counted, deadline, outer, seat })
            }
            Said::Wait | Said::Busy => {
                if let Some((peer, own)) = counted {
                    core.peers.leave(&peer, own);
                }
                Answer::Refused(shared.refused(&mut core, Reason::Busy, kind))
            }
        }
    }

    /// As [`Gate::admit`], and waits on this thread.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn admit_blocking(&self, arrival: Arrival<'_>) -> Result<Permit, Refused> {
        match self.admit(arrival) {
            Answer::Now(permit) => Ok(permit),
            Answer::Wait(ticket) => ticket.wait(),
            Answer::Refused(refused) => Err(refused),
        }
    }

    /// Starts the timer with the first request that waits. False: no thread can be had, so nobody may wait.
    fn timer_runs(&self) -> bool {
        let mut timer = self.0.timer.lock();
        if timer.is_none() {
            let shared = Arc::clone(&self.0.shared);
            let thread = std::thread::Builder::new().name("admission".into()).stack_size(128 << 10);
            *timer = thread.spawn(move || shared.keep_time()).ok();
        }
        timer.is_some()
    }

    /// Refuses everybody from now on but the exempt, and those who wait: the service leaves. What is worked on is finished: what is part of
    /// it ([`Arrival::within`]) still gets its slot, and may wait for it.
    pub fn close(&self) {
        self.0.shared.close(false);
    }

    /// The time by the gate's clock, for [`Permit::time_left`].
    pub fn now(&self) -> Duration {
        self.0.shared.now()
    }

    /// Gauges and counters.
    pub fn stats(&self) -> Stats {
        let core = self.0.shared.core.lock();
        let mut stats = Stats {
            light: core.light.stats(),
            heavy: core.heavy.stats(),
            waker_panics_total: self.0.shared.waker_panics.load(Ordering::Relaxed),
            is_level_silent: self.0.shared.level.is_silent(),
            peers: core.peers.len() as u64,
            ..core.stats
        };
        stats.admitted[Class::Exempt as usize] = self.0.shared.exempt.load(Ordering::Relaxed);
        stats
    }

    /// The peers with most requests here, at most `most`: who it is that takes everything. Those that have no entry of their own are one,
    /// [`Peer::Others`].
    pub fn top_peers(&self, most: usize) -> Vec<PeerFigures> {
        self.0.shared.core.lock().peers.top(most)
    }
}

/// Whether who holds such a permit needs no slot for such work: he has one of that kind, or a heavy one, or is exempt.
fn covers(held: Kind, work: Work) -> bool {
    held.class == Class::Exempt || held.work == Work::Heavy || work == Work::Light
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
