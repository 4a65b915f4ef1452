//! What held the memory when it ran out: figures written before the service leaves, without allocating.
//!
//! One text of at most [`TEXT_BYTES_MAX`] (4 KiB), put together in 20–60 µs: the protected number with its parts and slope,
//! what it grew by since it was last calm and since the start, the [`TOP`] largest accounts with their growth, the two gaps
//! (retained, unaccounted) and memory pressure. It goes to stderr and to a file that was opened beforehand; neither is waited
//! for before the drain: what cannot be written at once is written after the drain has begun, for at most [`PATIENCE`].
//! Everything is allocated by [`LastWords::new`] and the methods that follow it; from then on nothing is.

mod sink;
#[cfg(all(test, not(loom)))]
mod tests;
mod text;

use std::fmt::{self, Write as _};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::clock;
use crate::gauge::group::Group;
use crate::gauge::pressure::PressureGauge;
use crate::gauge::{Numbers, Protected, Root};
use crate::governor::Decision;
use crate::level::Level;
use crate::reclaim::ledger::{Figures, Ledger, MAX_ACCOUNTS};
use sink::Sink;
use text::{Mib, Signed, Text, Told, ToldSigned};

pub(crate) use sink::whisper;

/// The longest text; a pipe takes that much at once or not at all.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Accounts that are named.
pub const TOP: usize = 8;
/// A file of last words that is longer than this when it is opened begins anew.
pub const FILE_BYTES_MAX: u64 = 64 << 10;
/// How long what could not be written at once is tried, once the drain has begun.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Calm: Normal, and within one part in so many of the budget of what it was a poll interval before.
const CALM_PART: u64 = 100;

/// What the allocator says: allocated bytes and how old the figure is. It must not read now, only tell what was read last.
pub type LastLive = Arc<dyn Fn() -> Option<(u64, Duration)> + Send + Sync>;

/// What is happening, for [`LastWords::compose`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Scene<'a> {
    /// The decision that led to it.
    pub decision: &'a Decision,
    /// The parts of the reading behind it.
    pub protected: Option<&'a Protected>,
    /// What the reserve gives back for the drain, in bytes.
    pub reserve_bytes: u64,
    /// How long the drain may take.
    pub drain_deadline: Duration,
}

impl<'a> Scene<'a> {
    /// A scene with all its parts.
    pub fn new(
        decision: &'a Decision,
        protected: Option<&'a Protected>,
        reserve_bytes: u64,
        drain_deadline: Duration,
    ) -> Scene<'a> {
        Scene { decision, protected, reserve_bytes, drain_deadline }
    }
}

/// What was held at one moment.
struct Mark {
    known: bool,
    at: Duration,
    charged_bytes: u64,
    /// By the place of the account in the ledger, which never changes.
    held: Vec<u64>,
}

impl Mark {
    fn new() -> Mark {
        Mark { known: false, at: Duration::ZERO, charged_bytes: 0, held: Vec::with_capacity(MAX_ACCOUNTS) }
    }

    fn take(&mut self, at: Duration, charged_bytes: u64, ledger: Option<&Ledger>, figures: &mut Vec<Figures>) {
        *self = Mark { known: true, at, charged_bytes, held: std::mem::take(&mut self.held) };
        self.held.clear();
        if let Some(ledger) = ledger {
            ledger.figures(figures);
            self.held.extend(figures.iter().map(|account| account.held_bytes));
        }
    }
}

/// Puts the last words together and writes them. Give it to the [watchdog](crate::watchdog).
///
/// # Examples
/// ```no_run
/// use plimsoll::last_words::LastWords;
/// use plimsoll::reclaim::ledger::Ledger;
///
/// let ledger = Ledger::new();
/// let words = LastWords::new().stderr().ledger(&ledger).file("/var/lib/packets/last-words.txt".as_ref())?;
/// # let _ = words;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct LastWords {
    stderr: Option<Sink<io::Stderr>>,
    file: Option<Sink<std::fs::File>>,
    ledger: Option<Ledger>,
    live: Option<LastLive>,
    pressure: Option<PressureGauge>,
    start: Mark,
    calm: Mark,
    last_seen: Option<(Duration, u64)>,
    figures: Vec<Figures>,
    rows: Vec<Row>,
    text: Text,
}

/// One account: its place, what it holds, what it grew by since calm.
#[derive(Clone, Copy)]
struct Row {
    place: usize,
    held: u64,
    grown: i64,
}

impl Default for LastWords {
    fn default() -> LastWords {
        LastWords::new()
    }
}

