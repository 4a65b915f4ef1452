//! `plimsoll metrics-names` (hidden): the name of every metric, one a line, so that a check can hold docs/metrics.md to it.

use std::io::Write as _;
use std::process::ExitCode;

use crate::exit::Failure;
use crate::web::metrics;

/// Prints the names in the order of the table.
pub(crate) fn run() -> Result<ExitCode, Failure> {
    let mut text = String::new();
    for name in metrics::names() {
        text.push_str(name);
        text.push('\n');
    }
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to stdout: {error}")))
        }
        Ok(()) | Err(_) => Ok(ExitCode::SUCCESS),
    }
}
