//! What a watchdog is told, by code or by the environment. Every mistake is returned, none is printed, none is fatal.
//!
//! | variable | meaning |
//! |---|---|
//! | `PLIMSOLL_SHUTDOWN_THRESHOLD` | a size with a unit (`300M`); unset, empty or `0` is off |
//! | `PLIMSOLL_SHUTDOWN_THRESHOLD_MB` | the same as a bare number of MiB (`300`); used when the other is unset or empty |
//! | `PLIMSOLL_SHUTDOWN_POLL_INTERVAL` | the longest sleep between two samples (`500ms`); 1 s; raised to 10 ms, lowered to 60 s |
//!
//! A threshold that cannot be read, or that does not fit 64 bits, is reported and the watchdog is **off**: a guess could stop
//! a healthy service. An interval that cannot be read is reported and the default holds.

use std::ffi::OsString;
use std::time::Duration;

use crate::policy::{BUDGET_BYTES_MIN, POLL_INTERVAL, POLL_INTERVAL_RANGE};
use crate::reserve;
use crate::units::{UnitError, duration, parse_duration, parse_size, size};

/// The threshold as a size with a unit.
pub const THRESHOLD_VAR: &str = "PLIMSOLL_SHUTDOWN_THRESHOLD";
/// The threshold as a bare number of MiB.
pub const THRESHOLD_MB_VAR: &str = "PLIMSOLL_SHUTDOWN_THRESHOLD_MB";
/// The longest sleep between two samples.
pub const POLL_INTERVAL_VAR: &str = "PLIMSOLL_SHUTDOWN_POLL_INTERVAL";
/// The part of the threshold at which the soft stage begins, unless told otherwise.
pub const SOFT_RATIO: f64 = 0.88;
/// What the soft stage may be set to.
pub const SOFT_RATIO_RANGE: [f64; 2] = [0.5, 0.99];
/// How long the drain may take before the process is ended, unless told otherwise.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// Whose memory is held against the threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subject {
    /// The process's memory group where a group's limit would kill it, else the process alone.
    #[default]
    Auto,
    /// The process's memory group, whoever else is in it.
    Group,
    /// The process alone: `RssAnon + RssShmem + VmSwap`.
    Process,
}

/// A watchdog's settings. [`Config::new`] has the defaults; change what differs.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// At this many bytes of the protected number, or more, the service leaves.
    pub threshold_bytes: u64,
    /// The part of the threshold (0.5..=0.99) at which the soft stage begins. Default [`SOFT_RATIO`].
    pub soft_ratio: f64,
    /// The longest sleep between two samples: the sampler goes down to 1 ms by itself. 10 ms to 60 s; values outside are
    /// brought inside. Default 1 s.
    pub poll_interval: Duration,
    /// How long the drain may take; then the process is ended with code 2. Default [`DRAIN_DEADLINE`].
    pub drain_deadline: Duration,
    /// Memory that is kept and given back for the drain; it is part of what counts against the threshold. 0 is none.
    /// Default: a 32nd of the threshold, at most 16 MiB.
    pub reserve_bytes: u64,
    /// Whose memory is looked at. Default [`Subject::Auto`].
    pub subject: Subject,
}

impl Config {
    /// A threshold in bytes, and the defaults.
    pub fn new(threshold_bytes: u64) -> Config {
        Config {
            threshold_bytes,
            soft_ratio: SOFT_RATIO,
            poll_interval: POLL_INTERVAL,
            drain_deadline: DRAIN_DEADLINE,
            reserve_bytes: reserve::default_bytes(threshold_bytes),
            subject: Subject::Auto,
        }
    }

    /// Reads the three variables. `None` is off: nothing set, or set to nonsense, which is then among the problems.
    ///
    /// # Examples
    /// ```
    /// let (config, problems) = plimsoll::watchdog::Config::from_env();
    /// assert!(config.is_none() && problems.is_empty(), "nothing is set where this example runs");
    /// ```
    pub fn from_env() -> (Option<Config>, Vec<Problem>) {
        Config::from_vars(|name| std::env::var_os(name))
    }

