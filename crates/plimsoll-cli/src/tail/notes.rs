//! Lines of Plimsoll's own on their way to the tail thread, which alone may write into the ring; and the word to stop.
//!
//! At most [`NOTES`] of together [`NOTES_BYTES`] wait; more are dropped and counted. That the child is gone is never dropped: behind a full
//! inbox it waits once. Sending never blocks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::EventfdFlags;

/// The most notes that wait.
pub(crate) const NOTES: usize = 256;
/// The most that they hold together, in bytes.
pub(crate) const NOTES_BYTES: usize = 64 << 10;

/// The sending end; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Notes(Arc<Shared>);

/// The tail thread's end.
#[derive(Debug)]
pub(super) struct Inbox {
    shared: Arc<Shared>,
    taken: Vec<Word>,
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    dropped: AtomicU64,
    wake: OwnedFd,
    /// When to stop, in nanoseconds of the monotonic clock; 0 while nobody asked.
    stop_at_ns: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    words: Vec<Word>,
    bytes: usize,
}

/// What is sent.
#[derive(Debug)]
pub(super) enum Word {
    /// A line for the log.
    Note(String),
    /// The child is gone.
    ChildEnded,
}

/// Both ends.
///
/// # Errors
/// No eventfd can be had.
pub(super) fn channel() -> io::Result<(Notes, Inbox)> {
    let shared = Arc::new(Shared {
        waiting: Mutex::default(),
        dropped: AtomicU64::new(0),
        wake: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        stop_at_ns: AtomicU64::new(0),
    });
    Ok((Notes(Arc::clone(&shared)), Inbox { shared, taken: Vec::new() }))
}

impl Notes {
    /// Sends a line, or counts it as dropped.
    pub(crate) fn note(&self, text: &str) {
        let mut waiting = self.0.waiting.lock();
        if waiting.words.len() >= NOTES || waiting.bytes + text.len() > NOTES_BYTES {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.words.push(Word::Note(text.to_owned()));
        waiting.bytes += text.len();
        drop(waiting);
        self.0.wake();
    }

    /// Says that the child is gone.
    pub(super) fn child_ended(&self) {
        let mut waiting = self.0.waiting.lock();
        // Said twice with nothing in between it is the same.
        if !matches!(waiting.words.last(), Some(Word::ChildEnded)) {
            waiting.words.push(Word::ChildEnded);
        }
        drop(waiting);
        self.0.wake();
    }

    /// Notes dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Asks the tail thread to empty its streams and to end, at the latest at `deadline`.
    pub(super) fn stop(&self, deadline: Duration) {
        let at = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.0.stop_at_ns.store(at, Ordering::Release);
        self.0.wake();
    }
}

impl Shared {
    fn wake(&self) {
        // Full means that a wake-up is pending already.
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes()).ok();
    }
}

impl Inbox {
    /// What to poll.
    pub(super) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.shared.wake.as_fd()
    }

    /// Forgets the wake-up. Before looking, so that none is missed.
    pub(super) fn clear(&self) {
        rustix::io::read(&self.shared.wake, &mut [0; 8]).ok();
    }

    /// When to stop, once someone asked.
    pub(super) fn stop_at(&self) -> Option<Duration> {
        let at = self.shared.stop_at_ns.load(Ordering::Acquire);
        (at != 0).then(|| Duration::from_nanos(at))
    }

    /// What waits, in order.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Word> + '_ {
        let mut waiting = self.shared.waiting.lock();
        std::mem::swap(&mut waiting.words, &mut self.taken);
        waiting.bytes = 0;
        drop(waiting);
        self.taken.drain(..)
    }
}
