//! From a queue into a sink in batches, on a thread of its own: by time, count and bytes; failed batches are kept and tried again.
//!
//! | bound | default |
//! |---|---|
//! | a value waits for others at most | [`EVERY`], 100 ms |
//! | values in a batch | [`MAX_ITEMS`], 10,000 |
//! | bytes in a batch (one value may be larger) | [`MAX_BYTES`], 4 MiB |
//! | between two tries of a failed batch | [`RETRY_FIRST`], 50 ms, doubled up to [`RETRY_MOST`], 5 s, each ± 20 % |
//! | until everything is written at the end | [`FINISH`], 5 s |
//!
//! **What was taken is safe until it is written.** What a batcher has in hand still counts against the queue's limits and its producer's
//! share, so queue and batcher together hold no more than [`Limits`](super::Limits), however long the sink fails; what finds no room
//! meanwhile is dropped and counted, or waits, or overflows, as the queue says. A batch is written whole or kept whole.
//!
//! **What is missing stands in the stream.** What the queue dropped becomes a [`Gap`] among the values: whose, how many, why, and between
//! which times. Gaps go through the sink like values, so they are as safe as those; one that the sink refuses is counted.
//!
//! **No value stops the stream for ever.** A value that the sink [refuses](SinkError::refused), or that fails [`SUSPECT_AFTER`] times and again
//! [`POISON_STRIKES`] times right after another went through, is dropped, counted as [`DropReason::Sink`](super::DropReason::Sink) and told in a gap;
//! it is found by halving the batch. As long as nothing else goes through either, it is the sink that is ill, and nothing is given up.
//!
//! Nothing is printed: a callback hears at most one [`Notice`] of losses a tick, and one when the sink begins to fail and when it is well again.

mod error;
mod flush;
mod notice;
mod record;
mod retry;
mod run;
#[cfg(all(test, not(loom)))]
mod tests;

use std::fmt;
use std::io;
use std::time::Duration;

use super::{Monitor, Receiver, Tally};
use crate::drain::{Drain, TooManyHooks};
pub use error::{SinkError, SinkErrorKind};
pub use notice::{Notice, TOP_PRODUCERS};
pub use record::{FROM_OVERFLOW, Gap, Record, Sink};
use run::{Control, Run};

/// How long a value waits for others at most, unless set otherwise: 100 ms.
pub const EVERY: Duration = Duration::from_millis(100);
/// The most values in a batch, unless set otherwise.
pub const MAX_ITEMS: usize = 10_000;
/// The most bytes in a batch, unless set otherwise: 4 MiB.
pub const MAX_BYTES: u64 = 4 << 20;
/// The pause after a first failure, unless set otherwise: 50 ms.
pub const RETRY_FIRST: Duration = Duration::from_millis(50);
/// The longest pause, unless set otherwise: 5 s.
pub const RETRY_MOST: Duration = Duration::from_secs(5);
/// How long the end may take, unless set otherwise: 5 s.
pub const FINISH: Duration = Duration::from_secs(5);
/// After so many failures in a row one of the values is suspected, and the batch is written in parts.
pub const SUSPECT_AFTER: u32 = 8;
/// So often a value must fail right after another went through, before it is given up.
pub const POISON_STRIKES: u32 = 3;

/// Figures of a batcher at one moment; counters are since its beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Values that the sink has taken; those that came by the overflow weigh nothing here.
    pub written_total: Tally,
    /// Calls of the sink that went well.
    pub batches_total: u64,
    /// Gap records that the sink has taken.
    pub gaps_total: u64,
    /// Calls of the sink that failed.
    pub failures_total: u64,
    /// Values given up because the sink did not take them while it took others.
    pub poison_total: Tally,
    /// Gaps given up because the sink did not take them while it took others.
    pub gaps_refused_total: u64,
    /// Failures since the last success; above 0 the sink is failing.
    pub failures_in_a_row: u32,
    /// What the sink said last when it failed; stays after it is well again.
    pub last_error: Option<String>,
}

/// How a batcher ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finished {
    /// What was still queued and is not written; counted as abandoned.
    pub left: Tally,
    /// The sink did not come back in time: its thread is left behind with what it has in hand.
    pub is_stuck: bool,
    /// Its last figures.
    pub stats: Stats,
}

