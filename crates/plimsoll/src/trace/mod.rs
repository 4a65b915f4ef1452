//! Lines of `tracing` through a bounded [queue] into a sink: never blocks the service, and counts for each target what it lost.
//!
//! [`Lines`] is a writer for `tracing_subscriber::fmt`, as `tracing_appender::non_blocking` is, so every format of it can be used. What it
//! adds: a bound in bytes ([`MAX_BYTES`], 8 MiB) beside the one in lines ([`MAX_LINES`], 65,536), a fair share for each target, drops counted by
//! target and reason, a gap in the stream where lines are missing, and batches that are kept and tried again when the sink fails.
//!
//! A line above [`LINE_BYTES`] (64 KiB) is cut there and counted. Targets beyond [`PRODUCERS_MAX`] share one place. What the
//! sink itself logs, on its own thread, and an overflow's store, is not queued (it would feed itself) but counted: [`Figures::own_total`].
//! Dropping the [`Guard`] writes what is queued, at most for [`FINISH`](crate::queue::batch::FINISH), 5 s.
//!
//! # Examples
//! ```
//! use plimsoll::trace::{Lines, ToWriter};
//!
//! let file = std::fs::File::create(std::env::temp_dir().join("plimsoll-doc-trace.log"))?;
//! let (lines, guard) = Lines::builder(ToWriter::new(file)).start()?;
//! let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(lines).finish();
//! tracing::subscriber::with_default(subscriber, || tracing::info!(user = 7, "hello"));
//! let finished = guard.finish(std::time::Duration::from_secs(5));
//! assert_eq!(finished.stats.written_total.items, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod sink;
#[cfg(all(test, not(loom)))]
mod tests;

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tracing_core::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::clock;
use crate::drain::Drain;
use crate::queue::batch::{self, Batcher, Finished, Notice, Sink, StartError};
use crate::queue::{self, Limits, OTHERS, Overflow, PRODUCERS_MAX, Sender, Weigh, WhenFull};
use crate::reclaim::ledger::Account;
pub use sink::ToWriter;

/// Lines that may be queued, unless set otherwise.
pub const MAX_LINES: usize = 65_536;
/// Bytes that may be queued, unless set otherwise: 8 MiB.
pub const MAX_BYTES: u64 = 8 << 20;
/// The longest line, in bytes: 64 KiB. What is longer is cut.
pub const LINE_BYTES: usize = 64 << 10;

thread_local! {
    /// This thread is a sink's, or within the overflow: what it logs is not queued.
    static IS_SINK: Cell<bool> = const { Cell::new(false) };
}

/// One line as it was formatted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Line {
    /// When it was formatted, since 1970-01-01 UTC.
    pub at: Duration,
    /// How important it is.
    pub level: Level,
    /// Whose it is: the event's target, usually a module.
    pub target: Arc<str>,
    /// The text, usually with its newline.
    pub text: Box<[u8]>,
}

impl Weigh for Line {
    fn weight_bytes(&self) -> u64 {
        self.text.len() as u64
    }
}

/// Counters beside those of the queue and the batcher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// Lines that a sink logged on its own thread, or an overflow's store on a sender's: not queued.
    pub own_total: u64,
    /// Lines that were longer than [`LINE_BYTES`] and were cut.
    pub cut_total: u64,
}

#[derive(Debug, Default)]
struct Counts {
    own: AtomicU64,
    cut: AtomicU64,
}

/// A target's name and its way into the queue.
type Way = Arc<(Arc<str>, Sender<Line>)>;

struct Shared {
    /// One for each target that has come, fewer than [`PRODUCERS_MAX`].
    targets: RwLock<HashMap<Arc<str>, Way>>,
    others: Way,
    counts: Arc<Counts>,
}

/// The writer for `tracing_subscriber::fmt`. Cheap to clone.
#[derive(Clone)]
pub struct Lines(Arc<Shared>);

