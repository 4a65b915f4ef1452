//! What a watchdog looks at: the gauge, the limit above the threshold, and the kernel events that wake it early.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::config::{Config, Subject};
use crate::gauge::group::{Group, GroupGauge, Version};
use crate::gauge::{self, Gauge, ProcessGauge, Protected, Root, Unread, Wake};
use crate::limit::{self, Consequence};
use crate::policy::Policy;
use crate::units::size;

/// Tasks stalled on memory for this long wake the watchdog.
const PRESSURE_STALL: Duration = Duration::from_millis(150);
/// Within this time.
const PRESSURE_WINDOW: Duration = Duration::from_secs(2);

/// What is held against the threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// A memory group, by its path below the top of its hierarchy.
    Group(PathBuf),
    /// This process alone.
    Process,
    /// A gauge that was given to the watchdog.
    Given,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Group(path) => write!(f, "the memory group {}", path.display()),
            Target::Process => f.write_str("this process"),
            Target::Given => f.write_str("a gauge of its own"),
        }
    }
}

/// The limit at which the kernel would kill.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KillLimit {
    /// In bytes.
    pub bytes: u64,
    /// The file that says so.
    pub source: PathBuf,
}

pub(super) struct Eyes {
    pub(super) gauge: Box<dyn Gauge>,
    pub(super) wakes: Vec<Wake>,
    pub(super) target: Target,
    pub(super) limit: Option<KillLimit>,
    pub(super) policy: Policy,
    pub(super) warnings: Vec<String>,
    /// The last confirmed reading, for the last words.
    pub(super) last: LastReading,
}

pub(super) type LastReading = Arc<Mutex<Option<Protected>>>;

/// Chooses what to look at. `given` is looked at instead of anything found.
pub(super) fn look(root: &Root, config: &Config, given: Option<Box<dyn Gauge>>) -> Result<Eyes, Unread> {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let limits = limit::discover(root, pid);
    let governing = limits.governing().filter(|limit| limit.consequence == Consequence::Kill && limit.level.is_some());
    let limit = governing.map(|limit| KillLimit { bytes: limit.bytes, source: limit.source.clone() });
    let mut warnings = Vec::new();
    if let Some(limit) = limit.as_ref().filter(|limit| limit.bytes <= config.threshold_bytes) {
        warnings.push(format!(
            "the threshold of {} is not below the limit of {} in {}: the kernel may kill first",
            size(config.threshold_bytes),
            size(limit.bytes),
            limit.source.display()
        ));
    }
    let policy = policy(config, limit.as_ref());
    let by_group =
        given.is_none() && (config.subject == Subject::Group || (config.subject == Subject::Auto && limit.is_some()));
    let group = by_group.then(|| open_group(root, pid)).and_then(|opened| match opened {
        Ok(found) => Some(found),
        Err(why) => {
            warnings.push(format!("the memory group cannot be read ({why}): only this process is looked at"));
            None
        }
    });
    let (gauge, wakes, target): (Box<dyn Gauge>, _, _) = match (given, group) {
        (Some(gauge), _) => (gauge, Vec::new(), Target::Given),
        (None, Some((group, gauge))) => (Box::new(gauge), wakes(root, &group, &policy), Target::Group(group.path())),
        (None, None) => {
            let pressure = pressure(&root.proc.join("pressure/memory"));
            (Box::new(ProcessGauge::own(root)?), pressure.into_iter().collect(), Target::Process)
        }
    };
    let last = LastReading::default();
    let gauge = Box::new(Noted { gauge, last: Arc::clone(&last) });
    Ok(Eyes { gauge, wakes, target, limit, policy, warnings, last })
}

fn open_group(root: &Root, pid: i32) -> Result<(Group, GroupGauge), Unread> {
    let group = Group::of_pid(root, pid)?;
    let gauge = GroupGauge::open(root, &group)?;
    Ok((group, gauge))
}

/// The threshold as a budget, the room above it as a reserve (half of which the kernel's own memory may take unnoticed).
fn policy(config: &Config, limit: Option<&KillLimit>) -> Policy {
    let threshold = config.threshold_bytes;
    let room = match limit {
        Some(limit) => limit.bytes.saturating_sub(threshold),
        None => Policy::default_reserve_bytes(threshold).min(u64::MAX - threshold),
    };
    let soft = config.soft_ratio;
    Policy {
        enter_ratio: [soft * 0.85, soft, 1.0],
        leave_ratio: [soft * 0.85 - 0.05, soft - 0.05, 0.95],
        poll_interval: config.poll_interval,
        ..Policy::new(threshold, room)
    }
}

/// Every wake is optional: sampling alone is enough, and what the kernel refuses is left out.
fn wakes(root: &Root, group: &Group, policy: &Policy) -> Vec<Wake> {
    let mut wakes = Vec::new();
    match group.version() {
        Version::V1 => {
            let guards = policy.guard_bytes().into_iter().flatten().chain(policy.budget_bytes);
            wakes.extend(guards.filter_map(|bytes| gauge::threshold_wake(group, bytes).ok()));
            wakes.extend(pressure(&root.proc.join("pressure/memory")));
        }
        Version::V2 => {
            wakes.extend(gauge::events_wake(group).ok());
            wakes.extend(group.pressure_file().and_then(|file| pressure(&file)));
        }
    }
    wakes
}

fn pressure(file: &std::path::Path) -> Option<Wake> {
    gauge::pressure_wake(file, PRESSURE_STALL, PRESSURE_WINDOW).ok()
}

/// A gauge whose last confirmed reading can be seen.
struct Noted {
    gauge: Box<dyn Gauge>,
    last: LastReading,
}

impl Gauge for Noted {
    fn fast(&mut self) -> Result<u64, Unread> {
        self.gauge.fast()
    }

    fn confirm(&mut self) -> Result<Protected, Unread> {
        let read = self.gauge.confirm();
        // Only the callback of the same thread takes this lock.
        *self.last.lock() = read.ok();
        read
    }

    fn confirm_cost(&self) -> Option<Duration> {
        self.gauge.confirm_cost()
    }

    fn caveat(&self) -> Option<Unread> {
        self.gauge.caveat()
    }
}
