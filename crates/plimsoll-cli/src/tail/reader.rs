//! The loop of the tail thread: wait, pause a moment while data keeps coming, read both streams in turn, notes last.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use plimsoll::clock::{self, Clock};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::counters::{Counters, StreamCounters};
use super::echo::Echo;
use super::notes::{Inbox, Word};
use super::pace::{Pace, Patience};
use super::volume::Volume;
use super::{Inputs, Landing, STDERR, STDOUT, Setup, Sink};

/// Reads of one stream in one round, before notes and the word to stop are looked at again: 2 MiB.
const READS_PER_ROUND: usize = 32;
/// How long a stream that cannot be read is left alone.
const RETRY: Duration = Duration::from_secs(1);

/// The tail thread's state.
pub(super) struct Reader<S> {
    sink: S,
    inputs: Vec<Input>,
    inbox: Inbox,
    echo: Option<Echo>,
    clock: Arc<dyn Clock>,
    pace: Pace,
    patience: Patience,
    /// The sink asked for a moment.
    pressed: bool,
    counters: Arc<Counters>,
    volume: Arc<Volume>,
}

struct Input {
    fd: OwnedFd,
    stream: usize,
    is_pty: bool,
    condition: Condition,
    /// A read failed and none has succeeded since.
    was_failing: bool,
    /// Within a round: it is worth another read.
    more: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Open,
    /// The last read failed; try again then.
    Failed(Duration),
    /// No writer can come any more.
    Ended,
}

impl Input {
    fn recovered(&mut self, counters: &StreamCounters) {
        if std::mem::take(&mut self.was_failing) {
            *counters.failing.lock() = None;
        }
    }
}

impl<S: Sink> Reader<S> {
    pub(super) fn new(setup: Setup<S>, inbox: Inbox, counters: Arc<Counters>, volume: Arc<Volume>) -> Reader<S> {
        let input = |fd, stream, is_pty| Input {
            fd,
            stream,
            is_pty,
            condition: Condition::Open,
            was_failing: false,
            more: false,
        };
        let inputs = match setup.inputs {
            Inputs::Fifos { stdout, stderr } => vec![input(stdout, STDOUT, false), input(stderr, STDERR, false)],
            Inputs::Pty(master) => vec![input(master, STDOUT, true)],
        };
        // A pty holds 4 KiB; it has no size to ask for.
        let pipe_bytes = inputs
            .iter()
            .map(|input| rustix::pipe::fcntl_getpipe_size(&input.fd).unwrap_or(4096))
            .min()
            .unwrap_or(4096);
        let pace = Pace::new(pipe_bytes);
        let patience = Patience::new(setup.clock.now());
        Reader {
            sink: setup.intake,
            inputs,
            inbox,
            echo: setup.echo,
            clock: setup.clock,
            pace,
            patience,
            pressed: false,
            counters,
            volume,
        }
    }

    pub(super) fn into_parts(self) -> (S, Option<Echo>) {
        (self.sink, self.echo)
    }

    /// Runs until someone asks to stop.
    pub(super) fn run(&mut self) {
        loop {
            let readable = self.wait();
            if let Some(deadline) = self.inbox.stop_at() {
                return self.drain(deadline);
            }
            if readable {
                let pause = self.pace.pause(self.clock.now());
                if !pause.is_zero() {
                    self.counters.pauses.fetch_add(1, Relaxed);
                    std::thread::sleep(pause);
                }
            }
            self.rest();
            let bytes = self.round();
            self.pace.read(self.clock.now(), bytes);
            self.take_notes();
        }
    }

    /// Gives the sink the moment that it asked for, if there is patience left.
    fn rest(&mut self) {
        if std::mem::take(&mut self.pressed) {
            let begin = self.clock.now();
            let rest = self.patience.rest(begin);
            if !rest.is_zero() {
                self.counters.rests.fetch_add(1, Relaxed);
                std::thread::sleep(rest);
                self.patience.rested(self.clock.now().saturating_sub(begin));
            }
        }
    }

