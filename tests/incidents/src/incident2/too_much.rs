//! `reads` and `overload`: both runs of each, beside their controls, one table and one verdict.

use plimsoll_incidents::http_load::Seen;
use plimsoll_incidents::overload::{overload, reads};
use std::time::Duration;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// Runs of each, protected and not
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Seconds that each load lasts
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

fn row(name: &str, seen: &Seen) {
    let [median, p99, most] = seen.ms;
    println!(
        "  {name:<10} {:>6} sent {:>6} good ({:>6.1} a second) {:>6} refused {:>5} lost   {median:>7.1} {p99:>7.1} {most:>7.1} ms",
        seen.sent, seen.good, seen.good_per_second, seen.refused, seen.lost
    );
}

fn told(what: &str, verdict: Result<(), String>) -> bool {
    let held = verdict.is_ok();
    println!("  {what}: {}", verdict.err().map_or("yes".to_owned(), |why| format!("NO: {why}")));
    held
}

/// What is judged of a run, and whether it holds.
type Verdict = (&'static str, Result<(), String>);

/// Runs a load with and without the gate in turn, control first; whether all of it held.
fn both<R>(
    plan: &Plan,
    run: fn(bool, Duration) -> Result<R, String>,
    rows: fn(&R) -> [(&'static str, &Seen); 4],
    verdict: fn(&R, bool) -> Verdict,
) -> Result<bool, String> {
    let mut all = true;
    for n in 0..plan.runs * 2 {
        let protected = n % 2 == 1;
        let which = if protected { "with the gate" } else { "control" };
        println!("{which} (sent, good, refused, lost; median, p99, longest)");
        let run = run(protected, Duration::from_secs(plan.seconds))?;
        rows(&run).iter().for_each(|(name, seen)| row(name, seen));
        let (what, held) = verdict(&run, protected);
        all &= told(what, held);
    }
    Ok(all)
}

/// Twice the load.
pub(crate) fn run_overload(plan: &Plan) -> Result<bool, String> {
    both(
        plan,
        overload,
        |run| [("unloaded", &run.unloaded), ("peak", &run.peak), ("2 x peak", &run.doubled), ("probes", &run.probes)],
        |run, protected| if protected { ("held", run.held()) } else { ("collapsed", run.collapsed()) },
    )
}

/// One client's heavy reads.
pub(crate) fn run_reads(plan: &Plan) -> Result<bool, String> {
    both(
        plan,
        reads,
        |run| [("alone", &run.alone), ("beside", &run.beside), ("probes", &run.probes), ("abuser", &run.abuser)],
        |run, protected| if protected { ("held", run.held()) } else { ("starved", run.starved()) },
    )
}
