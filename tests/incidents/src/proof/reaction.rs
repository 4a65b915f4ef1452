//! `reaction` and `cache`: N runs a rate under `plimsoll run --memory 300M --reserve 100M` (the kernel kills at 400 MiB), and
//! N unprotected controls.
//!
//! A run is *saved* when SIGTERM reached the child's handler after the crossing, the child ended by itself, nobody was
//! OOM-killed and the recorded reason is `memory`. The supervisor runs with its defaults, so it would restart the child: the
//! first life is judged, then the supervisor is told to stop.

use crate::report::{Must, Report};
use plimsoll_incidents::cgroup::TestGroup;
use plimsoll_incidents::evidence::Evidence;
use plimsoll_incidents::judge::{self, Caught};
use plimsoll_incidents::launch::control;
use plimsoll_incidents::protected::{Service, Setup};
use plimsoll_incidents::{clock, files};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

const BUDGET_BYTES: u64 = 300 << 20;
const KERNEL_BYTES: u64 = 400 << 20;
const DEADLINE: Duration = Duration::from_secs(60);
/// What the promise says about the lag, in milliseconds.
const LAG_MEDIAN_MAX_MS: f64 = 5.0;
/// Rates of the search for the highest one that the default reserve survives, in MiB a second.
const LADDER: [u32; 8] = [200, 400, 600, 800, 1000, 1500, 2000, 3000];
/// Runs that a rung of the ladder must survive.
const RUNG_RUNS: usize = 5;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// Runs a rate
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// Rates in MiB a second
    #[arg(long, value_delimiter = ',', default_values_t = [50, 200, 1000])]
    rates: Vec<u32>,
    /// Runs of the ramp to 97 % that stays
    #[arg(long, default_value_t = 30)]
    stays: usize,
    /// Only the rates and their controls
    #[arg(long)]
    short: bool,
    /// More flags for `plimsoll run`
    #[arg(long, allow_hyphen_values = true, value_delimiter = ' ')]
    flags: Vec<String>,
    /// Append one JSON object a row to this file
    #[arg(long)]
    raw: Option<PathBuf>,
}

/// What to measure with page cache.
#[derive(Debug, clap::Args)]
pub(crate) struct CachePlan {
    /// Runs
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// Append one JSON object a row to this file
    #[arg(long)]
    raw: Option<PathBuf>,
}

/// Several runs of one load.
#[derive(Default)]
struct Runs {
    caught: Vec<Caught>,
    findings: Vec<String>,
    scheduling: String,
}

impl Runs {
    /// Prints what came of them; `lag` says whether the promised lag is held against them.
    fn report(&self, report: &mut Report, what: &str, lag: Must) {
        let lags: Vec<f64> = self.caught.iter().map(|caught| caught.lag_ms).collect();
        let over: Vec<f64> = self.caught.iter().map(|caught| caught.overshoot_bytes as f64 / 1048576.0).collect();
        report.counted(
            &format!("{what}: saved"),
            self.caught.len(),
            self.caught.len() + self.findings.len(),
            &self.findings,
        );
        report.measured(&format!("{what}: lag ({})", self.scheduling), "ms", &lags, lag);
        report.measured(&format!("{what}: overshoot"), "MiB", &over, Must::Report);
    }
}

/// Prints the table; true when every protected run was saved, every control killed and every promise of time held.
pub(crate) fn run(plan: &Plan) -> Result<bool, String> {
    let mut report =
        Report::new("Reaction: --memory 300M --reserve 100M, the kernel kills at 400 MiB", plan.raw.as_deref())?;
    let reserve = ["--reserve", "100M"];
    let flags: Vec<&str> = reserve.iter().copied().chain(plan.flags.iter().map(String::as_str)).collect();
    for rate in &plan.rates {
        let rate = rate.to_string();
        let load = ["ramp", "--rate", &rate, "--forever", "--mark", "300M"];
        let runs = protected(plan.runs, &flags, &load)?;
        runs.report(&mut report, &format!("{rate} MiB/s"), Must::Median(LAG_MEDIAN_MAX_MS));
        let mut killed = 0;
        for _ in 0..plan.runs {
            killed += usize::from(control(&load, KERNEL_BYTES, DEADLINE)?.killed_by_kernel());
        }
        report.counted(&format!("{rate} MiB/s, control: killed by the kernel"), killed, plan.runs, &[]);
    }
    if plan.short {
        return Ok(report.finish());
    }
    stays(plan, &flags, &mut report)?;
    let late = ["ramp", "--rate", "200", "--forever", "--mark", "300M", "--obey-delay-ms", "300", "--keep-rate", "200"];
    protected(plan.runs, &flags, &late)?.report(&mut report, "200 MiB/s, obeys 300 ms late at 200 MiB/s", Must::Report);
    let load = ["ramp", "--rate", "200", "--forever", "--mark", "300M"];
    protected(plan.runs, &[], &load)?.report(&mut report, "default reserve, 200 MiB/s", Must::Report);
    let mut highest = None;
    for rate in LADDER {
        let text = rate.to_string();
        let load = ["ramp", "--rate", &text, "--forever", "--mark", "300M"];
        if protected(RUNG_RUNS, &[], &load)?.caught.len() < RUNG_RUNS {
            break;
        }
        highest = Some(rate);
    }
    let shown = highest.map_or("none".into(), |rate| format!("{rate} MiB/s"));
    report.fact(&format!("default reserve: highest rate survived {RUNG_RUNS} of {RUNG_RUNS}, of {LADDER:?}"), &shown);
    Ok(report.finish())
}

