//! `proof`: every promise of `plimsoll run` with a number in it, measured; `bench/README.md` says which command shows which.
//!
//! Run it with `cargo run --release -p plimsoll-incidents --bin proof -- COMMAND`. It uses the `plimsoll` of the same build
//! (made when missing or old), or the one that `PLIMSOLL_BIN` names. Root and a writable memory cgroup are needed.
//!
//! Exit codes: 0 everything held, 1 something did not, 64 a command line that is not understood, 70 it could not be run here.

mod accounting;
mod captures;
mod disk_flood;
mod disks;
mod flood;
mod footprint;
mod kills;
mod peers;
mod ratio;
mod reaction;
mod report;
mod slow;
mod trees;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Measures what `plimsoll run` promises.
#[derive(Debug, Parser)]
#[command(name = "proof", max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// From the crossing of the budget to the signal, per rate, beside the unprotected control
    Reaction(reaction::Plan),
    /// Hot page cache is left alone, the leak after it is caught
    Cache(reaction::CachePlan),
    /// Leaks anywhere in a process tree; copy-on-write workers; with and without a cgroup
    Trees(trees::Plan),
    /// Ten thousand descendants and the supervisor's own descriptors; leaks of descriptors by kind
    Descriptors(trees::StormPlan),
    /// A kernel OOM kill is called one
    Oom(trees::Plan),
    /// Memory, CPU and wake-ups beside an idle child
    Footprint(footprint::Plan),
    /// A million lines: child time, CPU, memory, accounting, disk
    Flood(flood::Plan),
    /// A day of 200 lines a second within 1 GiB of disk, and who it was
    DiskFlood(disk_flood::Plan),
    /// How soon a line can be queried by a separate process
    Fresh(flood::Plan),
    /// What log files take on disk
    Ratio(ratio::Plan),
    /// A disk of 5 MB/s
    SlowSink(disks::Plan),
    /// A disk that stands still for 30 s, a disk that is full
    Stalls(disks::Plan),
    /// One that floods beside 39 that do not
    Many(disks::ManyPlan),
    /// SIGKILL at each system call of the log path and at random moments, then adoption
    Kills(kills::Plan),
    /// Full heap snapshots where they fit, refusals where they do not, and no kill
    Captures(captures::Plan),
    /// The same flood and the same leak under pm2 and supervisord
    Peers(peers::Plan),
    /// Account for numbered lines in what `plimsoll logs --json` prints (stdin)
    Account(accounting::Plan),
    /// Mount a directory again as a slow, stalling or full disk, until a file appears
    SlowDisk(slow::Plan),
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nothing more can be said when stderr is closed.
            error.print().ok();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    let held = match &args.bench {
        Bench::Reaction(plan) => reaction::run(plan),
        Bench::Cache(plan) => reaction::cache(plan),
        Bench::Trees(plan) => trees::run(plan),
        Bench::Descriptors(plan) => trees::descriptors(plan),
        Bench::Oom(plan) => trees::oom(plan),
        Bench::Footprint(plan) => footprint::run(plan),
        Bench::Flood(plan) => flood::run(plan),
        Bench::DiskFlood(plan) => disk_flood::run(plan),
        Bench::Fresh(plan) => flood::fresh(plan),
        Bench::Ratio(plan) => ratio::run(plan),
        Bench::SlowSink(plan) => disks::slow(plan),
        Bench::Stalls(plan) => disks::stalls(plan),
        Bench::Many(plan) => disks::many(plan),
        Bench::Kills(plan) => kills::run(plan),
        Bench::Captures(plan) => captures::run(plan),
        Bench::Peers(plan) => peers::run(plan),
        Bench::Account(plan) => accounting::run(plan),
        Bench::SlowDisk(plan) => slow::run(plan),
    };
    match held {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("proof: {reason}");
            ExitCode::from(70)
        }
    }
}
