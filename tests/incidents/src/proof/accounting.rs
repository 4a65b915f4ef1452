//! `account`: the check of a stored flood, line by line and byte by byte, fast enough for a million lines (about two seconds).

use plimsoll_incidents::account::Account;
use plimsoll_incidents::lines::LineMaker;
use plimsoll_incidents::protected::{Entry, walk};
use std::io::{BufReader, stdin};

/// What was printed.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// How many lines
    #[arg(long)]
    count: u64,
    /// Their length in bytes, line feed included
    #[arg(long, default_value_t = 200)]
    bytes: usize,
    /// Their seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The writer still writes: what is there must be right, and nothing is missing at the end
    #[arg(long)]
    live: bool,
}

/// Reads stdin and prints one JSON object; true when everything is accounted for.
pub(crate) fn run(plan: &Plan) -> Result<bool, String> {
    let mut account = Account::new(LineMaker::new(plan.seed, plan.bytes), plan.count);
    let entries = walk(BufReader::with_capacity(1 << 20, stdin().lock()), |entry| match entry {
        Entry::Text { stream: "stdout", text } => account.text(text),
        Entry::Gap { stream: "stdout", lines, bytes, exact, .. } => account.gap(lines, bytes, exact),
        _ => {}
    })?;
    let summary = account.finish(!plan.live);
    let object = serde_json::json!({
        "entries": entries,
        "whole_lines": summary.whole_lines,
        "pieces": summary.pieces,
        "gaps": summary.gaps,
        "gap_bytes": summary.gap_bytes,
        "gap_lines": summary.gap_lines,
        "inexact_gaps": summary.inexact_gaps,
        "reached": summary.reached,
        "finding_count": summary.finding_count,
        "findings": summary.findings,
    });
    println!("{object}");
    Ok(summary.finding_count == 0)
}
