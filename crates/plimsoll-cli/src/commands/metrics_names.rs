//! `plimsoll metrics-names` (hidden): the name of every metric, one a line, so that a check can hold docs/metrics.md to it.

use std::process::ExitCode;

use crate::exit::Failure;
use crate::say;
use crate::web::metrics;

/// Prints the names in the order of the table.
pub(crate) fn run() -> Result<ExitCode, Failure> {
    let mut text = String::new();
    for name in metrics::names() {
        text.push_str(name);
        text.push('\n');
    }
    say::print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
