//! The thread that writes to one place: takes pieces from the queue, waits for the terminal, and for nothing else.
//!
//! In hand it has one piece (64 KiB at most), what is to be shown of it, and the unfinished lines.

use std::ops::Range;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use plimsoll::clock::{Clock as _, MonotonicClock};
use plimsoll::queue::{Monitor, Receiver, RecvError};
use rustix::event::{PollFd, PollFlags, Timespec};

use super::lines::{Lines, Missing};
use super::target::{Target, Written};
use super::{Piece, Shared};

/// After the deadline: how long the thread has to notice.
const NOTICE: Duration = Duration::from_millis(50);

pub(super) struct Writer {
    shared: Arc<Shared>,
    queue: Receiver<Piece>,
    target: Target,
    /// Whose output goes there.
    streams: Range<usize>,
    lines: Lines,
    /// What is being written.
    ready: Vec<u8>,
    clock: MonotonicClock,
}

/// A running [`Writer`].
#[derive(Debug)]
pub(super) struct WriterHandle {
    thread: JoinHandle<()>,
    queue: Monitor<Piece>,
    ended: Arc<(Mutex<bool>, Condvar)>,
}

/// Why nothing more is written.
enum Stop {
    /// The reader is gone.
    Gone,
    /// The deadline for finishing has passed.
    Late,
}

