//! Echo of the child's output to Plimsoll's own stdout and stderr, on a thread of its own.
//!
//! Bounded: at most [`ECHO_BYTES`] wait or are being written, in sum. Never waits for the terminal: a slow one sees
//! fewer lines, the dropped ones are counted, and when it catches up one line on stderr says
//! `plimsoll: N lines not echoed`. A closed one (`EPIPE`, a hang-up) is given up and the other goes on. The log is
//! complete either way. Order is kept within a stream, and between the two where both go to one place; there lines are
//! not torn (see `lane.rs`). Costs nothing while nobody writes: the thread sleeps in `poll` without a timeout.
//!
//! Why not `plimsoll::queue`: what waits here is bytes, not values; two buffers that are swapped need no allocation per
//! line and their bound is exact.

mod lane;
mod target;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use plimsoll::clock::{Clock, MonotonicClock};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

use lane::{Dropped, Lane};
use target::{Target, Written};

/// The most that waits for the terminal or is being written to it, in bytes, both streams together.
pub(crate) const ECHO_BYTES: usize = 1 << 20;

/// Lanes: 0 is stdout's, 1 is stderr's; where both go to one place, lane 1 carries both.
const LANES: usize = 2;

/// The echo thread and the way into it.
#[derive(Debug)]
pub(crate) struct Echo {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// What the echo did not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EchoCounters {
    pub(crate) dropped_lines: u64,
    pub(crate) dropped_bytes: u64,
    /// Of stdout and stderr: the reader went away and nothing is echoed there any more.
    pub(crate) gone: [bool; LANES],
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
    wake: OwnedFd,
    clock: MonotonicClock,
    /// Of each stream: its lane.
    lane_of: [usize; LANES],
    newline: &'static str,
    dropped_lines: AtomicU64,
    dropped_bytes: AtomicU64,
}

#[derive(Debug)]
struct State {
    lanes: [Lane; LANES],
    /// The thread has nothing to write in this lane: the next push must wake it.
    idle: [bool; LANES],
    /// Nothing goes there any more: the reader is gone, or it is `/dev/null`.
    closed: [bool; LANES],
    gone: [bool; LANES],
    /// Set by [`Echo::finish`]: write what waits, until then.
    stop_at: Option<Duration>,
    ended: bool,
}

/// A way to say something on Plimsoll's stderr that never blocks the caller and does not tear the child's lines.
#[derive(Clone, Debug)]
pub(crate) struct Voice(Arc<Shared>);

