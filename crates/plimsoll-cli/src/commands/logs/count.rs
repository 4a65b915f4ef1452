//! `plimsoll logs --count`: how many lines there are, without showing them. What lies in a chunk whose row says how many is not
//! read: an hour of a day is counted in the time that its first and last chunk take, unless a pattern is looked for.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::process::ExitCode;

use plimsoll_store::{Counted, Query, Reader, StoreError};
use serde_json::json;

use crate::exit::Failure;
use crate::layout::Layout;
use crate::say;

/// Counts what `query` wants, a last line without its end and a gap that still grows included.
///
/// # Errors
/// A log that cannot be read, or standard output that cannot be written.
pub(super) fn run(layout: &Layout, query: &Query, as_json: bool) -> Result<ExitCode, Failure> {
    let Counted { lines, gaps, gap_lines } = count(layout, query)?;
    let said = if as_json {
        format!("{}\n", json!({ "lines": lines, "gaps": gaps, "missing_lines": gap_lines }))
    } else {
        if gaps > 0 {
            let places = if gaps == 1 { "place" } else { "places" };
            say::note(format_args!("{gap_lines} lines or more are missing, in {gaps} {places}"));
        }
        format!("{lines}\n")
    };
    // A reader that went away has seen what it wanted.
    std::io::stdout().write_all(said.as_bytes()).unwrap_or_default();
    Ok(ExitCode::SUCCESS)
}

fn count(layout: &Layout, query: &Query) -> Result<Counted, StoreError> {
    let mut reader = Reader::open(&layout.home())?;
    let mut all = reader.count(query)?;
    reader.pending(query, &mut |entry| {
        all.count(&entry);
        ControlFlow::Continue(())
    })?;
    Ok(all)
}
