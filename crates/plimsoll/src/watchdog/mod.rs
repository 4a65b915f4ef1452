//! The memory watchdog: at a threshold that the operator sets, the service leaves in order and exits 2, before the kernel kills.
//!
//! Off unless told otherwise ([`Config::from_env`]); then two threads, named `memory-watchdog` (the [governor](crate::governor),
//! with the threshold as its budget) and `drain-deadline`. It looks before it sleeps for the first time, then every 1 ms to
//! 1 s by the room that is left; a reading allocates nothing. At the threshold, once: the deadline starts (10 s), the
//! [last words](crate::last_words) are written, the [reserve](crate::reserve) is given back, the [drain](crate::drain) begins and
//! the callback is called, on the watcher's thread: 50 µs, and 2 ms per 16 MiB of reserve. At the deadline the process is
//! ended with code 2, whatever its threads and its async runtime are stuck in.
//!
//! The threshold is a threshold, not a cap: what goes on allocating while it drains needs rate × drain time of room below
//! the limit. [`Effective`] says what that survives.

mod config;
mod deadline;
mod look;
mod outcome;
#[cfg(all(test, not(loom)))]
mod tests;
mod until;

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

pub use config::{
    Config, DRAIN_DEADLINE, Effect, POLL_INTERVAL_VAR, Problem, SOFT_RATIO, SOFT_RATIO_RANGE, Subject,
    THRESHOLD_MB_VAR, THRESHOLD_VAR,
};
pub use look::{KillLimit, Target};
pub use outcome::{EXIT_FAILURE, EXIT_MEMORY, EXIT_OK, Outcome};

use crate::clock::{self, MonotonicClock};
use crate::drain::Drain;
use crate::gauge::{Gauge, Protected, Root, Wake};
use crate::governor::{Decision, Governor, GovernorStatus, Setup, WAKES_MAX};
use crate::last_words::{LastWords, Scene, whisper};
use crate::level::Level;
use crate::report::{self, Reporter};
use crate::reserve::Reserve;
use crate::sys;
use crate::units::{duration, rate, size};
use deadline::Deadline;
use look::LastReading;

/// The stage before the threshold: half-way measures (shed load, refuse work, evict) belong here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Soft {
    /// The soft mark was reached.
    Entered(Decision),
    /// It was left again: five points below the mark for five seconds.
    Left(Decision),
}

/// The one time that a watchdog fired.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Fired {
    /// When, since 1970-01-01 UTC.
    pub at_unix: Duration,
    /// The decision: bytes charged, slope, the threshold as its budget.
    pub decision: Decision,
    /// The parts of the reading behind it.
    pub protected: Option<Protected>,
}

/// What [`Watchdog::start`] did.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Started {
    /// This call started it; the values that hold are worth a line in the log.
    Now(Box<Effective>),
    /// Another call did before.
    Before,
    /// There is no threshold: nothing was started.
    Off,
}

/// The values that hold.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Effective {
    /// The settings, brought inside their ranges.
    pub config: Config,
    /// What is looked at.
    pub target: Target,
    /// The limit at which the kernel would kill, where there is one.
    pub limit: Option<KillLimit>,
    /// What the reserve holds; whole pages.
    pub reserve_bytes: u64,
    /// What is not as it should be, for the log.
    pub warnings: Vec<String>,
}

impl Effective {
    /// Growth in bytes a second that goes on for the whole drain deadline and is survived: room to the limit and the reserve,
    /// by the time. `None` without a limit.
    pub fn survives_bytes_per_second(&self) -> Option<f64> {
        let room = self.limit.as_ref()?.bytes.saturating_sub(self.config.threshold_bytes) + self.reserve_bytes;
        Some(room as f64 / self.config.drain_deadline.as_secs_f64().max(1e-3))
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.config;
        let soft = (c.threshold_bytes as f64 * c.soft_ratio) as u64;
        write!(f, "threshold {} (soft {}) on {}", size(c.threshold_bytes), size(soft), self.target)?;
        match &self.limit {
            Some(limit) => write!(f, ", limit {} ({})", size(limit.bytes), limit.source.display())?,
            None => f.write_str(", no limit found")?,
        }
        let (poll, drain) = (duration(c.poll_interval), duration(c.drain_deadline));
        write!(f, ", poll interval {poll}, drain deadline {drain}, reserve {}", size(self.reserve_bytes))?;
        if let Some(survived) = self.survives_bytes_per_second() {
            write!(f, ", survives {} for the whole drain", rate(survived))?;
        }
        Ok(())
    }
}

