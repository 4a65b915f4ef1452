//! `plimsoll replay`: what a recorded decision log, or a trace of memory over time, would have been under another policy.
//!
//! Reads at most [`READ_BYTES`] (64 MiB) and keeps all of it in memory, about 500 bytes a record. Touches nothing that runs. Exit code 0:
//! it was replayed, whatever the difference; 1: the recording cannot be read or, without a policy, does not give what was recorded;
//! 64: the policy cannot be used, or there is no such name.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use plimsoll::governor::Decision;
use plimsoll::governor::log::{Line, parse};
use plimsoll::policy::{Overrides, Policy, TextErrors};
use plimsoll::testkit::replay::{Comparison, Recording, Reproduction, Summary};
use plimsoll::units;
use serde_json::{Value, json};

use super::status::layouts;
use crate::args::Place;
use crate::exit::{self, Failure};
use crate::layout::Layout;
use crate::output::count;
use crate::say;
use crate::supervise::files::read_whole;
use crate::supervise::recorder::{live_path, older};

/// The longest recording that is read.
const READ_BYTES: u64 = 64 << 20;

/// Arguments of `plimsoll replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: plimsoll replay web --set 'high = 80 %'\n\
    Exit code: 0 replayed; 1 the recording cannot be read or, without a policy, is not reproduced; 64 the policy cannot be used, no such name.")]
pub(crate) struct Args {
    /// The name of a program, a decision log, or a trace: lines of time,bytes
    #[arg(value_name = "LOG")]
    log: String,

    /// What differs from the policy that held: key = value lines (docs/replay.md)
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    /// The same for one value, after those of --policy
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Print JSON (docs/replay.md)
    #[arg(long, conflicts_with = "export")]
    json: bool,

    /// Print the decision log itself, as text, and replay nothing
    #[arg(long, conflicts_with_all = ["policy", "set"])]
    export: bool,

    #[command(flatten)]
    place: Place,
}

/// Replays.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let overrides = overrides(args)?;
    let source = Source::find(&args.log, &args.place)?;
    if args.export {
        return export(&source);
    }
    let recording = source.recording(overrides.as_ref())?;
    let reproduction = recording.reproduce();
    let torn = recording.torn_bytes();
    if torn > 0 && !args.json {
        say::note(format_args!("the last line of {} has no end: its {torn} bytes are left out", source.shown));
    }
    let comparison = overrides.as_ref().map(|overrides| recording.against(overrides)).transpose();
    let comparison = comparison.map_err(|errors| refused("the policy that results", &errors))?;
    let text = if args.json {
        let value = in_json(&source, torn, &reproduction, comparison.as_ref());
        let text = serde_json::to_string_pretty(&value).map_err(|error| Failure::internal(error.to_string()))?;
        text + "\n"
    } else {
        match &comparison {
            Some(comparison) => comparison.to_string(),
            None => told(&reproduction),
        }
    };
    say::print(text.as_bytes())?;
    let failed = comparison.is_none() && reproduction.differing > 0;
    Ok(if failed { ExitCode::from(exit::FAILURE) } else { ExitCode::SUCCESS })
}

/// What is to differ; `None`: nothing was asked for.
fn overrides(args: &Args) -> Result<Option<Overrides>, Failure> {
    if args.policy.is_none() && args.set.is_empty() {
        return Ok(None);
    }
    let mut all = Overrides::default();
    if let Some(path) = &args.policy {
        let bytes = read_whole(path, plimsoll::policy::TEXT_BYTES_MAX as u64)
            .map_err(|error| Failure::usage(format!("cannot read the policy {}: {error}", path.display())))?;
        let text = String::from_utf8(bytes)
            .map_err(|error| Failure::usage(format!("the policy {}: not text: {error}", path.display())))?;
        all = Overrides::parse(&text).map_err(|errors| refused(&format!("the policy {}", path.display()), &errors))?;
    }
    let set = Overrides::parse(&args.set.join("\n")).map_err(|errors| refused("--set", &errors))?;
    Ok(Some(all.then(set)))
}

fn refused(what: &str, errors: &TextErrors) -> Failure {
    let each: Vec<String> = errors.0.iter().map(|error| format!("\n  {error}")).collect();
    Failure::usage(format!("{what} cannot be used:{}", each.concat()))
}

/// A recording as it lies there.
struct Source {
    shown: String,
    bytes: Vec<u8>,
}

impl Source {
    fn find(log: &str, place: &Place) -> Result<Source, Failure> {
        let path = Path::new(log);
        if log.contains('/') || path.is_file() {
            return Source::of_files(log.to_owned(), &[path.to_owned()]);
        }
        let unnamed = |failure: Failure| failure.hint(format!("there is no file {log:?} either"));
        let layout = layouts(&place.dir(), Some(log)).map_err(unnamed)?.remove(0);
        Source::of_name(&layout)
    }

    /// While it runs, or was killed: what lies in memory. Else what the last run left on disk.
    fn of_name(layout: &Layout) -> Result<Source, Failure> {
        let name = layout.name();
        let live = live_path(layout);
        if let Ok(path) = &live
            && path.exists()
        {
            return Source::of_files(name.to_owned(), &[older(path), path.clone()]);
        }
        let left = layout.decision_log();
        if left.exists() {
            return Source::of_files(name.to_owned(), &[left]);
        }
        let why = live.err().map(|why| format!(": {why}")).unwrap_or_default();
        Err(Failure::new(format!("{name} has no decision log{why}")).hint("it is written while the program runs"))
    }

