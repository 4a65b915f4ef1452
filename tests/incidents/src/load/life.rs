//! Programs that end, or refuse to, in the ways supervisors get wrong.

use crate::evidence::Evidence;
use crate::ramp;
use crate::sys;
use crate::tree;
use rustix::process::setsid;
use std::io;
use std::time::Duration;

/// Sleep, ending at once with code 0 when told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Sleep {
    /// How long, in milliseconds
    #[arg(long, default_value_t = 60_000)]
    ms: u64,
    /// Write a line to stdout at this interval, in milliseconds; 0: never
    #[arg(long, default_value_t = 0)]
    every_ms: u64,
}

/// Exit with a code, or by a signal.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Exit {
    /// The code
    #[arg(long, default_value_t = 0)]
    code: i32,
    /// Kill itself with this signal instead
    #[arg(long)]
    by_signal: Option<i32>,
    /// Wait first, in milliseconds
    #[arg(long, default_value_t = 0)]
    after_ms: u64,
}

/// Ignore SIGTERM.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct IgnoreTerm {
    /// How long to stay, in milliseconds
    #[arg(long, default_value_t = 60_000)]
    ms: u64,
    /// Leave a child that ignores SIGTERM as well
    #[arg(long)]
    with_child: bool,
}

/// Start a daemon the old way: fork, `setsid`, fork, and the first process ends.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DoubleFork {
    /// How long the daemon stays, in milliseconds
    #[arg(long, default_value_t = 60_000)]
    ms: u64,
}

/// Sleeps; with `--every-ms` it is the quiet service that logs now and then.
pub(crate) fn sleep(plan: &Sleep, evidence: &Evidence) -> io::Result<i32> {
    sys::catch(libc::SIGTERM)?;
    evidence.start("main");
    let step = if plan.every_ms == 0 { plan.ms } else { plan.every_ms.min(plan.ms) };
    let mut left = plan.ms;
    let mut number = 0;
    while left > 0 && sys::signal_ns() == 0 {
        if plan.every_ms > 0 {
            number += 1;
            println!("tick {number}");
        }
        ramp::hold(Duration::from_millis(step.min(left)));
        left -= step.min(left);
    }
    evidence.done(0, 0, &format!("\"lines\":{number}"));
    Ok(0)
}

/// Ends.
pub(crate) fn exit(plan: &Exit, evidence: &Evidence) -> io::Result<i32> {
    evidence.start("main");
    ramp::hold(Duration::from_millis(plan.after_ms));
    evidence.done(plan.code, 0, "");
    if let Some(signal) = plan.by_signal.and_then(rustix::process::Signal::from_named_raw) {
        rustix::process::kill_process(rustix::process::getpid(), signal)?;
        std::thread::sleep(Duration::from_secs(5));
    }
    Ok(plan.code)
}

/// Stays, whatever it is told.
pub(crate) fn ignore_term(plan: &IgnoreTerm, evidence: &Evidence) -> io::Result<i32> {
    sys::ignore(libc::SIGTERM)?;
    evidence.start("main");
    println!("ignoring SIGTERM");
    if plan.with_child {
        tree::spawn(|| {
            evidence.start("worker");
            std::thread::sleep(Duration::from_millis(plan.ms));
            evidence.done(0, 0, "");
            Ok(0)
        })?;
    }
    std::thread::sleep(Duration::from_millis(plan.ms));
    evidence.done(0, 0, "");
    Ok(0)
}

/// Becomes a daemon.
pub(crate) fn double_fork(plan: &DoubleFork, evidence: &Evidence) -> io::Result<i32> {
    sys::catch(libc::SIGTERM)?;
    evidence.start("main");
    let middle = tree::spawn(|| {
        setsid()?;
        tree::spawn(|| {
            evidence.start("leaf");
            println!("daemon {} is up", std::process::id());
            ramp::hold(Duration::from_millis(plan.ms));
            evidence.done(0, 0, "");
            Ok(0)
        })?;
        Ok(0)
    })?;
    tree::wait(middle);
    evidence.done(0, 0, "");
    Ok(0)
}
