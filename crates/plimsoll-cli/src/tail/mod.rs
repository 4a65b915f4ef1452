//! The tail thread: what the child writes goes from its two FIFOs (or one pty) into the store's ring, and is echoed.
//!
//! Reads at most 64 KiB at a time, both streams in turn, so that a flood on one does not starve the other. After quiet
//! the first byte is read at once; while data keeps coming it reads about once a millisecond (`pace.rs`). While nobody
//! writes it sleeps without a timeout: no wake-ups. It never touches a disk and never waits for a terminal (`echo/`);
//! when the ring is full the sink drops and counts, and reading goes on, so the child is never held back by us; but a
//! ring that fills up is given a moment, 200 ms at most and then 1 % of the time, in which the pipe fills (`pace.rs`).
//!
//! `poll`, not `epoll`: with three descriptors it costs the same, and a pipe that is registered with epoll makes the
//! child's every `write` run the callback (measured: 0.41 s instead of 0.35 s for a million lines).

mod counters;
pub(crate) mod echo;
pub(crate) mod fifo;
mod notes;
mod pace;
mod reader;
#[cfg(test)]
mod tests;
mod volume;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use plimsoll::clock::Clock;
use plimsoll_store::volume::Measured;

use counters::Counters;
#[cfg(test)]
use counters::TailCounters;
use echo::{Echo, EchoCounters, Voice};
pub(crate) use notes::Notes;
use volume::Volume;

/// Index of the child's stdout wherever streams are counted here.
pub(crate) const STDOUT: usize = 0;
/// Index of the child's stderr.
pub(crate) const STDERR: usize = 1;

/// Where bytes land. `plimsoll_store::Intake` is one; a test has its own.
pub(crate) trait Sink: Send + 'static {
    /// Reads once from `fd` (at most 64 KiB) into itself, shows `see` what came and how many line ends are in it, and says
    /// how much that was. Does not block longer than the copying takes.
    ///
    /// # Errors
    /// What `read(2)` says, `WouldBlock` included.
    fn read_from(
        &mut self,
        stream: usize,
        fd: BorrowedFd<'_>,
        at_unix_ns: u64,
        see: &mut dyn FnMut(&[u8], u64),
    ) -> io::Result<Landing>;

    /// Puts a line of Plimsoll's own between them.
    fn note(&mut self, text: &str, at_unix_ns: u64);

    /// The program that wrote the streams is gone: an unfinished last line is complete as it is.
    fn end_lines(&mut self, at_unix_ns: u64);
}

/// What one read brought.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Landing {
    /// Bytes read; 0 is the end of the stream.
    pub(crate) bytes: usize,
    /// There was more than was taken.
    pub(crate) more: bool,
    /// The sink has taken it, and asks for a moment if there is one.
    pub(crate) pressed: bool,
}

/// The supervisor's read ends, `O_NONBLOCK`.
#[derive(Debug)]
pub(crate) enum Inputs {
    /// Two FIFOs opened by [`fifo::Fifo`].
    Fifos { stdout: OwnedFd, stderr: OwnedFd },
    /// The master of a pseudo-terminal: one stream, taken as stdout. It ends when no process has the slave open; a
    /// caller that restarts the child keeps the slave open meanwhile.
    Pty(OwnedFd),
}

/// What the tail thread is made of.
pub(crate) struct Setup<S> {
    pub(crate) intake: S,
    pub(crate) inputs: Inputs,
    /// `None`: `--quiet`.
    pub(crate) echo: Option<Echo>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// The running tail thread. Lives as long as the supervisor: through restarts of the child.
pub(crate) struct TailHandle<S> {
    thread: JoinHandle<(S, Option<Echo>)>,
    notes: Notes,
    counters: Arc<Counters>,
    volume: Arc<Volume>,
    voice: Option<Voice>,
}

/// What [`TailHandle::drain`] hands back.
pub(crate) struct Drained<S> {
    /// The store's end; `None` when the thread panicked (a defect: say so).
    pub(crate) intake: Option<S>,
    #[cfg(test)]
    counters: TailCounters,
    pub(crate) echo: EchoCounters,
}

/// Starts the tail thread.
///
/// # Errors
/// No thread or eventfd can be had.
pub(crate) fn start<S: Sink>(setup: Setup<S>) -> io::Result<TailHandle<S>> {
    let counters = Arc::new(Counters::default());
    let (notes, inbox) = notes::channel()?;
    let voice = setup.echo.as_ref().map(Echo::voice);
    let volume = Arc::new(Volume::new(setup.clock.now()));
    let mut reader = reader::Reader::new(setup, inbox, Arc::clone(&counters), Arc::clone(&volume));
    let thread = std::thread::Builder::new().name("tail".to_owned()).spawn(move || {
        reader.run();
        reader.into_parts()
    })?;
    Ok(TailHandle { thread, notes, counters, volume, voice })
}

impl<S: Sink> TailHandle<S> {
    /// The child is gone (and another may follow): once the streams are empty, their unfinished last lines are ended.
    pub(crate) fn child_ended(&self) {
        self.notes.child_ended();
    }

    /// Puts lines of Plimsoll's own into the log, behind what the child has written so far. Never blocks; dropped and
    /// counted when more than [`notes::NOTES`] wait.
    pub(crate) fn notes(&self) -> Notes {
        self.notes.clone()
    }

    /// What was read, dropped and failed so far.
    #[cfg(test)]
    pub(crate) fn counters(&self) -> TailCounters {
        self.counters.snapshot(self.notes.dropped())
    }

    /// What each stream prints, `[stdout, stderr]`; `now` on the clock of [`Setup`].
    pub(crate) fn volume(&self, now: Duration) -> [Measured; 2] {
        self.volume.measured(now)
    }

    /// What was not echoed so far.
    pub(crate) fn echo_counters(&self) -> EchoCounters {
        self.voice.as_ref().map(Voice::counters).unwrap_or_default()
    }

    /// One sentence per thing that is wrong now: a stream that cannot be read, a thread that is gone.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.counters.warnings();
        match self.notes.dropped() {
            0 => {}
            dropped => warnings.push(format!("{dropped} of Plimsoll's own notes are not in the log: too many at once")),
        }
        if self.thread.is_finished() {
            warnings.push("the tail thread ended: logs are not read any more".to_owned());
        }
        warnings
    }

    /// After the child died: reads until both streams are empty, at most until `deadline` (on the monotonic clock; a
    /// grandchild may hold them and go on writing), ends unfinished lines, puts in the notes that wait, lets the echo finish until the same
    /// deadline, joins both threads and hands the sink back.
    pub(crate) fn drain(self, deadline: Duration) -> Drained<S> {
        self.notes.stop(deadline);
        let (intake, echo) = match self.thread.join() {
            Ok((intake, echo)) => (Some(intake), echo),
            Err(_) => (None, None),
        };
        let echo = match (echo, &self.voice) {
            (Some(echo), _) => echo.finish(deadline),
            (None, Some(voice)) => voice.counters(),
            (None, None) => EchoCounters::default(),
        };
        Drained {
            intake,
            #[cfg(test)]
            counters: self.counters.snapshot(self.notes.dropped()),
            echo,
        }
    }
}
