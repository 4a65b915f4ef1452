//! `plimsoll-incident-3`: a dashboard whose clients stall (`broadcast`), and the service it is shown on (`dashboard`).
//!
//! `cargo run --release -p plimsoll-incidents --bin plimsoll-incident-3 -- broadcast` makes three protected runs and three controls under a
//! real kernel limit and prints one line a run. Root and a writable memory cgroup are needed.
//!
//! Exit codes of `broadcast`: 0 everything held, 1 something did not, 64 a command line that is not understood, 70 it could not be run here.

mod dashboard;

use clap::{Parser, Subcommand};
use plimsoll_incidents::stalled::{self, LIMIT_BYTES, STALLED, WATCHING};
use std::process::ExitCode;

/// A dashboard whose clients stall, and the proof that its memory does not follow.
#[derive(Debug, Parser)]
#[command(name = "plimsoll-incident-3", max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Send events to whoever connects, until the time is over
    Dashboard(dashboard::Plan),
    /// Run it beside stalled clients, protected and not, and judge
    Broadcast(Campaign),
}

#[derive(Clone, Debug, clap::Args)]
struct Campaign {
    /// Runs of each kind
    #[arg(long, default_value_t = 3)]
    runs: u32,
}

fn broadcast(plan: &Campaign) -> Result<bool, String> {
    println!("limit {} MiB, {WATCHING} clients that read, {STALLED} that stall", LIMIT_BYTES >> 20);
    let mut all = true;
    for n in 0..plan.runs * 2 {
        let protected = n % 2 == 1;
        let run = stalled::run(protected)?;
        let verdict = if protected { run.held() } else { run.killed() };
        all &= verdict.is_ok();
        let kind = if protected { "bounded" } else { "control" };
        let said = verdict.err().map_or("as it must be".to_owned(), |why| format!("NOT: {why}"));
        println!(
            "{kind}: {said}; {} s, kills {}, most memory {:.1} MiB, after a second {:.1} MiB; {} of {STALLED} told 1013, {} counted; {} frames to each of {WATCHING}, {} gaps",
            run.seconds,
            run.oom_kills,
            run.peak_bytes as f64 / 1048576.0,
            run.early_bytes as f64 / 1048576.0,
            run.told_1013,
            run.counted,
            run.frames,
            run.gaps
        );
    }
    Ok(all)
}

fn main() -> ExitCode {
    match Args::try_parse() {
        Ok(Args { what: What::Dashboard(plan) }) => dashboard::main(&plan),
        Ok(Args { what: What::Broadcast(plan) }) => match broadcast(&plan) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(reason) => {
                eprintln!("incident 3: {reason}");
                ExitCode::from(70)
            }
        },
        Err(error) => {
            // Nothing more can be said when stderr is closed.
            error.print().ok();
            ExitCode::from(if error.use_stderr() { 64 } else { 0 })
        }
    }
}
