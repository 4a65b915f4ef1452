//! The controller: carries out what the governor wants back. One thread of its own (`reclaim`) and one per store (`reclaim:NAME`), at most
//! [`MAX_STORES`]; none of them is the governor's.
//!
//! - An order is shared over the stores ([`share`](super::share)), pass after pass. A store that does not answer within the deadline (1 s) is
//!   late: named, counted, left out until it answers, and what it was asked for goes back to the law, which asks the others.
//! - Accounts are clamped so that what was given back is not refilled, after each answer and every 100 ms while the level is above Normal, else once a second.
//! - The allocator is purged when the law asks for it, at most every 10 s ([`PURGE_INTERVAL`]).
//! - Stuck for 5 s plus up to half of it by chance, so that a fleet does not leave in lockstep: the next stage is called, once.
//!
//! [`Controller::supply`] and [`Controller::order`] are for the governor's thread: they take no lock, allocate nothing and never wait.

mod round;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use parking_lot::Mutex;

use super::Reclaim;
use super::ledger::Account;
use super::share::bounds;
use crate::clock::{Clock, MonotonicClock};
use crate::event::{DEADLINE, Supply, Want};
use crate::level::Level;
use round::{Counts, Done, Member, Round};
use worker::Store;

/// Stores that one controller can have.
pub const MAX_STORES: usize = 64;
/// The shortest time between two purges of the allocator.
pub const PURGE_INTERVAL: Duration = Duration::from_secs(10);
/// How long it is stuck before the next stage, without the jitter.
pub const STUCK_DWELL: Duration = Duration::from_secs(5);
/// A bound stays while the store is below it by less than this part.
const RATCHET_PART: u64 = 50;
/// How often clamps are set anew while the level is above Normal.
const CLAMP_INTERVAL: Duration = Duration::from_millis(100);

/// What a controller is started with. `Settings::default()`: one second, no purge, no next stage.
pub struct Settings {
    /// How long a store may take for one ask. Default 1 s.
    pub deadline: Duration,
    /// Purges the allocator; on the controller's thread.
    pub purge: Option<Box<dyn FnMut() + Send>>,
    /// The next stage: called once each time that it has been stuck for the dwell; on the controller's thread.
    pub on_stuck: Option<Box<dyn FnMut() + Send>>,
    /// How long it is stuck before that. Default [`STUCK_DWELL`]; up to half is added by chance.
    pub stuck_dwell: Duration,
    /// Where time comes from; waiting is always in real time.
    pub clock: Arc<dyn Clock>,
}

impl Default for Settings {
    fn default() -> Settings {
        let clock = Arc::new(MonotonicClock);
        Settings { deadline: DEADLINE, purge: None, on_stuck: None, stuck_dwell: STUCK_DWELL, clock }
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// Why a store was not registered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// There are [`MAX_STORES`] already.
    #[error("register store {name:?}: there are {MAX_STORES} already")]
    TooMany {
        /// Its name.
        name: String,
    },
    /// The system gives no thread.
    #[error("register store {name:?}: no thread for it")]
    NoThread {
        /// Its name.
        name: String,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
}

/// Figures of one store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreFigures {
    /// Its name.
    pub name: Arc<str>,
    /// What it holds, in bytes.
    pub held_bytes: u64,
    /// Asks, by pass: compact, benign, idle, destructive.
    pub asks_total: [u64; 4],
    /// What it was asked for, in bytes.
    pub asked_bytes_total: u64,
    /// What it says it gave, in bytes.
    pub claimed_bytes_total: u64,
    /// Asks that it did not answer in time.
    pub late_total: u64,
    /// For how long it has been late.
    pub late_for: Option<Duration>,
    /// Its panics.
    pub panics_total: u64,
    /// How long its last answer took, and the longest.
    pub took: [Duration; 2],
}

/// Figures of a controller at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// Ordered by the law since the start, in bytes.
    pub ordered_bytes_total: u64,
    /// Of that, given, by the stores' word.
    pub claimed_bytes_total: u64,
    /// Of that, given up: late, or nobody had more.
    pub withdrawn_bytes_total: u64,
    /// What they may hold together now.
    pub hold_bytes: Option<u64>,
    /// Purges of the allocator.
    pub purges_total: u64,
    /// Purges that were wanted too soon after the last.
    pub purges_skipped_total: u64,
    /// Whether eviction does not help.
    pub is_stuck: bool,
    /// How often the next stage was called.
    pub stuck_total: u64,
    /// The stores, in the order in which they were registered.
    pub stores: Vec<StoreFigures>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    /// Filled in order, never emptied: read without a lock.
    stores: Box<[OnceLock<Arc<Store>>]>,
    registering: Mutex<()>,
    ordered: AtomicU64,
    claimed: AtomicU64,
    withdrawn: AtomicU64,
    hold: AtomicU64,
    purges_wanted: AtomicU64,
    level: AtomicU8,
    stuck: AtomicBool,
    stop: AtomicBool,
    figures: Mutex<Figures>,
    thread: OnceLock<Thread>,
}

