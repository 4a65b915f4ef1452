//! The long form: ten runs a rate, ten of each trouble, and as many controls; one line a run, one verdict.

use plimsoll_incidents::embedded::{Ended, LIMIT_BYTES, THRESHOLD, Trouble, run as run_once};
use plimsoll_incidents::stats::spread;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// Runs of each kind
    #[arg(long, default_value_t = 10)]
    runs: u32,
    /// Growth in MiB a second
    #[arg(long, value_delimiter = ',', default_values_t = [50, 100, 200, 500, 1000])]
    rates: Vec<u64>,
    /// Leave out the runs with a stuck runtime and with a lock held for ten seconds
    #[arg(long)]
    no_trouble: bool,
}

/// Runs everything; whether all of it held.
pub(crate) fn run(plan: &Plan) -> Result<bool, String> {
    let (limit, build) = (LIMIT_BYTES >> 20, if cfg!(debug_assertions) { "debug" } else { "release" });
    println!("incident 2: limit {limit} MiB, threshold {THRESHOLD}, {build} build");
    let mut all = true;
    for &rate in &plan.rates {
        all &= series(plan.runs, rate, Trouble::None)?;
        let mut killed = 0;
        for _ in 0..plan.runs {
            let control = run_once(rate, Trouble::None, false)?;
            match control.killed() {
                Ok(()) => killed += 1,
                Err(why) => println!("{rate} MiB/s, control: {why}"),
            }
        }
        println!("{rate} MiB/s, unprotected: {killed} of {} killed by the kernel", plan.runs);
        all &= killed == plan.runs;
    }
    if !plan.no_trouble {
        all &= series(plan.runs, 200, Trouble::Runtime)?;
        all &= series(plan.runs, 200, Trouble::Lock)?;
    }
    println!("{}", if all { "all of it held" } else { "NOT all of it held" });
    Ok(all)
}

fn series(runs: u32, rate: u64, trouble: Trouble) -> Result<bool, String> {
    let (mut held, mut told) = (0, Vec::new());
    for n in 1..=runs {
        let ended = run_once(rate, trouble, true)?;
        let verdict = ended.held(trouble);
        held += u32::from(verdict.is_ok());
        told.extend(ended.told_ms);
        println!("{}", line(rate, trouble, n, &ended, verdict.err().as_deref()));
    }
    let figures = spread(&told).map(|of| format!("; told after {:.1} ms (median), {:.1} ms (most)", of.median, of.max));
    println!("{rate} MiB/s, trouble {}: {held} of {runs} held{}", trouble.as_str(), figures.unwrap_or_default());
    Ok(held == runs)
}

/// The figures of one run; the effective values are the first line that it said.
fn line(rate: u64, trouble: Trouble, n: u32, ended: &Ended, wrong: Option<&str>) -> String {
    let shown = |value: Option<f64>, unit: &str| value.map_or("-".into(), |value| format!("{value:.1} {unit}"));
    let over = ended.overshoot_bytes.map(|bytes| bytes as f64 / 1048576.0);
    format!(
        "{rate} MiB/s, trouble {}, run {n}: {}; exit {:?}, kills {}, {} acknowledged, {} missing, drained {} ({}); told after {} at {} over; [{}]",
        trouble.as_str(),
        wrong.unwrap_or("held"),
        ended.code,
        ended.oom_kills,
        ended.acknowledged,
        ended.missing,
        ended.closed,
        shown(ended.drain_ms, "ms"),
        shown(ended.told_ms, "ms"),
        shown(over, "MiB"),
        ended.said.lines().next().unwrap_or_default()
    )
}
