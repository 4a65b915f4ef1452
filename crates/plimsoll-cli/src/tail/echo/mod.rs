//! Echo of the child's output to Plimsoll's own stdout and stderr, through a bounded [`plimsoll::queue`] to a thread of
//! its own; two of each where the two are different places, so that a stuck one does not hold up the other.
//!
//! Bounded: at most [`ECHO_BYTES`] wait or are being written, in sum. Never waits for the terminal: a slow one sees
//! fewer lines, the dropped ones are counted, and when it catches up one line on stderr says
//! `plimsoll: N lines not echoed`. A closed one (`EPIPE`, a hang-up) is given up and the other goes on. The log is
//! complete either way. Order is kept within a stream, and between the two where both go to one place; there lines are
//! not torn (see `lines.rs`). Costs nothing while nobody writes: the threads sleep without a timeout.

mod lines;
mod target;
mod writer;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll::queue::{self, Limits, Sender, Weigh, WhenFull};
use rustix::event::EventfdFlags;

use lines::{Mark, count_lines};
use target::Target;
use writer::{Writer, WriterHandle};

/// The most that waits for the terminal or is being written to it, in bytes, both streams together.
pub(crate) const ECHO_BYTES: usize = 1 << 20;
/// Of these, what the queues hold; the rest is for what the threads have in hand.
const QUEUED_BYTES: usize = ECHO_BYTES * 5 / 8;
/// The most pieces that wait: a piece is one read, which may be a single short line.
const QUEUED_ITEMS: usize = 8192;

/// Streams: 0 is stdout, 1 is stderr.
const STREAMS: usize = 2;

/// The echo threads and the way to them.
#[derive(Debug)]
pub(crate) struct Echo {
    shared: Arc<Shared>,
    /// stdout's first: what it has to say goes to stderr's.
    writers: Vec<WriterHandle>,
}

/// What the echo did not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EchoCounters {
    pub(crate) dropped_lines: u64,
    pub(crate) dropped_bytes: u64,
    /// Of stdout and stderr: the reader went away and nothing is echoed there any more.
    pub(crate) gone: [bool; STREAMS],
}

#[derive(Debug)]
struct Shared {
    /// Of each stream: the way to its writer; `None` where everything vanishes (`/dev/null`).
    ways: [Option<Sender<Piece>>; STREAMS],
    streams: [Stream; STREAMS],
    /// Readable once the writers are to end.
    stop: OwnedFd,
    /// When, in nanoseconds of the monotonic clock; 0 while nobody asked.
    stop_at_ns: AtomicU64,
    /// Line ends that were refused or given up, and lines torn: wraps below zero for a moment at most.
    dropped_lines: AtomicU64,
    dropped_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Stream {
    marks: Mutex<Marks>,
    gone: AtomicBool,
}

#[derive(Debug, Default)]
struct Marks {
    /// Behind everything that was pushed.
    end: Mark,
    /// Behind the last piece that the queue refused.
    refused: Mark,
}

/// What travels to a writer.
enum Piece {
    /// What one read of a stream brought.
    Data { stream: usize, at: Mark, data: Box<[u8]> },
    /// A line of Plimsoll's own.
    Own(Box<str>),
}

impl Weigh for Piece {
    fn weight_bytes(&self) -> u64 {
        match self {
            Piece::Data { data, .. } => data.len() as u64,
            Piece::Own(text) => text.len() as u64,
        }
    }
}

/// A way to say something on Plimsoll's stderr that never blocks the caller and does not tear the child's lines.
#[derive(Clone, Debug)]
pub(crate) struct Voice(Arc<Shared>);

impl Echo {
    /// Starts the threads for these two descriptors, usually the process's own stdout and stderr; `raw` when the
    /// terminal is in raw mode (line ends need a carriage return, and the child's bytes are passed on untouched).
    ///
    /// # Errors
    /// No descriptor or thread can be had.
    pub(crate) fn start(stdout: BorrowedFd<'_>, stderr: BorrowedFd<'_>, raw: bool) -> io::Result<Echo> {
        let [out, err] = [Target::of(stdout)?, Target::of(stderr)?];
        let newline = if raw { "\r\n" } else { "\n" };
        let shared_place = out.is_same(&err);
        let queued_bytes = if shared_place { QUEUED_BYTES } else { QUEUED_BYTES / 2 };
        let way = |target: &Target| {
            let limits = Limits { max_items: QUEUED_ITEMS, max_bytes: queued_bytes as u64 };
            (!target.is_nothing()).then(|| queue::bounded(limits, WhenFull::Reject))
        };
        let (err_way, err_end) = way(&err).unzip();
        let (out_way, out_end) = if shared_place { (err_way.clone(), None) } else { way(&out).unzip() };
        let shared = Arc::new(Shared {
            ways: [out_way, err_way],
            streams: Default::default(),
            stop: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            stop_at_ns: AtomicU64::new(0),
            dropped_lines: AtomicU64::new(0),
            dropped_bytes: AtomicU64::new(0),
        });
        let mut writers = Vec::new();
        for (stream, end, target) in [(0, out_end, out), (1, err_end, err)] {
            if let Some(end) = end {
                let streams = if shared_place { 0..STREAMS } else { stream..stream + 1 };
                let hold_back = shared_place && !raw;
                let writer = Writer::new(Arc::clone(&shared), end, target, streams, hold_back, newline);
                writers.push(writer.start(["echo", "echo-err"][usize::from(stream == 1 && !shared_place)])?);
            }
        }
        Ok(Echo { shared, writers })
    }