type OnSoft = Box<dyn FnMut(Soft) + Send>;
type OnExceed = Box<dyn FnOnce(&Fired) + Send>;
type AtDeadline = Box<dyn FnOnce() + Send>;

/// What is put together before the start and moves to the threads.
#[derive(Default)]
struct Parts {
    drain: Option<Drain>,
    on_soft: Option<OnSoft>,
    on_exceed: Option<OnExceed>,
    words: Option<LastWords>,
    gauge: Option<Box<dyn Gauge>>,
    at_deadline: Option<AtDeadline>,
    report: Option<Arc<report::Shared>>,
    wakes: Vec<Wake>,
    root: Root,
}

/// What the watcher and its owner share.
#[derive(Default)]
struct Shared {
    has_fired: AtomicBool,
    fired: Mutex<Option<Fired>>,
    changed: Condvar,
}

struct Running {
    governor: Governor,
    deadline: Arc<Deadline>,
    reserve: Arc<Reserve>,
    report: Option<Arc<report::Shared>>,
}

/// A watchdog over the memory of its own process. Each has its own state; dropping one stops and joins its threads, except
/// that a deadline once armed stays armed ([`Watchdog::disarm`]).
///
/// # Examples
/// ```
/// use plimsoll::{drain::Drain, watchdog::{Config, Started, Watchdog}};
///
/// let drain = Drain::new();
/// let (config, problems) = Config::from_env();
/// for problem in &problems {
///     eprintln!("{problem}");
/// }
/// let watchdog = Watchdog::new(config).drain(&drain);
/// if let Started::Now(effective) = watchdog.start()? {
///     eprintln!("memory watchdog: {effective}");
/// }
/// let result = serve(&drain);
/// let outcome = watchdog.outcome(result);
/// # assert_eq!(outcome.code, 0);
/// # fn serve(_: &Drain) -> std::io::Result<()> { Ok(()) }
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Watchdog {
    config: Option<Config>,
    parts: Mutex<Parts>,
    started: AtomicBool,
    shared: Arc<Shared>,
    running: Mutex<Option<Running>>,
}

impl Watchdog {
    /// A watchdog that is not started. `None`, or a threshold of 0, is one that never will be: [`Watchdog::start`] then does
    /// nothing, and the rest of the service's code stays the same.
    pub fn new(config: impl Into<Option<Config>>) -> Watchdog {
        Watchdog {
            config: config.into(),
            parts: Mutex::default(),
            started: AtomicBool::new(false),
            shared: Arc::default(),
            running: Mutex::default(),
        }
    }

    /// The drain that begins when it fires.
    #[must_use]
    pub fn drain(mut self, drain: &Drain) -> Watchdog {
        self.parts.get_mut().drain = Some(drain.clone());
        self
    }

    /// Called on the watcher's thread when the soft mark is reached and when it is left; never after it fired, and not at
    /// all when growth is so fast that the first sample above the soft mark is above the threshold too. Must not block.
    #[must_use]
    pub fn on_soft(mut self, call: impl FnMut(Soft) + Send + 'static) -> Watchdog {
        self.parts.get_mut().on_soft = Some(Box::new(call));
        self
    }

    /// Called once on the watcher's thread, after the drain has begun. Must not block: nothing waits for it but its own thread.
    #[must_use]
    pub fn on_exceed(mut self, call: impl FnOnce(&Fired) + Send + 'static) -> Watchdog {
        self.parts.get_mut().on_exceed = Some(Box::new(call));
        self
    }

    /// Writes figures before it drains. Without this it writes nothing.
    #[must_use]
    pub fn last_words(mut self, words: LastWords) -> Watchdog {
        self.parts.get_mut().words = Some(words);
        self
    }

