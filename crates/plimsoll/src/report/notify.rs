//! sd_notify, the client's side: tells a service manager that the service is ready, what it does, and that it stops.
//!
//! Datagrams of `KEY=value` lines to `$NOTIFY_SOCKET`, a path or `@` and an abstract name (sd_notify(3)); `plimsoll run` offers one
//! too and passes on what it hears. Nothing waits: what the manager does not take is dropped and counted. A status is at most
//! [`STATUS_BYTES_MAX`] bytes of one line. Where nobody listens, all of it does nothing.

use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Outlet, Problem, Sent};
use crate::clock::{Clock as _, MonotonicClock};

/// The manager's socket.
pub const SOCKET_VAR: &str = "NOTIFY_SOCKET";
/// Within how many microseconds the manager wants a sign of life.
pub const WATCHDOG_VAR: &str = "WATCHDOG_USEC";
/// Of which process; unset: of whoever reads it.
pub const WATCHDOG_PID_VAR: &str = "WATCHDOG_PID";
/// The longest status; a longer one is cut.
pub const STATUS_BYTES_MAX: usize = 1024;

/// Speaks to a service manager.
///
/// # Examples
/// ```
/// use plimsoll::report::notify::Notify;
///
/// let notify = Notify::from_env();
/// // … listen, load …
/// notify.ready();
/// notify.status("serving, 3 clients");
/// // In the loop that must not hang: as often as it likes, it is sent when it is due.
/// notify.alive();
/// notify.stopping();
/// # assert!(notify.manager().is_none(), "nobody listens where this example runs");
/// ```
#[derive(Debug, Default)]
pub struct Notify {
    outlet: Option<Outlet>,
    problem: Option<Problem>,
    every: Option<Duration>,
    /// When the last sign of life went out, in ns of the monotonic clock; 0: never.
    alive_ns: AtomicU64,
}

impl Notify {
    /// For the manager that the environment names.
    pub fn from_env() -> Notify {
        Notify::from_vars(|name| std::env::var_os(name))
    }

    /// As [`Notify::from_env`], from anything that holds the three variables. What cannot be used is told by [`Notify::problem`].
    pub fn from_vars(get: impl Fn(&str) -> Option<OsString>) -> Notify {
        let Some(address) = get(SOCKET_VAR).filter(|value| !value.is_empty()) else { return Notify::default() };
        let outlet = match Outlet::open(&address) {
            Ok(outlet) => outlet,
            Err(why) => return Notify { problem: Some(Problem::new(SOCKET_VAR, &address, why)), ..Notify::default() },
        };
        let (every, problem) = match watchdog(&get) {
            Ok(every) => (every, None),
            Err(problem) => (None, Some(problem)),
        };
        Notify { outlet: Some(outlet), problem, every, alive_ns: AtomicU64::new(0) }
    }

    /// Where it goes; `None`: to nobody.
    pub fn manager(&self) -> Option<&Path> {
        self.outlet.as_ref().map(Outlet::shown)
    }

    /// Which variable could not be used, and why.
    pub fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    /// How often [`Notify::alive`] sends: half of what the manager wants. `None`: it wants none.
    pub fn alive_interval(&self) -> Option<Duration> {
        self.every
    }

    /// What became of the datagrams so far.
    pub fn sent(&self) -> Sent {
        self.outlet.as_ref().map(Outlet::counts).unwrap_or_default()
    }

    /// The service has started (again, after [`Notify::reloading`]).
    pub fn ready(&self) -> bool {
        self.send(b"READY=1")
    }

    /// The service reads its configuration anew; [`Notify::ready`] ends that.
    pub fn reloading(&self) -> bool {
        self.send(format!("RELOADING=1\nMONOTONIC_USEC={}", MonotonicClock.now().as_micros()).as_bytes())
    }

    /// The service begins to stop.
    pub fn stopping(&self) -> bool {
        self.send(b"STOPPING=1")
    }

    /// What it does, in one line for people. Control characters become blanks.
    pub fn status(&self, text: &str) -> bool {
        let end = (0..=STATUS_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let line: String = text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.send(format!("STATUS={line}").as_bytes())
    }

    /// A sign of life, for a manager that wants one (`WatchdogSec=`): to be called by the loop that must not hang, as often as it
    /// turns. Sends when half of the interval is over; otherwise it costs one reading of the clock. Whether one went out.
    pub fn alive(&self) -> bool {
        let Some(every) = self.every else { return false };
        let now = u64::try_from(MonotonicClock.now().as_nanos()).unwrap_or(u64::MAX);
        let last = self.alive_ns.load(Ordering::Relaxed);
        let due = last == 0 || Duration::from_nanos(now.saturating_sub(last)) >= every;
        let first = due && self.alive_ns.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        first && self.send(b"WATCHDOG=1")
    }

    /// Any other message of the protocol: lines of `KEY=value`.
    pub fn send(&self, message: &[u8]) -> bool {
        self.outlet.as_ref().is_some_and(|outlet| outlet.send(message).is_ok())
    }
}

/// Half of the interval, where the watchdog is meant for this process.
fn watchdog(get: &impl Fn(&str) -> Option<OsString>) -> Result<Option<Duration>, Problem> {
    let number = |name: &'static str| match get(name).filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) => match value.to_str().map(str::parse::<u64>) {
            Some(Ok(number)) => Ok(Some(number)),
            _ => Err(Problem::new(name, &value, "is no whole number")),
        },
    };
    if number(WATCHDOG_PID_VAR)?.is_some_and(|pid| pid != u64::from(std::process::id())) {
        return Ok(None);
    }
    Ok(number(WATCHDOG_VAR)?.filter(|usec| *usec > 0).map(|usec| Duration::from_micros(usec) / 2))
}
