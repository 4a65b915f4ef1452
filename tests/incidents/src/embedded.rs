//! Incident 2: a service that embeds the watchdog, under a real kernel limit, and the same one without; run and judged here.
//!
//! The service (`plimsoll-incident-2 serve`) appends numbered records to a journal, syncs each one and only then acknowledges
//! it, to a file of its own; meanwhile it grows at a rate, until its own code sees the cancellation token. A clean end
//! writes a last record. A protected run holds when the exit code is 2, the kernel killed nothing, and every acknowledged
//! record is in the journal, whole and in order; when it drained, the last record is there too. The control differs by one
//! flag and holds when the kernel killed it.

use crate::cgroup::TestGroup;
use crate::launch::{self, Running};
use crate::{files, product};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

/// A record of the journal in bytes: fifteen digits and a line feed.
pub const RECORD_BYTES: usize = 16;
/// The last record of a journal that was closed in order.
pub const LAST_RECORD: &[u8; RECORD_BYTES] = b"closed in order\n";
/// What is read of a journal or of acknowledgements at most: four million records.
const MAX_BYTES: u64 = 64 << 20;
/// The kernel kills at this, in bytes.
pub const LIMIT_BYTES: u64 = 400 << 20;
/// The service leaves at this, in bytes.
pub const THRESHOLD: &str = "300M";

/// What is done to the service besides growing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// The only worker of its async runtime blocks for ever.
    Runtime,
    /// At the soft mark a reclaimer takes the service's lock and sleeps ten seconds.
    Lock,
}

impl Trouble {
    /// The flag's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Trouble::None => "none",
            Trouble::Runtime => "runtime",
            Trouble::Lock => "lock",
        }
    }

    /// How long the drain may take, in milliseconds.
    pub const fn drain_ms(self) -> u64 {
        match self {
            Trouble::None => 5_000,
            Trouble::Runtime => 1_000,
            Trouble::Lock => 15_000,
        }
    }

    /// Whether the drain can be finished, or is cut at its deadline.
    pub const fn can_drain(self) -> bool {
        !matches!(self, Trouble::Runtime)
    }
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
    /// Records that were acknowledged, and those of them that are not in the journal.
    pub acknowledged: u64,
    /// Acknowledged records that are missing, or not whole, or out of order.
    pub missing: u64,
    /// Whether the journal ends with its last record.
    pub closed: bool,
    /// From the crossing of the threshold, by the service's own count, to its own code seeing the token, in milliseconds.
    pub told_ms: Option<f64>,
    /// What it had beyond the threshold then, by its own count, in bytes.
    pub overshoot_bytes: Option<i64>,
    /// From seeing the token to the closed journal, in milliseconds.
    pub drain_ms: Option<f64>,
    /// What it wrote to stderr: the effective values and the last words.
    pub said: String,
}

/// Runs the service in a group with the limit. `protected` is the one flag.
///
/// # Errors
/// A sentence that says why it cannot be run here.
pub fn run(rate_mib: u64, trouble: Trouble, protected: bool) -> Result<Ended, String> {
    let group = TestGroup::new("incident-2", Some(LIMIT_BYTES))?;
    let dir = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
    let (journal, acks) = (dir.path().join("journal"), dir.path().join("acks"));
    let (rate, drain) = (rate_mib.to_string(), trouble.drain_ms().to_string());
    let args = ["serve", "--rate", &rate, "--trouble", trouble.as_str(), "--drain-ms", &drain];
    let mut command = launch::command(&product::built("plimsoll-incident-2")?, args, Some(&group));
    command.arg("--journal").arg(&journal).arg("--acks").arg(&acks);
    if protected {
        command.args(["--threshold", THRESHOLD]);
    }
    let mut running = Running::start(command, dir.path())?;
    let status = running.wait(Duration::from_secs(120)).ok_or("it still runs after two minutes")?;
    let text = |path: &Path| files::text(path).unwrap_or_default();
    let events: Vec<Value> = running.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let event = |name: &str| events.iter().find(|event| event["event"] == name);
    let ns = |name: &str| event(name).and_then(|event| event["ns"].as_u64());
    let between = |from: &str, to: &str| Some((ns(to)? as f64 - ns(from)? as f64) / 1e6);
    let total = event("token").and_then(|event| event["over_bytes"].as_i64());
    let (acknowledged, missing, closed) = account(&journal, &acks).map_err(|error| format!("the journal: {error}"))?;
    Ok(Ended {
        code: status.code(),
        signal: status.signal(),
        oom_kills: group.oom_kills().unwrap_or(0),
        acknowledged,
        missing,
        closed,
        told_ms: between("crossed", "token"),
        overshoot_bytes: total,
        drain_ms: between("token", "closed"),
        said: text(&dir.path().join("stderr")),
    })
}

