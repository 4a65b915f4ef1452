//! `plimsoll-incident-4 serve`: 24 producers write log entries to a thread that inserts them into SQLite, and the database is locked by somebody
//! else from the first entry to the last. Without `--bounded` the channel between them has no bound: that is the control.
//!
//! Of the producers [`QUIET`] write an entry now and then, the rest as fast as `--rate` allows. What it did is on stdout, one JSON object a
//! line: `sample` (bytes offered, resident bytes) a hundred times, and `end` with the counters of each producer. Ends by
//! itself when `--offer` bytes were offered and what was accepted is written; at most 4 GiB. `campaign` runs it at its full size and judges.

mod bounded;
mod campaign;
mod entry;
mod table;
mod unbounded;

use clap::{Parser, Subcommand};
use entry::Load;
use plimsoll::units::parse_size;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

/// Producers that write an entry now and then.
pub(crate) const QUIET: usize = 4;

/// A log, its producers, and a database that stands still.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// Bytes of entries that are offered in sum
    #[arg(long, value_parser = parse_size)]
    offer: u64,
    /// Bytes of entries that are offered in a second, in sum
    #[arg(long, value_parser = parse_size)]
    rate: u64,
    /// Where the database is made
    #[arg(long)]
    database: PathBuf,
    /// Through Plimsoll's queue of so many bytes: the one flag that the control does not have
    #[arg(long, value_parser = parse_size)]
    bounded: Option<u64>,
    /// What finds no room goes to a spool of so many bytes, beside the database
    #[arg(long, value_parser = parse_size, requires = "bounded")]
    spool: Option<u64>,
}

/// Log entries in front of a database that is locked.
#[derive(Debug, Parser)]
#[command(name = "plimsoll-incident-4", max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Offer entries until all were, and write what was accepted
    Serve(Plan),
    /// The whole incident, ten minutes of 3 MB/s: without a bound, with one, and with a spool; one line a run, one verdict
    Campaign,
}

fn main() -> ExitCode {
    let done = match Args::try_parse() {
        Ok(Args { what: What::Serve(plan) }) => serve(&plan).map(|()| true).map_err(|error| error.to_string()),
        Ok(Args { what: What::Campaign }) => campaign::run_all(),
        Err(error) => {
            // Nothing more can be said when stderr is closed.
            error.print().ok();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("incident 4: {error}");
            ExitCode::from(70)
        }
    }
}

fn serve(plan: &Plan) -> Result<(), Box<dyn Error>> {
    let load = Load::of(plan);
    match plan.bounded {
        Some(max_bytes) => bounded::run(plan, &load, max_bytes),
        None => unbounded::run(plan, &load),
    }
}
