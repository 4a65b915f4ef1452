//! `plimsoll heap …`: what a heap snapshot holds, who holds it, and what changed between two.
//!
//! Files are read as streams, packed (gzip, zstd) or not; the format is told by the first bytes. Exit code 0 when the question was
//! answered, 1 when a file cannot be read or `--fail-on-growth` was exceeded, 64 for a command line that cannot be understood.

use std::process::ExitCode;

use crate::exit::Failure;
use crate::say;
pub(crate) use digest::UNREADABLE;

mod diff;
mod digest;
pub(crate) mod input;
mod open;
mod paths;
mod profiles;
mod snapshot;
mod table;
mod top;
pub(crate) mod trend;

/// Arguments of `plimsoll heap`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Compare two snapshots or profiles: who grew
    Diff(diff::Args),
    /// Show who holds the most in one snapshot or profile
    Top(top::Args),
    /// Show what keeps objects alive: the shortest path from the root
    Paths(paths::Args),
    /// Judge a directory of snapshots, profiles or digests: what leaks, how fast, how surely
    Trend(trend::Args),
    /// Say what a file is, and what is in it; of any format that Plimsoll reads
    Open(open::Args),
    /// Take a heap capture of a supervised program now
    Snapshot(snapshot::Args),
    /// Keep what is worth keeping of a file, and pack it; what a supervisor runs after a capture
    #[command(hide = true)]
    Digest(digest::Args),
}

pub(crate) fn run(args: Args) -> Result<ExitCode, Failure> {
    match args.command {
        Command::Diff(args) => diff::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Paths(args) => paths::run(&args),
        Command::Trend(args) => trend::run(&args),
        Command::Open(args) => open::run(&args),
        Command::Snapshot(args) => snapshot::run(&args),
        Command::Digest(args) => digest::run(&args),
    }
}

/// Warnings of a reader, for people, beside the answer.
fn warn(file: &std::path::Path, warnings: &[impl std::fmt::Display]) {
    for warning in warnings {
        say::note(format_args!("{}: {warning}", file.display()));
    }
}

/// One JSON object on stdout.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::internal(error.to_string()))?;
    say::print(format!("{text}\n").as_bytes())
}
