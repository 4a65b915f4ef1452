//! What a load writes about itself: one JSON object a line, appended with one `write(2)` each, so that it survives SIGKILL.
//!
//! | event | written by | carries |
//! |---|---|---|
//! | `start` | every process, first | its role and its own anonymous memory before the load |
//! | `crossed` | the process whose page made the whole tree reach `--mark` | when |
//! | `signal` | the signal handler itself | when it ran, which signal, memory of process and tree at that moment |
//! | `done` | every process, last; missing after SIGKILL | its exit code, memory, time and CPU used |

use crate::files;
use serde::Deserialize;
use std::io;
use std::path::Path;

/// One line of evidence. Fields an event does not carry are zero or empty.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Event {
    /// `start`, `crossed`, `signal` or `done`.
    pub event: String,
    /// The process that wrote it.
    pub pid: u32,
    /// What the process is in its tree: `main`, `middle`, `leaf`, `worker`.
    pub role: String,
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub ns: u64,
    /// Bytes this process has touched.
    pub touched_bytes: u64,
    /// Bytes the whole tree has touched, with what each process had before it began.
    pub total_bytes: u64,
    /// The signal's number.
    pub signal: i32,
    /// The exit code that follows `done`.
    pub code: i32,
    /// `done` of a log load: lines written.
    pub lines: u64,
    /// `done`: wall time of the load in nanoseconds.
    pub wall_ns: u64,
    /// `done`: CPU time used, user and system, in microseconds.
    pub cpu_us: u64,
    /// `done` of a log load: from before the first line to after the last, in nanoseconds.
    pub load_ns: u64,
    /// `done` of a log load with `--time-writes`: the longest single write in nanoseconds.
    pub longest_write_ns: u64,
}

/// All evidence of one run, in the order it was written.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The events.
    pub events: Vec<Event>,
}

impl Evidence {
    /// Reads a file of evidence. A file that is not there yet is empty evidence.
    ///
    /// # Errors
    /// What reading says, and a line that is not one of ours.
    pub fn read(path: &Path) -> io::Result<Evidence> {
        let text = match files::text(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Evidence::default()),
            other => other?,
        };
        let events = text.lines().map(serde_json::from_str).collect::<Result<Vec<Event>, _>>()?;
        Ok(Evidence { events })
    }

    /// The first event of a kind.
    pub fn first<'a>(&'a self, kind: &'a str) -> Option<&'a Event> {
        self.all(kind).next()
    }

    /// Every event of a kind.
    pub fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Event> {
        self.events.iter().filter(move |event| event.event == kind)
    }

    /// From the crossing of the mark to the first signal handler that ran, in milliseconds; negative when the signal came first.
    pub fn lag_ms(&self) -> Option<f64> {
        let crossed = self.first("crossed")?.ns as i64;
        let signal = self.all("signal").map(|event| event.ns).min()? as i64;
        Some((signal - crossed) as f64 / 1e6)
    }

    /// What the tree had touched beyond `mark_bytes` when the first handler ran, in bytes; negative when it was below.
    pub fn overshoot_bytes(&self, mark_bytes: u64) -> Option<i64> {
        let first = self.all("signal").min_by_key(|event| event.ns)?;
        Some(first.total_bytes as i64 - mark_bytes as i64)
    }

    /// Whether every process that started also wrote `done`: none of them was killed by anybody.
    pub fn all_done(&self) -> bool {
        let started = self.all("start").count();
        started > 0 && self.all("start").all(|start| self.all("done").any(|done| done.pid == start.pid))
    }

    /// Whether every process that started had its signal handler run.
    pub fn all_signalled(&self) -> bool {
        let started = self.all("start").count();
        started > 0 && self.all("start").all(|start| self.all("signal").any(|signal| signal.pid == start.pid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, pid: u32, ns: u64, total_bytes: u64) -> Event {
        Event { event: kind.into(), pid, ns, total_bytes, ..Event::default() }
    }

    #[test]
    fn lag_overshoot_and_completeness() {
        let mut evidence = Evidence { events: vec![event("start", 1, 0, 0), event("crossed", 1, 1_000_000, 300)] };
        assert_eq!((evidence.lag_ms(), evidence.all_done(), evidence.all_signalled()), (None, false, false));
        evidence.events.push(event("signal", 1, 3_500_000, 350));
        evidence.events.push(event("done", 1, 4_000_000, 350));
        assert_eq!(evidence.lag_ms(), Some(2.5));
        assert_eq!(evidence.overshoot_bytes(300), Some(50));
        assert!(evidence.all_done() && evidence.all_signalled());
        evidence.events.push(event("start", 2, 0, 0));
        assert!(!evidence.all_done() && !evidence.all_signalled());
    }
}