    /// As [`Config::from_env`], from anything that holds the three variables.
    ///
    /// # Examples
    /// ```
    /// use plimsoll::watchdog::{Config, THRESHOLD_VAR};
    /// let (config, problems) = Config::from_vars(|name| (name == THRESHOLD_VAR).then(|| "300M".into()));
    /// assert_eq!(config.unwrap().threshold_bytes, 300 << 20);
    /// assert!(problems.is_empty());
    /// ```
    pub fn from_vars(mut get: impl FnMut(&str) -> Option<OsString>) -> (Option<Config>, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut value = |name: &'static str, effect: Effect, problems: &mut Vec<Problem>| {
            let text = get(name)?.into_string();
            let text =
                text.map_err(|raw| problems.push(Problem::new(name, raw.to_string_lossy(), "is not UTF-8", effect)));
            text.ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let whole = value(THRESHOLD_VAR, Effect::Off, &mut problems);
        let mib = value(THRESHOLD_MB_VAR, Effect::Off, &mut problems);
        let threshold = threshold(whole, mib, &mut problems);
        let interval = value(POLL_INTERVAL_VAR, Effect::Default, &mut problems);
        let poll_interval = interval.and_then(|text| match parse_duration(&text) {
            Ok(time) if !time.is_zero() => Some(time),
            Ok(_) => {
                problems.push(Problem::new(POLL_INTERVAL_VAR, text.as_str(), "must be above 0", Effect::Default));
                None
            }
            Err(why) => {
                problems.push(Problem::new(POLL_INTERVAL_VAR, text.as_str(), why, Effect::Default));
                None
            }
        });
        let config = threshold.map(|bytes| {
            let config = Config::new(bytes);
            Config { poll_interval: effective_interval(poll_interval.unwrap_or(config.poll_interval)), ..config }
        });
        (config, problems)
    }

    /// The settings that will hold: values outside of their range brought inside.
    pub(super) fn effective(self) -> Config {
        let [least, most] = SOFT_RATIO_RANGE;
        let soft = if self.soft_ratio.is_nan() { SOFT_RATIO } else { self.soft_ratio.clamp(least, most) };
        Config { soft_ratio: soft, poll_interval: effective_interval(self.poll_interval), ..self }
    }
}

fn effective_interval(asked: Duration) -> Duration {
    let [least, most] = POLL_INTERVAL_RANGE;
    asked.clamp(least, most)
}

/// The threshold in bytes; `None` is off, and so is what cannot be read.
fn threshold(whole: Option<String>, mib: Option<String>, problems: &mut Vec<Problem>) -> Option<u64> {
    // A variable that could not even be decoded must not let the other one decide.
    if !problems.is_empty() {
        return None;
    }
    let (name, text, bytes) = match (whole, mib) {
        (Some(text), other) => {
            let bytes = parse_size(&text);
            if let Some(other) = other.filter(|other| parse_mib(other).ok() != bytes.as_ref().ok().copied()) {
                let why = format!("differs from {THRESHOLD_VAR}={text}, which is used");
                problems.push(Problem::new(THRESHOLD_MB_VAR, other, why, Effect::Ignored));
            }
            (THRESHOLD_VAR, text, bytes.map_err(|why: UnitError| why.to_string()))
        }
        (None, Some(text)) => {
            let bytes = parse_mib(&text);
            (THRESHOLD_MB_VAR, text, bytes)
        }
        (None, None) => return None,
    };
    let least = format!("is below the least threshold, {}", size(BUDGET_BYTES_MIN));
    match bytes {
        Ok(0) => None,
        Ok(bytes) if bytes >= BUDGET_BYTES_MIN => Some(bytes),
        Ok(_) => {
            problems.push(Problem::new(name, text, least, Effect::Off));
            None
        }
        Err(why) => {
            problems.push(Problem::new(name, text, why, Effect::Off));
            None
        }
    }
}

/// A bare number of MiB, digits only.
fn parse_mib(text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("is no whole number of MiB".to_owned());
    }
    let most = u64::MAX >> 20;
    let fits = text.parse::<u64>().ok().filter(|mib| *mib <= most);
    fits.map(|mib| mib << 20).ok_or_else(|| format!("is too large: at most {most}"))
}

/// What a problem has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// There is no watchdog.
    Off,
    /// The default holds.
    Default,
    /// Another variable holds.
    Ignored,
}

/// A variable that could not be used, and what holds instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={value:?} {why}: {}", match effect {
    Effect::Off => "the memory watchdog is off".to_owned(),
    Effect::Default => format!("the default of {} holds", duration(POLL_INTERVAL)),
    Effect::Ignored => "ignored".to_owned(),
})]
#[non_exhaustive]
pub struct Problem {
    /// The variable.
    pub variable: &'static str,
    /// What it holds, at most 64 characters of it.
    pub value: String,
    /// What is wrong with it.
    pub why: String,
    /// What holds instead.
    pub effect: Effect,
}

impl Problem {
    #[allow(clippy::needless_pass_by_value, reason = "a message is made where it is passed")]
    fn new(variable: &'static str, value: impl AsRef<str>, why: impl std::fmt::Display, effect: Effect) -> Problem {
        let value = value.as_ref().chars().take(64).collect();
        Problem { variable, value, why: why.to_string(), effect }
    }
}