    /// Hands over what a stream (0 stdout, 1 stderr) wrote. Copies it, or counts what has no room; never waits.
    pub(crate) fn push(&self, stream: usize, data: &[u8]) {
        self.shared.push(stream, data);
    }

    /// A way to say something on stderr in between.
    pub(crate) fn voice(&self) -> Voice {
        Voice(Arc::clone(&self.shared))
    }

    /// Writes what waits, at most until `deadline` (on the monotonic clock), and ends the threads.
    ///
    /// What could not be written by then is counted as dropped. A thread that the terminal holds (possible only where
    /// it could not be opened a second time) is left behind.
    pub(crate) fn finish(self, deadline: Duration) -> EchoCounters {
        let at = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.shared.stop_at_ns.store(at, Ordering::Release);
        rustix::io::write(&self.shared.stop, &1_u64.to_ne_bytes()).ok();
        for writer in self.writers {
            writer.finish(deadline);
        }
        self.shared.counters()
    }
}

impl Voice {
    /// Says one line on stderr, in order with what the child wrote; dropped and counted when there is no room.
    pub(crate) fn say(&self, text: &str) {
        self.0.say(text);
    }

    /// What was not echoed so far.
    pub(crate) fn counters(&self) -> EchoCounters {
        self.0.counters()
    }
}

impl Shared {
    fn push(&self, stream: usize, data: &[u8]) {
        let Some(way) = &self.ways[stream] else { return };
        // Held until the queue has it, so that marks and pieces keep one order. Only the tail thread is ever here.
        let mut marks = self.streams[stream].marks.lock();
        let at = marks.end;
        marks.end = at.after(data);
        if way.send(Piece::Data { stream, at, data: data.into() }).is_err() {
            marks.refused = marks.end;
            let lines = marks.end.lines - at.lines;
            drop(marks);
            self.count(lines, data.len());
        }
    }

    fn say(&self, text: &str) {
        if let Some(way) = &self.ways[1]
            && way.send(Piece::Own(text.into())).is_err()
        {
            self.count(1, text.len());
        }
    }

    fn count(&self, lines: u64, bytes: usize) {
        self.dropped_lines.fetch_add(lines, Ordering::Relaxed);
        self.dropped_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn count_data(&self, data: &[u8]) {
        self.count(count_lines(data) + u64::from(data.last().is_some_and(|byte| *byte != b'\n')), data.len());
    }

    fn counters(&self) -> EchoCounters {
        EchoCounters {
            dropped_lines: self.dropped_lines.load(Ordering::Relaxed),
            dropped_bytes: self.dropped_bytes.load(Ordering::Relaxed),
            gone: std::array::from_fn(|stream| self.streams[stream].gone.load(Ordering::Relaxed)),
        }
    }
}