impl WriterHandle {
    /// Lets it write what waits until `deadline`, and joins it unless the terminal holds it.
    pub(super) fn finish(self, deadline: Duration) {
        self.queue.close();
        let patience = deadline.saturating_sub(MonotonicClock.now()) + NOTICE;
        let (ended, changed) = &*self.ended;
        let mut ended = ended.lock();
        changed.wait_while_for(&mut ended, |ended| !*ended, patience);
        if *ended {
            drop(ended);
            // A panic of the echo costs echo, nothing else.
            drop(self.thread.join());
        }
    }
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        queue: Receiver<Piece>,
        target: Target,
        streams: Range<usize>,
        hold_back: bool,
        newline: &'static str,
    ) -> Writer {
        let lines = Lines::new(hold_back, newline);
        Writer { shared, queue, target, streams, lines, ready: Vec::new(), clock: MonotonicClock }
    }

    pub(super) fn start(mut self, name: &str) -> std::io::Result<WriterHandle> {
        /// Says so however the thread ends.
        struct Ending(Arc<(Mutex<bool>, Condvar)>);
        impl Drop for Ending {
            fn drop(&mut self) {
                *self.0.0.lock() = true;
                self.0.1.notify_all();
            }
        }
        let ended = Arc::new((Mutex::new(false), Condvar::new()));
        let (queue, ending) = (self.queue.monitor(), Ending(Arc::clone(&ended)));
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _ending = ending;
            if let Err(stop) = self.run() {
                self.give_up(&stop);
            }
        })?;
        Ok(WriterHandle { thread, queue, ended })
    }

    fn run(&mut self) -> Result<(), Stop> {
        loop {
            // Marks first: what was refused up to here lies behind everything that is queued now.
            let refused = self.refused();
            match self.queue.recv_timeout(Duration::ZERO) {
                Ok(piece) => self.take(&piece)?,
                Err(empty) => {
                    for (stream, at) in self.streams.clone().zip(refused) {
                        let missing = self.lines.resume(stream, at);
                        self.report(missing)?;
                    }
                    if empty == RecvError::Closed {
                        self.lines.release(&mut self.ready);
                        return self.write();
                    }
                    self.wait()?;
                }
            }
        }
    }

    /// Sleeps until a piece comes or what is held back is due.
    fn wait(&mut self) -> Result<(), Stop> {
        let piece = match self.lines.due() {
            None => self.queue.recv().ok_or(RecvError::Closed),
            Some(due) => self.queue.recv_timeout(due.saturating_sub(self.clock.now())),
        };
        match piece {
            Ok(piece) => self.take(&piece),
            Err(RecvError::Timeout) => {
                self.lines.release(&mut self.ready);
                self.write()
            }
            Err(RecvError::Closed) => Ok(()),
        }
    }

    fn take(&mut self, piece: &Piece) -> Result<(), Stop> {
        match piece {
            Piece::Own(text) => self.lines.say(text, &mut self.ready),
            Piece::Data { stream, at, data } => {
                let missing = self.lines.resume(*stream, *at);
                self.report(missing)?;
                let now = self.clock.now();
                if self.lines.due().is_some_and(|due| now >= due) {
                    self.lines.release(&mut self.ready);
                }
                self.lines.piece(*stream, data, now, &mut self.ready);
            }
        }
        self.write()
    }

    /// Says on stderr what is missing; there it may come a little later than the hole.
    fn report(&mut self, missing: Missing) -> Result<(), Stop> {
        self.shared.dropped_lines.fetch_add(missing.torn.cast_unsigned(), Ordering::Relaxed);
        if missing.lines == 0 {
            return Ok(());
        }
        let lines = if missing.lines == 1 { "line" } else { "lines" };
        let text = format!("plimsoll: {} {lines} not echoed", missing.lines);
        if self.streams.contains(&1) {
            self.lines.say(&text, &mut self.ready);
            self.write()
        } else {
            self.shared.say(&text);
            Ok(())
        }
    }

    fn refused(&self) -> [super::Mark; super::STREAMS] {
        let mut marks = [super::Mark::default(); super::STREAMS];
        for (mark, stream) in marks.iter_mut().zip(self.streams.clone()) {
            *mark = self.shared.streams[stream].marks.lock().refused;
        }
        marks
    }

    /// Writes what is ready, waiting for the terminal.
    fn write(&mut self) -> Result<(), Stop> {
        let mut written = 0;
        let stop = loop {
            let rest = &self.ready[written..];
            if rest.is_empty() {
                self.ready.clear();
                return Ok(());
            }
            match self.target.write(rest) {
                Written::Bytes(n) => written += n,
                Written::Gone(_) => break Stop::Gone,
                Written::NotNow => {
                    if self.is_late() {
                        break Stop::Late;
                    }
                    self.wait_for_target();
                }
            }
        };
        self.ready.drain(..written);
        Err(stop)
    }

    fn stop_at(&self) -> Option<Duration> {
        let at = self.shared.stop_at_ns.load(Ordering::Acquire);
        (at != 0).then(|| Duration::from_nanos(at))
    }

    fn is_late(&self) -> bool {
        self.stop_at().is_some_and(|at| self.clock.now() >= at)
    }

    /// Until the target takes more, or somebody asks to finish, or that is due.
    fn wait_for_target(&self) {
        let stop_at = self.stop_at();
        let timeout = stop_at.map(|at| {
            let left = at.saturating_sub(self.clock.now());
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
        });
        let mut fds = [
            PollFd::from_borrowed_fd(self.target.as_fd(), PollFlags::OUT),
            PollFd::from_borrowed_fd(self.shared.stop.as_fd(), PollFlags::IN),
        ];
        // Once the deadline is known its descriptor stays readable.
        let used = if stop_at.is_some() { 1 } else { 2 };
        rustix::event::poll(&mut fds[..used], timeout.as_ref()).ok();
    }

    /// Counts what is in hand and in the queue; from now on the queue refuses.
    fn give_up(&mut self, stop: &Stop) {
        self.queue.close();
        if matches!(stop, Stop::Gone) {
            self.streams.clone().for_each(|stream| self.shared.streams[stream].gone.store(true, Ordering::Relaxed));
        }
        self.lines.release(&mut self.ready);
        self.shared.count_data(&self.ready);
        self.ready = Vec::new();
        while let Some(piece) = self.queue.recv() {
            match piece {
                Piece::Own(text) => self.shared.count(1, text.len()),
                Piece::Data { data, .. } => self.shared.count_data(&data),
            }
        }
    }
}
