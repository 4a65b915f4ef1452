//! The flood that filled the disk: after its memory was bounded, the third-generation supervisor of incident 4 wrote 58 GB of logs in a day:
//! one service whose accept loop span on EMFILE, 3,747,633 times the same line, some 200 a second; and nobody knew whose they were.
//!
//! Re-created with time compressed, not bytes: as many lines as come at 200 a second in so long, at [`Plan::rate`]. Beside the flood a quiet
//! program of the same state directory. What everything below that directory takes on disk (`du`: chunks, write-ahead log, spool) is
//! looked at every [`LOOK`]. **The control** is the same load into a plain file, as it was; shortened, and its growth carried on to the
//! whole number of lines (it is a straight line: bytes a line).

use crate::launch::{self, Running};
use crate::protected::{Service, Setup};
use crate::{clock, evidence::Evidence, product, usage};
use serde_json::Value;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often the disk is looked at.
pub const LOOK: Duration = Duration::from_millis(20);
/// Lines of the incident in a day: 200 a second.
pub const DAY_LINES: u64 = 200 * 86_400;
const DEADLINE: Duration = Duration::from_secs(900);
const FLAGS: [&str; 5] = ["--memory", "300M", "--restart", "never", "--quiet"];

/// A flood.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Lines.
    pub lines: u64,
    /// Length of a line.
    pub bytes: u64,
    /// Lines a second; 0: as fast as they go.
    pub rate: u64,
    /// `--log-disk`, as it is written.
    pub disk: &'a str,
    /// What the lines are: `accept` (all the same), `retry` (one template, nothing that compresses).
    pub format: &'a str,
}

/// What happened.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The most that everything below the state directory took at any look.
    pub peak_disk_bytes: u64,
    /// How often that was looked at.
    pub looks: usize,
    /// Highest resident set of the supervisor.
    pub peak_rss_bytes: u64,
    /// Lines that the supervisor counted, stored or dropped.
    pub counted_lines: u64,
    /// Of these, dropped with a gap record.
    pub dropped_lines: u64,
    /// Lines that were stored and deleted again, to keep the bound, as of the last look.
    pub retired_lines: u64,
    /// What `status` said while it flooded: stream, share of the program's bytes, template, its share.
    pub live: (String, f64, String, f64),
    /// The first of `logs --top` of all names, after the flood's program had ended: name, stream, share, template.
    pub top: (String, String, f64, String),
}

/// The flood under `plimsoll run`, beside a quiet program.
///
/// # Errors
/// A sentence that says why it cannot be run here, or what did not answer.
pub fn protected(plan: &Plan<'_>) -> Result<Outcome, String> {
    let place = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
    let quiet = ["lines", "--count", "100000", "--rate", "5"];
    let quiet = Setup::new("quiet", &FLAGS).dir(place.path()).load(&quiet).start()?;
    let flags = [&FLAGS[..], &["--log-disk", plan.disk]].concat();
    let (lines, bytes, rate) = (plan.lines.to_string(), plan.bytes.to_string(), plan.rate.to_string());
    let load = [
        &["lines", "--format", plan.format, "--count", &lines, "--bytes", &bytes, "--rate", &rate][..],
        &["--mode", "block", "--delay-ms", "700", "--hold-ms", "1500"],
    ];
    let mut flood = Setup::new("flood", &flags).dir(place.path()).load(&load.concat()).start()?;
    flood.child();
    let done = AtomicBool::new(false);
    let (looks, live, peak_rss_bytes, counts) = std::thread::scope(|scope| {
        let looks = scope.spawn(|| watch(place.path(), &done));
        let seen = during(&mut flood);
        done.store(true, Ordering::SeqCst);
        let looks = looks.join().map_err(|_| "the thread that looks at the disk panicked".to_owned())?;
        let (live, rss, counts) = seen?;
        Ok::<_, String>((looks, live, rss, counts))
    })?;
    let top = top(&flood)?;
    drop(quiet);
    Ok(Outcome {
        peak_disk_bytes: looks.iter().copied().max().unwrap_or(0),
        looks: looks.len(),
        peak_rss_bytes,
        counted_lines: counts.0,
        dropped_lines: counts.1,
        retired_lines: counts.2,
        live,
        top,
    })
}

