//! The writing side of `plimsoll_incidents::evidence`: one `write(2)` to an O_APPEND descriptor for each event.

use crate::sys;
use plimsoll_incidents::clock;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

/// The open file of evidence, or none: then nothing is written and nothing fails.
pub(crate) struct Evidence {
    file: Option<File>,
    started_ns: u64,
}

impl Evidence {
    /// Opens the file for appending and gives it to the signal handler.
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Evidence> {
        sys::shared()?;
        let file = path.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
        if let Some(file) = &file {
            sys::set_evidence_fd(file.as_raw_fd());
        }
        Ok(Evidence { file, started_ns: clock::monotonic_ns() })
    }

    /// Writes `event` with `fields`, which is the inside of a JSON object or empty.
    pub(crate) fn write(&self, event: &str, ns: u64, fields: &str) {
        let Some(mut file) = self.file.as_ref() else { return };
        let comma = if fields.is_empty() { "" } else { "," };
        let pid = std::process::id();
        let line = format!("{{\"event\":\"{event}\",\"pid\":{pid},\"ns\":{ns}{comma}{fields}}}\n");
        if let Err(error) = file.write_all(line.as_bytes()) {
            eprintln!("evidence could not be written: {error}");
        }
    }

    /// This process is there and plays `role`.
    pub(crate) fn start(&self, role: &str) {
        let own = plimsoll_incidents::files::anonymous_bytes(std::process::id()).unwrap_or(0);
        self.write("start", clock::monotonic_ns(), &format!("\"role\":\"{role}\",\"touched_bytes\":{own}"));
    }

    /// This process ends with `code` now, of its own will.
    pub(crate) fn done(&self, code: i32, touched_bytes: u64, more: &str) {
        let now = clock::monotonic_ns();
        let comma = if more.is_empty() { "" } else { "," };
        let fields = format!(
            "\"code\":{code},\"touched_bytes\":{touched_bytes},\"wall_ns\":{},\"cpu_us\":{}{comma}{more}",
            now - self.started_ns,
            clock::own_cpu_ns() / 1000
        );
        self.write("done", now, &fields);
    }
}