/// How [`Lines`] are to be.
#[must_use = "nothing is written until it is started"]
pub struct Builder<S> {
    sink: S,
    limits: Limits,
    when_full: WhenFull<Line>,
    account: Option<Account>,
    drain: Option<Drain>,
    every: Duration,
    on_notice: Option<batch::Hear>,
}

impl Lines {
    /// Lines into this sink, with the defaults of the [module](self) and the newest dropped when full.
    pub fn builder<S: Sink<Line> + 'static>(sink: S) -> Builder<S> {
        let limits = Limits { max_items: MAX_LINES, max_bytes: MAX_BYTES };
        let (account, drain, on_notice) = (None, None, None);
        Builder { sink, limits, when_full: WhenFull::DropNewest, account, drain, every: batch::EVERY, on_notice }
    }

    /// Gauges and counters of the queue, by target.
    pub fn queue_stats(&self) -> queue::Stats {
        self.0.others.1.stats()
    }

    /// Counters of its own.
    pub fn figures(&self) -> Figures {
        let counts = &self.0.counts;
        Figures { own_total: counts.own.load(Ordering::Relaxed), cut_total: counts.cut.load(Ordering::Relaxed) }
    }

    fn send(&self, level: Level, target: &str, mut text: Vec<u8>) {
        let counts = &self.0.counts;
        if IS_SINK.get() {
            counts.own.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if text.len() > LINE_BYTES {
            counts.cut.fetch_add(1, Ordering::Relaxed);
            text.truncate(LINE_BYTES - 1);
            text.push(b'\n');
        }
        let text = text.into_boxed_slice();
        // Not under the lock: a send may wait for room, and whoever has room must not wait for it.
        let known = self.0.targets.read().get(target).map(Arc::clone);
        let way = known.unwrap_or_else(|| self.open(target));
        let (target, sender) = &*way;
        // What does not get in is counted by the queue; a log line is never given back.
        drop(sender.send(Line { at: clock::wall(), level, target: Arc::clone(target), text }));
    }

    /// The place of a target that comes for the first time.
    #[cold]
    fn open(&self, target: &str) -> Way {
        let mut targets = self.0.targets.write();
        if let Some(known) = targets.get(target) {
            return Arc::clone(known);
        }
        let name: Arc<str> = target.into();
        if targets.len() >= PRODUCERS_MAX - 1 {
            return Arc::new((name, self.0.others.1.clone()));
        }
        let way = Arc::new((Arc::clone(&name), self.0.others.1.named(target)));
        targets.insert(name, Arc::clone(&way));
        way
    }
}

impl<S: Sink<Line> + 'static> Builder<S> {
    /// Other bounds.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Something else when it is full. One that waits makes the service wait for its log. What an overflow logs itself is not queued, as
    /// what the sink logs: it would wait for itself.
    pub fn when_full(mut self, when_full: WhenFull<Line>) -> Self {
        self.when_full = when_full;
        self
    }

    /// Charges what is queued to this account: a cap over several queues.
    pub fn account(mut self, account: Account) -> Self {
        self.account = Some(account);
        self
    }

    /// Has it end with this drain: what is queued is written and the drain waits for that.
    pub fn drain(mut self, drain: &Drain) -> Self {
        self.drain = Some(drain.clone());
        self
    }

    /// How long a line waits for others at most; default [`batch::EVERY`], 100 ms.
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Who hears of losses and of a failing sink, on the sink's thread: what is logged there goes nowhere, so print it or count it.
    pub fn on_notice(mut self, hear: impl FnMut(&Notice) + Send + 'static) -> Self {
        self.on_notice = Some(Box::new(hear));
        self
    }

    /// Starts the sink's thread.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(self) -> Result<(Lines, Guard), StartError> {
        let when_full = match self.when_full {
            WhenFull::Overflow(store) => WhenFull::Overflow(Box::new(Quiet(store))),
            other => other,
        };
        let mut queue = queue::Builder::new(self.limits, when_full);
        if let Some(account) = self.account {
            queue = queue.account(account);
        }
        let (others, receiver) = queue.build_named(OTHERS);
        let mut batch = batch::Builder::new(receiver, self.sink).every(self.every).on_thread(|| IS_SINK.set(true));
        if let Some(drain) = &self.drain {
            batch = batch.drain(drain);
        }
        if let Some(hear) = self.on_notice {
            batch = batch.on_notice(hear);
        }
        let batcher = batch.start()?;
        let shared =
            Shared { targets: RwLock::default(), others: Arc::new((OTHERS.into(), others)), counts: Arc::default() };
        Ok((Lines(Arc::new(shared)), Guard(batcher)))
    }
}