impl Echo {
    /// Starts the thread for these two descriptors, usually the process's own stdout and stderr; `raw` when the
    /// terminal is in raw mode (line ends need a carriage return, and the child's bytes are passed on untouched).
    ///
    /// # Errors
    /// No descriptor or thread can be had.
    pub(crate) fn start(stdout: BorrowedFd<'_>, stderr: BorrowedFd<'_>, raw: bool) -> io::Result<Echo> {
        let targets = [Target::of(stdout)?, Target::of(stderr)?];
        let shared_place = targets[0].is_same(&targets[1]);
        let cap_bytes = if shared_place { ECHO_BYTES / 2 } else { ECHO_BYTES / 4 };
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                lanes: std::array::from_fn(|_| Lane::new(cap_bytes, shared_place && !raw)),
                idle: [true; LANES],
                closed: std::array::from_fn(|lane| targets[lane].is_nothing()),
                gone: [false; LANES],
                stop_at: None,
                ended: false,
            }),
            ended: Condvar::new(),
            wake: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            clock: MonotonicClock,
            lane_of: if shared_place { [1, 1] } else { [0, 1] },
            newline: if raw { "\r\n" } else { "\n" },
            dropped_lines: AtomicU64::new(0),
            dropped_bytes: AtomicU64::new(0),
        });
        let thread = std::thread::Builder::new().name("echo".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run(&targets)
        })?;
        Ok(Echo { shared, thread })
    }

    /// Hands over what a stream (0 stdout, 1 stderr) wrote. Copies it, or counts what has no room; never waits.
    pub(crate) fn push(&self, stream: usize, data: &[u8]) {
        self.shared.push(stream, data);
    }

    /// A way to say something on stderr in between.
    pub(crate) fn voice(&self) -> Voice {
        Voice(Arc::clone(&self.shared))
    }

    /// What was not echoed so far.
    pub(crate) fn counters(&self) -> EchoCounters {
        self.shared.counters()
    }

    /// Writes what waits, at most until `deadline` (on the monotonic clock), and ends the thread.
    ///
    /// What could not be written by then is counted as dropped. A thread that the terminal holds (possible only where
    /// it could not be opened a second time) is left behind.
    pub(crate) fn finish(self, deadline: Duration) -> EchoCounters {
        let mut state = self.shared.state.lock();
        state.stop_at = Some(deadline);
        self.shared.wake();
        let patience = deadline.saturating_sub(self.shared.clock.now()) + Duration::from_millis(50);
        let timed_out =
            self.shared.ended.wait_while_for(&mut state, |state| !state.ended, patience).timed_out() && !state.ended;
        drop(state);
        if !timed_out {
            // A panic of the echo costs echo, nothing else.
            drop(self.thread.join());
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
        let lane = self.lane_of[stream];
        let mut state = self.state.lock();
        if state.closed[lane] {
            let gone = state.gone[lane];
            drop(state);
            if gone {
                self.count(Dropped { lines: lane::count(data, b'\n'), bytes: data.len() as u64 });
            }
            return;
        }
        let dropped = state.lanes[lane].push(stream, data, self.clock.now());
        let was_idle = std::mem::take(&mut state.idle[lane]);
        drop(state);
        self.count(dropped);
        if was_idle {
            self.wake();
        }
    }

    fn say(&self, text: &str) {
        let mut state = self.state.lock();
        let (closed, gone) = (state.closed[1], state.gone[1]);
        let said = !closed && state.lanes[1].say(text, self.newline);
        let was_idle = said && std::mem::take(&mut state.idle[1]);
        drop(state);
        if !said && (gone || !closed) {
            self.count(Dropped { lines: 1, bytes: text.len() as u64 });
        }
        if was_idle {
            self.wake();
        }
    }

    fn count(&self, dropped: Dropped) {
        if dropped.bytes > 0 {
            self.dropped_lines.fetch_add(dropped.lines, Ordering::Relaxed);
            self.dropped_bytes.fetch_add(dropped.bytes, Ordering::Relaxed);
        }
    }

    fn counters(&self) -> EchoCounters {
        let gone = self.state.lock().gone;
        EchoCounters {
            dropped_lines: self.dropped_lines.load(Ordering::Relaxed),
            dropped_bytes: self.dropped_bytes.load(Ordering::Relaxed),
            gone: self.lane_of.map(|lane| gone[lane]),
        }
    }

    fn wake(&self) {
        // Full means that a wake-up is pending already.
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes()).ok();
    }

    fn run(&self, targets: &[Target; LANES]) {
        let mut writing: [Vec<u8>; LANES] = Default::default();
        let mut written = [0; LANES];
        loop {
            let deadline = {
                let mut state = self.state.lock();
                let now = self.clock.now();
                let over = state.stop_at.is_some_and(|stop_at| now >= stop_at);
                self.refill(&mut state, &mut writing, &mut written, now);
                let busy = writing.iter().any(|waits| !waits.is_empty());
                if state.stop_at.is_some() && (!busy || over) {
                    for (lane, waits) in writing.iter().enumerate() {
                        self.give_up(&mut state.lanes[lane], &waits[written[lane]..]);
                    }
                    state.closed = [true; LANES];
                    state.ended = true;
                    self.ended.notify_all();
                    return;
                }
                state.lanes.iter().filter_map(Lane::due).chain(state.stop_at).min()
            };
            let mut blocked = [false; LANES];
            let mut progress = false;
            for lane in 0..LANES {
                let waits = &writing[lane][written[lane]..];
                if waits.is_empty() {
                    continue;
                }
                match targets[lane].write(waits) {
                    Written::Bytes(n) => {
                        written[lane] += n;
                        progress = true;
                    }
                    Written::NotNow => blocked[lane] = true,
                    Written::Gone(_) => {
                        let mut state = self.state.lock();
                        (state.closed[lane], state.gone[lane]) = (true, true);
                        self.give_up(&mut state.lanes[lane], waits);
                        written[lane] = writing[lane].len();
                        progress = true;
                    }
                }
            }
            if !progress {
                self.sleep(targets, blocked, deadline);
            }
        }
    }

    /// Takes what waits in each lane that has nothing left to write; says what was dropped behind it.
    fn refill(&self, state: &mut State, writing: &mut [Vec<u8>; LANES], written: &mut [usize; LANES], now: Duration) {
        let now = state.stop_at.is_none().then_some(now);
        let mut dropped = 0;
        for lane in 0..LANES {
            if written[lane] == writing[lane].len() {
                writing[lane].clear();
                written[lane] = 0;
                dropped += state.lanes[lane].take(&mut writing[lane], now);
                state.idle[lane] = writing[lane].is_empty();
            }
        }
        if dropped > 0 && !state.closed[1] {
            let lines = if dropped == 1 { "line" } else { "lines" };
            state.lanes[1].say(&format!("plimsoll: {dropped} {lines} not echoed"), self.newline);
            if state.idle[1] {
                state.idle[1] = false;
                state.lanes[1].take(&mut writing[1], now);
            }
        }
    }

    fn give_up(&self, lane: &mut Lane, unwritten: &[u8]) {
        self.count(lane.abandon());
        self.count(Dropped { lines: lane::count(unwritten, b'\n'), bytes: unwritten.len() as u64 });
    }

    /// Until something is pushed, a blocked target takes more, or `deadline`.
    fn sleep(&self, targets: &[Target; LANES], blocked: [bool; LANES], deadline: Option<Duration>) {
        let timeout = deadline.map(|at| {
            let left = at.saturating_sub(self.clock.now());
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
        });
        // Only what is waited for: a closed pipe reports its error whether asked or not.
        let mut fds: [_; 1 + LANES] =
            std::array::from_fn(|_| PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN));
        let mut used = 1;
        for (target, _) in targets.iter().zip(blocked).filter(|(_, blocked)| *blocked) {
            fds[used] = PollFd::from_borrowed_fd(target.as_fd(), PollFlags::OUT);
            used += 1;
        }
        rustix::event::poll(&mut fds[..used], timeout.as_ref()).ok();
        rustix::io::read(&self.wake, &mut [0; 8]).ok();
    }
}
