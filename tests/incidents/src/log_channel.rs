//! Incident 4: log entries on their way to a database that is locked, through a channel without a bound or through Plimsoll's queue;
//! run in a real cgroup and judged here, by what the process said and by what is in the database afterwards.
//!
//! Simulated are ten minutes of 3 MB/s, 1.8 GB, compressed in time; the memory is real. `plimsoll-incident-4` is the service.

use crate::cgroup::TestGroup;
use crate::launch::{self, Running};
use crate::product;
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

/// Producers.
pub const PRODUCERS: usize = 24;
/// What the queue may hold, as the flag has it.
pub const QUEUE: &str = "16M";
/// What the process may have resident, in bytes.
pub const RSS_MAX_BYTES: u64 = 64 << 20;
/// Where the kernel kills the control, in bytes.
pub const CONTROL_LIMIT_BYTES: u64 = 256 << 20;

/// A producer's name in the queue's counters and in gap records.
pub fn producer_name(source: usize) -> String {
    format!("service-{source:02}")
}

/// What one producer has in the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Its entries.
    pub entries: u64,
    /// Of those, the ones that do not come after the one before: twice, or out of order.
    pub disordered: u64,
    /// Entries that its gap records tell.
    pub missing: u64,
}

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
    /// What is in the database, by producer.
    pub rows: BTreeMap<usize, Rows>,
}

/// Offers so many bytes at a rate, in a group with a limit; `args` are the protection.
///
/// # Errors
/// A sentence that says why it cannot be run here.
pub fn run(offer: &str, rate: &str, limit_bytes: u64, args: &[&str], longest: Duration) -> Result<Ended, String> {
    let group = TestGroup::new("incident-4", Some(limit_bytes))?;
    let dir = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
    let database = dir.path().join("log.db");
    let load = ["serve", "--offer", offer, "--rate", rate];
    let mut command = launch::command(&product::built("plimsoll-incident-4")?, load, Some(&group));
    // The C library's arenas would be counted, not what is queued.
    command.arg("--database").arg(&database).args(args).env("MALLOC_ARENA_MAX", "2");
    let mut running = Running::start(command, dir.path())?;
    let status = running.wait(longest).ok_or("it still runs")?;
    if let Some(64 | 70) = status.code() {
        return Err(running.stderr());
    }
    let events = running.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let rows = rows(&database).map_err(|error| format!("the database: {error}"))?;
    Ok(Ended { code: status.code(), signal: status.signal(), oom_kills: group.oom_kills().unwrap_or(0), events, rows })
}

fn rows(database: &Path) -> rusqlite::Result<BTreeMap<usize, Rows>> {
    let database = rusqlite::Connection::open(database)?;
    let (mut rows, mut last) = (BTreeMap::<usize, Rows>::new(), BTreeMap::new());
    let mut entries = database.prepare("SELECT source, number FROM entries ORDER BY rowid")?;
    let mut entries = entries.query([])?;
    while let Some(entry) = entries.next()? {
        let (source, number): (i64, i64) = (entry.get(0)?, entry.get(1)?);
        let of = rows.entry(source as usize).or_default();
        of.entries += 1;
        of.disordered += u64::from(last.insert(source, number).is_some_and(|last| last >= number));
    }
    let mut gaps = database.prepare("SELECT producer, items FROM gaps")?;
    let mut gaps = gaps.query([])?;
    while let Some(gap) = gaps.next()? {
        let (producer, items): (String, i64) = (gap.get(0)?, gap.get(1)?);
        let source = (0..PRODUCERS).find(|source| producer_name(*source) == producer);
        if let Some(source) = source {
            rows.entry(source).or_default().missing += items as u64;
        }
    }
    Ok(rows)
}

impl Ended {
    /// A number of the last event of a kind; 0 if there is none.
    pub fn number(&self, kind: &str, field: &str) -> u64 {
        let of_kind = self.events.iter().rev().find(|event| event["event"] == kind);
        of_kind.and_then(|event| event[field].as_u64()).unwrap_or(0)
    }

    /// A number of one producer's.
    pub fn producer(&self, source: usize, field: &str) -> u64 {
        let of = self.events.iter().find(|event| event["event"] == "producer" && event["source"] == source);
        of.and_then(|event| event[field].as_u64()).unwrap_or(0)
    }

    /// Resident bytes for each byte that was offered, between the first sample and the last: 1 and more without a bound.
    pub fn growth_ratio(&self) -> f64 {
        let of = |event: &Value, field: &str| event[field].as_f64().unwrap_or(0.0);
        let samples: Vec<&Value> = self.events.iter().filter(|event| event["event"] == "sample").collect();
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return 0.0 };
        let offered = of(last, "offered_bytes") - of(first, "offered_bytes");
        if offered > 0.0 { (of(last, "rss_bytes") - of(first, "rss_bytes")) / offered } else { 0.0 }
    }

    /// Whether the protected run held.
    ///
    /// # Errors
    /// The first thing that does not hold, as a sentence with its figures.
    pub fn held(&self) -> Result<(), String> {
        self.held_but_for_shares()?;
        match (PRODUCERS - 4..PRODUCERS).find(|source| self.producer(*source, "dropped") > 0) {
            Some(quiet) => Err(format!("quiet producer {quiet} lost entries; {}", self.figures())),
            None => Ok(()),
        }
    }

    /// The same, but that quiet producers may lose: a spool has no shares.
    ///
    /// # Errors
    /// As there.
    pub fn held_but_for_shares(&self) -> Result<(), String> {
        let fails = |why: String| Err(format!("{why}; {}", self.figures()));
        if self.code != Some(0) || self.oom_kills > 0 {
            return fails(format!("exit code {:?}, signal {:?}, {} kills", self.code, self.signal, self.oom_kills));
        }
        if self.number("end", "peak_bytes") > RSS_MAX_BYTES {
            return fails(format!("{} bytes resident", self.number("end", "peak_bytes")));
        }
        if self.number("end", "left") > 0 || self.number("end", "failures") == 0 {
            return fails("not all of it was written, or the sink never failed".into());
        }
        let (mut accepted, mut dropped, mut entries) = (0, 0, 0);
        for source in 0..PRODUCERS {
            let rows = self.rows.get(&source).copied().unwrap_or_default();
            let lost = self.producer(source, "dropped");
            accepted += self.producer(source, "accepted");
            dropped += lost;
            entries += rows.entries;
            if rows.disordered > 0 || rows.missing != lost {
                return fails(format!("producer {source}: {lost} dropped, but {rows:?}"));
            }
        }
        if entries != accepted + self.number("end", "overflowed") {
            return fails(format!("{entries} rows for {accepted} accepted"));
        }
        if dropped == 0 {
            return fails("nothing was dropped: it was never full".into());
        }
        Ok(())
    }

    /// The figures of a run, in one line.
    pub fn figures(&self) -> String {
        let mib = |bytes: u64| bytes >> 20;
        let dropped: u64 = (0..PRODUCERS).map(|source| self.producer(source, "dropped")).sum();
        let quiet: u64 = (PRODUCERS - 4..PRODUCERS).map(|source| self.producer(source, "dropped")).sum();
        format!(
            "offered {} MiB, peak RSS {} MiB, {} rows, {dropped} dropped ({quiet} of the quiet ones'), overflowed {} ({} MiB)",
            mib(self.number("sample", "offered_bytes")),
            mib(self.number("end", "peak_bytes").max(self.number("sample", "rss_bytes"))),
            self.rows.values().map(|rows| rows.entries).sum::<u64>(),
            self.number("end", "overflowed"),
            mib(self.number("end", "overflowed_bytes")),
        )
    }
}
