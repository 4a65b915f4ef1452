//! Incident 1: a packet store under one of its published laws or under Plimsoll, in a real cgroup; run and judged here.
//!
//! The cap is 128 MiB. What is really held for a packet is several times what the formula says. `plimsoll-incident-1` is the store.

use crate::cgroup::TestGroup;
use crate::launch::{self, Running};
use crate::product;
use serde_json::Value;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

/// What the process may hold, in bytes.
pub const CAP_BYTES: u64 = 128 << 20;

/// One run that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The exit code, if it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Kernel OOM kills in its group.
    pub oom_kills: u64,
    /// All that it said, in its order.
    pub events: Vec<Value>,
}

/// Runs the store with `args` beside the cap, in a group with a limit.
///
/// # Errors
/// A sentence that says why it cannot be run here.
pub fn run(law: &str, limit_bytes: u64, args: &[&str]) -> Result<Ended, String> {
    let group = TestGroup::new("incident-1", Some(limit_bytes))?;
    let dir = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
    let mut command =
        launch::command(&product::built("plimsoll-incident-1")?, ["--law", law, "--cap", "128M"], Some(&group));
    // Blocks of the C library's own mappings go back when they are freed; by default it learns to keep them.
    command.args(args).env("MALLOC_MMAP_THRESHOLD_", "65536").env("MALLOC_ARENA_MAX", "2");
    let mut running = Running::start(command, dir.path())?;
    let status = running.wait(Duration::from_secs(120)).ok_or("it still runs after two minutes")?;
    let events = running.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if status.code() == Some(70) || status.code() == Some(64) {
        return Err(running.stderr());
    }
    Ok(Ended { code: status.code(), signal: status.signal(), oom_kills: group.oom_kills().unwrap_or(0), events })
}

impl Ended {
    /// Every event of a kind.
    pub fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events.iter().filter(move |event| event["event"] == kind)
    }

    /// A number of the last event of a kind; 0 if there is none.
    pub fn number(&self, kind: &str, field: &str) -> u64 {
        self.all(kind).last().and_then(|event| event[field].as_u64()).unwrap_or(0)
    }

    /// The largest part of what was held that one order asked for.
    pub fn largest_part(&self) -> f64 {
        let part =
            |event: &Value| event["bytes"].as_f64().unwrap_or(0.0) / event["held"].as_f64().unwrap_or(1.0).max(1.0);
        self.all("order").map(part).fold(0.0, f64::max)
    }

    /// How much of what would fit below the cap the store keeps: held ÷ (cap − what is not the store's), 0..=1.
    pub fn kept_ratio(&self) -> f64 {
        let (held, used) = (self.number("end", "held") as f64, self.number("end", "used") as f64);
        held / (CAP_BYTES as f64 - (used - held)).max(1.0)
    }
}