impl LastWords {
    /// Says nothing to nobody yet.
    pub fn new() -> LastWords {
        LastWords {
            stderr: None,
            file: None,
            ledger: None,
            live: None,
            pressure: own_pressure(&Root::default()),
            start: Mark::new(),
            calm: Mark::new(),
            last_seen: None,
            figures: Vec::with_capacity(MAX_ACCOUNTS),
            rows: Vec::with_capacity(MAX_ACCOUNTS),
            text: Text::new(),
        }
    }

    /// Writes them to stderr.
    #[must_use]
    pub fn stderr(mut self) -> LastWords {
        self.stderr = Some(Sink::new(io::stderr()));
        self
    }

    /// Writes them to the end of a file too, which is opened (and made, 0600) now.
    ///
    /// # Errors
    /// What opening it says. A file longer than [`FILE_BYTES_MAX`] begins anew.
    pub fn file(mut self, path: &Path) -> io::Result<LastWords> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = std::fs::File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
        let kind = file.metadata()?;
        if kind.is_file() && kind.len() > FILE_BYTES_MAX {
            file.set_len(0)?;
        }
        self.file = Some(Sink::new(file));
        Ok(self)
    }

    /// Names the largest accounts of a ledger, and what they grew by.
    #[must_use]
    pub fn ledger(mut self, ledger: &Ledger) -> LastWords {
        self.ledger = Some(ledger.clone());
        self
    }

    /// Shows what the allocator said last. What the allocator says now would have to be asked for, which may wait; what it said last costs nothing.
    #[must_use]
    pub fn live(mut self, live: LastLive) -> LastWords {
        self.live = Some(live);
        self
    }

    /// Takes note of a decision: remembers what is held at the start and whenever it is calm. Allocates nothing.
    pub fn see(&mut self, decision: &Decision) {
        let (Some(charged), true) = (decision.charged_bytes, decision.level == Level::Normal) else { return };
        let near = decision.budget_bytes.unwrap_or(u64::MAX) / CALM_PART;
        let calm = self.last_seen.is_none_or(|(_, before)| charged.saturating_sub(before) <= near);
        // Not more often than once a second: it walks all accounts.
        if self.last_seen.is_some_and(|(at, _)| decision.at.saturating_sub(at) < Duration::from_secs(1)) {
            return;
        }
        self.last_seen = Some((decision.at, charged));
        if !self.start.known {
            self.start.take(decision.at, charged, None, &mut self.figures);
        }
        if calm {
            self.calm.take(decision.at, charged, self.ledger.as_ref(), &mut self.figures);
        }
    }

    /// Puts the text together and returns it. Allocates nothing and waits for nothing.
    pub fn compose(&mut self, scene: &Scene<'_>) -> &str {
        self.text.clear();
        self.rank();
        self.stderr.iter_mut().for_each(Sink::rewind);
        self.file.iter_mut().for_each(Sink::rewind);
        // The text only fails when it is full; then its last line says so.
        self.tell(scene).ok();
        self.text.close();
        self.text.as_str()
    }

    /// The accounts, largest first.
    fn rank(&mut self) {
        self.rows.clear();
        let Some(ledger) = &self.ledger else { return };
        ledger.figures(&mut self.figures);
        for (place, account) in self.figures.iter().enumerate().take(MAX_ACCOUNTS) {
            let before = self.calm.held.get(place).copied().unwrap_or(0);
            self.rows.push(Row { place, held: account.held_bytes, grown: difference(account.held_bytes, before) });
        }
        self.rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.held));
    }

    fn tell(&mut self, scene: &Scene<'_>) -> fmt::Result {
        let (decision, text) = (scene.decision, &mut self.text);
        let charged = decision.charged_bytes;
        write!(text, "plimsoll: memory pressure: {} of {}", Told(charged), Told(decision.budget_bytes))?;
        if let Some(growth) = decision.growth {
            let mib = growth.bytes_per_second / f64::from(1 << 20);
            write!(text, ", {mib:+.1} MiB/s (confidence {:.2})", growth.confidence)?;
        }
        let unix = clock::wall();
        writeln!(text, ", at unix time {}.{:03}", unix.as_secs(), unix.subsec_millis())?;
        if let Some(p) = scene.protected {
            let (anon, shmem, swap) = (Told(p.anon_bytes), Told(p.shmem_bytes), Told(p.swap_bytes));
            let (kernel, file) = (Told(p.kernel_bytes), Told(p.file_bytes));
            writeln!(
                text,
                "plimsoll: parts: anon {anon}, shmem {shmem}, swap {swap}, kernel {kernel}; page cache {file} (not counted)"
            )?;
        }
        if let (Some(now), true) = (charged, self.calm.known) {
            let (calm, start) = (&self.calm, &self.start);
            let since =
                |mark: &Mark| (Signed(difference(now, mark.charged_bytes)), decision.at.saturating_sub(mark.at));
            let ((by_calm, calm_ago), (by_start, start_ago)) = (since(calm), since(start));
            writeln!(
                text,
                "plimsoll: grown by {by_calm} since calm ({} s ago), {by_start} since the start ({} s ago)",
                calm_ago.as_secs(),
                start_ago.as_secs()
            )?;
        }
        if self.ledger.is_some() {
            text.write_str("plimsoll: holders:")?;
            for (n, row) in self.rows.iter().take(TOP).enumerate() {
                let (name, comma) = (&self.figures[row.place].name, if n > 0 { "," } else { "" });
                write!(text, "{comma} {name} {}", Mib(row.held))?;
                if self.calm.known {
                    write!(text, " ({} since calm)", Signed(row.grown))?;
                }
            }
            let others = self.rows.len().saturating_sub(TOP);
            writeln!(
                text,
                "{} {} accounts, {others} not named",
                if others > 0 { ", …" } else { ";" },
                self.rows.len()
            )?;
        }
        let live = self.live.as_ref().and_then(|live| live());
        let numbers = Numbers {
            protected_bytes: charged,
            live_bytes: live.map(|(bytes, _)| bytes),
            accounted_bytes: self.ledger.as_ref().map(|_| self.rows.iter().map(|row| row.held).sum()),
        };
        write!(text, "plimsoll: gaps: live {}", Told(numbers.live_bytes))?;
        if let Some((_, age)) = live {
            write!(text, " ({} ms ago)", age.as_millis())?;
        }
        let (retained, unaccounted) = (numbers.retained_bytes(), numbers.unaccounted_bytes());
        write!(text, ", accounted {}", Told(numbers.accounted_bytes))?;
        writeln!(text, "; retained {}, unaccounted {}", ToldSigned(retained), ToldSigned(unaccounted))?;
        match self.pressure.as_ref().map(PressureGauge::read) {
            Some(Ok(p)) => {
                let percent = |ratio: f64| ratio * 100.0;
                let full = p.full.map_or(f64::NAN, |full| percent(full.avg10_ratio));
                writeln!(
                    text,
                    "plimsoll: PSI memory avg10: some {:.2} %, full {full:.2} %",
                    percent(p.some.avg10_ratio)
                )?;
            }
            Some(Err(why)) => writeln!(text, "plimsoll: PSI: {why}")?,
            None => writeln!(text, "plimsoll: PSI: not available here")?,
        }
        let (reserve, deadline) = (Mib(scene.reserve_bytes), scene.drain_deadline.as_millis());
        writeln!(text, "plimsoll: draining: reserve of {reserve} given back, at most {deadline} ms, then exit 2")
    }

    /// What was put together last.
    pub fn text(&self) -> &str {
        self.text.as_str()
    }

    /// Writes what can be written without waiting. Allocates nothing.
    pub fn say(&mut self) {
        let text = self.text.as_str().as_bytes();
        if let Some(sink) = &mut self.stderr {
            sink.push(text, Duration::ZERO);
        }
        if let Some(sink) = &mut self.file {
            sink.push(text, Duration::ZERO);
        }
    }

    /// Writes the rest, for at most [`PATIENCE`] each: after the drain has begun. What a pipe does not take by then is lost.
    pub fn finish(&mut self) {
        let text = self.text.as_str().as_bytes();
        if let Some(sink) = &mut self.file {
            sink.push(text, PATIENCE);
        }
        if let Some(sink) = &mut self.stderr {
            sink.push(text, PATIENCE);
        }
    }

    /// Whether everything was written everywhere.
    pub fn is_said(&self) -> bool {
        let text = self.text.as_str().as_bytes();
        self.stderr.iter().all(|sink| sink.is_done(text)) && self.file.iter().all(|sink| sink.is_done(text))
    }

    /// Whether it writes anywhere at all.
    pub(crate) fn to_stderr(&self) -> bool {
        self.stderr.is_some()
    }
}

impl fmt::Debug for LastWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stderr, file) = (self.stderr.is_some(), self.file.is_some());
        f.debug_struct("LastWords").field("stderr", &stderr).field("file", &file).finish_non_exhaustive()
    }
}

/// The pressure of the own v2 group where it has one, else the machine's.
fn own_pressure(root: &Root) -> Option<PressureGauge> {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let group = Group::unified_of_pid(root, pid).ok().and_then(|group| group.pressure_file());
    let own = group.and_then(|file| PressureGauge::open(&file).ok());
    own.or_else(|| PressureGauge::host(root).ok())
}

fn difference(now: u64, before: u64) -> i64 {
    let size = i64::try_from(now.abs_diff(before)).unwrap_or(i64::MAX);
    if now >= before { size } else { -size }
}
