//! `slow-disk`: the tests' slow disk for scripts. Its knobs are files, looked at every 20 ms.

use plimsoll_incidents::clock;
use plimsoll_incidents::slow_disk::SlowDisk;
use std::path::PathBuf;
use std::time::Duration;

/// The longest that a forgotten disk stays mounted.
const LIFE_MAX: Duration = Duration::from_secs(1800);

/// What to mount where, and how it misbehaves.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// The directory that holds the data
    backing: PathBuf,
    /// Where it is mounted again
    point: PathBuf,
    /// Bytes a second; 0: as fast as they come
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Stand still while `DIR/stall` exists, be full while `DIR/full` exists, end when `DIR/stop` exists
    #[arg(long, value_name = "DIR")]
    knobs: PathBuf,
}

/// Serves the disk until told to stop; always true.
pub(crate) fn run(plan: &Plan) -> Result<bool, String> {
    let disk = SlowDisk::mount(&plan.backing, &plan.point)?;
    disk.knobs().set_rate(plan.rate);
    println!("mounted on {}", disk.path().display());
    clock::wait_for(LIFE_MAX, Duration::from_millis(20), || {
        disk.knobs().set_stalled(plan.knobs.join("stall").exists());
        disk.knobs().set_full(plan.knobs.join("full").exists());
        plan.knobs.join("stop").exists().then_some(())
    });
    println!("{} bytes were written", disk.knobs().written_bytes());
    Ok(true)
}
