//! `plimsoll-incident-2`: the service of incident 2 (`serve`) and the long form of its proof (`campaign`).
//!
//! `cargo run --release -p plimsoll-incidents --bin plimsoll-incident-2 -- campaign` makes ten runs at each of five rates, ten of
//! each trouble and as many unprotected controls, and prints one line a run. Root and a writable memory cgroup are needed.
//!
//! Exit codes of `campaign`: 0 everything held, 1 something did not, 64 a command line that is not understood, 70 it could not
//! be run here. `serve` ends with 2 when memory ended it, else 0 or 1; its load is bounded at 1 GiB.

mod campaign;
mod serve;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A service that embeds the memory watchdog, and the proof that it survives.
#[derive(Debug, Parser)]
#[command(name = "plimsoll-incident-2", max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Append, sync, acknowledge and grow, until told to stop
    Serve(serve::Plan),
    /// Run it many times, protected and not, and judge
    Campaign(campaign::Plan),
}

fn main() -> ExitCode {
    match Args::try_parse() {
        Ok(Args { what: What::Serve(plan) }) => serve::main(&plan),
        Ok(Args { what: What::Campaign(plan) }) => match campaign::run(&plan) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(reason) => {
                eprintln!("incident 2: {reason}");
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
