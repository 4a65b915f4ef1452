//! What an embedded service tells its supervisor: readings, level, accounts, queues, reclaim, and "I leave for memory".
//!
//! Lines of `KEY=value` ([`wire`]) in datagrams of at most 8 KiB to the Unix socket that `plimsoll run` names in
//! `PLIMSOLL_REPORT_SOCKET`; one report of at most [`wire::PARTS_MAX`] datagrams every second, and at once when the level changes
//! ([`INTERVAL`], [`GAP`]). One thread, `report`, joined on drop; none, and no socket, where there is no supervisor. It names the
//! [`ACCOUNTS_MAX`] largest accounts, [`QUEUES_MAX`] queues with [`PRODUCERS_MAX`] producers each and [`SOURCES_MAX`] sources in all.
//!
//! | | what happens |
//! |---|---|
//! | **full** | a supervisor that reads slowly, or hangs: the datagram is dropped and counted ([`Sent`]); nobody waits |
//! | **closed** | the supervisor died: dropped and counted as gone; the one that takes over hears the next report |
//! | **late** | a source that blocks delays reports, nothing else |
//! | **killed** | what was sent stays in the socket and is read |
//!
//! What runs on the watchdog's thread ([`Reporter::observe`], the last words) takes no lock for longer than it takes to copy 400 bytes,
//! allocates nothing and never waits. [`notify`] speaks to a service manager (sd_notify).

mod adapt;
mod collect;
mod leave;
pub mod notify;
mod socket;
#[cfg(all(test, not(loom)))]
mod tests;
mod thread;
pub mod wire;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{Clock, MonotonicClock};
use crate::governor::Decision;
use crate::last_words::LastLive;
use crate::queue::Monitor;
use crate::reclaim::ledger::Ledger;
pub use adapt::{of_admission, of_broadcast};
pub use collect::Gauges;
use collect::Sources;
use leave::Leave;
use socket::Outlet;
pub use socket::{Dropped, Sent};

/// The socket that reports go to, as an environment variable: an absolute path, or `@` and an abstract name.
pub const SOCKET_VAR: &str = "PLIMSOLL_REPORT_SOCKET";
/// Time between two reports.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// The shortest time between two reports, however often the level changes.
pub const GAP: Duration = Duration::from_millis(100);
/// The largest accounts are named; the others are summed.
pub const ACCOUNTS_MAX: usize = 32;
/// Queues that can be reported.
pub const QUEUES_MAX: usize = 32;
/// Producers of a queue that are named: those with most losses, then most accepted.
pub const PRODUCERS_MAX: usize = 16;
/// Sources of gauges that can be reported, beside accounts, queues and reclaim.
pub const SOURCES_MAX: usize = 32;

/// A variable that could not be used: nothing is sent there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={value:?}: {why}")]
#[non_exhaustive]
pub struct Problem {
    /// The variable.
    pub variable: &'static str,
    /// What it holds, at most 128 characters of it.
    pub value: String,
    /// What is wrong with it.
    pub why: String,
}

impl Problem {
    fn new(variable: &'static str, value: &std::ffi::OsStr, why: impl fmt::Display) -> Problem {
        let value = value.to_string_lossy().chars().take(128).collect();
        Problem { variable, value, why: why.to_string() }
    }
}

/// A report that is put together before it starts.
///
/// # Examples
/// Three lines for a service; without a supervisor they do nothing, and say so.
/// ```
/// use plimsoll::{queue, reclaim::ledger::Ledger, report::Report, watchdog::{Config, Watchdog}};
///
/// let ledger = Ledger::new();
/// let (sender, receiver) = queue::bounded::<Vec<u8>>(queue::Limits { max_items: 1_000, max_bytes: 1 << 20 }, queue::WhenFull::DropNewest);
/// let report = Report::from_env().ledger(&ledger).queue("ingest", receiver.monitor()).start()?;
/// eprintln!("{report}");
/// let watchdog = Watchdog::new(Config::from_env().0).report(&report);
/// # assert_eq!(report.to_string(), "report: no supervisor, nothing is reported");
/// # drop((sender, watchdog));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Default)]
pub struct Report {
    outlet: Option<Outlet>,
    problem: Option<Problem>,
    sources: Sources,
    interval: Option<Duration>,
}