impl Shared {
    fn stores(&self) -> impl Iterator<Item = &Arc<Store>> {
        self.stores.iter().map_while(OnceLock::get)
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// Carries out what the governor wants back. Dropping it stops its threads; those of stores that do not answer within the deadline are left
/// behind, see [`Controller::stop`]. One controller for one governor.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use plimsoll::reclaim::{Controller, Settings, adapt::Closure};
///
/// let controller = Controller::start(Settings::default())?;
/// controller.register("thumbnails", Arc::new(Closure::new(|| 1_000, |ask| plimsoll::event::Outcome::new(ask.bytes, true))), None)?;
/// assert_eq!(controller.supply()().held_bytes, 1_000);
/// let mut order = controller.order();
/// // Governor::start_with(setup, controller.supply(), move |decision| order(decision.level, decision.want.as_ref()))
/// # order(plimsoll::level::Level::Normal, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Controller {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    deadline: Duration,
}

impl Controller {
    /// Starts the controller's thread.
    ///
    /// # Errors
    /// What the system says when it gives no thread.
    pub fn start(settings: Settings) -> io::Result<Controller> {
        let shared = Arc::new(Shared {
            clock: Arc::clone(&settings.clock),
            stores: std::iter::repeat_with(OnceLock::new).take(MAX_STORES).collect(),
            registering: Mutex::new(()),
            ordered: AtomicU64::new(0),
            claimed: AtomicU64::new(0),
            withdrawn: AtomicU64::new(0),
            hold: AtomicU64::new(u64::MAX),
            purges_wanted: AtomicU64::new(0),
            level: AtomicU8::new(0),
            stuck: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            figures: Mutex::new(Figures::default()),
            thread: OnceLock::new(),
        });
        let deadline = settings.deadline;
        let mut inside = Inside::new(Arc::clone(&shared), settings);
        let thread = std::thread::Builder::new().name("reclaim".into()).spawn(move || inside.run())?;
        shared.thread.get_or_init(|| thread.thread().clone());
        Ok(Controller { shared, thread: Some(thread), deadline })
    }

    /// Adds a store, for good. With an `account`, what it holds is read there, up to date, and its clamp keeps it from being refilled; without,
    /// the store is asked every 100 ms to 1 s, and only its [`Reclaim::hold`] keeps it.
    ///
    /// # Errors
    /// [`RegisterError`] past [`MAX_STORES`], or without a thread.
    pub fn register(&self, name: &str, store: Arc<dyn Reclaim>, account: Option<Account>) -> Result<(), RegisterError> {
        let _registering = self.shared.registering.lock();
        let free = self.shared.stores.iter().find(|slot| slot.get().is_none());
        let free = free.ok_or_else(|| RegisterError::TooMany { name: name.to_owned() })?;
        let store = Arc::new(Store::new(name, store, account));
        let (worker, clock) = (Arc::clone(&store), Arc::clone(&self.shared.clock));
        let thread = self.thread.as_ref().map(|thread| thread.thread().clone());
        let spawned = std::thread::Builder::new()
            .name(format!("reclaim:{name}"))
            .spawn(move || thread.iter().for_each(|controller| worker.work(&*clock, controller)));
        spawned.map_err(|cause| RegisterError::NoThread { name: name.to_owned(), cause })?;
        free.get_or_init(|| store);
        self.shared.wake();
        Ok(())
    }

    /// What tells the governor what the stores hold: for [`Governor::start_with`](crate::governor::Governor::start_with).
    pub fn supply(&self) -> impl FnMut() -> Supply + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move || {
            let mut supply = Supply {
                claimed_bytes_total: shared.claimed.load(Ordering::Acquire),
                withdrawn_bytes_total: shared.withdrawn.load(Ordering::Acquire),
                ..Supply::default()
            };
            for store in shared.stores() {
                let held = store.held_bytes();
                supply.held_bytes += held;
                supply.floor_bytes += store.floor_bytes().min(held);
            }
            supply
        }
    }

