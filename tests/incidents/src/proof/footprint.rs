//! `footprint`: what a supervisor costs while its child sleeps.
//!
//! Settled first; then resident and private memory, and over the window the scheduler's CPU time and the context switches,
//! voluntary and not, of all its threads.

use crate::report::{Must, Report};
use plimsoll_incidents::protected::{Service, Setup};
use plimsoll_incidents::usage::{self, Usage};
use std::path::PathBuf;
use std::time::Duration;

const RSS_MAX_MB: f64 = 12.0;
const PRIVATE_MAX_MB: f64 = 6.0;
const CPU_MAX_MS: f64 = 60.0;
const WAKES_MAX: f64 = 120.0;

/// How long and with how many.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// Seconds of settling before the window
    #[arg(long, default_value_t = 15)]
    settle: u64,
    /// Seconds of the window
    #[arg(long, default_value_t = 60)]
    window: u64,
    /// Supervisors with one child each in the second part; 0: none
    #[arg(long, default_value_t = 20)]
    many: u32,
    /// Append one JSON object a row to this file
    #[arg(long)]
    raw: Option<PathBuf>,
}

/// One supervisor over the window.
struct Cost {
    usage: Usage,
    cpu_ms: f64,
    wakes: f64,
}

fn costs(plan: &Plan, count: u32) -> Result<Vec<Cost>, String> {
    let start = |number| {
        let flags = ["--memory", "300M", "--quiet"];
        Setup::new(&format!("idle-{number}"), &flags).program(&["/bin/sleep", "3600"]).start()
    };
    let services = (0..count).map(start).collect::<Result<Vec<Service>, String>>()?;
    for service in &services {
        service.child();
    }
    std::thread::sleep(Duration::from_secs(plan.settle));
    let look = || {
        services
            .iter()
            .map(|service| usage::of(service.pid()).ok_or("a supervisor has gone".to_owned()))
            .collect::<Result<Vec<Usage>, String>>()
    };
    let before = look()?;
    std::thread::sleep(Duration::from_secs(plan.window));
    let after = look()?;
    let per_minute = 60.0 / plan.window as f64;
    let cost = |(before, after): (&Usage, &Usage)| Cost {
        usage: *after,
        cpu_ms: (after.cpu_ns - before.cpu_ns) as f64 / 1e6 * per_minute,
        wakes: (after.wakes - before.wakes) as f64 * per_minute,
    };
    Ok(before.iter().zip(&after).map(cost).collect())
}

/// Prints the table; true when every promise held.
pub(crate) fn run(plan: &Plan) -> Result<bool, String> {
    let title = format!("Footprint: an idle child, {} s settled, {} s window", plan.settle, plan.window);
    let mut report = Report::new(&title, plan.raw.as_deref())?;
    rows(&mut report, "one", &costs(plan, 1)?, true);
    if plan.many > 0 {
        let all = costs(plan, plan.many)?;
        rows(&mut report, &format!("each of {}", plan.many), &all, false);
        let sum = |figure: fn(&Cost) -> f64| all.iter().map(figure).sum::<f64>();
        let shown = format!(
            "RSS {:.1} MB, PSS {:.1} MB, private {:.1} MB, CPU {:.0} ms/min, wake-ups {:.0}/min",
            sum(|cost| cost.usage.rss_bytes as f64 / 1e6),
            sum(|cost| cost.usage.pss_bytes as f64 / 1e6),
            sum(|cost| cost.usage.private_bytes as f64 / 1e6),
            sum(|cost| cost.cpu_ms),
            sum(|cost| cost.wakes),
        );
        report.fact(&format!("{} supervisors in sum (there is no multi-service one yet)", plan.many), &shown);
    }
    Ok(report.finish())
}

fn rows(report: &mut Report, who: &str, costs: &[Cost], promised: bool) {
    let must = |most: f64| if promised { Must::Max(most) } else { Must::Report };
    let all = |figure: fn(&Cost) -> f64| costs.iter().map(figure).collect::<Vec<f64>>();
    report.measured(&format!("{who}: RSS"), "MB", &all(|cost| cost.usage.rss_bytes as f64 / 1e6), must(RSS_MAX_MB));
    report.measured(
        &format!("{who}: private"),
        "MB",
        &all(|cost| cost.usage.private_bytes as f64 / 1e6),
        must(PRIVATE_MAX_MB),
    );
    report.measured(
        &format!("{who}: private, written"),
        "MB",
        &all(|cost| cost.usage.dirty_bytes as f64 / 1e6),
        Must::Report,
    );
    report.measured(&format!("{who}: PSS"), "MB", &all(|cost| cost.usage.pss_bytes as f64 / 1e6), Must::Report);
    report.measured(&format!("{who}: CPU"), "ms/min", &all(|cost| cost.cpu_ms), must(CPU_MAX_MS));
    report.measured(&format!("{who}: wake-ups"), "/min", &all(|cost| cost.wakes), must(WAKES_MAX));
    report.measured(&format!("{who}: threads"), "", &all(|cost| cost.usage.threads as f64), Must::Report);
    report.measured(&format!("{who}: descriptors"), "", &all(|cost| cost.usage.descriptors as f64), Must::Report);
}