/// A batcher could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No thread can be had.
    #[error("no thread for the batcher")]
    Thread(#[source] io::Error),
    /// The drain has no place for its hook.
    #[error(transparent)]
    Hooks(#[from] TooManyHooks),
}

/// How a batcher is to be.
///
/// # Examples
/// ```
/// use plimsoll::queue::batch::{Builder, Record, SinkError};
/// use plimsoll::queue::{Limits, WhenFull, bounded};
/// use std::sync::mpsc::sync_channel;
/// use std::time::Duration;
///
/// let (sender, receiver) = bounded(Limits { max_items: 1_000, max_bytes: 1 << 20 }, WhenFull::DropNewest);
/// let (table, rows) = sync_channel(1_000); // A stand-in for a database.
/// let sink = move |records: &[Record<String>]| {
///     for record in records {
///         match record {
///             Record::Value(line) => table.send(line.clone())?,
///             Record::Gap(gap) => table.send(gap.to_string())?,
///         }
///     }
///     Ok::<(), SinkError>(())
/// };
/// let batcher = Builder::new(receiver, sink).on_notice(|notice| eprintln!("log: {notice}")).start()?;
/// sender.send("hello".to_owned())?;
/// let finished = batcher.finish(Duration::from_secs(5));
/// assert_eq!((finished.left.items, rows.recv()?), (0, "hello".to_owned()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing is written until it is started"]
pub struct Builder<T, S> {
    receiver: Receiver<T>,
    sink: S,
    settings: Settings,
    drain: Option<Drain>,
}

pub(crate) type Hear = Box<dyn FnMut(&Notice) + Send>;

pub(super) struct Settings {
    every: Duration,
    max_items: usize,
    max_bytes: u64,
    retry: retry::Retry,
    finish: Duration,
    on_notice: Option<Hear>,
    on_thread: Option<Box<dyn FnOnce() + Send>>,
}

impl<T: Send + 'static, S: Sink<T> + 'static> Builder<T, S> {
    /// From this queue into this sink, with the defaults of the [module](self).
    pub fn new(receiver: Receiver<T>, sink: S) -> Builder<T, S> {
        let settings = Settings {
            every: EVERY,
            max_items: MAX_ITEMS,
            max_bytes: MAX_BYTES,
            retry: retry::Retry { first: RETRY_FIRST, most: RETRY_MOST },
            finish: FINISH,
            on_notice: None,
            on_thread: None,
        };
        Builder { receiver, sink, settings, drain: None }
    }

    /// How long a value waits for others at most. 0: every value is written as soon as the sink is free.
    pub fn every(mut self, every: Duration) -> Self {
        self.settings.every = every;
        self
    }

    /// The most values in a batch; at least 1.
    pub fn max_items(mut self, items: usize) -> Self {
        self.settings.max_items = items.max(1);
        self
    }

    /// The most bytes in a batch, as its values weigh; a value that weighs more is a batch of its own.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.settings.max_bytes = bytes;
        self
    }

    /// The pause after a first failure, and the longest one.
    pub fn retry(mut self, first: Duration, most: Duration) -> Self {
        self.settings.retry = retry::Retry { first, most };
        self
    }

    /// How long the end may take when the drain begins or the batcher is dropped.
    pub fn finish_within(mut self, longest: Duration) -> Self {
        self.settings.finish = longest;
        self
    }

    /// Who hears of losses and of a failing sink, on the batcher's thread. One that takes long holds up the stream.
    pub fn on_notice(mut self, hear: impl FnMut(&Notice) + Send + 'static) -> Self {
        self.settings.on_notice = Some(Box::new(hear));
        self
    }

    /// Has the batcher end with this drain: when it begins the queue is closed, what is queued is written within
    /// [`Builder::finish_within`], and the drain waits for that.
    pub fn drain(mut self, drain: &Drain) -> Self {
        self.drain = Some(drain.clone());
        self
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn on_thread(mut self, first: impl FnOnce() + Send + 'static) -> Self {
        self.settings.on_thread = Some(Box::new(first));
        self
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// [`StartError`]; the queue is closed then, and what is queued abandoned.
    pub fn start(self) -> Result<Batcher<T>, StartError> {
        let (queue, control) = (self.receiver.monitor(), Control::new());
        let finish = self.settings.finish;
        // Held by the thread until all is written.
        let hold = self.drain.as_ref().and_then(Drain::hold);
        let run = Run::new(self.receiver, self.sink, self.settings, control.clone());
        let thread = std::thread::Builder::new().name("batch".to_owned()).spawn(move || {
            run.run();
            drop(hold);
        });
        let batcher = Batcher { queue, control, finish, thread: Some(thread.map_err(StartError::Thread)?) };
        if let Some(drain) = &self.drain {
            let (queue, control) = (batcher.queue.clone(), batcher.control.clone());
            drain.on_begin(move || {
                control.end_within(finish);
                queue.close();
            })?;
        }
        Ok(batcher)
    }
}

impl<T, S> fmt::Debug for Builder<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("receiver", &self.receiver).finish_non_exhaustive()
    }
}

/// A running batcher. Dropping it finishes it, within [`Builder::finish_within`].
#[derive(Debug)]
pub struct Batcher<T> {
    queue: Monitor<T>,
    control: Control,
    finish: Duration,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl<T> Batcher<T> {
    /// Figures.
    pub fn stats(&self) -> Stats {
        self.control.stats()
    }

    /// The queue's gauges and counters.
    pub fn queue_stats(&self) -> super::Stats {
        self.queue.stats()
    }

    /// Closes the queue, writes what is queued, at most until `longest` has passed, and ends the thread.
    ///
    /// A sink that is stuck then is left behind with its thread.
    pub fn finish(mut self, longest: Duration) -> Finished {
        self.end(longest)
    }

    fn end(&mut self, longest: Duration) -> Finished {
        self.control.end_within(longest);
        self.queue.close();
        let ended = self.control.wait_ended(longest);
        if ended && let Some(thread) = self.thread.take() {
            // A panic was told as a failure; here it costs nothing more.
            drop(thread.join());
        }
        let queue = self.queue.stats();
        let abandoned = queue.total().dropped_for(super::DropReason::Abandoned);
        Finished { left: queue.queued + abandoned, is_stuck: !ended, stats: self.stats() }
    }
}

impl<T> Drop for Batcher<T> {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.end(self.finish);
        }
    }
}
