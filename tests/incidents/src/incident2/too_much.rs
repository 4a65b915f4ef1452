//! `reads` and `overload`: both runs of each, beside their controls, one table and one verdict.

use plimsoll_incidents::http_load::Seen;
use plimsoll_incidents::overload::{overload, reads};
use std::time::Duration;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// Runs of each, protected and not
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Seconds that each load lasts
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

fn row(name: &str, seen: &Seen) {
    let [median, p99, most] = seen.ms;
    println!(
        "  {name:<10} {:>6} sent {:>6} good ({:>6.1} a second) {:>6} refused {:>5} lost   {median:>7.1} {p99:>7.1} {most:>7.1} ms",
        seen.sent, seen.good, seen.good_per_second, seen.refused, seen.lost
    );
}

fn told(what: &str, verdict: Result<(), String>) -> bool {
    let held = verdict.is_ok();
    println!("  {what}: {}", verdict.err().map_or("yes".to_owned(), |why| format!("NO: {why}")));
    held
}

/// Twice the load, with and without the gate; whether all of it held.
pub(crate) fn run_overload(plan: &Plan) -> Result<bool, String> {
    let mut all = true;
    for n in 0..plan.runs * 2 {
        let protected = n % 2 == 1;
        println!(
            "{} (sent, good, refused, lost; median, p99, longest)",
            if protected { "with the gate" } else { "control" }
        );
        let run = overload(protected, Duration::from_secs(plan.seconds))?;
        row("unloaded", &run.unloaded);
        row("peak", &run.peak);
        row("2 x peak", &run.doubled);
        row("probes", &run.probes);
        all &= if protected { told("held", run.held()) } else { told("collapsed", run.collapsed()) };
    }
    Ok(all)
}

/// One client's heavy reads, with and without the gate; whether all of it held.
pub(crate) fn run_reads(plan: &Plan) -> Result<bool, String> {
    let mut all = true;
    for n in 0..plan.runs * 2 {
        let protected = n % 2 == 1;
        println!(
            "{} (sent, good, refused, lost; median, p99, longest)",
            if protected { "with the gate" } else { "control" }
        );
        let run = reads(protected, Duration::from_secs(plan.seconds))?;
        row("alone", &run.alone);
        row("beside", &run.beside);
        row("probes", &run.probes);
        row("abuser", &run.abuser);
        all &= if protected { told("held", run.held()) } else { told("starved", run.starved()) };
    }
    Ok(all)
}
