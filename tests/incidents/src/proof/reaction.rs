//! `reaction`: N runs a rate under `plimsoll run --memory 300M --reserve 100M` (the kernel kills at 400 MiB), and N controls.
//!
//! A run is *saved* when SIGTERM reached the child's handler after the crossing, the child ended by itself, nobody was
//! OOM-killed and the recorded reason is `memory`. The supervisor runs with its defaults, so it would restart the child: the
//! first life is judged, then the supervisor is told to stop. One JSON line a run goes to `--raw`.

use plimsoll_incidents::cgroup::TestGroup;
use plimsoll_incidents::clock;
use plimsoll_incidents::evidence::Evidence;
use plimsoll_incidents::files;
use plimsoll_incidents::launch::control;
use plimsoll_incidents::protected::{Service, Setup};
use plimsoll_incidents::stats::{Spread, spread};
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

const BUDGET_BYTES: u64 = 300 << 20;
const KERNEL_BYTES: u64 = 400 << 20;
const DEADLINE: Duration = Duration::from_secs(60);

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// Runs a rate
    #[arg(long, default_value_t = 10)]
    runs: u32,
    /// Rates in MiB a second
    #[arg(long, value_delimiter = ',', default_values_t = [50, 200, 1000])]
    rates: Vec<u32>,
    /// Leave `--reserve` away: the default reserve
    #[arg(long)]
    default_reserve: bool,
    /// Controls a rate; as many as runs when not given
    #[arg(long)]
    controls: Option<u32>,
    /// Also: ramps to 97 % that stay, children that obey 300 ms late, hot page cache before the leak
    #[arg(long)]
    all: bool,
    /// Append one JSON object a run to this file
    #[arg(long)]
    raw: Option<PathBuf>,
    /// More flags for `plimsoll run`
    #[arg(long, allow_hyphen_values = true, value_delimiter = ' ')]
    flags: Vec<String>,
}

/// One protected run, judged.
struct Run {
    saved: bool,
    lag_ms: Option<f64>,
    over_mib: Option<f64>,
    record: Value,
}

/// Prints the table; true when every protected run was saved and every control killed.
pub(crate) fn run(plan: &Plan) -> Result<bool, String> {
    println!("load average {}; lags are crossing → the child's own handler, in ms", load_average());
    println!(
        "| load | saved | lag min / median / p95 / max | overshoot MiB min / median / p95 / max | control killed |"
    );
    println!("|---|---|---|---|---|");
    let mut held = true;
    let mut scheduling = String::new();
    for rate in &plan.rates {
        let text = rate.to_string();
        let load = ["ramp", "--rate", &text, "--forever", "--mark", "300M"];
        held &= row(plan, &format!("{rate} MiB/s"), &load, plan.controls.unwrap_or(plan.runs), &mut scheduling)?;
    }
    if plan.all {
        let late = ["--forever", "--mark", "300M", "--obey-delay-ms", "300", "--keep-rate", "200"];
        let late = [&["ramp", "--rate", "200"][..], &late].concat();
        held &= row(plan, "200 MiB/s, obeys 300 ms late at 200 MiB/s", &late, 0, &mut scheduling)?;
        held &= page_cache(plan, &mut scheduling)?;
        held &= staying(plan)?;
    }
    println!("\nscheduling of the governor: {scheduling}; load average at the end {}", load_average());
    Ok(held)
}

fn row(plan: &Plan, name: &str, load: &[&str], controls: u32, scheduling: &mut String) -> Result<bool, String> {
    let mut runs = Vec::new();
    for _ in 0..plan.runs {
        runs.push(protected(plan, name, load, scheduling)?);
    }
    let mut killed = 0;
    for _ in 0..controls {
        let end = control(load, KERNEL_BYTES, DEADLINE)?;
        killed += u32::from(end.killed_by_kernel());
    }
    let saved = runs.iter().filter(|run| run.saved).count();
    let shown = |values: Vec<f64>| spread(&values).map_or("–".into(), |spread: Spread| spread.to_string());
    let lags = shown(runs.iter().filter_map(|run| run.lag_ms).collect());
    let over = shown(runs.iter().filter_map(|run| run.over_mib).collect());
    println!("| {name} | {saved}/{} | {lags} | {over} | {killed}/{controls} |", runs.len());
    for run in runs.iter().filter(|run| !run.saved) {
        println!("  not saved: {}", run.record);
    }
    Ok(saved == runs.len() && killed == controls)
}

