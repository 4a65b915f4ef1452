//! `ratio`: what real logs take on disk. Each file is printed under `plimsoll run`, then the store idles.
//!
//! `bench/real-logs` makes the files with a real nginx and a real JSON logger; any other log file does as well.

use crate::flood::{DEADLINE, FLAGS, done};
use crate::report::{Must, Report};
use plimsoll_incidents::protected::{Entry, Setup};
use plimsoll_incidents::usage;
use std::path::PathBuf;
use std::time::Duration;

const DISK_MAX_RATIO: f64 = 0.2;
/// How fast a file is printed, in MiB a second: a busy service, and slower than any disk.
const REPLAY_MIB: &str = "20";

/// Which files.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// Log files, some MB each
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Seconds of idling before the disk is read
    #[arg(long, default_value_t = 40)]
    idle: u64,
    /// Append one JSON object a row to this file
    #[arg(long)]
    raw: Option<PathBuf>,
}

/// Prints the table; true when every file stays below the promised ratio and comes back whole.
pub(crate) fn run(plan: &Plan) -> Result<bool, String> {
    let mut report = Report::new("Real logs on disk", plan.raw.as_deref())?;
    for file in &plan.files {
        let raw_bytes = file.metadata().map_err(|error| format!("{}: {error}", file.display()))?.len();
        let (path, hold) = (file.display().to_string(), ((plan.idle + 3) * 1000).to_string());
        let load = ["replay", "--file", &path, "--rate", REPLAY_MIB, "--hold-ms", &hold];
        let mut service = Setup::new("ratio", &FLAGS).load(&load).start()?;
        done(&service)?;
        std::thread::sleep(Duration::from_secs(plan.idle));
        let disk_bytes = usage::disk_bytes(&service.home());
        service.wait(DEADLINE).ok_or_else(|| format!("it does not end: {}", service.stderr()))?;
        let mut stored_bytes = 0;
        service.logs(&[], |entry| {
            if let Entry::Text { stream: "stdout", text } = entry {
                stored_bytes += text.len() as u64 + 1;
            }
        })?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ratio = disk_bytes as f64 / raw_bytes as f64;
        report.measured(
            &format!("{name}, {raw_bytes} bytes: on disk, of raw"),
            "×",
            &[ratio],
            Must::Max(DISK_MAX_RATIO),
        );
        report.holds(
            &format!("{name}: comes back whole"),
            &stored_bytes.to_string(),
            &raw_bytes.to_string(),
            stored_bytes == raw_bytes,
        );
    }
    Ok(report.finish())
}