    fn of_files(shown: String, paths: &[PathBuf]) -> Result<Source, Failure> {
        let mut bytes = Vec::new();
        for (n, path) in paths.iter().enumerate() {
            match read_whole(path, READ_BYTES) {
                Ok(part) => bytes.extend(part),
                // The older of two need not be there.
                Err(error) if error.kind() == io::ErrorKind::NotFound && n + 1 < paths.len() => {}
                Err(error) => return Err(Failure::new(format!("cannot read {}: {error}", path.display()))),
            }
        }
        Ok(Source { shown, bytes })
    }

    fn is_log(&self) -> bool {
        self.bytes.starts_with(b"plimsoll-")
    }

    fn recording(&self, overrides: Option<&Overrides>) -> Result<Recording, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", self.shown));
        if self.is_log() {
            let log = parse(&self.bytes).map_err(|error| failed(&error))?;
            return Recording::from_log(&log).map_err(|error| failed(&error));
        }
        let budget = overrides.and_then(Overrides::budget_bytes);
        let Some((budget, overrides)) = budget.zip(overrides) else {
            // What is no trace either is told as that, not as a policy that lacks something.
            Recording::from_trace(&self.bytes, &Policy::observe()).map_err(|error| failed(&error))?;
            return Err(Failure::usage(format!("{}: a trace has no budget of its own", self.shown))
                .hint("say it: --set 'budget = 300M', or in the --policy"));
        };
        let reserve = overrides.reserve_bytes().unwrap_or_else(|| Policy::default_reserve_bytes(budget));
        Recording::from_trace(&self.bytes, &Policy::new(budget, reserve)).map_err(|error| failed(&error))
    }
}

fn export(source: &Source) -> Result<ExitCode, Failure> {
    if !source.is_log() {
        return Err(Failure::usage(format!("{} is no decision log", source.shown)));
    }
    let log = parse(&source.bytes).map_err(|error| Failure::new(format!("{}: {error}", source.shown)))?;
    let mut line = Line::new();
    let mut text = line.header().to_vec();
    log.records.iter().for_each(|record| text.extend_from_slice(line.encode(record)));
    say::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether its own policy gives what was recorded.
fn told(found: &Reproduction) -> String {
    let decisions = count(found.decisions as u64);
    let mut text = match (found.differing, &found.first) {
        (0, _) if found.unsettled == 0 => format!("{decisions} decisions, each as it was recorded\n"),
        (0, _) => format!(
            "{decisions} decisions; {} differ where the log begins in mid-life or has a gap, all others are as recorded\n",
            count(found.unsettled as u64)
        ),
        (differing, _) => {
            format!("{} of {decisions} decisions differ from what was recorded\n", count(differing as u64))
        }
    };
    if let Some((recorded, replayed)) = &found.first {
        let line = |what: &str, d: &Decision| {
            let charged = d.charged_bytes.map_or_else(|| "unknown".to_owned(), |bytes| units::size(bytes).to_string());
            let (at, cause, sleep) = (d.at.as_secs_f64(), d.cause.as_str(), units::duration(d.sleep));
            format!("  {what} at {at:.3} s: level {}, {cause}, charged {charged}, next look in {sleep}\n", d.level)
        };
        text += &line("recorded", recorded);
        text += &line("replayed", replayed);
    }
    text
}

fn in_json(source: &Source, torn: usize, found: &Reproduction, comparison: Option<&Comparison>) -> Value {
    let time = |time: Option<std::time::Duration>| time.map(|time| time.as_secs_f64());
    let summary = |sum: &Summary| {
        json!({
            "elevated_at_seconds": time(sum.reached_at[1]),
            "high_at_seconds": time(sum.reached_at[2]),
            "critical_at_seconds": time(sum.reached_at[3]),
            "elevated_for_seconds": sum.held_for[1].as_secs_f64(),
            "high_for_seconds": sum.held_for[2].as_secs_f64(),
            "critical_for_seconds": sum.held_for[3].as_secs_f64(),
            "acted_at_seconds": time(sum.acted_at),
            "drained_at_seconds": time(sum.drained_at),
            "stuck_at_seconds": time(sum.stuck_at),
            "orders": sum.orders,
            "ordered_bytes": sum.ordered_bytes,
            "purges": sum.purges,
            "peak_bytes": sum.peak_bytes,
            "level_changes": sum.changes,
        })
    };
    let compared = comparison.map(|comparison| {
        let changed = comparison.changed.iter().map(|(key, from, to)| json!({ "key": key, "from": from, "to": to }));
        let lives = comparison.lives.iter().map(|life| {
            json!({
                "began_unix": time(life.began_unix),
                "lasted_seconds": life.lasted.as_secs_f64(),
                "readings": life.readings,
                "missing": life.missing,
                "recorded": summary(&life.recorded),
                "replayed": summary(&life.replayed),
                "model_error_ratio": life.modelled.map(|modelled| modelled.error_ratio),
            })
        });
        json!({
            "changed": changed.collect::<Vec<_>>(),
            "different": comparison.is_different(),
            "sentence": comparison.sentence(),
            "lives": lives.collect::<Vec<_>>(),
        })
    });
    json!({
        "source": source.shown,
        "kind": if source.is_log() { "log" } else { "trace" },
        "torn_bytes": torn,
        "reproduced": {
            "decisions": found.decisions,
            "differing": found.differing,
            "unsettled": found.unsettled,
        },
        "comparison": compared,
    })
}
