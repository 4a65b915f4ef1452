//! What the threads of one open store share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::recover::unknown;
use crate::ring::Ring;
use crate::segments::Segments;
use crate::stats::{Tally, Trouble};
use crate::writer::Writer;
use crate::{GapReason, Settings, Stream, clock};

/// Bytes in the spool, not yet sealed, that make a chunk worth sealing.
pub(crate) const SEAL_BYTES: u64 = 1 << 20;

/// See the top of the file.
pub(crate) struct Core {
    pub(crate) settings: Settings,
    pub(crate) ring: Arc<Ring>,
    pub(crate) writer: Mutex<Writer>,
    pub(crate) spool: Segments,
    pub(crate) tally: Tally,
    pub(crate) trouble: Trouble,
    /// Everything before this position was read by the sealer.
    pub(crate) sealed_to: AtomicU64,
    /// The sealer knows that there is something to seal (and so has a timer).
    pub(crate) sealer_knows: AtomicBool,
    /// The spooler waits for room: what is spooled should be sealed now.
    pub(crate) pressed: AtomicBool,
    /// The file that tells readers where the ring is could not be written.
    pub(crate) ring_path_owed: AtomicBool,
    spooler: OnceLock<Thread>,
    sealer: OnceLock<Thread>,
    closing: AtomicBool,
    give_up: AtomicBool,
    ended: Mutex<Ended>,
    someone_ended: Condvar,
}

/// Which of the two threads have returned from their loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) spooler: bool,
    pub(crate) sealer: bool,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Core {
    pub(crate) fn new(settings: Settings, ring: Arc<Ring>, writer: Writer, spool: Segments) -> Core {
        Core {
            settings,
            ring,
            writer: Mutex::new(writer),
            spool,
            tally: Tally::default(),
            trouble: Trouble::default(),
            sealed_to: AtomicU64::new(0),
            sealer_knows: AtomicBool::new(false),
            pressed: AtomicBool::new(false),
            ring_path_owed: AtomicBool::new(false),
            spooler: OnceLock::new(),
            sealer: OnceLock::new(),
            closing: AtomicBool::new(false),
            give_up: AtomicBool::new(false),
            ended: Mutex::new(Ended::default()),
            someone_ended: Condvar::new(),
        }
    }

    /// Tells the core which threads to wake. Once, before the intake is handed out.
    pub(crate) fn threads_are(&self, spooler: Thread, sealer: Thread) {
        let first = self.spooler.set(spooler).is_ok() && self.sealer.set(sealer).is_ok();
        debug_assert!(first, "the threads are set once");
    }

    /// Wakes the spooler if it sleeps; costs an atomic swap if it does not.
    pub(crate) fn wake_spooler(&self) {
        if let Some(thread) = self.spooler.get() {
            thread.unpark();
        }
    }

    pub(crate) fn wake_sealer(&self) {
        if let Some(thread) = self.sealer.get() {
            thread.unpark();
        }
    }

    /// The spooler wrote up to `end`: the sealer is woken for its first work, and when there is a chunk's worth.
    pub(crate) fn spooled(&self, end: u64) {
        let enough = end - self.sealed_to.load(Ordering::Acquire).min(end) >= SEAL_BYTES;
        if enough || !self.sealer_knows.swap(true, Ordering::AcqRel) {
            self.wake_sealer();
        }
    }

    /// Writes pending gaps if the ring has room again and nobody has the writer: the spooler does not wait for the intake in a flood.
    pub(crate) fn flush_gaps_if_free(&self) {
        if let Some(mut writer) = self.writer.try_lock()
            && writer.would_store()
        {
            writer.flush_gaps();
        }
    }

    /// Writes pending gaps if the ring has room again. True if there is something to spool afterwards.
    pub(crate) fn flush_gaps(&self) -> bool {
        let mut writer = self.writer.lock();
        if writer.would_store() {
            writer.flush_gaps();
        }
        self.ring.used() > 0
    }

    pub(crate) fn note(&self, text: &str, at_unix_ns: u64) {
        self.writer.lock().note(text, at_unix_ns);
        self.wake_spooler();
    }

    /// Ends all lines, takes nothing more, and lets the threads finish.
    pub(crate) fn start_closing(&self, at_unix_ns: u64) {
        let mut writer = self.writer.lock();
        for stream in Stream::ALL {
            writer.end_line(stream, at_unix_ns);
        }
        writer.closed = true;
        drop(writer);
        self.closing.store(true, Ordering::SeqCst);
        self.wake_spooler();
        self.wake_sealer();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Says that one of the threads has left its loop.
    pub(crate) fn has_ended(&self, who: impl FnOnce(&mut Ended)) {
        who(&mut self.ended.lock());
        self.someone_ended.notify_all();
        self.wake_sealer();
    }

    /// Waits at most `limit` for both threads to leave their loops.
    pub(crate) fn wait_for_end(&self, limit: Duration) -> Ended {
        let until = clock::monotonic().saturating_add(limit);
        let mut ended = self.ended.lock();
        while *ended != (Ended { spooler: true, sealer: true }) {
            let left = until.saturating_sub(clock::monotonic());
            if left.is_zero() {
                break;
            }
            self.someone_ended.wait_for(&mut ended, left);
        }
        *ended
    }

    /// Closing, and nothing more will come into the spool.
    pub(crate) fn spool_is_final(&self) -> bool {
        self.is_closing() && self.ended.lock().spooler
    }

    /// Records that older lines went with their database, and says so in the log itself.
    pub(crate) fn database_was_lost(&self, said: &str) {
        let now = clock::unix_ns();
        self.writer.lock().add_gap(Stream::Plimsoll, unknown(GapReason::DatabaseLost, now));
        self.note(said, now);
    }

    /// The closing deadline has passed: threads end where they are; what is in ring and spool stays there.
    pub(crate) fn stop_now(&self) {
        self.give_up.store(true, Ordering::SeqCst);
        self.wake_spooler();
        self.wake_sealer();
    }

    pub(crate) fn gives_up(&self) -> bool {
        self.give_up.load(Ordering::SeqCst)
    }
}
