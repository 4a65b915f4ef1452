//! `slow-sink`, `stalls` and `many`: the state directory on a disk that is slow, stands still or is full, and forty
//! supervisors that share one of which one floods.
//!
//! What is promised everywhere: the child is not held back, the supervisor does not grow, and every line is stored or in a
//! gap record of exactly its range.

use crate::flood::{DEADLINE, FLAGS, PEAK_MAX_MB, done, flooding, peak_mb, seconds};
use crate::report::{Must, Report, megabytes};
use plimsoll_incidents::clock;
use plimsoll_incidents::protected::{Entry, Service, Setup};
use plimsoll_incidents::slow_disk::SlowDisk;
use plimsoll_incidents::tmpfs::Tmpfs;
use plimsoll_incidents::usage;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// What the slow disk writes a second, in bytes.
const SLOW_BYTES: u64 = 5_000_000;
/// A child that waits for its log takes 40 s for 200 MB at 5 MB/s; one that does not, about a second.
const NOT_HELD_BACK_SECONDS: f64 = 2.6;
/// The longest single write of a child that is not held back: a slice of the scheduler or two, on a machine with other work.
const WRITE_MAX_SECONDS: f64 = 0.25;
/// The small disk, in bytes.
const SMALL_BYTES: u64 = 16 << 20;

/// What a log's spool may take on disk: a quarter of `--log-disk`, 1 GiB unless asked for.
const SPOOL_BYTES: u64 = 256 << 20;

/// How often and how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// Runs
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Lines of one flood
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
    /// Length of a stall in seconds
    #[arg(long, default_value_t = 30)]
    stall: u64,
    /// Append one JSON object a row to this file
    #[arg(long)]
    raw: Option<PathBuf>,
}

/// Who shares a directory for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct ManyPlan {
    /// Quiet supervisors
    #[arg(long, default_value_t = 39)]
    quiet: u32,
    /// Seconds between two lines of a quiet one
    #[arg(long, default_value_t = 60)]
    interval: u64,
    /// Seconds in all
    #[arg(long, default_value_t = 130)]
    seconds: u64,
    /// Append one JSON object a row to this file
    #[arg(long)]
    raw: Option<PathBuf>,
}

/// A mounted disk; the directories go after it.
struct Disk {
    disk: SlowDisk,
    _backing: TempDir,
    _point: TempDir,
}

fn disk() -> Result<Disk, String> {
    let directory = || tempfile::tempdir().map_err(|error| error.to_string());
    let (backing, point) = (directory()?, directory()?);
    Ok(Disk { disk: SlowDisk::mount(backing.path(), point.path())?, _backing: backing, _point: point })
}

/// What every case collects.
#[derive(Default)]
struct Seen {
    child_seconds: Vec<f64>,
    longest_write_seconds: Vec<f64>,
    peak_mb: Vec<f64>,
    gap_lines: Vec<f64>,
    findings: Vec<String>,
    runs: usize,
}

impl Seen {
    /// Waits for the flood, notes what it cost; `heal` makes the disk good again before the end is awaited.
    fn take(&mut self, mut service: Service, count: u64, heal: impl FnOnce()) -> Result<(), String> {
        let end = done(&service)?;
        self.child_seconds.push(seconds(&end));
        self.longest_write_seconds.push(end.longest_write_ns as f64 / 1e9);
        self.peak_mb.push(peak_mb(&service));
        heal();
        service.wait(DEADLINE).ok_or_else(|| format!("it does not end: {}", service.stderr()))?;
        let summary = service.account(1, 200, count, true)?;
        self.gap_lines.push(summary.gap_lines as f64);
        self.findings.extend(summary.findings);
        self.runs += 1;
        Ok(())
    }

    fn report(&self, report: &mut Report, what: &str, child_max: Must) {
        report.measured(&format!("{what}: child"), "s", &self.child_seconds, child_max);
        report.measured(
            &format!("{what}: longest single write"),
            "s",
            &self.longest_write_seconds,
            Must::Max(WRITE_MAX_SECONDS),
        );
        report.measured(&format!("{what}: peak RSS"), "MB", &self.peak_mb, Must::Max(PEAK_MAX_MB));
        report.measured(&format!("{what}: lines in gap records"), "", &self.gap_lines, Must::Report);
        let held = if self.findings.is_empty() { self.runs } else { self.runs.saturating_sub(1) };
        report.counted(&format!("{what}: every number accounted for"), held, self.runs, &self.findings);
    }
}

/// A million lines onto a disk of 5 MB/s.
pub(crate) fn slow(plan: &Plan) -> Result<bool, String> {
    let mut report = Report::new("A disk of 5 MB/s", plan.raw.as_deref())?;
    let mut seen = Seen::default();
    for _ in 0..plan.runs {
        let disk = disk()?;
        let setup = Setup::new("slow", &FLAGS).dir(disk.disk.path());
        let service = flooding(setup, plan.count, &["--time-writes", "--hold-ms", "2000"])?;
        disk.disk.knobs().set_rate(SLOW_BYTES);
        seen.take(service, plan.count, || disk.disk.knobs().set_rate(0))?;
    }
    seen.report(&mut report, "5 MB/s", Must::Max(NOT_HELD_BACK_SECONDS));
    Ok(report.finish())
}

