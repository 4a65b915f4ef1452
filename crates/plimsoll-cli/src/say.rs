//! What a command prints. A reader that has seen enough (`| head`) is no failure, on stdout and on stderr; a full disk is.

use std::io::{self, Write as _};

use crate::exit::Failure;
use crate::view::text::{self, Line};

/// Writes text to stdout.
///
/// # Errors
/// When it cannot be written, but for a reader that is gone.
pub(crate) fn print(text: &[u8]) -> Result<(), Failure> {
    // Flushed here: what a buffer keeps would be written, and fail, when nobody looks any more.
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to stdout: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes lines to stdout, in colour where that is a terminal.
///
/// # Errors
/// As [`print()`].
pub(crate) fn lines(lines: &[Line]) -> Result<(), Failure> {
    print(text::write_lines(lines, text::colour_for_stdout()).as_bytes())
}

/// Says something beside the answer, on stderr. Where nobody listens it is lost.
pub(crate) fn note(what: impl std::fmt::Display) {
    writeln!(io::stderr(), "plimsoll: {what}").ok();
}
