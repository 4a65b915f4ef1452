//! The governor: one thread that reads, decides, tells and sleeps; and what it has to say about itself.
//!
//! One named thread per [`Governor`], joined by [`Governor::stop`] or drop. It sleeps between 1 ms and the poll interval
//! (1 s) as [`step()`] says, never longer; kernel events ([`Wake`], at most [`WAKES_MAX`]) only wake it earlier, each at most
//! [`WAKE_FIRES_MAX`] times a second, then that one is not listened to for a second and the poll alone carries on. It
//! allocates nothing after its start and never waits for a lock: a reader of its status that holds it delays the
//! bookkeeping, not the next sample. It keeps [`CHANGES_KEPT`] changes, and the newest [`LOG_KEPT`] records of the [decision log](log).
//!
//! It asks for `SCHED_FIFO` 1, else nice −11, else runs as any thread, and says which. The callback runs on this thread: it
//! must neither block nor take locks that others hold for long. A callback that panics is counted, and called again; a gauge
//! that panics has read nothing.

mod board;
mod growth;
pub mod law;
pub mod log;
mod step;
#[cfg(test)]
mod tests;
mod thread;
mod waits;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustix::event::EventfdFlags;
use rustix::fd::OwnedFd;

pub use board::{CHANGES_KEPT, Cost, GovernorStatus, LOG_KEPT, Scheduling, WakeCounts};
pub use growth::{Growth, SAMPLES, SPACING};
pub use step::{
    BLIND_INTERVAL, CRITICAL_INTERVAL, Cause, Decision, Reading, State, TIME_TO_LIMIT_CONFIDENCE, confirm_is_urgent,
    confirm_pause, step, step_and_reclaim, wants_confirm,
};
pub use thread::LATE_TICK;
pub use waits::{WAKE_FIRES_MAX, WAKES_MAX};

use crate::clock::Clock;
use crate::gauge::{Gauge, Wake};
use crate::policy::{Policy, PolicyErrors};
use board::Board;
use law::Supply;
use log::{Line, Record};

/// What says what the stores hold.
pub type SupplyFn = Box<dyn FnMut() -> Supply + Send>;
/// What is handed each record of the decision log.
pub type RecordFn = Box<dyn FnMut(&Record) + Send>;

/// What a governor is started with.
pub struct Setup {
    /// Marks, reserve, intervals; must be [valid](Policy::validate).
    pub policy: Policy,
    /// What is read. Called on the governor's thread only.
    pub gauge: Box<dyn Gauge>,
    /// Kernel events that wake it early; none is fine: the poll alone is enough. At most [`WAKES_MAX`].
    pub wakes: Vec<Wake>,
    /// Where time comes from; sleeping is always in real time.
    pub clock: Arc<dyn Clock>,
    /// The thread's name; the kernel shows its first 15 bytes.
    pub name: String,
}

/// What the thread and its owner share.
pub(crate) struct Shared {
    /// An eventfd: written to end a sleep.
    nudge: OwnedFd,
    stop: AtomicBool,
    policy: Mutex<Policy>,
    /// Counts changes of the policy.
    policy_version: AtomicU64,
    board: Mutex<Board>,
}

/// A running governor. Dropping it stops and joins its thread.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use plimsoll::clock::MonotonicClock;
/// use plimsoll::gauge::{Gauge, Protected, Unread};
/// use plimsoll::governor::{Governor, Setup};
/// use plimsoll::policy::Policy;
///
/// struct Fixed(u64);
/// impl Gauge for Fixed {
///     fn fast(&mut self) -> Result<u64, Unread> {
///         Ok(self.0)
///     }
///     fn confirm(&mut self) -> Result<Protected, Unread> {
///         Ok(Protected { program_bytes: self.0, ..Protected::default() })
///     }
/// }
///
/// let (tell, told) = std::sync::mpsc::sync_channel(8);
/// let governor = Governor::start(
///     Setup {
///         policy: Policy::new(300 << 20, 100 << 20),
///         gauge: Box::new(Fixed(310 << 20)),
///         wakes: Vec::new(),
///         clock: Arc::new(MonotonicClock),
///         name: "governor".into(),
///     },
///     move |decision| drop(tell.try_send(decision.level)),
/// )?;
/// assert_eq!(told.recv().unwrap().as_str(), "critical");
/// governor.stop();
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Governor {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    thread: Option<JoinHandle<()>>,
}

impl Governor {
    /// Starts the thread. The first sample comes before the first sleep.
    ///
    /// `on_decision` is called for every sample whose level is not Normal, for every change of level or sight, and otherwise
    /// at least once per poll interval; while Critical that is every 10 ms.
    ///
    /// Stores that give back are wired in with [`Governor::start_with`].
    ///
    /// # Errors
    /// `InvalidInput` for a policy that is not valid ([`PolicyErrors`] inside) or too many wakes; what the system says when
    /// it gives no eventfd or thread.
    pub fn start(setup: Setup, on_decision: impl FnMut(&Decision) + Send + 'static) -> io::Result<Governor> {
        Governor::start_inside(setup, None, None, on_decision)
    }

    /// As [`Governor::start`], with stores that give back: `supply` says what they hold, `on_decision` gets what they are asked for in
    /// [`Decision::want`] and passes it on ([`reclaim::Controller`](crate::reclaim::Controller) does both). `on_decision` is called for each
    /// sample that asks for something, beside those of `start`. `supply` runs on this thread, on each confirmed reading: it must take no lock.
    ///
    /// # Errors
    /// As [`Governor::start`].
    pub fn start_with(
        setup: Setup,
        supply: impl FnMut() -> Supply + Send + 'static,
        on_decision: impl FnMut(&Decision) + Send + 'static,
    ) -> io::Result<Governor> {
        Governor::start_inside(setup, Some(Box::new(supply)), None, on_decision)
    }

