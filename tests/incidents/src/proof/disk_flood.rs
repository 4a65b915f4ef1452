//! `disk-flood`: the day in which one service wrote 200 lines a second, under a bound of disk and into a plain file.

use crate::report::{Must, Report, megabytes};
use plimsoll_incidents::disk_flood::{self, DAY_LINES};
use std::path::PathBuf;

const GIB: u64 = 1 << 30;

/// How much.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// Lines; a day at 200 a second is 17,280,000
    #[arg(long, default_value_t = DAY_LINES)]
    lines: u64,
    /// Length of a line in bytes
    #[arg(long, default_value_t = 200)]
    bytes: u64,
    /// Lines a second
    #[arg(long, default_value_t = 400_000)]
    rate: u64,
    /// Bound of disk, in GiB
    #[arg(long, default_value_t = 1)]
    disk: u64,
    /// Append one JSON object a row to this file
    #[arg(long)]
    raw: Option<PathBuf>,
}

/// Prints the table; true when every promise held.
pub(crate) fn run(plan: &Plan) -> Result<bool, String> {
    let mut report =
        Report::new("The flood that filled the disk: one source, 200 lines a second for a day", plan.raw.as_deref())?;
    let disk = format!("{}G", plan.disk);
    for (what, format) in [("the same line", "accept"), ("one template, incompressible", "retry")] {
        let flood = disk_flood::Plan { lines: plan.lines, bytes: plan.bytes, rate: plan.rate, disk: &disk, format };
        let a_line = disk_flood::control(&flood, plan.lines / 20)?;
        let day = a_line * plan.lines as f64;
        report.fact(
            &format!("{what}: control, a plain file"),
            &format!(
                "{:.2} GB, carried on from a twentieth of the lines; {:.1} GB at the incident's 3.4 KB a line",
                day / 1e9,
                day / plan.bytes as f64 * 3356.0 / 1e9
            ),
        );
        let seen = disk_flood::protected(&flood)?;
        let most = megabytes(plan.disk * GIB) * 1.1;
        report.measured(
            &format!("{what}: disk at the worst of {} looks", seen.looks),
            "MB",
            &[megabytes(seen.peak_disk_bytes)],
            Must::Max(most),
        );
        report.measured(
            &format!("{what}: peak RSS"),
            "MB",
            &[megabytes(seen.peak_rss_bytes)],
            Must::Max(crate::flood::PEAK_MAX_MB),
        );
        let counted = format!("{} lines, {} of them dropped", seen.counted_lines, seen.dropped_lines);
        report.holds(
            &format!("{what}: every line counted"),
            &counted,
            &plan.lines.to_string(),
            seen.counted_lines == plan.lines,
        );
        report.fact(&format!("{what}: lines that went to keep the bound"), &seen.retired_lines.to_string());
        let (stream, share, template, part) = &seen.live;
        let live = format!("{stream} {:.1} %: {:.0} % {template}", share * 100.0, part * 100.0);
        let named = stream == "stdout" && template.contains("EMFILE") && *part > 0.95;
        report.holds(&format!("{what}: status names it while it floods"), &live, "stdout, EMFILE", named);
        let (name, stream, share, template) = &seen.top;
        let top = format!("{name}/{stream} {:.1} %: {template}", share * 100.0);
        let named = name == "flood" && stream == "stdout" && *share > 0.99 && template.contains("EMFILE");
        report.holds(&format!("{what}: logs --top names it when it is dead"), &top, "flood/stdout, EMFILE", named);
    }
    Ok(report.finish())
}
