//! `flood` and `fresh`: a million numbered lines of 200 bytes, one write each, as fast as they go.
//!
//! | figure | how it is taken |
//! |---|---|
//! | child time | the load's own clock, from before its first write to after its last; beside it the same into a bare file |
//! | CPU | the scheduler's time of all supervisor threads, from before the flood to [`Plan::idle`] seconds after it |
//! | peak RSS | `VmHWM` of the supervisor, which nobody can miss |
//! | accounting | every line stored once or in a gap of exactly its range: while it runs, after idling, and after the end |
//! | on disk | allocated blocks of everything below `DIR/NAME` after idling, against the bytes that were printed |
//! | freshness | `fresh`: at the start of each question, how old the oldest line is that the answer lacks |

use crate::report::{Must, Report, megabytes};
use plimsoll_incidents::evidence::{Event, Evidence};
use plimsoll_incidents::launch::{self, Running};
use plimsoll_incidents::lines::LineMaker;
use plimsoll_incidents::protected::{Entry, Service, Setup};
use plimsoll_incidents::usage;
use plimsoll_incidents::{clock, product};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const DEADLINE: Duration = Duration::from_secs(120);
const LINE_BYTES: u64 = 200;
pub(crate) const PEAK_MAX_MB: f64 = 32.0;
const CHILD_MAX_SECONDS: f64 = 1.3;
/// From the pipe to the sealed chunk with its token filter.
const CPU_MAX_US: f64 = 1.6;
const DISK_MAX_RATIO: f64 = 0.65;
const FRESH_MAX_SECONDS: f64 = 0.5;
pub(crate) const FLAGS: [&str; 5] = ["--memory", "300M", "--restart", "never", "--quiet"];

/// How long and how often.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// Floods
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Lines of one flood
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
    /// Seconds of idling before CPU and disk are read
    #[arg(long, default_value_t = 40)]
    idle: u64,
    /// Append one JSON object a row to this file
    #[arg(long)]
    raw: Option<PathBuf>,
}

/// Starts a service that floods after a moment in which it can be looked at.
pub(crate) fn flooding(setup: Setup, count: u64, more: &[&str]) -> Result<Service, String> {
    let count = count.to_string();
    let load = [&["lines", "--count", &count, "--delay-ms", "700"][..], more].concat();
    let service = setup.load(&load).start()?;
    service.child();
    Ok(service)
}

/// Waits for the load's last line.
pub(crate) fn done(service: &Service) -> Result<Event, String> {
    let done = clock::wait_for(DEADLINE, Duration::from_millis(10), || service.evidence().first("done").cloned());
    done.ok_or_else(|| format!("the flood does not end: {}", service.stderr()))
}

pub(crate) fn seconds(done: &Event) -> f64 {
    done.load_ns as f64 / 1e9
}

/// The same flood into a bare file, in seconds.
pub(crate) fn bare(count: u64) -> Result<f64, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let evidence = dir.path().join("evidence");
    let mut command = launch::command(&product::load()?, ["lines", "--count", &count.to_string(), "--evidence"], None);
    command.arg(&evidence);
    Running::start(command, dir.path())?.wait(DEADLINE).ok_or("the bare flood does not end")?;
    let evidence = Evidence::read(&evidence).map_err(|error| error.to_string())?;
    evidence.first("done").map(seconds).ok_or_else(|| "the bare flood wrote no evidence".into())
}

/// One flood, whole.
struct Flood {
    child_seconds: f64,
    supervisor_us: f64,
    all_us: f64,
    peak_mb: f64,
    disk_ratio: f64,
    gaps: u64,
    findings: Vec<String>,
}

fn flood(plan: &Plan) -> Result<Flood, String> {
    let hold = (plan.idle * 1000 + 3000).to_string();
    let mut service = flooding(Setup::new("flood", &FLAGS), plan.count, &["--hold-ms", &hold])?;
    let before = usage::of(service.pid()).ok_or("the supervisor has gone")?;
    let done = done(&service)?;
    let mut findings = Vec::new();
    let mut check = |when: &str, service: &Service, complete: bool| -> Result<(u64, u64), String> {
        let summary = service.account(1, LINE_BYTES as usize, plan.count, complete)?;
        findings.extend(summary.findings.iter().map(|finding| format!("{when}: {finding}")));
        Ok((summary.whole_lines, summary.gaps))
    };
    std::thread::sleep(Duration::from_secs(plan.idle));
    // Before anybody reads: a reader's questions are not the writer's cost.
    let after = usage::of(service.pid()).ok_or("the supervisor has gone")?;
    let disk = usage::disk_bytes(&service.home());
    check("after idling", &service, true)?;
    service.wait(DEADLINE).ok_or_else(|| format!("it does not end: {}", service.stderr()))?;
    let (whole, gaps) = check("after the end", &service, true)?;
    if whole != plan.count {
        findings.push(format!("{whole} of {} lines are stored whole", plan.count));
    }
    let lines = plan.count as f64;
    let supervisor_us = (after.cpu_ns - before.cpu_ns) as f64 / 1e3 / lines;
    Ok(Flood {
        child_seconds: seconds(&done),
        supervisor_us,
        all_us: supervisor_us + done.cpu_us as f64 / lines,
        peak_mb: megabytes(after.peak_bytes),
        disk_ratio: disk as f64 / (plan.count * LINE_BYTES) as f64,
        gaps,
        findings,
    })
}

