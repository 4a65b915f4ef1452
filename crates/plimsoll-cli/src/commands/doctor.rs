//! `plimsoll doctor`: what holds here: which limit file decides, what else was found, and which of the means that
//! Plimsoll uses it can have. Each is tried, not guessed. Exit code 1 when one cannot be had (a finding), else 0.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::clock::MonotonicClock;
use plimsoll::gauge::group::{Group, Version};
use plimsoll::gauge::process::read_process;
use plimsoll::gauge::{self, Gauge, Protected, Root, Unread, host};
use plimsoll::governor::{Governor, Scheduling, Setup};
use plimsoll::limit::{self, Limits};
use plimsoll::policy::Policy;
use plimsoll::units;
use serde::Serialize;

use crate::args::Place;
use crate::exit::{self, Failure};
use crate::output::{Palette, Style};
use crate::say;
use crate::supervise::files::{make_private_dir, read_small};
use crate::supervise::group::ChildGroup;
use crate::supervise::logs::is_tmpfs;
use crate::tail::fifo::PIPE_BYTES;

/// Arguments of `plimsoll doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,

    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// What was found out about one thing.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    /// What holds.
    text: String,
    /// What that means, and what can be done; only for a finding.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
}

/// One limit as told.
#[derive(Debug, Serialize)]
struct Found {
    decides: bool,
    bytes: u64,
    usage_bytes: Option<u64>,
    consequence: &'static str,
    source: String,
}

#[derive(Debug, Serialize)]
struct Report {
    limits: Vec<Found>,
    notes: Vec<String>,
    host_bytes: Option<u64>,
    checks: Vec<Check>,
}

pub(crate) fn run(args: Args) -> Result<ExitCode, Failure> {
    let Args { place, json } = args;
    let root = Root::default();
    let limits = limit::discover(&root, rustix::process::getpid().as_raw_nonzero().get());
    let report = Report {
        limits: found(&limits),
        notes: limits.notes.clone(),
        host_bytes: limits.host_bytes,
        checks: checks(&root, &place.dir()),
    };
    let findings = report.checks.iter().filter(|check| !check.ok).count();
    if json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| Failure::internal(error.to_string()))?;
        say::print(format!("{text}\n").as_bytes())?;
    } else {
        say::print(told(&report, findings, Palette::of(&std::io::stdout())).as_bytes())?;
    }
    Ok(if findings == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILURE) })
}

fn found(limits: &Limits) -> Vec<Found> {
    let one = |(index, limit): (usize, &limit::Limit)| Found {
        decides: limits.binding == Some(index),
        bytes: limit.bytes,
        usage_bytes: limit.usage_bytes.ok(),
        consequence: limit.consequence.as_str(),
        source: limit.source.display().to_string(),
    };
    limits.all.iter().enumerate().map(one).collect()
}

fn checks(root: &Root, dir: &Path) -> Vec<Check> {
    let made = ChildGroup::make(root, "doctor", None, false);
    let group = made.as_ref().ok().map(|made| made.group().clone());
    let mut checks = vec![
        check(
            "cgroup",
            made.as_ref().map(|made| format!("can be made: {}", made.group().dir().display())).map_err(Clone::clone),
            "without one the process tree is summed, and the kernel's limit is whatever holds for Plimsoll itself",
        ),
        wakes(group.as_ref()),
        pressure(),
        scheduling(),
        check(
            "reading",
            read_process(root, rustix::process::getpid().as_raw_nonzero().get())
                .map(|_| format!("processes below {} can be read", root.proc.display()))
                .map_err(|why| why.to_string()),
            "without /proc nothing can be measured",
        ),
        shared_memory(),
        pipe(),
        state(dir),
        host_memory(root),
    ];
    if let Ok(made) = made
        && !made.remove()
    {
        checks.push(check(
            "cleanup",
            Err("the group made for this check could not be removed".to_owned()),
            "remove it by hand",
        ));
    }
    checks
}

fn check(name: &'static str, result: Result<String, String>, hint: &'static str) -> Check {
    match result {
        Ok(text) => Check { name, ok: true, text, hint: None },
        Err(text) => Check { name, ok: false, text, hint: Some(hint) },
    }
}

/// The kernel's own word that memory grew.
fn wakes(group: Option<&Group>) -> Check {
    let result = match group {
        None => Err("no cgroup, so no event of it".to_owned()),
        Some(group) if group.version() == Version::V1 => gauge::threshold_wake(group, 1 << 30)
            .map(|_| "a threshold can be armed (eventfd)".to_owned())
            .map_err(|error| format!("no threshold can be armed: {error}")),
        Some(group) => gauge::events_wake(group)
            .map(|_| "memory.events can be watched".to_owned())
            .map_err(|error| format!("memory.events cannot be watched: {error}")),
    };
    check("kernel event", result, "sampling alone is enough; it wakes up more often near the budget")
}

fn pressure() -> Check {
    let path = Path::new("/proc/pressure/memory");
    let result = gauge::pressure_wake(path, Duration::from_millis(150), Duration::from_secs(2))
        .map(|_| format!("a trigger on {} can be armed", path.display()))
        .map_err(|error| format!("no trigger on {}: {error}", path.display()));
    check("pressure (PSI)", result, "stalls of the whole machine are then not heard of; sampling alone is enough")
}

