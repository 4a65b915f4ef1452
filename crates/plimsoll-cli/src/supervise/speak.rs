//! What Plimsoll says on its own stderr: never waits for a terminal. While there is an echo the words go through it, in
//! order with the program's lines; before and after, and with `--quiet`, they are written only if stderr takes them within
//! [`PATIENCE`] (100 ms), at most [`LONGEST`] (4096) bytes at once, which a pipe that is writable takes whole.

use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::tail::echo::Voice;

/// How long a stderr that is full is waited for.
const PATIENCE: Duration = Duration::from_millis(100);
/// `PIPE_BUF`: what a writable pipe takes without blocking.
const LONGEST: usize = 4096;

/// Plimsoll's mouth.
#[derive(Debug, Default)]
pub(crate) struct Mouth {
    quiet: bool,
    voice: OnceLock<Voice>,
}

impl Mouth {
    /// With `--quiet` only [`Mouth::warn`] is heard.
    pub(crate) fn new(quiet: bool) -> Mouth {
        Mouth { quiet, voice: OnceLock::new() }
    }

    /// From now on words go through the echo.
    pub(crate) fn through(&self, voice: Voice) {
        // Set once, at the start; a second echo does not exist.
        self.voice.set(voice).ok();
    }

    /// Says what is good to know.
    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// Says what a person has to know.
    pub(crate) fn warn(&self, text: &str) {
        match self.voice.get() {
            Some(voice) => voice.say(&format!("plimsoll: {text}")),
            None => direct(text),
        }
    }
}

/// Writes one line to stderr, unless nobody takes it.
pub(crate) fn direct(text: &str) {
    let stderr = rustix::stdio::stderr();
    let mut line = format!("plimsoll: {text}");
    if line.len() >= LONGEST {
        let end = (0..LONGEST).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        line.truncate(end);
    }
    line.push('\n');
    let patience = Timespec { tv_sec: 0, tv_nsec: PATIENCE.subsec_nanos().into() };
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    let takes = rustix::event::poll(&mut fds, Some(&patience)).is_ok_and(|n| n > 0);
    if takes && fds[0].revents().contains(PollFlags::OUT) {
        // A stderr that is closed has nobody to tell.
        rustix::io::write(stderr, line.as_bytes()).ok();
    }
}
