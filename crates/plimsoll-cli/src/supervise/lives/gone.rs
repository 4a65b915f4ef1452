//! How the loop learns that something ended: reaped children, an adopted one, the stragglers of a tree, OOM kills.

use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use plimsoll::clock::Clock as _;
use rustix::process::{WaitOptions, WaitStatus};

use super::super::child;
use super::super::reach::{Reach, processes};
use super::super::reason::Status;
use super::super::table::{Event, State};
use super::super::{ends, sys};
use super::Lives;

/// How long the exit status of an adopted child is waited for: its parent has to reap it first, and some take seconds.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);
/// So often, with [`STOP_LOOK`] between, a stop that was sent is waited for until it is told: 50 ms.
const STOP_LOOKS: u32 = 500;
const STOP_LOOK: Duration = Duration::from_micros(100);
/// How long an OOM kill waits to be told of: the main process may be the one, and takes a moment to end.
const OOM_SETTLED: Duration = Duration::from_secs(1);
/// How often an adopted child's leftovers are looked at: no SIGCHLD tells of them.
const LEFTOVER_CHECK: Duration = Duration::from_millis(100);

impl Lives {
    /// Reaps every child that ended: the main process, helpers, orphans that came to us.
    pub(super) fn reap(&mut self) {
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED | WaitOptions::CONTINUED;
        while let Ok(Some((pid, status))) = rustix::process::wait(options) {
            let main = self.child.as_ref().is_some_and(|child| child.pid == pid && !child.adopted);
            if main && status.stopped() {
                self.main_stopped(&status);
            } else if main && !status.continued() {
                self.main_ended(Status::from_raw(status.as_raw()));
            } else if !status.stopped() && !status.continued() {
                self.helpers.reaped(pid, status, &self.shared);
            }
        }
        self.look_for_oom_kills();
        self.look_whether_gone();
    }

    /// ^Z, or it touched the terminal from the background.
    fn main_stopped(&mut self, status: &WaitStatus) {
        let by_terminal =
            status.stopping_signal().is_some_and(|s| [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&s));
        if let (Some(terminal), Some(child), true) = (&self.terminal, &self.child, by_terminal)
            && let Err(error) = terminal.stop_with(child.pid)
        {
            self.shared.warn(&format!("cannot stop with the program: {error}"));
        }
    }

    fn main_ended(&mut self, status: Status) {
        if self.facts.status.replace(status).is_some() {
            return;
        }
        if let Some(reach) = &mut self.reach {
            reach.main_is_gone();
        }
        let (Some(terminal), Some(child)) = (&self.terminal, &self.child) else { return };
        // ^C goes to the foreground group, which is the child's: that a person ended it shows in how it died.
        let by_terminal =
            status.signal().is_some_and(|s| s == libc::SIGINT || s == libc::SIGQUIT) || status.code() == Some(130);
        if by_terminal && terminal.is_held_by(child.pid) && self.asked.is_none() {
            self.facts.interrupted = true;
            self.asked = Some(libc::SIGINT);
        }
        terminal.take_back(child.pid);
    }

    /// An adopted child is not ours to wait for: its pidfd tells when, and on newer kernels how, it ended.
    pub(super) fn look_at_adopted(&mut self) {
        let Some(child) = &self.child else { return };
        if !child.adopted || self.facts.status.is_some() || child::identify(child.pid) == Some(child.process) {
            return;
        }
        // Readable: it is a zombie. Hung up: reaped, and only then does the kernel tell.
        let told = child.pidfd.as_ref().and_then(|pidfd| sys::pidfd_exit_status(pidfd.as_fd()));
        let now = self.clock.now();
        let until = *self.timers.status.get_or_insert(now + STATUS_PATIENCE);
        if told.is_none() && now < until && child.pidfd.is_some() {
            return;
        }
        self.timers.status = None;
        self.main_ended(told.map_or(Status::Unknown, Status::from_raw));
        self.look_whether_gone();
    }

    /// After the main process ended: are others left, or is this life over?
    pub(super) fn look_whether_gone(&mut self) {
        if self.facts.status.is_none() || matches!(self.state, State::BackingOff | State::Exited) {
            return;
        }
        let left = self.reach.as_mut().map_or(0, Reach::left);
        if left == 0 {
            self.timers.leftovers = None;
            self.settle_stop();
            let event = ends::judge(self);
            self.feed(event);
            return;
        }
        self.timers.leftovers = Some(self.clock.now() + LEFTOVER_CHECK);
        if !std::mem::replace(&mut self.facts.main_gone, true) {
            if self.state == State::Running {
                let text = format!(
                    "the main process ended and left {}: stopping what it left (run it in the foreground)",
                    processes(left)
                );
                self.shared.tell("signal", &text);
            }
            self.feed(Event::MainGone);
        }
    }

    /// The program may be gone before its stop is reported: the governor's thread sends first and tells then.
    fn settle_stop(&mut self) {
        let sent = self.watch.as_ref().is_some_and(|watch| !watch.life.armed.load(Ordering::SeqCst));
        if !sent || self.facts.disarmed || self.facts.stop.is_some() {
            return;
        }
        for _ in 0..STOP_LOOKS {
            if let Some(stop) = self.mailbox.take_stop() {
                self.note_stop(stop);
                return;
            }
            std::thread::sleep(STOP_LOOK);
        }
    }

    /// Counts what the kernel killed while the main process lives on; it is told when the main process has had time to
    /// show that it was not the one.
    pub(super) fn look_for_oom_kills(&mut self) {
        let (Some(before), Some(now)) = (self.facts.oom_kills_before, self.shared.oom_kills()) else { return };
        if now.saturating_sub(before) > self.facts.oom_kills_told && self.facts.status.is_none() {
            self.timers.oom_told.get_or_insert(self.clock.now() + OOM_SETTLED);
        }
    }

    pub(super) fn tell_oom_kills(&mut self) {
        let (Some(before), Some(now)) = (self.facts.oom_kills_before, self.shared.oom_kills()) else { return };
        let grown = now.saturating_sub(before);
        if grown > self.facts.oom_kills_told && self.facts.status.is_none() {
            let n = grown - self.facts.oom_kills_told;
            self.facts.oom_kills_told = grown;
            let text = format!(
                "the kernel killed {} of it for memory (oom_kill); the main process lives on",
                processes(usize::try_from(n).unwrap_or(usize::MAX))
            );
            self.shared.warn(&text);
        }
    }
}
