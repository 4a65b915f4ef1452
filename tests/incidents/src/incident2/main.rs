//! `plimsoll-incident-2`: the service of incident 2 (`serve`) and the long form of its proof (`campaign`); its second half, one client whose
//! reads cost O(N) (`reads`), and a server under twice its load (`overload`), both over the server `http`.
//!
//! `cargo run --release -p plimsoll-incidents --bin plimsoll-incident-2 -- campaign` makes ten runs at each of five rates, ten of
//! each trouble and as many unprotected controls, and prints one line a run. Root and a writable memory cgroup are needed.
//!
//! Exit codes of `campaign`, `reads` and `overload`: 0 everything held, 1 something did not, 64 a command line that is not understood, 70 it could not
//! be run here. `serve` ends with 2 when memory ended it, else 0 or 1; its load is bounded at 1 GiB.

mod campaign;
mod http;
mod serve;
mod too_much;

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
    /// Serve HTTP, with a gate in front or not, for the two below
    Http(http::Plan),
    /// One client's heavy reads beside its neighbours and probes, with the gate and without, and judge
    Reads(too_much::Plan),
    /// Twice the load that the server can do, with the gate and without, and judge
    Overload(too_much::Plan),
}

fn judged(held: Result<bool, String>) -> ExitCode {
    match held {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("incident 2: {reason}");
            ExitCode::from(70)
        }
    }
}

fn main() -> ExitCode {
    match Args::try_parse() {
        Ok(Args { what: What::Serve(plan) }) => serve::main(&plan),
        Ok(Args { what: What::Campaign(plan) }) => judged(campaign::run(&plan)),
        Ok(Args { what: What::Http(plan) }) => http::main(&plan),
        Ok(Args { what: What::Reads(plan) }) => judged(too_much::run_reads(&plan)),
        Ok(Args { what: What::Overload(plan) }) => judged(too_much::run_overload(&plan)),
        Err(error) => {
            // Nothing more can be said when stderr is closed.
            error.print().ok();
            ExitCode::from(if error.use_stderr() { 64 } else { 0 })
        }
    }
}