type Seen = ((String, f64, String, f64), u64, (u64, u64, u64));

/// Asks while it floods, until it has ended.
fn during(flood: &mut Service) -> Result<Seen, String> {
    let mut live = None;
    let mut counts = (0, 0, 0);
    let mut rss = 0;
    let ended = clock::wait_for(DEADLINE, Duration::from_millis(200), || {
        rss = usage::of(flood.pid()).map_or(0, |usage| usage.peak_bytes).max(rss);
        if let Some(status) = flood.status() {
            live = busiest(&status).or(live.take());
            let stream = &status["logs"]["streams"]["stdout"];
            let figure = |key: &str| stream[key].as_u64().unwrap_or(0);
            let lines = figure("lines_total") + figure("dropped_lines_total");
            if lines >= counts.0 {
                let retired = status["logs"]["retired_lines_total"].as_object();
                let retired = retired.map_or(0, |reasons| reasons.values().filter_map(Value::as_u64).sum());
                counts = (lines, figure("dropped_lines_total"), retired);
            }
        }
        flood.wait(Duration::ZERO)
    });
    ended.ok_or_else(|| format!("the flood does not end: {}", flood.stderr()))?;
    let live = live.ok_or("status said nothing about the volume while it flooded")?;
    Ok((live, rss, counts))
}

/// The stream and the template that make most bytes, by `status`.
fn busiest(status: &Value) -> Option<(String, f64, String, f64)> {
    let streams = status["logs"]["volume"]["streams"].as_object()?;
    let share = |stream: &Value| stream["share_ratio"].as_f64().unwrap_or(0.0);
    let (name, most) = streams.iter().max_by(|a, b| share(a.1).total_cmp(&share(b.1)))?;
    let template = &most["templates"][0];
    Some((name.clone(), share(most), template["text"].as_str()?.to_owned(), template["share_ratio"].as_f64()?))
}

fn top(flood: &Service) -> Result<(String, String, f64, String), String> {
    let dir = flood.home();
    let dir = dir.parent().unwrap_or(Path::new("/")).display().to_string();
    let output = launch::command(product::plimsoll()?, ["logs", "--top=3", "--json", "--dir", &dir], None).output();
    let output = output.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    let all: Value = serde_json::from_str(&said)
        .map_err(|error| format!("logs --top --json: {error}: {said}{}", String::from_utf8_lossy(&output.stderr)))?;
    let first = &all[0];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let share = first["share_ratio"].as_f64().unwrap_or(0.0);
    Ok((text(&first["name"]), text(&first["stream"]), share, text(&first["templates"][0]["template"])))
}

/// What everything below `dir` takes, again and again.
fn watch(dir: &Path, done: &AtomicBool) -> Vec<u64> {
    let mut looks = Vec::new();
    while !done.load(Ordering::SeqCst) {
        looks.push(usage::disk_bytes(dir));
        std::thread::sleep(LOOK);
    }
    looks
}

/// The same lines into a plain file that nobody bounds: what a line takes on disk, in bytes, from `lines` of them.
///
/// # Errors
/// A sentence that says what is missing.
pub fn control(plan: &Plan<'_>, lines: u64) -> Result<f64, String> {
    let dir = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
    let evidence = dir.path().join("evidence");
    let words = ["lines", "--format", plan.format, "--count", &lines.to_string(), "--bytes", &plan.bytes.to_string()];
    let mut command = launch::command(&product::load()?, words, None);
    command.args(["--mode", "block", "--evidence"]).arg(&evidence);
    let mut running = Running::start(command, dir.path())?;
    running.wait(DEADLINE).ok_or("the control does not end")?;
    let written = Evidence::read(&evidence).map_err(|error| error.to_string())?;
    let written = written.first("done").map(|done| done.lines).ok_or("the control wrote no evidence")?;
    let grown = std::fs::metadata(dir.path().join("stdout")).map_err(|error| error.to_string())?.len();
    Ok(grown as f64 / written as f64)
}
