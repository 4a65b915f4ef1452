//! The terminal that Plimsoll was started on: the child gets it, and job control works as if Plimsoll were not there.
//!
//! The child is in a process group of its own; while Plimsoll's group owns the terminal, the child's becomes the
//! foreground group, so that ^C, ^Z and reading work. When the child stops, Plimsoll takes the terminal back and stops
//! itself; when the shell continues Plimsoll, the child gets the terminal and SIGCONT. Terminal modes are put back at the end.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, Signal};
use rustix::termios::{OptionalActions, Termios};

use super::sys;

/// A terminal on stdin.
#[derive(Debug)]
pub(crate) struct Terminal {
    fd: OwnedFd,
    own_group: Pid,
    modes: Option<Termios>,
}

impl Terminal {
    /// The terminal on stdin, if stdin is one and it is our controlling terminal.
    pub(crate) fn detect() -> Option<Terminal> {
        let stdin = rustix::stdio::stdin();
        if !rustix::termios::isatty(stdin) {
            return None;
        }
        rustix::termios::tcgetpgrp(stdin).ok()?;
        let fd = sys::duplicate(stdin).ok()?;
        Some(Terminal { modes: rustix::termios::tcgetattr(&fd).ok(), fd, own_group: rustix::process::getpgrp() })
    }

    /// Whether our own group owns the terminal now.
    pub(crate) fn in_foreground(&self) -> bool {
        rustix::termios::tcgetpgrp(&self.fd).is_ok_and(|group| group == self.own_group)
    }

    /// A descriptor for the child, which takes the terminal itself before exec; `None` while we are in the background.
    pub(crate) fn for_child(&self) -> Option<OwnedFd> {
        if self.in_foreground() { sys::duplicate(&self.fd).ok() } else { None }
    }

    /// Whether the child's group owns the terminal now.
    pub(crate) fn is_held_by(&self, group: Pid) -> bool {
        rustix::termios::tcgetpgrp(&self.fd).is_ok_and(|holder| holder == group)
    }

    /// Gives the terminal to the child's group, if we have it.
    pub(crate) fn give(&self, group: Pid) {
        if self.in_foreground() {
            // It may have ended meanwhile; then nobody needs the terminal.
            rustix::termios::tcsetpgrp(&self.fd, group).ok();
        }
    }

    /// Takes the terminal back from the child's group (never from another job of the shell), with the modes of the start.
    pub(crate) fn take_back(&self, group: Pid) {
        if !self.is_held_by(group) {
            return;
        }
        rustix::termios::tcsetpgrp(&self.fd, self.own_group).ok();
        if let Some(modes) = &self.modes {
            rustix::termios::tcsetattr(&self.fd, OptionalActions::Now, modes).ok();
        }
    }

    /// The child was stopped by ^Z or by touching the terminal from the background: stop as it did, so that the shell
    /// gets its prompt. Returns when the shell continues us.
    pub(crate) fn stop_with(&self, group: Pid) -> io::Result<()> {
        self.take_back(group);
        // To the whole job of the shell, as ^Z would: a pipeline stops as one.
        rustix::process::kill_current_process_group(Signal::STOP)?;
        Ok(())
    }

    /// We were continued: so is the child, in the foreground when we are.
    pub(crate) fn resume(&self, group: Pid) {
        self.give(group);
        rustix::process::kill_process_group(group, Signal::CONT).ok();
    }
}