/// A disk that stands still for half a minute, and one that is full.
pub(crate) fn stalls(plan: &Plan) -> Result<bool, String> {
    let mut report = Report::new(
        &format!("A disk that stands still for {} s, a disk that is full", plan.stall),
        plan.raw.as_deref(),
    )?;
    let (mut seen, mut answers) = (Seen::default(), Vec::new());
    let rate = 50_000;
    let count = rate * (plan.stall + 4);
    for _ in 0..plan.runs {
        let disk = disk()?;
        let setup = Setup::new("stall", &FLAGS).dir(disk.disk.path());
        let more = ["--rate", &rate.to_string(), "--time-writes", "--hold-ms", "3000"];
        let service = flooding(setup, count, &more)?;
        std::thread::sleep(Duration::from_secs(1));
        disk.disk.knobs().set_stalled(true);
        for _ in 0..plan.stall {
            std::thread::sleep(Duration::from_secs(1));
            let asked = clock::monotonic_ns();
            let state = service.status().map(|status| status["state"].clone()).unwrap_or_default();
            let took = (clock::monotonic_ns() - asked) as f64 / 1e9;
            answers.push(if state == "running" { took } else { f64::INFINITY });
        }
        disk.disk.knobs().set_stalled(false);
        seen.take(service, count, || {})?;
    }
    // The load itself keeps a pace, so its time says whether it was held back.
    seen.report(&mut report, "stall", Must::Max(count as f64 / rate as f64 + 2.0));
    report.measured("stall: `plimsoll status` says running, in", "s", &answers, Must::Max(1.0));

    let (mut seen, mut said) = (Seen::default(), 0);
    for _ in 0..plan.runs {
        let disk = Tmpfs::mount(SMALL_BYTES)?;
        let setup = Setup::new("full", &FLAGS).dir(disk.path());
        let service = flooding(setup, plan.count, &["--time-writes", "--hold-ms", "4000"])?;
        let degraded = || service.status()?["logs"]["degraded"].as_str().map(String::from);
        said += usize::from(clock::wait_for(Duration::from_secs(10), Duration::from_millis(50), degraded).is_some());
        seen.take(service, plan.count, || {})?;
    }
    report.counted("full disk of 16 MiB: status says that it is degraded", said, plan.runs, &[]);
    seen.report(&mut report, "full disk", Must::Max(NOT_HELD_BACK_SECONDS));
    Ok(report.finish())
}

/// One that floods beside many that do not.
pub(crate) fn many(plan: &ManyPlan) -> Result<bool, String> {
    let title =
        format!("{} quiet supervisors and one that floods share a directory for {} s", plan.quiet, plan.seconds);
    let mut report = Report::new(&title, plan.raw.as_deref())?;
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let interval = (plan.interval * 1000).to_string();
    let mut quiet = Vec::new();
    for number in 1..=plan.quiet {
        let setup = Setup::new(&format!("quiet-{number}"), &FLAGS).dir(dir.path());
        quiet.push(setup.load(&["sleep", "--ms", "600000", "--every-ms", &interval]).start()?);
    }
    for service in &quiet {
        service.child();
    }
    let rate = 40_000;
    let count = rate * plan.seconds.saturating_sub(10);
    let more = ["--rate", &rate.to_string(), "--time-writes", "--hold-ms", "3000"];
    let loud = flooding(Setup::new("loud", &FLAGS).dir(dir.path()), count, &more)?;
    let mut seen = Seen::default();
    let mut spool_mb = Vec::new();
    clock::wait_for(Duration::from_secs(plan.seconds), Duration::from_millis(200), || {
        spool_mb.push(megabytes(usage::disk_bytes(&loud.home().join("spool"))));
        loud.evidence().first("done").cloned()
    });
    let usages: Vec<usage::Usage> = quiet.iter().filter_map(|service| usage::of(service.pid())).collect();
    seen.take(loud, count, || {})?;
    let (mut held, mut findings) = (0, Vec::new());
    for service in &mut quiet {
        service.stop(DEADLINE).ok_or_else(|| format!("it does not stop: {}", service.stderr()))?;
        match ticks(service)? {
            None => held += 1,
            Some(finding) => findings.push(finding),
        }
    }
    report.counted("quiet: every line stored, in order, no gap", held, quiet.len(), &findings);
    let all = |figure: fn(&usage::Usage) -> f64| usages.iter().map(figure).collect::<Vec<f64>>();
    report.measured("quiet: peak RSS", "MB", &all(|usage| usage.peak_bytes as f64 / 1e6), Must::Max(PEAK_MAX_MB));
    report.measured("quiet: RSS", "MB", &all(|usage| usage.rss_bytes as f64 / 1e6), Must::Report);
    report.measured("loud: its spool on disk", "MB", &spool_mb, Must::Max(megabytes(SPOOL_BYTES)));
    seen.report(&mut report, &format!("loud, {rate} lines/s"), Must::Max(count as f64 / rate as f64 + 2.0));
    Ok(report.finish())
}

/// What is wrong with the log of a quiet one.
fn ticks(service: &Service) -> Result<Option<String>, String> {
    let (mut ticks, mut wrong) = (0_u64, None);
    service.logs(&[], |entry| match entry {
        Entry::Text { stream: "stdout", text } => {
            ticks += 1;
            if text != format!("tick {ticks}").as_bytes() {
                wrong = Some(format!("tick {ticks} reads {:?}", String::from_utf8_lossy(text)));
            }
        }
        Entry::Gap { lines, .. } => wrong = Some(format!("a gap of {lines} lines")),
        Entry::Text { .. } => {}
    })?;
    let written = service.evidence().first("done").map_or(0, |done| done.lines);
    Ok(wrong.or_else(|| (ticks != written || ticks == 0).then(|| format!("{ticks} of {written} ticks"))))
}