fn protected(plan: &Plan, name: &str, load: &[&str], scheduling: &mut String) -> Result<Run, String> {
    let mut flags = vec!["--memory", "300M", "--quiet"];
    if !plan.default_reserve {
        flags.extend(["--reserve", "100M"]);
    }
    flags.extend(plan.flags.iter().map(String::as_str));
    let load_before = load_average();
    let mut service = Setup::new("reaction", &flags).load(load).start()?;
    if scheduling.is_empty() {
        let read =
            || service.status()?["governor"]["scheduling"].as_str().filter(|word| !word.is_empty()).map(String::from);
        *scheduling = clock::wait_for(Duration::from_secs(1), Duration::from_millis(20), read).unwrap_or_default();
    }
    let path = service.home().join("last-exit.json");
    let exit = || serde_json::from_str::<Value>(&files::text(&path).ok()?).ok();
    let exit = clock::wait_for(DEADLINE, Duration::from_millis(2), exit).unwrap_or(Value::Null);
    let evidence = first_life(&service);
    let oom_kills = service.group().map_or(0, TestGroup::oom_kills_below);
    service.stop(Duration::from_secs(20));
    let (lag_ms, over) = (evidence.lag_ms(), evidence.overshoot_bytes(BUDGET_BYTES));
    let saved =
        lag_ms.is_some_and(|lag| lag >= 0.0) && evidence.all_done() && oom_kills == 0 && exit["reason"] == "memory";
    let record = json!({
        "load": name, "saved": saved, "lag_ms": lag_ms, "overshoot_bytes": over, "reason": exit["reason"], "oom_kills": oom_kills,
        "exit": exit, "load_average": load_before, "scheduling": scheduling, "unix_ns": clock::unix_ns(),
    });
    if let Some(raw) = &plan.raw {
        let append =
            OpenOptions::new().create(true).append(true).open(raw).and_then(|mut file| writeln!(file, "{record}"));
        append.map_err(|error| format!("{}: {error}", raw.display()))?;
    }
    Ok(Run { saved, lag_ms, over_mib: over.map(|bytes| bytes as f64 / f64::from(1 << 20)), record })
}

/// The evidence of the first process and what it started; a restarted child's is left out.
fn first_life(service: &Service) -> Evidence {
    let all = service.evidence();
    let pid = all.first("start").map_or(0, |start| start.pid);
    Evidence { events: all.events.into_iter().filter(|event| event.pid == pid).collect() }
}

fn page_cache(plan: &Plan, scheduling: &mut String) -> Result<bool, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = dir.path().join("cache").display().to_string();
    let load = ["page-cache", "--file", &file, "--size", "350M", "--rate", "1000", "--forever", "--mark", "300M"];
    row(plan, "350 MiB hot page cache, then 1000 MiB/s", &load, 0, scheduling)
}

/// Ramps to 97 % that stay: not one signal.
fn staying(plan: &Plan) -> Result<bool, String> {
    let load = ["ramp", "--rate", "1000", "--to", "291M", "--mark", "300M", "--hold-ms", "3000"];
    let mut quiet = 0;
    for _ in 0..plan.runs {
        let flags = ["--memory", "300M", "--reserve", "100M", "--quiet", "--restart", "never"];
        let mut service = Setup::new("staying", &flags).load(&load).start()?;
        let status = service.wait(DEADLINE);
        let evidence = service.evidence();
        let undisturbed = evidence.all("signal").count() == 0 && evidence.all_done();
        quiet += u32::from(undisturbed && status.and_then(|status| status.code()) == Some(0));
    }
    println!("| 1000 MiB/s to 97 %, stays 3 s | not signalled {quiet}/{} | | | |", plan.runs);
    Ok(quiet == plan.runs)
}

fn load_average() -> String {
    let text = files::text(Path::new("/proc/loadavg")).unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
