//! The long form: 1.8 GB really offered, compressed in time, three times; one line a run, one verdict. About two minutes.

use plimsoll_incidents::log_channel::{CONTROL_LIMIT_BYTES, QUEUE, RSS_MAX_BYTES, run};
use std::time::Duration;

/// Ten minutes of 3 MB/s, and a little more: entries are whole.
const OFFER: &str = "1720M";
/// So much a second: 33 times as fast as it was.
const RATE: &str = "96M";
const LONGEST: Duration = Duration::from_secs(300);
const SPOOL: &str = "256M";

/// Runs everything; whether all of it held.
pub(crate) fn run_all() -> Result<bool, String> {
    let control = run(OFFER, RATE, CONTROL_LIMIT_BYTES, &[], LONGEST)?;
    let is_killed = control.oom_kills > 0 && control.growth_ratio() > 0.9;
    println!(
        "without a bound: {}, {:.2} resident bytes for each offered; {}",
        if control.oom_kills > 0 { "killed by the kernel" } else { "not killed" },
        control.growth_ratio(),
        control.figures()
    );
    let bounded = run(OFFER, RATE, 2 * RSS_MAX_BYTES, &["--bounded", QUEUE], LONGEST)?;
    println!("with a bound of {QUEUE}: {}; {}", bounded.held().err().unwrap_or("held".into()), bounded.figures());
    let args = ["--bounded", QUEUE, "--spool", SPOOL];
    let spooled = run(OFFER, RATE, 8 * RSS_MAX_BYTES, &args, LONGEST)?;
    let verdict = spooled.held_but_for_shares();
    println!("with a spool of {SPOOL}: {}; {}", verdict.clone().err().unwrap_or("held".into()), spooled.figures());
    let all = is_killed && bounded.held().is_ok() && verdict.is_ok();
    println!("{}", if all { "all of it held" } else { "NOT all of it held" });
    Ok(all)
}