impl Report {
    /// To the supervisor that `PLIMSOLL_REPORT_SOCKET` names; unset or empty: to nobody. A value that cannot be used is told by
    /// [`Reporter::problem`] and by its `Display`, and is to nobody too.
    pub fn from_env() -> Report {
        Report::from_var(std::env::var_os(SOCKET_VAR))
    }

    /// As [`Report::from_env`], from the variable's value.
    pub fn from_var(value: Option<OsString>) -> Report {
        let Some(value) = value.filter(|value| !value.is_empty()) else { return Report::default() };
        match Outlet::open(&value) {
            Ok(outlet) => Report { outlet: Some(outlet), ..Report::default() },
            Err(why) => Report { problem: Some(Problem::new(SOCKET_VAR, &value, why)), ..Report::default() },
        }
    }

    /// Reports the ledger's largest accounts, and their sum as the accounted number.
    #[must_use]
    pub fn ledger(mut self, ledger: &Ledger) -> Report {
        self.sources.ledger = Some(ledger.clone());
        self
    }

    /// Reports what the allocator says as the live number. Asked on the report's thread, once per report; it should tell what was read last.
    #[must_use]
    pub fn live(mut self, live: LastLive) -> Report {
        self.sources.live = Some(live);
        self
    }

    /// Reports a queue: depth, bytes, age, and what became of what each producer sent. Past [`QUEUES_MAX`] it is left out.
    #[must_use]
    pub fn queue<T: Send + 'static>(mut self, name: &str, monitor: Monitor<T>) -> Report {
        self.sources.queue(name, move || monitor.stats());
        self
    }

    /// Reports what was ordered from the stores and what came of it: `move || controller.figures()`.
    #[cfg(not(loom))]
    #[must_use]
    pub fn reclaim(mut self, figures: impl FnMut() -> crate::reclaim::Figures + Send + 'static) -> Report {
        self.sources.reclaim = Some(Box::new(figures));
        self
    }

    /// Reports any other figures: `tell` is given each with its name, which is shown as `SOURCE.NAME` and ends in its unit
    /// (`clients_count`, `held_bytes`; a counter in `_total`). Past [`SOURCES_MAX`] it is left out.
    ///
    /// # Examples
    /// ```
    /// use plimsoll::report::Report;
    /// let report = Report::from_env().gauges("chat", |tell| {
    ///     tell("clients_count", 17.0);
    ///     tell("dropped_total", 3.0);
    /// });
    /// # let _ = report;
    /// ```
    #[must_use]
    pub fn gauges(mut self, source: &str, figures: impl FnMut(&mut dyn FnMut(&str, f64)) + Send + 'static) -> Report {
        self.sources.gauges(source, Box::new(figures));
        self
    }

    /// Time between two reports; at least [`GAP`]. Default [`INTERVAL`].
    #[must_use]
    pub fn every(mut self, interval: Duration) -> Report {
        self.interval = Some(interval.max(GAP));
        self
    }

    /// Starts reporting. To nobody: no thread is started.
    ///
    /// # Errors
    /// What the system says when it gives no thread.
    pub fn start(self) -> io::Result<Reporter> {
        let shared = Arc::new(Shared {
            outlet: self.outlet,
            seen: Mutex::default(),
            leave: Mutex::new(Leave::new()),
            sources: Mutex::new(self.sources),
            interval: self.interval.unwrap_or(INTERVAL),
            stop: AtomicBool::new(false),
            nudged: AtomicBool::new(false),
            thread: Mutex::default(),
            panics: AtomicU64::new(0),
        });
        let mut thread = None;
        if shared.outlet.is_some() {
            let inside = Arc::clone(&shared);
            let started = std::thread::Builder::new().name("report".into()).spawn(move || thread::run(&inside))?;
            *shared.thread.lock() = Some(started.thread().clone());
            thread = Some(started);
        }
        Ok(Reporter { shared, problem: self.problem, thread })
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").field("outlet", &self.outlet).field("problem", &self.problem).finish_non_exhaustive()
    }
}