/// Prints the table; true when every promise held.
pub(crate) fn run(plan: &Plan) -> Result<bool, String> {
    let title = format!("Flood: {} lines of {LINE_BYTES} bytes, one write each", plan.count);
    let mut report = Report::new(&title, plan.raw.as_deref())?;
    let bare = (0..plan.runs).map(|_| bare(plan.count)).collect::<Result<Vec<f64>, String>>()?;
    report.measured("child into a bare file", "s", &bare, Must::Report);
    let floods = (0..plan.runs).map(|_| flood(plan)).collect::<Result<Vec<Flood>, String>>()?;
    let all = |figure: fn(&Flood) -> f64| floods.iter().map(figure).collect::<Vec<f64>>();
    report.measured("child under plimsoll", "s", &all(|flood| flood.child_seconds), Must::Max(CHILD_MAX_SECONDS));
    report.measured("CPU of the supervisor a line", "µs", &all(|flood| flood.supervisor_us), Must::Max(CPU_MAX_US));
    report.measured("CPU of supervisor and child a line", "µs", &all(|flood| flood.all_us), Must::Report);
    report.measured("peak RSS", "MB", &all(|flood| flood.peak_mb), Must::Max(PEAK_MAX_MB));
    report.measured("on disk after idling, of raw", "×", &all(|flood| flood.disk_ratio), Must::Max(DISK_MAX_RATIO));
    report.measured("gaps", "", &all(|flood| flood.gaps as f64), Must::Max(0.0));
    let findings: Vec<String> = floods.iter().flat_map(|flood| flood.findings.iter().cloned()).collect();
    let clean = floods.iter().filter(|flood| flood.findings.is_empty()).count();
    report.counted("every number accounted for", clean, floods.len(), &findings);
    during(plan, &mut report)?;
    Ok(report.finish())
}

/// Accounting by separate processes at any moment of the flood.
fn during(plan: &Plan, report: &mut Report) -> Result<(), String> {
    let (mut held, mut looks, mut findings) = (0, 0, Vec::new());
    for _ in 0..plan.runs {
        let service = flooding(Setup::new("during", &FLAGS), plan.count, &["--hold-ms", "3000"])?;
        while service.evidence().first("done").is_none() {
            let summary = service.account(1, LINE_BYTES as usize, plan.count, false)?;
            looks += 1;
            held += usize::from(summary.finding_count == 0);
            findings.extend(summary.findings);
        }
    }
    report.counted("accounting while it floods, by `plimsoll logs`", held, looks, &findings);
    Ok(())
}

/// Questions at one rate, and how fresh their answers were.
struct Fresh {
    behind_seconds: Vec<f64>,
    took_seconds: Vec<f64>,
}

/// How fresh what a separate `plimsoll logs -n 1` answers is, during a flood and at a thousand lines a second.
pub(crate) fn fresh(plan: &Plan) -> Result<bool, String> {
    let mut report = Report::new("Freshness: a line can be queried by a separate process", plan.raw.as_deref())?;
    let paces = [
        ("1,000 lines/s", 10_000, "1000", "10"),
        ("100,000 lines/s", 1_000_000, "100000", "1000"),
        ("as fast as it goes", plan.count, "0", "5000"),
    ];
    for (what, count, rate, progress) in paces {
        let mut all = Fresh { behind_seconds: Vec::new(), took_seconds: Vec::new() };
        for _ in 0..plan.runs {
            let pace = ["--rate", rate, "--progress", progress, "--hold-ms", "3000"];
            let service = flooding(Setup::new("fresh", &FLAGS), count, &pace)?;
            ask(&service, &mut all)?;
        }
        report.measured(
            &format!("{what}: oldest line that is missing"),
            "s",
            &all.behind_seconds,
            Must::Max(FRESH_MAX_SECONDS),
        );
        report.measured(&format!("{what}: the question itself"), "s", &all.took_seconds, Must::Report);
    }
    Ok(report.finish())
}

fn ask(service: &Service, all: &mut Fresh) -> Result<(), String> {
    loop {
        let ended = service.evidence().first("done").is_some();
        let asked = clock::monotonic_ns();
        let mut newest = 0;
        service.logs(&["-n", "1", "--stream", "stdout"], |entry| {
            if let Entry::Text { stream: "stdout", text } = entry {
                newest = LineMaker::number(text).unwrap_or(0);
            }
        })?;
        let answered = clock::monotonic_ns();
        // The first line that the answer lacks was written between two events of progress; the earlier one bounds its age.
        let evidence = service.evidence();
        let missing = evidence.all("progress").any(|event| event.lines > newest && event.ns < asked);
        let before = evidence.all("progress").filter(|event| event.lines <= newest).map(|event| event.ns).last();
        let oldest = before.filter(|_| missing);
        all.behind_seconds.push(oldest.map_or(0.0, |ns| (asked - ns) as f64 / 1e9));
        all.took_seconds.push((answered - asked) as f64 / 1e9);
        if ended {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The highest resident set seen so far, in MB; of a supervisor that has gone, more than any promise.
pub(crate) fn peak_mb(service: &Service) -> f64 {
    usage::of(service.pid()).map_or(f64::INFINITY, |usage| megabytes(usage.peak_bytes))
}