/// A gauge of a program that holds nothing.
struct Nothing;

impl Gauge for Nothing {
    fn fast(&mut self) -> Result<u64, Unread> {
        Ok(0)
    }

    fn confirm(&mut self) -> Result<Protected, Unread> {
        Ok(Protected::default())
    }
}

/// Which class a governor's thread really gets.
fn scheduling() -> Check {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let setup = Setup {
        policy: Policy::observe(),
        gauge: Box::new(Nothing),
        wakes: Vec::new(),
        clock: Arc::new(MonotonicClock),
        name: "governor".to_owned(),
    };
    // Only the first sample is waited for; later ones find the place taken.
    let governor = Governor::start(setup, move |_| {
        tell.try_send(()).ok();
    });
    let result = governor.map_err(|error| format!("no governor can be started: {error}")).and_then(|governor| {
        told.recv_timeout(Duration::from_secs(1)).ok();
        match governor.status().scheduling {
            Scheduling::Normal => Err("the governor runs as any thread".to_owned()),
            better => Ok(format!("the governor runs as {}", better.as_str())),
        }
    });
    check("scheduling", result, "under full load it may look late; CAP_SYS_NICE, or an rtprio limit of 1, helps")
}

fn shared_memory() -> Check {
    let result = if is_tmpfs(Path::new("/dev/shm")) {
        Ok("the log ring lies on tmpfs (/dev/shm)".to_owned())
    } else {
        Err("/dev/shm is no tmpfs".to_owned())
    };
    check("shared memory", result, "the log ring then lies on disk beside the other files, and is slower")
}

fn pipe() -> Check {
    let mut buffer = [0_u8; 32];
    let most: Option<usize> =
        read_small("/proc/sys/fs/pipe-max-size", &mut buffer).ok().and_then(|text| text.trim().parse().ok());
    let result = match most {
        Some(most) if most < PIPE_BYTES => {
            Err(format!("pipes hold at most {} (fs.pipe-max-size)", units::size(most as u64)))
        }
        Some(most) => Ok(format!("pipes may hold {} (fs.pipe-max-size)", units::size(most as u64))),
        None => Err("fs.pipe-max-size cannot be read".to_owned()),
    };
    check("pipe", result, "a program whose supervisor died blocks earlier; sysctl fs.pipe-max-size=1048576")
}

fn state(dir: &Path) -> Check {
    let result = make_private_dir(dir)
        .and_then(|()| rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).map_err(Into::into))
        .map(|()| format!("{} can be written", dir.display()))
        .map_err(|error| format!("{} cannot be used: {error}", dir.display()));
    check("state", result, "choose another place with --dir")
}

fn host_memory(root: &Root) -> Check {
    let result = host::read(root)
        .map(|host| format!("{}, {} available", units::size(host.total_bytes), units::size(host.available_bytes)))
        .map_err(|why| why.to_string());
    check("host memory", result, "shown only; nothing is governed by it")
}

fn told(report: &Report, findings: usize, palette: Palette) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    match report.limits.iter().find(|limit| limit.decides) {
        Some(limit) => line(format!("limit: {} decides: {}", limit.source, units::size(limit.bytes))),
        None => line("limit: none that kills; without --memory plimsoll observes and does not govern".to_owned()),
    }
    for limit in &report.limits {
        let usage =
            limit.usage_bytes.map_or_else(|| "usage unknown".to_owned(), |b| format!("{} used", units::size(b)));
        let mark = if limit.decides { "*" } else { " " };
        line(format!("  {mark} {}: {}, {usage} ({})", limit.source, units::size(limit.bytes), limit.consequence));
    }
    for note in &report.notes {
        line(format!("    {note}"));
    }
    for check in &report.checks {
        let (style, word) = if check.ok { (Style::Good, "ok") } else { (Style::Bad, "finding") };
        line(format!("{} {}: {}", palette.paint(style, format!("{word:>7}")), check.name, check.text));
        if let Some(hint) = check.hint {
            line(format!("        {hint}"));
        }
    }
    line(match findings {
        0 => "no findings".to_owned(),
        1 => "1 finding".to_owned(),
        n => format!("{n} findings"),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_names_the_file_that_decides_and_counts_findings() {
        let limit = |source: &str, decides| Found {
            decides,
            bytes: 400 << 20,
            usage_bytes: Some(100 << 20),
            consequence: "kill",
            source: source.to_owned(),
        };
        let report = Report {
            limits: vec![limit("/a/memory.max", false), limit("/memory.max", true)],
            notes: vec!["/b: unlimited".to_owned()],
            host_bytes: None,
            checks: vec![
                check("pipe", Ok("fine".to_owned()), ""),
                check("cgroup", Err("refused".to_owned()), "do this"),
            ],
        };
        let text = told(&report, 1, Palette::PLAIN);
        assert_eq!(
            text,
            "limit: /memory.max decides: 400.0 MiB\n    /a/memory.max: 400.0 MiB, 100.0 MiB used (kill)\n  \
             * /memory.max: 400.0 MiB, 100.0 MiB used (kill)\n    /b: unlimited\n     ok pipe: fine\nfinding cgroup: refused\n        \
             do this\n1 finding\n"
        );
    }
}
