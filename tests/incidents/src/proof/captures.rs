//! Full heap snapshots of a real Node under real limits: taken where they fit, refused where they do not, and never a kill.

use crate::report::{Must, Report};
use clap::Args;
use plimsoll_incidents::heap;
use std::path::PathBuf;

/// Heap and limit, in MB, and whether a full snapshot fits.
const CASES: [(u64, u64, bool); 2] = [(100, 1024, true), (300, 400, false)];

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Runs of each case
    #[arg(long, default_value_t = 20)]
    runs: u32,
    /// Append every value to this file as JSON lines
    #[arg(long)]
    raw: Option<PathBuf>,
}

pub(crate) fn run(plan: &Plan) -> Result<bool, String> {
    let mut report = Report::new("heap captures: 100 MB under 1 GiB, 300 MB under 400 MiB", plan.raw.as_deref())?;
    for (heap_mb, limit_mb, fits) in CASES {
        let (mut seconds, mut held, mut findings) = (Vec::new(), 0, Vec::new());
        for run in 0..plan.runs {
            let shown = heap::safety(heap_mb, limit_mb)?;
            let wrong = if fits { shown.roomy() } else { shown.tight() };
            held += usize::from(wrong.is_empty());
            findings.extend(wrong);
            seconds.push(shown.seconds);
            if run == 0 {
                let taken = format!("{} of {} bytes", shown.method, shown.bytes);
                report.fact(&format!("{heap_mb} MB under {limit_mb} MiB, the first run"), &taken);
                shown.notes.iter().for_each(|note| report.fact("", note));
            }
        }
        let what = if fits { "taken, parsed, no kill, none follows" } else { "refused, cheaper one taken, no kill" };
        report.counted(&format!("{heap_mb} MB under {limit_mb} MiB: {what}"), held, seconds.len(), &findings);
        let until = format!("{heap_mb} MB under {limit_mb} MiB: until its digest is there");
        report.measured(&until, "s", &seconds, Must::Report);
    }
    Ok(report.finish())
}