    /// Tells the supervisor: level and figures with each [report], and when it fires that the service leaves for
    /// memory, with its last words (also where none were asked for by [`Watchdog::last_words`]).
    #[must_use]
    pub fn report(mut self, reporter: &Reporter) -> Watchdog {
        self.parts.get_mut().report = Some(reporter.shared());
        self
    }

    /// Another kernel or manager event that wakes it early, such as one that is [offered](crate::gauge::offered); it never
    /// decides. Past [`WAKES_MAX`] in all it is left out.
    #[must_use]
    pub fn wake(mut self, wake: Wake) -> Watchdog {
        self.parts.get_mut().wakes.push(wake);
        self
    }

    /// Looks at this gauge instead of the process's own: an estimator of one's own, or a script in a test.
    #[must_use]
    pub fn gauge(mut self, gauge: impl Gauge + 'static) -> Watchdog {
        self.parts.get_mut().gauge = Some(Box::new(gauge));
        self
    }

    /// Called at the drain's deadline instead of ending the process with `_exit(2)`.
    #[must_use]
    pub fn at_deadline(mut self, call: impl FnOnce() + Send + 'static) -> Watchdog {
        self.parts.get_mut().at_deadline = Some(Box::new(call));
        self
    }

    /// Reads the system's files from another root. For tests.
    #[must_use]
    pub fn root(mut self, root: Root) -> Watchdog {
        self.parts.get_mut().root = root;
        self
    }

    /// Starts it, once, however many threads call this at the same time. The first sample comes before the first sleep: who
    /// starts above the threshold leaves at once.
    ///
    /// # Errors
    /// Nothing can be read, or the system gives no thread: there is no watchdog then, and later calls say [`Started::Before`].
    pub fn start(&self) -> io::Result<Started> {
        let Some(config) = self.config.filter(|config| config.threshold_bytes > 0) else { return Ok(Started::Off) };
        if self.started.swap(true, Ordering::AcqRel) {
            return Ok(Started::Before);
        }
        let config = config.effective();
        let mut running = self.running.lock();
        let parts = std::mem::take(&mut *self.parts.lock());
        let unread = |why: crate::gauge::Unread| io::Error::other(format!("memory cannot be read: {why}"));
        let mut eyes = look::look(&parts.root, &config, parts.gauge).map_err(unread)?;
        eyes.wakes.extend(parts.wakes);
        eyes.wakes.truncate(WAKES_MAX);
        let reserve = Arc::new(Reserve::map(config.reserve_bytes).or_else(|error| {
            eyes.warnings.push(format!("no reserve of {}: {error}", size(config.reserve_bytes)));
            Reserve::map(0)
        })?);
        let speaks = parts.words.as_ref().is_some_and(LastWords::to_stderr);
        let end = end_at_deadline(config.drain_deadline, parts.drain.clone(), speaks);
        let deadline = Arc::new(Deadline::start(parts.at_deadline.unwrap_or(end))?);
        let mut watcher = Watcher {
            shared: Arc::clone(&self.shared),
            config,
            drain: parts.drain,
            on_soft: parts.on_soft,
            on_exceed: parts.on_exceed,
            // The supervisor is told them even where nobody else is.
            words: parts.words.or_else(|| parts.report.is_some().then(LastWords::new)),
            report: parts.report.clone(),
            reserve: Arc::clone(&reserve),
            deadline: Arc::clone(&deadline),
            last: eyes.last,
            is_soft: false,
        };
        let effective = Effective {
            config,
            target: eyes.target,
            limit: eyes.limit,
            reserve_bytes: reserve.held_bytes(),
            warnings: eyes.warnings,
        };
        let setup = Setup {
            policy: eyes.policy,
            gauge: eyes.gauge,
            wakes: eyes.wakes,
            clock: Arc::new(MonotonicClock),
            name: "memory-watchdog".to_owned(),
        };
        let governor = Governor::start(setup, move |decision| watcher.decided(decision))?;
        *running = Some(Running { governor, deadline, reserve, report: parts.report });
        Ok(Started::Now(Box::new(effective)))
    }

    /// Whether it fired. From the first instant of it on: whoever sees its drain begun, sees this too.
    pub fn has_fired(&self) -> bool {
        self.shared.has_fired.load(Ordering::Acquire)
    }

    /// What it saw when it fired.
    pub fn fired(&self) -> Option<Fired> {
        *self.shared.fired.lock()
    }

