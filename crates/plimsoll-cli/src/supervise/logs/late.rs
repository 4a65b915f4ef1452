//! A store that could not be opened at the start, and is tried again every [`RETRY`] (5 s) by a thread of its own until it opens or the
//! supervisor ends. Meanwhile the program's output is read, echoed, counted, and thrown away; when the store comes, each stream's count
//! becomes a gap in front of its next line.
//!
//! Memory: one read (64 KiB), a thread, eight numbers. Nobody waits for the thread: it may hang in a disk that does not answer.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use plimsoll_store::{Heartbeat, Intake, Missed, Settings, Store, StoreError, Stream};

use super::Place;
use crate::snapshot::StreamView;
use crate::tail::{Landing, Notes};

/// How often opening is tried again.
pub(crate) const RETRY: Duration = Duration::from_secs(5);
/// The most that one read takes where there is no store.
const READ_BYTES: usize = 64 << 10;
/// The program's streams, by the tail's index.
const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// What the threads share: the tail, which counts; the opener; and who asks how it is.
#[derive(Default)]
pub(crate) struct Late {
    /// Why there is no store; `None`: there is one.
    why: Mutex<Option<String>>,
    lost: [Lost; 2],
    /// The store's end for the tail, once it is there.
    intake: Mutex<Option<Intake>>,
    came: AtomicBool,
    heartbeat: OnceLock<Heartbeat>,
    stopped: Mutex<bool>,
    stop: Condvar,
}

#[derive(Debug, Default)]
struct Lost {
    lines: AtomicU64,
    bytes: AtomicU64,
}

impl Late {
    /// The first try failed.
    pub(super) fn because(error: &StoreError) -> Arc<Late> {
        let late = Late::default();
        *late.why.lock() = Some(sentence(error));
        Arc::new(late)
    }

    /// Why the output is not kept now.
    pub(super) fn why(&self) -> Option<String> {
        self.why.lock().clone()
    }

    /// Says that the supervisor lives, when there is where to say it.
    pub(super) fn beat(&self, monotonic_ns: u64) {
        if let Some(heartbeat) = self.heartbeat.get() {
            heartbeat.beat(monotonic_ns);
        }
    }

    /// What was thrown away and is in no gap yet.
    pub(super) fn lost(&self) -> [(Stream, StreamView); 2] {
        let view = |lost: &Lost| StreamView {
            dropped_lines_total: lost.lines.load(Ordering::Relaxed),
            dropped_bytes_total: lost.bytes.load(Ordering::Relaxed),
            ..StreamView::default()
        };
        [(STREAMS[0], view(&self.lost[0])), (STREAMS[1], view(&self.lost[1]))]
    }

    /// Lets the opener end.
    pub(super) fn stop(&self) {
        *self.stopped.lock() = true;
        self.stop.notify_all();
    }

    /// Tries to open the store until that succeeds or [`Late::stop`]; puts it into `store` and says so through `notes`.
    ///
    /// # Errors
    /// No thread can be had.
    pub(super) fn open_later(
        self: &Arc<Late>,
        settings: Settings,
        goes_on: bool,
        every: Duration,
        store: Arc<Mutex<Option<Store>>>,
        notes: Notes,
    ) -> io::Result<()> {
        let late = Arc::clone(self);
        let run = move || {
            while !late.is_stopped_within(every) {
                match plimsoll_store::open(settings.clone()) {
                    Ok((mut intake, opened, recovery)) => {
                        super::begin(&mut intake, goes_on);
                        let mut slot = store.lock();
                        if *late.stopped.lock() {
                            return;
                        }
                        // It is set once.
                        late.heartbeat.set(opened.heartbeat_handle()).unwrap_or_default();
                        *slot = Some(opened);
                        *late.intake.lock() = Some(intake);
                        late.came.store(true, Ordering::Release);
                        *late.why.lock() = None;
                        drop(slot);
                        // The tail takes the store's end with the first of these.
                        notes.note("the program's output is kept from here on");
                        recovery.notes().iter().for_each(|note| notes.note(note));
                        return;
                    }
                    Err(error) => *late.why.lock() = Some(sentence(&error)),
                }
            }
        };
        std::thread::Builder::new().name("log-opener".to_owned()).stack_size(512 << 10).spawn(run).map(drop)
    }

    fn is_stopped_within(&self, limit: Duration) -> bool {
        let mut stopped = self.stopped.lock();
        if !*stopped {
            self.stop.wait_for(&mut stopped, limit);
        }
        *stopped
    }
}

fn sentence(error: &StoreError) -> String {
    format!("the program's output is not kept: {error}; it is tried again every {} s", RETRY.as_secs())
}

/// Where bytes land meanwhile: the tail's end.
pub(crate) struct Nowhere {
    late: Arc<Late>,
    buffer: Box<[u8]>,
    missed: [Missed; 2],
}

impl Nowhere {
    pub(super) fn new(late: Arc<Late>) -> Nowhere {
        Nowhere { late, buffer: vec![0; READ_BYTES].into_boxed_slice(), missed: [Missed::default(); 2] }
    }

    /// The store's end, if it has come, with what was missed until now counted into it.
    pub(super) fn store(&self) -> Option<Place> {
        if !self.late.came.load(Ordering::Acquire) {
            return None;
        }
        let mut intake = self.late.intake.lock().take()?;
        for ((stream, missed), lost) in STREAMS.into_iter().zip(&self.missed).zip(&self.late.lost) {
            intake.missed(stream, missed);
            // From here on the store counts it.
            lost.lines.store(0, Ordering::Relaxed);
            lost.bytes.store(0, Ordering::Relaxed);
        }
        Some(Place::Store(intake))
    }

    pub(super) fn read_from(
        &mut self,
        stream: usize,
        fd: BorrowedFd<'_>,
        at_unix_ns: u64,
        see: &mut dyn FnMut(&[u8], u64),
    ) -> io::Result<Landing> {
        let bytes = rustix::io::read(fd, &mut *self.buffer)?;
        let data = &self.buffer[..bytes];
        let lines = data.iter().filter(|byte| **byte == b'\n').count() as u64;
        see(data, lines);
        if bytes > 0 {
            let missed = &mut self.missed[stream];
            if missed.bytes == 0 {
                missed.from_unix_ns = at_unix_ns;
            }
            missed.lines += lines;
            missed.bytes += bytes as u64;
            missed.to_unix_ns = at_unix_ns;
            missed.open = data.last() != Some(&b'\n');
            let lost = &self.late.lost[stream];
            lost.lines.fetch_add(lines, Ordering::Relaxed);
            lost.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        Ok(Landing { bytes, more: bytes == READ_BYTES, pressed: false })
    }

    /// The program is gone: its unfinished line is one.
    pub(super) fn end_lines(&mut self) {
        for (missed, lost) in self.missed.iter_mut().zip(&self.late.lost) {
            if std::mem::take(&mut missed.open) {
                missed.lines += 1;
                lost.lines.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