/// What the watchdog's or governor's thread said last.
#[derive(Clone, Copy, Default)]
struct Seen {
    decision: Option<Decision>,
    /// A watchdog's soft stage.
    soft: bool,
    /// A watchdog fired.
    leaving: bool,
}

/// What the report's thread, the watchdog's thread and the owner share.
pub(crate) struct Shared {
    outlet: Option<Outlet>,
    seen: Mutex<Seen>,
    leave: Mutex<Leave>,
    sources: Mutex<Sources>,
    interval: Duration,
    stop: AtomicBool,
    nudged: AtomicBool,
    thread: Mutex<Option<Thread>>,
    panics: AtomicU64,
}

impl Shared {
    /// Takes note of a decision. Copies it unless the lock is held just now (by a copy of the same kind).
    pub(crate) fn see(&self, decision: &Decision, soft: bool) {
        if self.outlet.is_none() {
            return;
        }
        if let Some(mut seen) = self.seen.try_lock() {
            seen.decision = Some(*decision);
            seen.soft = soft;
        }
        if decision.is_change() {
            self.nudge();
        }
    }

    /// The next report comes at once. One atomic operation and a futex; never waits.
    fn nudge(&self) {
        self.nudged.store(true, Ordering::Release);
        if let Some(thread) = self.thread.try_lock().as_deref().and_then(Option::as_ref) {
            thread.unpark();
        }
    }

    /// Calls other people's code.
    fn guarded(&self, call: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(call)).is_err() {
            self.panics.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A report that runs. Dropping it stops and joins its thread; what was attached to it goes on without it.
pub struct Reporter {
    shared: Arc<Shared>,
    problem: Option<Problem>,
    thread: Option<JoinHandle<()>>,
}

impl Reporter {
    /// Where reports go; `None`: to nobody.
    pub fn supervisor(&self) -> Option<&Path> {
        self.shared.outlet.as_ref().map(Outlet::shown)
    }

    /// Why there is nobody although the environment names somebody.
    pub fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    /// What became of the datagrams so far.
    pub fn sent(&self) -> Sent {
        self.shared.outlet.as_ref().map(Outlet::counts).unwrap_or_default()
    }

    /// Adds a queue while it runs; as [`Report::queue`]. Waits for the report that is being put together.
    pub fn queue<T: Send + 'static>(&self, name: &str, monitor: Monitor<T>) {
        self.shared.sources.lock().queue(name, move || monitor.stats());
    }

    /// Adds a source of figures while it runs; as [`Report::gauges`]. Waits for the report that is being put together.
    pub fn gauges(&self, source: &str, figures: impl FnMut(&mut dyn FnMut(&str, f64)) + Send + 'static) {
        self.shared.sources.lock().gauges(source, Box::new(figures));
    }

    /// What takes each decision of a [`Governor`](crate::governor::Governor) that is no watchdog's: for its callback. Allocates nothing,
    /// never waits. A [`Watchdog`](crate::watchdog::Watchdog::report) does this by itself.
    pub fn observe(&self) -> impl FnMut(&Decision) + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move |decision| shared.see(decision, false)
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // From inside a source it cannot be waited for.
            if thread.thread().id() != std::thread::current().id() {
                thread.join().ok();
            }
        }
    }
}

impl fmt::Display for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.supervisor(), &self.problem) {
            (Some(path), _) => write!(f, "report: to the supervisor at {}", path.display()),
            (None, Some(problem)) => write!(f, "report: {problem}: nothing is reported"),
            (None, None) => f.write_str("report: no supervisor, nothing is reported"),
        }
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter").field("supervisor", &self.supervisor()).field("sent", &self.sent()).finish()
    }
}
