//! `fds` and `forkstorm`: what a program can do to whoever counts its descriptors and descendants.

use crate::evidence::Evidence;
use crate::ramp;
use crate::sys;
use crate::tree;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::pipe::pipe;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// What is leaked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// `/proc/self/stat`, as in the incident.
    Proc,
    /// Unconnected TCP sockets.
    Socket,
    /// Both ends of pipes.
    Pipe,
    /// `/dev/null` would be a device; this is an ordinary file.
    File,
}

/// Open descriptors of one kind and keep them.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Fds {
    /// What to leak
    #[arg(long, value_enum)]
    kind: Kind,
    /// How many descriptors
    #[arg(long)]
    count: usize,
    /// Over how long, in milliseconds
    #[arg(long, default_value_t = 500)]
    over_ms: u64,
    /// How long to keep them, in milliseconds
    #[arg(long, default_value_t = 60_000)]
    hold_ms: u64,
}

/// Short-lived descendants, a few at a time.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ForkStorm {
    /// How many processes in all
    #[arg(long)]
    count: u32,
    /// How many at a time
    #[arg(long, default_value_t = 8)]
    at_a_time: u32,
    /// How long each lives, in milliseconds
    #[arg(long, default_value_t = 1)]
    live_ms: u64,
    /// How long to stay when all have ended, in milliseconds
    #[arg(long, default_value_t = 0)]
    hold_ms: u64,
}

/// Leaks descriptors until told to stop.
pub(crate) fn fds(plan: &Fds, evidence: &Evidence) -> io::Result<i32> {
    sys::catch(libc::SIGTERM)?;
    evidence.start("main");
    let wanted = plan.count as u64 + 64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })?;
    }
    let file = std::env::current_exe()?;
    let mut kept: Vec<OwnedFd> = Vec::with_capacity(plan.count);
    let steps = 50;
    for step in 1..=steps {
        while kept.len() < plan.count * step / steps {
            match plan.kind {
                Kind::Proc => kept.push(File::open("/proc/self/stat")?.into()),
                Kind::File => kept.push(File::open(&file)?.into()),
                Kind::Socket => kept.push(socket(AddressFamily::INET, SocketType::STREAM, None)?),
                Kind::Pipe => {
                    let (read, write) = pipe()?;
                    kept.extend([read, write]);
                }
            }
        }
        std::thread::sleep(Duration::from_millis(plan.over_ms / steps as u64));
    }
    println!("{} descriptors open", kept.len());
    ramp::hold(Duration::from_millis(plan.hold_ms));
    evidence.done(0, 0, &format!("\"lines\":{}", kept.len()));
    Ok(0)
}

/// Forks and reaps `count` processes.
pub(crate) fn forkstorm(plan: &ForkStorm, evidence: &Evidence) -> io::Result<i32> {
    sys::catch(libc::SIGTERM)?;
    evidence.start("main");
    let mut left = plan.count;
    while left > 0 && sys::signal_ns() == 0 {
        let batch = left.min(plan.at_a_time.max(1));
        let children = (0..batch)
            .map(|_| {
                tree::spawn(|| {
                    std::thread::sleep(Duration::from_millis(plan.live_ms));
                    Ok(0)
                })
            })
            .collect::<io::Result<Vec<i32>>>()?;
        for child in children {
            tree::wait(child);
        }
        left -= batch;
    }
    println!("{} processes came and went", plan.count - left);
    ramp::hold(Duration::from_millis(plan.hold_ms));
    evidence.done(0, 0, &format!("\"lines\":{}", plan.count - left));
    Ok(0)
}
