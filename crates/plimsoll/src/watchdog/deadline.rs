//! The thread that keeps the drain's deadline: it sleeps until it is armed, then until the time is up, then ends the process.
//!
//! It exists before it is needed, because under pressure no thread may be had, and touches no lock and no memory that the
//! service could hold. Arming is two atomic operations and a write to an eventfd: no allocation. Dropped before it was armed it
//! is stopped and joined; once armed it is the last thing that may end the process and goes with it.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;

use super::until::{Phase, Until};
use crate::clock::{Clock as _, MonotonicClock};

struct Shared {
    nudge: OwnedFd,
    until: Until,
}

impl Shared {
    fn wake(&self) {
        rustix::io::write(&self.nudge, &1u64.to_ne_bytes()).ok();
    }
}

pub(super) struct Deadline {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Deadline {
    /// Starts the thread; `expired` is called on it, once, when an armed deadline is over.
    pub(super) fn start(expired: impl FnOnce() + Send + 'static) -> io::Result<Deadline> {
        let nudge = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { nudge, until: Until::new() });
        let inside = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("drain-deadline".to_owned()).spawn(move || {
            if keep(&inside) {
                expired();
            }
        })?;
        Ok(Deadline { shared, thread: Mutex::new(Some(thread)) })
    }

    /// The time runs from now. Only the first call counts.
    pub(super) fn arm(&self, after: Duration) {
        self.shared.until.arm(MonotonicClock.now().saturating_add(after));
        self.shared.wake();
    }

    /// Stops the thread, armed or not, and joins it.
    pub(super) fn stop(&self) {
        self.shared.until.stop();
        self.shared.wake();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            thread.join().ok();
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if self.shared.until.stop_if_idle() {
            self.stop();
        }
    }
}

/// Sleeps until the time is up (true) or it is stopped (false).
fn keep(shared: &Shared) -> bool {
    loop {
        let left = match shared.until.phase() {
            Phase::Idle => None,
            Phase::Stopped => return false,
            Phase::Armed(until) => match until.checked_sub(MonotonicClock.now()) {
                None | Some(Duration::ZERO) => return true,
                Some(left) => Some(left),
            },
        };
        let time = left.and_then(|left| Timespec::try_from(left).ok());
        let mut set = [PollFd::new(&shared.nudge, PollFlags::IN)];
        match poll(&mut set, time.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => {
                let mut count = [0; 8];
                rustix::io::read(&shared.nudge, &mut count[..]).ok();
            }
            // It cannot poll (out of kernel memory): never spin, never miss the time by more than this.
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use super::*;

    fn start() -> (Deadline, Receiver<()>) {
        let (tell, told) = sync_channel(1);
        (Deadline::start(move || tell.send(()).expect("heard")).expect("a thread"), told)
    }

    #[test]
    fn it_expires_once_after_its_time_and_outlives_its_owner_when_armed() {
        let (deadline, told) = start();
        let began = MonotonicClock.now();
        deadline.arm(Duration::from_millis(30));
        deadline.arm(Duration::ZERO);
        drop(deadline);
        assert!(told.recv().is_ok(), "armed: dropping does not stop it");
        let after = MonotonicClock.now() - began;
        assert!(after >= Duration::from_millis(30), "the first arming counts: {after:?}");
        assert!(told.recv().is_err(), "once");
    }

    #[test]
    fn unarmed_it_ends_with_its_owner() {
        let (deadline, told) = start();
        drop(deadline);
        assert!(told.recv().is_err(), "joined, never expired");
    }

    #[test]
    fn it_can_be_stopped_when_armed() {
        let (deadline, told) = start();
        deadline.arm(Duration::from_secs(3600));
        deadline.stop();
        assert!(told.try_recv().is_err());
    }
}
