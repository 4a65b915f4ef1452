//! Where the program's output goes: the one place that knows the log store.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll::clock::MonotonicClock;

use crate::snapshot::LogsView;
use crate::tail::echo::Echo;
use crate::tail::{self, Inputs, Landing, Notes, Setup, Sink, TailHandle};

/// The most that one read takes where there is no store.
const READ_BYTES: usize = 64 << 10;

/// Reads and shows, and keeps nothing: what is left when no store can be had. The program is never blocked.
pub(crate) struct Nowhere(Box<[u8]>);

impl Default for Nowhere {
    fn default() -> Self {
        Nowhere(vec![0; READ_BYTES].into_boxed_slice())
    }
}

impl Sink for Nowhere {
    fn read_from(
        &mut self,
        _stream: usize,
        fd: BorrowedFd<'_>,
        _at_unix_ns: u64,
        see: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Landing> {
        let bytes = rustix::io::read(fd, &mut *self.0)?;
        see(&self.0[..bytes]);
        Ok(Landing { bytes, more: bytes == READ_BYTES })
    }

    fn note(&mut self, _text: &str, _at_unix_ns: u64) {}

    fn end_lines(&mut self, _at_unix_ns: u64) {}
}

/// The log path of one supervisor: the tail thread and what it feeds.
pub(crate) struct Logs {
    tail: Mutex<Option<TailHandle<Nowhere>>>,
}

/// What the end of the log path looked like.
#[derive(Debug, Default)]
pub(crate) struct Closed {
    /// What a person should know, one line each.
    pub(crate) warnings: Vec<String>,
}

impl Logs {
    /// Starts reading `inputs`.
    ///
    /// # Errors
    /// No thread can be had.
    pub(crate) fn start(inputs: Inputs, echo: Option<Echo>) -> io::Result<Logs> {
        let tail = tail::start(Setup { intake: Nowhere::default(), inputs, echo, clock: Arc::new(MonotonicClock) })?;
        Ok(Logs { tail: Mutex::new(Some(tail)) })
    }

    /// For lines of Plimsoll's own.
    pub(crate) fn notes(&self) -> Option<Notes> {
        self.tail.lock().as_ref().map(TailHandle::notes)
    }

    /// The program is gone: its unfinished last lines are complete as they are.
    pub(crate) fn child_ended(&self) {
        if let Some(tail) = self.tail.lock().as_ref() {
            tail.child_ended();
        }
    }

    /// What holds now and should be known.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.tail.lock().as_ref().map(TailHandle::warnings).unwrap_or_default()
    }

    /// What is shown.
    pub(crate) fn view(&self) -> LogsView {
        let mut view = LogsView::default();
        if let Some(tail) = self.tail.lock().as_ref() {
            view.echo_dropped_lines_total = tail.echo_counters().dropped_lines;
            let counters = tail.counters();
            for (index, name) in ["stdout", "stderr"].into_iter().enumerate() {
                view.streams.entry(name.to_owned()).or_default().bytes_total = counters.bytes_total[index];
            }
        }
        view.degraded = Some("no log store: the output is shown and not kept".to_owned());
        view
    }

    /// Reads what is left, at most until `deadline` on the monotonic clock, and closes everything.
    pub(crate) fn close(&self, deadline: Duration) -> Closed {
        let Some(tail) = self.tail.lock().take() else { return Closed::default() };
        let drained = tail.drain(deadline);
        let mut closed = Closed::default();
        if drained.intake.is_none() {
            closed.warnings.push("the tail thread panicked: the last lines are missing; please report this".to_owned());
        }
        if drained.echo.dropped_lines > 0 {
            closed.warnings.push(format!("{} lines were not echoed", drained.echo.dropped_lines));
        }
        closed
    }
}
