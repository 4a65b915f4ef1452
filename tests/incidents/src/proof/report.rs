//! One table for every command: what was measured, how often, median, 95th percentile, maximum, what the promise says, and
//! whether it holds.
//!
//! Each row is printed as soon as it is known. A row without a promise is marked `-` and decides nothing.

use plimsoll_incidents::product;
use plimsoll_incidents::stats::spread;
use plimsoll_incidents::{clock, files};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How many findings of one row are printed.
const MAX_FINDINGS: usize = 5;

/// Which figure of a measurement is held to which value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Must {
    /// The median is at most this.
    Median(f64),
    /// Every single one is at most this.
    Max(f64),
    /// Nothing is promised; it is reported.
    Report,
}

/// The table of one command.
pub(crate) struct Report {
    failed: u32,
    raw: Option<PathBuf>,
}

impl Report {
    /// Prints what is measured, on what, and the table's head. Every row also goes to `raw` as one JSON object a line.
    pub(crate) fn new(title: &str, raw: Option<&Path>) -> Result<Report, String> {
        let version = Command::new(product::plimsoll()?).arg("--version").output();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        println!("\n## {title}\n");
        println!(
            "{}; {} build; Linux {}; {} processors; load average {}\n",
            version.unwrap_or_default(),
            if cfg!(debug_assertions) { "debug" } else { "release" },
            read("/proc/sys/kernel/osrelease"),
            std::thread::available_parallelism().map_or(0, usize::from),
            load_average()
        );
        println!("| what | n | median | p95 | max | promise | verdict |");
        println!("|---|---|---|---|---|---|---|");
        Ok(Report { failed: 0, raw: raw.map(Path::to_path_buf) })
    }

    /// A row of measurements in one unit.
    pub(crate) fn measured(&mut self, what: &str, unit: &str, values: &[f64], must: Must) {
        let Some(of) = spread(values) else {
            return self.row(what, ["0", "", "", "", "at least one"], Some(false));
        };
        let (promise, held) = match must {
            Must::Median(most) => (format!("median ≤ {most} {unit}"), Some(of.median <= most)),
            Must::Max(most) => (format!("≤ {most} {unit}"), Some(of.max <= most)),
            Must::Report => ("reported".into(), None),
        };
        let shown = |value: f64| format!("{} {unit}", figure(value));
        self.row(what, [&of.count.to_string(), &shown(of.median), &shown(of.p95), &shown(of.max), &promise], held);
        self.raw(what, &serde_json::json!({ "unit": unit, "values": values }));
    }

    /// A row of runs that held or not; `findings` says what was wrong with those that did not.
    pub(crate) fn counted(&mut self, what: &str, held: usize, of: usize, findings: &[String]) {
        let result = format!("{held} of {of}");
        self.row(what, [&of.to_string(), &result, "", "", &format!("{of} of {of}")], Some(held == of && of > 0));
        for finding in findings.iter().take(MAX_FINDINGS) {
            println!("|   ↳ {finding} | | | | | | |");
        }
        self.raw(what, &serde_json::json!({ "held": held, "of": of, "findings": findings }));
    }

    /// A single statement that is true or not.
    pub(crate) fn holds(&mut self, what: &str, shown: &str, promise: &str, held: bool) {
        self.row(what, ["1", shown, "", "", promise], Some(held));
        self.raw(what, &serde_json::json!({ "shown": shown, "held": held }));
    }

    /// Something that is reported and promised to nobody.
    pub(crate) fn fact(&mut self, what: &str, shown: &str) {
        self.row(what, ["", shown, "", "", "reported"], None);
        self.raw(what, &serde_json::json!({ "shown": shown }));
    }

    /// The last line; true when every promise held.
    pub(crate) fn finish(self) -> bool {
        let verdict = if self.failed == 0 { "PASS".to_owned() } else { format!("FAIL ({} rows)", self.failed) };
        println!("\n{verdict}; load average at the end {}", load_average());
        self.failed == 0
    }

    fn row(&mut self, what: &str, cells: [&str; 5], held: Option<bool>) {
        self.failed += u32::from(held == Some(false));
        let verdict = match held {
            Some(true) => "PASS",
            Some(false) => "**FAIL**",
            None => "-",
        };
        println!("| {what} | {} | {verdict} |", cells.join(" | "));
    }

    fn raw(&self, what: &str, value: &serde_json::Value) {
        let Some(path) = &self.raw else { return };
        let line = serde_json::json!({
            "what": what, "result": value, "load_average": load_average(), "unix_ns": clock::unix_ns(),
        });
        let append =
            OpenOptions::new().create(true).append(true).open(path).and_then(|mut file| writeln!(file, "{line}"));
        if let Err(error) = append {
            eprintln!("{}: {error}", path.display());
        }
    }
}

/// Three digits that matter.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Bytes in MB of a million, as the promises have them.
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn read(path: &str) -> String {
    files::text(Path::new(path)).unwrap_or_default().trim().to_owned()
}

/// 1, 5 and 15 minutes.
pub(crate) fn load_average() -> String {
    read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}