    /// What takes the level and the want of each of the governor's decisions.
    pub fn order(&self) -> impl FnMut(Level, Option<&Want>) + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move |level, want| {
            shared.level.store(level as u8, Ordering::Release);
            if let Some(want) = want {
                shared.hold.store(want.hold_bytes, Ordering::Release);
                shared.stuck.store(want.stuck, Ordering::Release);
                shared.purges_wanted.fetch_add(u64::from(want.purge), Ordering::AcqRel);
                // Cumulative: an order that a lost decision carried is in the next.
                shared.ordered.fetch_max(want.ordered_bytes_total, Ordering::AcqRel);
            }
            shared.wake();
        }
    }

    /// What was ordered and what came of it.
    pub fn figures(&self) -> Figures {
        self.shared.figures.lock().clone()
    }

    /// Stops all threads and waits for them, for those inside a store up to the deadline. Says which stores were still busy then: their threads
    /// end when the store returns.
    pub fn stop(mut self) -> Vec<Arc<str>> {
        self.end()
    }

    fn end(&mut self) -> Vec<Arc<str>> {
        let Some(thread) = self.thread.take() else { return Vec::new() };
        self.shared.stop.store(true, Ordering::Release);
        thread.thread().unpark();
        if thread.thread().id() != std::thread::current().id() {
            thread.join().ok();
        }
        self.shared.stores().for_each(|store| store.stop());
        let until = self.shared.clock.now() + self.deadline;
        let left = |store: &&Arc<Store>| !store.wait_for_end(until.saturating_sub(self.shared.clock.now()));
        self.shared.stores().filter(left).map(|store| Arc::clone(&store.name)).collect()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller").field("figures", &self.figures()).finish_non_exhaustive()
    }
}

/// What lives on the controller's thread.
struct Inside {
    shared: Arc<Shared>,
    settings: Settings,
    members: Vec<Member>,
    round: Option<Round>,
    /// Ordered bytes that a round has taken up.
    taken: u64,
    purges_seen: u64,
    purged_at: Option<Duration>,
    looked_at: Option<Duration>,
    stuck_since: Option<Duration>,
    told: bool,
    purges: [u64; 2],
    stuck_total: u64,
}

impl Inside {
    fn new(shared: Arc<Shared>, settings: Settings) -> Inside {
        Inside {
            shared,
            settings,
            members: Vec::new(),
            round: None,
            taken: 0,
            purges_seen: 0,
            purged_at: None,
            looked_at: None,
            stuck_since: None,
            told: false,
            purges: [0; 2],
            stuck_total: 0,
        }
    }

