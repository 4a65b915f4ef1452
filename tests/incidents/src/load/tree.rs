//! `tree` and `cow`: loads of several processes. The leak is never in the process that the supervisor started.
//!
//! | shape | main | leaks |
//! |---|---|---|
//! | `grandchild` | waits | the child of its child |
//! | `detached` | waits | a process with its own session whose parent has gone (double fork + `setsid`) |
//! | `three-children` | waits | three children, each at a third of the rate |
//! | `cow` | has 200 MiB | nobody: four forked workers read it all and write 1 MiB each |
//!
//! Everybody catches SIGTERM and writes evidence. Main ends when those who leak have ended, at most [`WAIT_MAX`] after it was
//! told; its code is 0, or 137 when one of them was killed.

use crate::evidence::Evidence;
use crate::parse::Rate;
use crate::ramp::{self, Ramp};
use crate::sys::{self, Forked, PAGE_BYTES, Region};
use plimsoll_incidents::{clock, files};
use rustix::process::{Pid, WaitOptions, setsid, waitpid};
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long main waits for the others once it was told to stop.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(10);
/// The longest any tree lives.
const LIFE_MAX: Duration = Duration::from_secs(300);

/// Where the leak is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shape {
    /// The child of the child.
    Grandchild,
    /// A session of its own, its parent gone.
    Detached,
    /// Three children at a third of the rate each.
    ThreeChildren,
}

/// A process tree that leaks somewhere else than in the first process.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Tree {
    /// Where the leak is
    #[arg(value_enum)]
    shape: Shape,
    #[command(flatten)]
    ramp: Ramp,
}

/// Copy-on-write workers: 200 MiB that five processes share.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Cow {
    /// What the parent has, in MiB
    #[arg(long, default_value_t = 200)]
    parent_mib: u64,
    /// How many workers read it
    #[arg(long, default_value_t = 4)]
    workers: u32,
    /// How long they do, in milliseconds
    #[arg(long, default_value_t = 5000)]
    run_ms: u64,
}

/// Runs a tree from its first process.
pub(crate) fn run(plan: &Tree, evidence: &Evidence) -> io::Result<i32> {
    sys::catch(libc::SIGTERM)?;
    evidence.start("main");
    match plan.shape {
        Shape::Grandchild => {
            let middle = spawn(|| {
                evidence.start("middle");
                let leaf = spawn(|| ramp::run(&plan.ramp, "leaf", evidence))?;
                finish(&[leaf], evidence)
            })?;
            finish(&[middle], evidence)
        }
        Shape::Detached => {
            let middle = spawn(|| {
                setsid()?;
                let leaf = spawn(|| ramp::run(&plan.ramp, "leaf", evidence))?;
                sys::shared()?.leaf_pid.store(leaf, Ordering::Release);
                Ok(0)
            })?;
            Pid::from_raw(middle).map(|pid| waitpid(Some(pid), WaitOptions::empty())).transpose()?;
            let leaf = sys::shared()?.leaf_pid.load(Ordering::Acquire).unsigned_abs();
            let lives = || (!files::lives(leaf)).then_some(());
            clock::wait_for(LIFE_MAX, Duration::from_millis(20), || lives().or((sys::signal_ns() != 0).then_some(())));
            clock::wait_for(WAIT_MAX, Duration::from_millis(20), lives);
            evidence.done(0, 0, "");
            Ok(0)
        }
        Shape::ThreeChildren => {
            let third = Ramp { rate: Rate(plan.ramp.rate.0 / 3), ..plan.ramp.clone() };
            let children =
                (0..3).map(|_| spawn(|| ramp::run(&third, "leaf", evidence))).collect::<io::Result<Vec<i32>>>()?;
            finish(&children, evidence)
        }
    }
}

/// Runs the copy-on-write load from its parent. The code is 0 when nobody was ever signalled or killed, else 3.
pub(crate) fn cow(plan: &Cow, evidence: &Evidence) -> io::Result<i32> {
    sys::catch(libc::SIGTERM)?;
    evidence.start("main");
    let bytes = plan.parent_mib << 20;
    let pages = (bytes / PAGE_BYTES as u64) as usize;
    let region = Region::reserve(bytes)?;
    (0..pages).for_each(|page| region.touch(page));
    let mut workers = Vec::new();
    for _ in 0..plan.workers {
        workers.push(spawn(|| {
            evidence.start("worker");
            let end = clock::monotonic_ns() + plan.run_ms * 1_000_000;
            (0..256.min(pages)).for_each(|page| region.touch(page));
            let mut seen = 0_u64;
            while clock::monotonic_ns() < end && sys::signal_ns() == 0 {
                seen += (0..pages).map(|page| u64::from(region.read(page))).sum::<u64>();
                std::thread::sleep(Duration::from_millis(200));
            }
            let code = if sys::signal_ns() == 0 && seen > 0 { 0 } else { 3 };
            evidence.done(code, 256 * PAGE_BYTES as u64, "");
            Ok(code)
        })?);
    }
    let clean = workers.iter().filter(|&&worker| wait(worker) == Some(0)).count() == workers.len();
    let code = if clean && sys::signal_ns() == 0 { 0 } else { 3 };
    evidence.done(code, bytes, "");
    Ok(code)
}

/// Runs `body` in a forked process that ends with its code (70 when it fails).
pub(crate) fn spawn(body: impl FnOnce() -> io::Result<i32>) -> io::Result<i32> {
    match sys::fork()? {
        Forked::Parent(pid) => Ok(pid),
        Forked::Child => {
            sys::forget_signal();
            sys::exit_now(body().unwrap_or_else(|error| {
                eprintln!("plimsoll-load: {error}");
                70
            }))
        }
    }
}

/// Waits for a child through any number of signals; its code, 128 + signal when one killed it.
pub(crate) fn wait(child: i32) -> Option<i32> {
    let pid = Pid::from_raw(child)?;
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
            Ok(status) => {
                let (_, status) = status?;
                return status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
            }
        }
    }
}

fn finish(children: &[i32], evidence: &Evidence) -> io::Result<i32> {
    let codes: Vec<Option<i32>> = children.iter().map(|&child| wait(child)).collect();
    let code = codes.iter().flatten().copied().max().unwrap_or(0);
    evidence.done(code, 0, "");
    Ok(code)
}
