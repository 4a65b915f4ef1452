//! `plimsoll-proof`: the benches that share the tests' harness. See `bench/README.md` for what each number means.
//!
//! Exit codes: 0 everything held, 1 something did not, 64 a command line that is not understood, 70 it could not be run here.

mod accounting;
mod reaction;
mod slow;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Measures what `plimsoll run` promises.
#[derive(Debug, Parser)]
#[command(name = "plimsoll-proof", max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// From the crossing of the budget to the signal, per rate, beside the unprotected control
    Reaction(reaction::Plan),
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
        Bench::Account(plan) => accounting::run(plan),
        Bench::SlowDisk(plan) => slow::run(plan),
    };
    match held {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("plimsoll-proof: {reason}");
            ExitCode::from(70)
        }
    }
}