    fn run(&mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            let known = self.members.len();
            let new = |store: &Arc<Store>| Member {
                store: Arc::clone(store),
                asked: None,
                bound: None,
                late_since: None,
                counts: Counts::default(),
            };
            self.members.extend(self.shared.stores().skip(known).map(new));
            let at = self.shared.clock.now();
            self.collect(at);
            self.carry_out(at);
            self.clamp(at);
            self.purge(at);
            self.stage(at);
            self.publish(at);
            std::thread::park_timeout(self.wait(at));
        }
        for account in self.members.iter().filter_map(|member| member.store.account.as_ref()) {
            account.set_clamp(None);
        }
    }

    /// Takes answers, and gives up on those who are late.
    fn collect(&mut self, at: Duration) {
        let mut done = Done::default();
        for member in &mut self.members {
            if let Some(answer) = member.store.take_answer() {
                member.counts.claimed_bytes_total += answer.outcome.claimed_bytes;
                member.counts.panics_total += u64::from(answer.panicked);
                member.counts.took_last = answer.took;
                member.counts.took_max = member.counts.took_max.max(answer.took);
                member.late_since = None;
                self.looked_at = None;
                // What it gave is not to be refilled.
                member.bound = None;
                // One that was late was given up: its bytes went back to the law.
                if let (Some((asked, _)), Some(round)) = (member.asked.take(), &mut self.round) {
                    round.answered(asked, &answer, &mut done);
                }
            } else if let Some((asked, _)) = member.asked.filter(|(_, due)| at >= *due) {
                member.asked = None;
                member.late_since = Some(at);
                member.counts.late_total += 1;
                if let Some(round) = &mut self.round {
                    round.late(asked, &mut done);
                }
            }
        }
        self.account_for(done);
    }

    fn carry_out(&mut self, at: Duration) {
        let mut done = Done::default();
        loop {
            let ordered = self.shared.ordered.load(Ordering::Acquire);
            let round = match &mut self.round {
                Some(round) => round,
                None if ordered > self.taken => {
                    let bytes = ordered - self.taken;
                    self.taken = ordered;
                    self.round.insert(Round::new(bytes))
                }
                None => break,
            };
            if !round.advance(at, &mut self.members, self.settings.deadline, &mut done) {
                break;
            }
            self.round = None;
        }
        self.account_for(done);
    }

    fn account_for(&self, done: Done) {
        self.shared.claimed.fetch_add(done.claimed, Ordering::AcqRel);
        self.shared.withdrawn.fetch_add(done.withdrawn, Ordering::AcqRel);
    }

    fn is_calm(&self) -> bool {
        self.shared.level.load(Ordering::Acquire) == Level::Normal as u8
    }

    /// Sets clamps by what may be held together; has those without an account say what they hold.
    fn clamp(&mut self, at: Duration) {
        let hold = self.shared.hold.load(Ordering::Acquire);
        let due = self.looked_at.is_none_or(|then| at.saturating_sub(then) >= CLAMP_INTERVAL);
        if hold == u64::MAX || !due {
            return;
        }
        self.looked_at = Some(at);
        self.members.iter().for_each(|member| member.store.look());
        let held: Vec<u64> = self.members.iter().map(|member| member.store.held_bytes()).collect();
        let room = hold.saturating_sub(held.iter().sum());
        let exact = bounds(hold, &held);
        let is_calm = self.is_calm();
        for (i, member) in self.members.iter_mut().enumerate() {
            // While Normal, each may use all the room: who grows alone is not stopped by his share of it.
            let bytes = if is_calm && room > 0 { held[i] + room } else { exact[i] };
            // Never below what is held: a store that makes room for what is new would evict for the clamp, beside the orders, and unseen.
            // Nor does the bound follow a store that is for a moment a fiftieth below it: it would be a ratchet.
            let rest = member.bound.filter(|bound| held[i] <= *bound && held[i] >= bound - bound / RATCHET_PART);
            let bytes = bytes.max(rest.unwrap_or(held[i]));
            member.bound = Some(bytes);
            if let Some(account) = &member.store.account {
                account.set_clamp(Some(bytes));
            }
            member.store.hold(Some(bytes));
        }
    }

    fn purge(&mut self, at: Duration) {
        let wanted = self.shared.purges_wanted.load(Ordering::Acquire);
        if wanted == self.purges_seen {
            return;
        }
        self.purges_seen = wanted;
        let too_soon = self.purged_at.is_some_and(|then| at.saturating_sub(then) < PURGE_INTERVAL);
        if let Some(purge) = self.settings.purge.as_mut().filter(|_| !too_soon) {
            self.purged_at = Some(at);
            self.purges[0] += 1;
            purge();
        } else {
            self.purges[1] += 1;
        }
    }

    /// The next stage, when it has been stuck for long enough.
    fn stage(&mut self, at: Duration) {
        if !self.shared.stuck.load(Ordering::Acquire) {
            (self.stuck_since, self.told) = (None, false);
            return;
        }
        let since = *self.stuck_since.get_or_insert(at);
        let chance = f64::from(at.subsec_nanos() % 1_000) / 2_000.0;
        if !self.told && at.saturating_sub(since) >= self.settings.stuck_dwell.mul_f64(1.0 + chance) {
            self.told = true;
            self.stuck_total += 1;
            if let Some(next) = &mut self.settings.on_stuck {
                next();
            }
        }
    }

    fn publish(&self, at: Duration) {
        let figures = |member: &Member| StoreFigures {
            name: Arc::clone(&member.store.name),
            held_bytes: member.store.held_bytes(),
            asks_total: member.counts.asks_total,
            asked_bytes_total: member.counts.asked_bytes_total,
            claimed_bytes_total: member.counts.claimed_bytes_total,
            late_total: member.counts.late_total,
            late_for: member.late_since.map(|since| at.saturating_sub(since)),
            panics_total: member.counts.panics_total,
            took: [member.counts.took_last, member.counts.took_max],
        };
        let hold = self.shared.hold.load(Ordering::Acquire);
        let mut board = self.shared.figures.lock();
        board.ordered_bytes_total = self.shared.ordered.load(Ordering::Acquire);
        board.claimed_bytes_total = self.shared.claimed.load(Ordering::Acquire);
        board.withdrawn_bytes_total = self.shared.withdrawn.load(Ordering::Acquire);
        board.hold_bytes = (hold < u64::MAX).then_some(hold);
        [board.purges_total, board.purges_skipped_total] = self.purges;
        board.is_stuck = self.stuck_since.is_some();
        board.stuck_total = self.stuck_total;
        board.stores.clear();
        board.stores.extend(self.members.iter().map(figures));
    }

    /// How long nothing is to be done, unless somebody wakes us.
    fn wait(&self, at: Duration) -> Duration {
        let late = self.members.iter().filter_map(|member| member.asked).map(|(_, due)| due.saturating_sub(at)).min();
        let restless = !self.is_calm() || self.stuck_since.is_some();
        let rest = if restless { CLAMP_INTERVAL } else { Duration::from_secs(1) };
        late.map_or(rest, |late| late.min(rest)).max(Duration::from_millis(1))
    }
}