    /// As [`Governor::start_with`] or, without a `supply`, as [`Governor::start`], with each record of the [decision log](log) handed to
    /// `record`, on this thread, in its order: a [`Line`] makes a line of it. It must neither block nor allocate; one that panics is counted
    /// with the callback's panics.
    ///
    /// # Errors
    /// As [`Governor::start`].
    pub fn start_recorded(
        setup: Setup,
        supply: Option<SupplyFn>,
        record: RecordFn,
        on_decision: impl FnMut(&Decision) + Send + 'static,
    ) -> io::Result<Governor> {
        Governor::start_inside(setup, supply, Some(record), on_decision)
    }

    fn start_inside(
        setup: Setup,
        supply: Option<SupplyFn>,
        record: Option<RecordFn>,
        on_decision: impl FnMut(&Decision) + Send + 'static,
    ) -> io::Result<Governor> {
        let Setup { policy, gauge, wakes, clock, name } = setup;
        policy.validate().map_err(|errors| io::Error::new(io::ErrorKind::InvalidInput, errors))?;
        if wakes.len() > WAKES_MAX {
            let text = format!("{} wakes: at most {WAKES_MAX}", wakes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let nudge = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared {
            nudge,
            stop: AtomicBool::new(false),
            policy: Mutex::new(policy),
            policy_version: AtomicU64::new(0),
            board: Mutex::new(Board::new()),
        });
        let started = thread::Started { policy, gauge, wakes, clock: Arc::clone(&clock), supply, record };
        let inside = thread::Inside::new(Arc::clone(&shared), started, on_decision);
        let thread = std::thread::Builder::new().name(name).spawn(move || inside.run())?;
        Ok(Governor { shared, clock, thread: Some(thread) })
    }

    /// What it saw and did, and how it fares itself.
    pub fn status(&self) -> GovernorStatus {
        let mut status = self.shared.board.lock().status;
        let now = self.clock.now();
        status.sample_age = status.decision.map(|d| now.saturating_sub(d.at));
        status.confirmed_age = status.confirmed_at.map(|at| now.saturating_sub(at));
        status.running = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        status
    }

    /// The newest `max` decisions that are kept, oldest first: those of the [log](Governor::log), and before them the last
    /// [`CHANGES_KEPT`] changes of level or sight. Samples of the fast number alone are not kept.
    pub fn decisions(&self, max: usize) -> Vec<Decision> {
        // Room is made before the lock is taken: the governor skips its bookkeeping while we hold it.
        let mut out = Vec::with_capacity(max.min(CHANGES_KEPT + LOG_KEPT));
        self.shared.board.lock().newest(max, &mut out);
        out.reverse();
        out
    }

    /// The decision log, oldest first: at most [`LOG_KEPT`] records, and before them the policy that held.
    pub fn log(&self) -> Vec<Record> {
        // As above.
        let mut out = Vec::with_capacity(LOG_KEPT + 1);
        self.shared.board.lock().log(&mut out);
        out.reverse();
        out
    }

    /// Writes the decision log as text, as `plimsoll replay` reads it.
    ///
    /// # Errors
    /// What `out` says.
    ///
    /// # Examples
    /// ```
    /// # use std::sync::Arc;
    /// # use plimsoll::{clock::MonotonicClock, gauge::Unread, governor::{Governor, Setup}, policy::Policy};
    /// # let setup = Setup {
    /// #     policy: Policy::new(300 << 20, 100 << 20),
    /// #     gauge: Box::new(|| Ok::<u64, Unread>(10 << 20)),
    /// #     wakes: Vec::new(),
    /// #     clock: Arc::new(MonotonicClock),
    /// #     name: "governor".into(),
    /// # };
    /// let governor = Governor::start(setup, |_| {})?;
    /// let mut text = Vec::new();
    /// governor.write_log(&mut text)?;
    /// assert!(text.starts_with(b"plimsoll-decisions 1\n"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn write_log(&self, out: &mut impl io::Write) -> io::Result<()> {
        let mut line = Line::new();
        out.write_all(line.header())?;
        self.log().iter().try_for_each(|record| out.write_all(line.encode(record)))
    }

    /// The policy that holds.
    pub fn policy(&self) -> Policy {
        *self.shared.policy.lock()
    }

    /// Changes the policy while running; it holds from the next sample, which is taken at once. Level, growth and the times
    /// spent above or below marks are kept and judged by the new marks.
    ///
    /// # Errors
    /// The new policy is not valid: the old one stays.
    pub fn set_policy(&self, policy: Policy) -> Result<(), PolicyErrors> {
        policy.validate()?;
        *self.shared.policy.lock() = policy;
        self.shared.policy_version.fetch_add(1, Ordering::Release);
        self.nudge();
        Ok(())
    }

    /// Ends the present sleep: a sample is taken now. Several nudges during one sample count as one.
    pub fn nudge(&self) {
        // Fails only when 2^64 - 2 nudges are waiting: then it is awake already.
        rustix::io::write(&self.shared.nudge, &1u64.to_ne_bytes()).ok();
    }

    /// Stops and joins the thread; at once, unless the callback or a reading blocks.
    pub fn stop(self) {}
}

impl Drop for Governor {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.nudge();
        if let Some(thread) = self.thread.take() {
            // From inside the callback it cannot be waited for; it ends after the callback returns.
            if thread.thread().id() != std::thread::current().id() {
                thread.join().ok();
            }
        }
    }
}

impl std::fmt::Debug for Governor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Governor").field("status", &self.status()).finish_non_exhaustive()
    }
}