    /// Sleeps until a stream is readable (true), a note or the word to stop came, or a failed stream is due.
    fn wait(&mut self) -> bool {
        let now = self.clock.now();
        let mut retry = None;
        for input in &mut self.inputs {
            match input.condition {
                Condition::Failed(at) if at <= now => input.condition = Condition::Open,
                Condition::Failed(at) => retry = Some(retry.map_or(at, |other: Duration| other.min(at))),
                Condition::Open | Condition::Ended => {}
            }
        }
        let timeout = retry.map(|at| {
            let left = at.saturating_sub(now);
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
        });
        let mut fds: [_; 3] = std::array::from_fn(|_| PollFd::from_borrowed_fd(self.inbox.wake_fd(), PollFlags::IN));
        let mut used = 1;
        // A hang-up is reported whether asked or not, so what has ended must not be in the set.
        for input in self.inputs.iter().filter(|input| input.condition == Condition::Open) {
            fds[used] = PollFd::from_borrowed_fd(input.fd.as_fd(), PollFlags::IN);
            used += 1;
        }
        rustix::event::poll(&mut fds[..used], timeout.as_ref()).ok();
        let woken = !fds[0].revents().is_empty();
        let readable = fds[1..used].iter().any(|fd| !fd.revents().is_empty());
        if woken {
            self.inbox.clear();
        }
        self.counters.wakeups.fetch_add(1, Relaxed);
        readable
    }

    /// Reads the streams in turn until each has nothing more, or has had its share; the bytes read.
    fn round(&mut self) -> u64 {
        let mut total = 0;
        self.inputs.iter_mut().for_each(|input| input.more = true);
        for _ in 0..READS_PER_ROUND {
            for index in 0..self.inputs.len() {
                if self.inputs[index].more {
                    let (bytes, more) = self.read(index).unwrap_or((0, false));
                    total += bytes;
                    self.inputs[index].more = more;
                }
            }
            if self.pressed || self.inputs.iter().all(|input| !input.more) {
                break;
            }
        }
        total
    }

    /// Reads one stream once, if it can be read; bytes and whether there is probably more.
    fn read(&mut self, index: usize) -> Option<(u64, bool)> {
        let input = &mut self.inputs[index];
        if input.condition != Condition::Open {
            return None;
        }
        let counters = &self.counters.streams[input.stream];
        let at = unix_ns();
        let (echo, volume, now) = (&self.echo, &self.volume, self.clock.now());
        let mut see = |data: &[u8], lines: u64| {
            volume.see(input.stream, data, lines, now);
            if let Some(echo) = echo {
                echo.push(input.stream, data);
            }
        };
        let failure = match self.sink.read_from(input.stream, input.fd.as_fd(), at, &mut see) {
            Ok(Landing { bytes, more, pressed }) if bytes > 0 => {
                self.pressed |= pressed;
                counters.reads.fetch_add(1, Relaxed);
                counters.bytes.fetch_add(bytes as u64, Relaxed);
                input.recovered(counters);
                return Some((bytes as u64, more));
            }
            Ok(_) => {
                input.condition = Condition::Ended;
                return None;
            }
            Err(error) => error,
        };
        match Errno::from_io_error(&failure) {
            Some(Errno::INTR) => input.recovered(counters),
            // The store says it without a number.
            _ if failure.kind() == std::io::ErrorKind::WouldBlock => input.recovered(counters),
            // That is how a pty says that no process has its slave open.
            Some(Errno::IO) if input.is_pty => input.condition = Condition::Ended,
            _ => {
                counters.errors.fetch_add(1, Relaxed);
                input.condition = Condition::Failed(self.clock.now() + RETRY);
                let text = format!("cannot read the child's {}: {failure}", ["stdout", "stderr"][input.stream]);
                if !std::mem::replace(&mut input.was_failing, true) {
                    self.sink.note(&text, at);
                }
                *counters.failing.lock() = Some(text);
            }
        }
        None
    }

    fn take_notes(&mut self) {
        for word in self.inbox.take() {
            match word {
                Word::Note(text) => {
                    self.counters.notes.fetch_add(1, Relaxed);
                    self.sink.note(&text, unix_ns());
                }
                Word::ChildEnded => self.sink.end_lines(unix_ns()),
            }
        }
    }

    /// Reads until nothing is left, at most until `deadline`.
    fn drain(&mut self, deadline: Duration) {
        while self.round() > 0 && self.clock.now() < deadline {}
        self.take_notes();
        self.sink.end_lines(unix_ns());
    }
}

fn unix_ns() -> u64 {
    u64::try_from(clock::wall().as_nanos()).unwrap_or(u64::MAX)
}