/// How many records were acknowledged, how many of those the journal lacks, and whether it was closed.
fn account(journal: &Path, acks: &Path) -> std::io::Result<(u64, u64, bool)> {
    let mut records = Vec::new();
    File::open(journal)?.take(MAX_BYTES).read_to_end(&mut records)?;
    let closed = records.ends_with(LAST_RECORD);
    let (mut acknowledged, mut missing) = (0, 0);
    for line in BufReader::new(File::open(acks)?.take(MAX_BYTES)).lines() {
        let line = line?;
        // An acknowledgement that a kill has cut was not given.
        let Some(number) = line.parse::<usize>().ok().filter(|_| line.len() == RECORD_BYTES - 1) else { continue };
        acknowledged += 1;
        let at = number * RECORD_BYTES;
        let expected = format!("{number:015}\n");
        missing += u64::from(records.get(at..at + RECORD_BYTES) != Some(expected.as_bytes()));
    }
    Ok((acknowledged, missing, closed))
}

impl Ended {
    /// Whether a protected run held.
    ///
    /// # Errors
    /// The first thing that does not hold, as a sentence with its figures.
    pub fn held(&self, trouble: Trouble) -> Result<(), String> {
        if self.oom_kills > 0 {
            return Err(format!("the kernel killed it ({} times)", self.oom_kills));
        }
        if self.code != Some(2) {
            return Err(format!("exit code {:?}, signal {:?}", self.code, self.signal));
        }
        if self.acknowledged == 0 || self.missing > 0 {
            return Err(format!("{} of {} acknowledged records are missing", self.missing, self.acknowledged));
        }
        if self.told_ms.is_none() {
            return Err("its own code never saw the token".into());
        }
        if !self.said.contains("plimsoll: memory pressure: ") {
            return Err("no last words".into());
        }
        match (trouble.can_drain(), self.closed) {
            (true, false) => Err("the drain was not finished".into()),
            (false, true) => Err("it drained although its runtime was stuck: the trouble was none".into()),
            _ => Ok(()),
        }
    }

    /// Whether the control failed as it must: killed by the kernel, in the middle of its work.
    ///
    /// # Errors
    /// What happened instead.
    pub fn killed(&self) -> Result<(), String> {
        let killed = self.signal == Some(9) || self.code == Some(137);
        match (self.oom_kills > 0 && killed, self.closed, self.told_ms) {
            (true, false, None) if self.acknowledged > 0 => Ok(()),
            _ => Err(format!("not killed by the kernel in its work: {self:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledged_record_that_is_missing_cut_or_elsewhere_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, acks) = (dir.path().join("journal"), dir.path().join("acks"));
        let records = |numbers: &[u64]| numbers.iter().map(|n| format!("{n:015}\n")).collect::<String>();
        let judge = |written: &str, acknowledged: &str| {
            std::fs::write(&journal, written).unwrap();
            std::fs::write(&acks, acknowledged).unwrap();
            account(&journal, &acks).unwrap()
        };
        let closed = records(&[0, 1, 2]) + std::str::from_utf8(LAST_RECORD).unwrap();
        assert_eq!(judge(&closed, &records(&[0, 1, 2])), (3, 0, true));
        assert_eq!(judge(&records(&[0, 1, 2]), &records(&[0, 1])), (2, 0, false), "written, not acknowledged");
        assert_eq!(judge(&records(&[0, 1])[..20], &records(&[0, 1])), (2, 1, false), "torn");
        assert_eq!(judge(&records(&[0, 2, 1]), &records(&[0, 1, 2])), (3, 2, false), "out of order");
        assert_eq!(judge(&records(&[0]), "000000000000000\n00000"), (1, 0, false), "an acknowledgement cut by a kill");
    }
}
