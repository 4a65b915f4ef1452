//! The tail thread's end of the store: takes what a pipe has, at once, into memory. Never touches a disk, never grows, and waits for
//! nothing but a mutex that its other holders give back within about a millisecond (a gap frame, a note, an idle trim).

use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use parking_lot::MutexGuard;

use crate::core::Core;
use crate::frame::GapNote;
use crate::ring::at;
use crate::writer::Writer;
use crate::{GapReason, Stream};

/// Takes a program's output. One per store; may move to another thread, but is not shared.
#[derive(Debug)]
pub struct Intake {
    core: Arc<Core>,
    /// One thread at a time: the order of a stream's bytes is the order of these calls.
    one_thread: PhantomData<std::cell::Cell<()>>,
}

/// What one [`Intake::read_from`] took.
pub struct Landed<'a> {
    /// How many bytes; 0 means that the stream has ended.
    pub bytes: usize,
    /// How many line ends are among them.
    pub lines: u64,
    /// The ring was full, or the stream above its rate limit: the bytes were counted into a gap and are not stored.
    pub dropped: bool,
    /// The bytes themselves, stored or not, for an echo. Keep this only briefly: it holds the writer's lock.
    pub data: &'a [u8],
    /// There was more than was taken; call again at once.
    pub more: bool,
    /// The bytes are stored, and the ring is more than half full now: who can wait a millisecond gives the spooler time.
    pub pressed: bool,
    _hold: MutexGuard<'a, Writer>,
}

/// What was read and thrown away while there was no store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missed {
    /// Line ends in it.
    pub lines: u64,
    /// Its bytes.
    pub bytes: u64,
    /// When the first of it came.
    pub from_unix_ns: u64,
    /// When the last of it came.
    pub to_unix_ns: u64,
    /// It ends in the middle of a line.
    pub open: bool,
}

impl std::fmt::Debug for Landed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Landed { bytes, dropped, more, .. } = self;
        write!(f, "Landed {{ bytes: {bytes}, dropped: {dropped}, more: {more} }}")
    }
}

impl Intake {
    pub(crate) fn new(core: Arc<Core>) -> Intake {
        Intake { core, one_thread: PhantomData }
    }

    /// Takes what `fd` has now, at most 64 KiB; `at_unix_ns` becomes the time of its lines. `fd` should be non-blocking; best is a
    /// pipe or FIFO with no other reader, for which a SIGKILL at any instruction loses nothing. For anything else (a terminal) a kill
    /// inside the read can lose its last bytes, and the next open writes a gap of unknown count.
    ///
    /// With the ring full the bytes are read all the same, counted, and dropped: the program is never held back.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing now; otherwise what `read(2)` says, or that the store is closed.
    pub fn read_from(&mut self, stream: Stream, fd: BorrowedFd<'_>, at_unix_ns: u64) -> io::Result<Landed<'_>> {
        let mut hold = self.core.writer.lock();
        let taken = hold.read(stream, fd, at_unix_ns)?;
        if taken.len > 0 {
            self.core.wake_spooler();
        }
        let data = self.core.ring.look(taken.offset, taken.len);
        let pressed = !taken.dropped && self.core.ring.used() > self.core.ring.capacity() / 2;
        Ok(Landed {
            bytes: taken.len,
            lines: taken.lines,
            dropped: taken.dropped,
            data,
            more: taken.more,
            pressed,
            _hold: hold,
        })
    }

    /// Counts what a stream printed while no store could be opened: it becomes a gap ([`GapReason::RingFull`]) in front of what comes next.
    pub fn missed(&mut self, stream: Stream, missed: &Missed) {
        if missed.bytes > 0 {
            let Missed { lines: newlines, bytes, from_unix_ns, to_unix_ns, open } = *missed;
            let note = GapNote { newlines, bytes, from_unix_ns, to_unix_ns, open, reason: GapReason::RingFull };
            let mut writer = self.core.writer.lock();
            writer.end_gap_of_another(stream, note.reason);
            writer.add_gap(stream, note);
            drop(writer);
            self.core.wake_spooler();
        }
    }

    /// Says that the stream's next byte begins a new line: an unfinished last line is complete as it is. Call it when the program
    /// that wrote the stream has ended.
    pub fn end_of(&mut self, stream: Stream, at_unix_ns: u64) {
        self.core.writer.lock().end_line(stream, at_unix_ns);
        self.core.wake_spooler();
    }

    /// Stores `text` as one line of [`Stream::Plimsoll`], at most 64 KiB; line ends inside become spaces.
    pub fn note(&mut self, text: &str, at_unix_ns: u64) {
        self.core.note(text, at_unix_ns);
    }

    /// Says that the supervisor is alive; readers see the age of this (`CLOCK_MONOTONIC` nanoseconds).
    pub fn heartbeat(&self, monotonic_ns: u64) {
        self.core.ring.set(at::HEARTBEAT, monotonic_ns);
    }
}