/// Hot page cache (a file of 350 MiB read twice), then a leak of 1,000 MiB/s.
pub(crate) fn cache(plan: &CachePlan) -> Result<bool, String> {
    let mut report = Report::new("Page cache: 350 MiB hot, then 1,000 MiB/s", plan.raw.as_deref())?;
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = dir.path().join("cache").display().to_string();
    let leak = ["--rate", "1000", "--forever", "--mark", "300M"];
    let load = [&["page-cache", "--file", &file, "--size", "350M", "--settle-ms", "2000"][..], &leak].concat();
    let runs = protected(plan.runs, &["--reserve", "100M"], &load)?;
    runs.report(&mut report, "not signalled while it is cache, then caught", Must::Report);
    Ok(report.finish())
}

fn stays(plan: &Plan, flags: &[&str], report: &mut Report) -> Result<(), String> {
    let load = ["ramp", "--rate", "1000", "--to", "291M", "--mark", "300M", "--hold-ms", "3000"];
    let flags = [&["--memory", "300M", "--quiet", "--restart", "never"], flags].concat();
    let mut findings = Vec::new();
    for _ in 0..plan.stays {
        let mut service = Setup::new("stays", &flags).load(&load).start()?;
        let code = service.wait(DEADLINE).and_then(|status| status.code());
        let evidence = service.evidence();
        if let Err(reason) = judge::undisturbed(&evidence) {
            findings.push(reason);
        } else if code != Some(0) {
            findings.push(format!("plimsoll ends with {code:?}"));
        }
    }
    let quiet = plan.stays - findings.len();
    report.counted("1,000 MiB/s to 97 %, stays 3 s: not signalled", quiet, plan.stays, &findings);
    Ok(())
}

fn protected(count: usize, flags: &[&str], load: &[&str]) -> Result<Runs, String> {
    let flags = [&["--memory", "300M", "--quiet"], flags].concat();
    let mut runs = Runs::default();
    for _ in 0..count {
        let mut service = Setup::new("reaction", &flags).load(load).start()?;
        if matches!(runs.scheduling.as_str(), "" | "normal") {
            // In its very first moments a governor is what every thread is.
            let read = || {
                service.status()?["governor"]["scheduling"].as_str().filter(|word| !word.is_empty()).map(String::from)
            };
            runs.scheduling =
                clock::wait_for(Duration::from_secs(1), Duration::from_millis(20), read).unwrap_or_default();
        }
        let path = service.home().join("last-exit.json");
        let exit = || serde_json::from_str::<Value>(&files::text(&path).ok()?).ok();
        let exit = clock::wait_for(DEADLINE, Duration::from_millis(2), exit).unwrap_or(Value::Null);
        let evidence = first_life(&service);
        let oom_kills = service.group().map_or(0, TestGroup::oom_kills_below);
        service.stop(Duration::from_secs(20));
        match judge::caught(&evidence, &exit, oom_kills, BUDGET_BYTES) {
            Ok(caught) => runs.caught.push(caught),
            Err(reason) => runs.findings.push(format!("{reason}; {exit}")),
        }
    }
    Ok(runs)
}

/// The evidence of the first process; a restarted child's is left out.
fn first_life(service: &Service) -> Evidence {
    let all = service.evidence();
    let pid = all.first("start").map_or(0, |start| start.pid);
    Evidence { events: all.events.into_iter().filter(|event| event.pid == pid).collect() }
}
