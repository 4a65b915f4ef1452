//! `plimsoll stop`: asks the supervisor of a program to stop it as SIGTERM would, and waits until the supervisor has ended.
//!
//! Waits at most the grace that the program runs under (`run --grace`, 10 s by default) and [`CLOSING`] for what follows it:
//! SIGKILL, draining the pipes, sealing the logs. Exit code 0: nothing of it runs any more, also when nothing ran before;
//! 1: something still runs, or nobody can be asked; 64: no such name. Nothing is signalled from here: a program whose
//! supervisor is dead or hung is named with its pid, and left to its user.

use std::process::ExitCode;
use std::time::Duration;

use plimsoll::clock::{Clock as _, MonotonicClock};
use plimsoll::units;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::status::layouts;
use crate::args::Place;
use crate::exit::Failure;
use crate::layout::Layout;
use crate::say;
use crate::snapshot::{Snapshot, found};
use crate::web::client::{Client, ClientError};

/// What a supervisor may take after the grace: SIGKILL (1 s), draining (3 s), sealing (3 s), and a busy machine.
const CLOSING: Duration = Duration::from_secs(15);
/// The grace of a supervisor that does not tell it: the default of `run`.
const GRACE_UNTOLD: Duration = Duration::from_secs(10);

/// Arguments of `plimsoll stop`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code: 0 nothing of it runs any more; 1 something still does, or its supervisor cannot be \
                        asked; 64 no such name."
)]
pub(crate) struct Args {
    /// Which program
    #[arg(value_name = "NAME")]
    name: String,

    #[command(flatten)]
    place: Place,
}

/// Stops it.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    for layout in layouts(&args.place.dir(), Some(&args.name))? {
        say::print(format!("{}\n", stop(&layout)?).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Stops the program of `layout`; what to tell about it.
fn stop(layout: &Layout) -> Result<String, Failure> {
    let name = layout.name();
    let client = Client::new(layout.socket());
    let before = match client.status() {
        Ok(snapshot) => snapshot,
        Err(why) => return unasked(layout, &client, &why),
    };
    let supervisor = before.supervisor.pid;
    let started = MonotonicClock.now();
    // Taken before it is asked, so that no later process of this number can be meant.
    let pid = i32::try_from(supervisor).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH);
    let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
    match client.stop() {
        // Gone: it ended by itself between the two questions.
        Ok(()) | Err(ClientError::Gone(_)) => {}
        Err(why) => return Err(Failure::new(format!("{name}: {why}"))),
    }
    let grace = before.grace_seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).unwrap_or(GRACE_UNTOLD);
    let ended = match &pidfd {
        Ok(pidfd) => wait(PollFd::new(pidfd, PollFlags::IN), started + grace + CLOSING),
        Err(Errno::SRCH) => Ok(true),
        Err(error) => return Err(Failure::new(format!("{name}: asked to stop; its end cannot be watched: {error}"))),
    };
    match ended {
        Ok(true) => {
            let after = found::look(layout, &client).snapshot;
            Ok(told(&before, &after, MonotonicClock.now().saturating_sub(started)))
        }
        Ok(false) => Err(Failure::new(format!(
            "{name}: asked to stop, and the supervisor (pid {supervisor}) still runs after {}",
            units::duration(grace + CLOSING)
        ))
        .hint(format!("see: plimsoll status {name}"))),
        Err(error) => Err(Failure::new(format!("{name}: asked to stop; its end cannot be waited for: {error}"))),
    }
}

/// Nobody answers: is there anything left to stop?
fn unasked(layout: &Layout, client: &Client, why: &ClientError) -> Result<String, Failure> {
    let name = layout.name();
    let snapshot = found::look(layout, client).snapshot;
    match (why, &snapshot.child) {
        (ClientError::Gone(_), None) => Ok(format!("{name}: nothing runs")),
        (ClientError::Gone(_), Some(child)) => {
            Err(Failure::new(format!("{name}: no supervisor answers, and the program (pid {}) still runs", child.pid))
                .hint(format!(
                    "take it over with the same `plimsoll run` command, or end it: kill -TERM {}",
                    child.pid
                )))
        }
        (why, _) => Err(Failure::new(format!("{name}: {why}"))
            .hint(format!("see: plimsoll status {name}; SIGTERM to pid {} asks the same", snapshot.supervisor.pid))),
    }
}

/// Waits until a descriptor has something to say; false: not by `until`.
fn wait(mut what: PollFd<'_>, until: Duration) -> Result<bool, Errno> {
    loop {
        let left = until.saturating_sub(MonotonicClock.now());
        let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match rustix::event::poll(std::slice::from_mut(&mut what), Some(&left)) {
            Ok(n) => return Ok(n > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// How it ended, in one line.
fn told(before: &Snapshot, after: &Snapshot, took: Duration) -> String {
    let text = format!("{}: stopped in {}", before.name, units::duration(took));
    match &after.last_exit {
        // An older end is not this one's.
        Some(exit) if Some(exit) != before.last_exit.as_ref() => format!("{text}: {}", exit.detail),
        Some(_) | None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::sample;

    #[test]
    fn an_older_end_is_not_told_as_this_one() {
        let before = sample::leaking();
        let took = Duration::from_millis(400);
        assert_eq!(told(&before, &before, took), "shop: stopped in 400 ms");
        let mut after = before.clone();
        let exit = after.last_exit.as_mut().unwrap();
        exit.at_unix += 500.0;
        exit.detail = "exited with code 0".into();
        assert_eq!(told(&before, &after, took), "shop: stopped in 400 ms: exited with code 0");
    }

    #[test]
    fn what_never_ran_is_stopped_and_what_does_not_answer_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path(), "web").unwrap();
        assert_eq!(stop(&layout).unwrap(), "web: nothing runs");
        std::fs::create_dir(layout.home()).unwrap();
        let _hung = crate::web::socket::bind(&layout.socket()).unwrap();
        let error = stop(&layout).unwrap_err().to_string();
        assert!(error.contains("does not answer") && error.contains("plimsoll status web"), "{error}");
    }
}