    /// Waits until it fires, at most `longest`.
    pub fn wait_fired(&self, longest: Duration) -> Option<Fired> {
        let mut fired = self.shared.fired.lock();
        if fired.is_none() {
            self.shared.changed.wait_while_for(&mut fired, |fired| fired.is_none(), longest);
        }
        *fired
    }

    /// What the watcher sees and how it fares; `None` when it does not run.
    pub fn status(&self) -> Option<GovernorStatus> {
        self.running.lock().as_ref().map(|running| running.governor.status())
    }

    /// What the reserve still holds.
    pub fn reserve_bytes(&self) -> u64 {
        self.running.lock().as_ref().map_or(0, |running| running.reserve.held_bytes())
    }

    /// Stops the drain's deadline for good, armed or not: for a process that lives on after a watchdog fired.
    pub fn disarm(&self) {
        let parts = self.running.lock().as_ref().map(|running| (Arc::clone(&running.deadline), running.report.clone()));
        if let Some((deadline, report)) = parts {
            deadline.stop();
            report.iter().for_each(|report| report.stay());
        }
    }
}

impl fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (config, fired) = (&self.config, self.has_fired());
        f.debug_struct("Watchdog").field("config", config).field("has_fired", &fired).finish_non_exhaustive()
    }
}

/// Ends the process, with one line first where it may speak.
fn end_at_deadline(deadline: Duration, drain: Option<Drain>, speaks: bool) -> AtDeadline {
    Box::new(move || {
        if speaks {
            let (ms, left) = (deadline.as_millis(), drain.as_ref().map_or(0, Drain::holds));
            whisper(format_args!("plimsoll: the drain is not over after {ms} ms ({left} holds left): exit 2\n"));
        }
        sys::exit_now(i32::from(EXIT_MEMORY))
    })
}

/// What lives on the watcher's thread.
struct Watcher {
    shared: Arc<Shared>,
    config: Config,
    drain: Option<Drain>,
    on_soft: Option<OnSoft>,
    on_exceed: Option<OnExceed>,
    words: Option<LastWords>,
    report: Option<Arc<report::Shared>>,
    reserve: Arc<Reserve>,
    deadline: Arc<Deadline>,
    last: LastReading,
    is_soft: bool,
}

impl Watcher {
    fn decided(&mut self, decision: &Decision) {
        if self.shared.has_fired.load(Ordering::Acquire) {
            return;
        }
        if decision.level == Level::Critical {
            return self.fire(decision);
        }
        if let Some(words) = &mut self.words {
            words.see(decision);
        }
        let is_soft = decision.level == Level::High;
        if let Some(report) = &self.report {
            report.see(decision, is_soft);
        }
        if is_soft != self.is_soft {
            self.is_soft = is_soft;
            if let Some(call) = &mut self.on_soft {
                call(if is_soft { Soft::Entered(*decision) } else { Soft::Left(*decision) });
            }
        }
    }

    /// Each step is one that the next ones may fail after: the deadline first, other people's code last.
    fn fire(&mut self, decision: &Decision) {
        self.shared.has_fired.store(true, Ordering::Release);
        self.deadline.arm(self.config.drain_deadline);
        let protected = *self.last.lock();
        let fired = Fired { at_unix: clock::wall(), decision: *decision, protected };
        if let Some(words) = &mut self.words {
            let reserve_bytes = self.reserve.held_bytes();
            words.compose(&Scene::new(decision, protected.as_ref(), reserve_bytes, self.config.drain_deadline));
            words.say();
        }
        if let Some(report) = &self.report {
            report.leave(decision, self.config.drain_deadline, self.words.as_ref().map_or("", LastWords::text));
        }
        self.reserve.release();
        *self.shared.fired.lock() = Some(fired);
        if let Some(drain) = &self.drain {
            drain.begin();
        }
        self.shared.changed.notify_all();
        if let Some(call) = self.on_exceed.take() {
            catch_unwind(AssertUnwindSafe(|| call(&fired))).ok();
        }
        if let Some(report) = &self.report {
            report.finish_leaving();
        }
        if let Some(words) = &mut self.words {
            words.finish();
        }
    }
}