/// An overflow in whose calls nothing is queued.
struct Quiet(Box<dyn Overflow<Line>>);

impl Overflow<Line> for Quiet {
    fn keep(&mut self, line: Line, producer: &str) -> Result<(), Line> {
        let _quiet = AsSink::begin();
        self.0.keep(line, producer)
    }

    fn next(&mut self) -> Option<Line> {
        let _quiet = AsSink::begin();
        self.0.next()
    }

    fn settle(&mut self, count: u64) {
        let _quiet = AsSink::begin();
        self.0.settle(count);
    }

    fn kept(&self) -> u64 {
        let _quiet = AsSink::begin();
        self.0.kept()
    }
}

/// For as long as it lives, its thread counts as a sink's; also when the overflow panics.
struct AsSink {
    before: bool,
}

impl AsSink {
    fn begin() -> AsSink {
        AsSink { before: IS_SINK.replace(true) }
    }
}

impl Drop for AsSink {
    fn drop(&mut self) {
        IS_SINK.set(self.before);
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter { lines: self, level: Level::INFO, target: Target::None, text: Vec::new() }
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> LineWriter<'a> {
        LineWriter { lines: self, level: *of.level(), target: Target::of(of.target()), text: Vec::new() }
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("figures", &self.figures()).finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for Builder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// A target's name until its line is done: short ones, as nearly all are, without an allocation.
#[derive(Debug)]
enum Target {
    None,
    Short([u8; Target::SHORT], u8),
    Long(Box<str>),
}

impl Target {
    const SHORT: usize = 62;

    fn of(name: &str) -> Target {
        if name.len() > Target::SHORT {
            return Target::Long(name.into());
        }
        let mut short = [0; Target::SHORT];
        short[..name.len()].copy_from_slice(name.as_bytes());
        Target::Short(short, name.len() as u8)
    }

    fn as_str(&self) -> &str {
        match self {
            Target::None => OTHERS,
            // It was one before.
            Target::Short(bytes, len) => std::str::from_utf8(&bytes[..usize::from(*len)]).unwrap_or(OTHERS),
            Target::Long(name) => name,
        }
    }
}

/// Takes one event's text and queues it as one line when it is dropped.
#[derive(Debug)]
pub struct LineWriter<'a> {
    lines: &'a Lines,
    level: Level,
    target: Target,
    text: Vec<u8>,
}

impl io::Write for LineWriter<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        // One byte more than fits says that it was longer.
        let room = (LINE_BYTES + 1).saturating_sub(self.text.len());
        self.text.extend_from_slice(&text[..text.len().min(room)]);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineWriter<'_> {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            self.lines.send(self.level, self.target.as_str(), std::mem::take(&mut self.text));
        }
    }
}

/// Keeps the sink's thread. Dropping it writes what is queued, at most for [`FINISH`](crate::queue::batch::FINISH), and ends it.
#[derive(Debug)]
pub struct Guard(Batcher<Line>);

impl Guard {
    /// Figures of the batches.
    pub fn stats(&self) -> batch::Stats {
        self.0.stats()
    }

    /// Writes what is queued, at most until `longest` has passed, and ends the thread. What is logged afterwards is refused and counted.
    pub fn finish(self, longest: Duration) -> Finished {
        self.0.finish(longest)
    }
}
