//! Reading the store: once, and then again every 100 ms from where it left off.
//!
//! One look costs the same however long the log is: it begins at a position. A quiet follower wakes ten times a second;
//! every 2 s without news it looks whether the supervisor still lives, and says on stderr, once, when it does not. It
//! goes on then: the next `plimsoll run` of the same name continues the same log.
//!
//! Output that ends also shows what is not final yet (an unfinished line, a gap that still grows): every byte that was
//! taken is shown or counted at every moment. A follower shows these once they are complete.

use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use plimsoll::clock::{Clock as _, MonotonicClock};
use plimsoll_store::{Cursor, Entry, Query, Reader, StoreError};

use super::Lines;
use super::out::{Ended, Out};
use super::show::Show;
use crate::exit::Failure;
use crate::layout::Layout;
use crate::output;
use crate::say;
use crate::snapshot::STALE_AFTER_SECONDS;

/// Between two looks.
const POLL: Duration = Duration::from_millis(100);
/// Without news for so long: is anybody there?
const QUIET: Duration = Duration::from_secs(2);
/// The newest so many entries are kept in memory to be shown; for more, all are counted first.
const KEPT_ENTRIES: u64 = 1000;

/// Why there is nothing more.
#[derive(Debug)]
pub(super) enum End {
    Out(Ended),
    Store(StoreError),
}

/// Whether somebody writes this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Lives,
    /// Dead or hanging, and did not close the log.
    Stale {
        age: Duration,
        /// Its process is gone, so it does not hang.
        is_dead: bool,
    },
    /// The last one closed the log in order, or there never was one.
    Ended,
}

/// Reads one name's logs and writes them out.
pub(super) struct Follower {
    layout: Layout,
    reader: Reader,
    query: Query,
    cursor: Option<Cursor>,
    show: Show,
    out: Out,
    /// What was last said about the supervisor.
    said: Option<std::mem::Discriminant<Life>>,
}

impl Follower {
    /// Opens the store of `layout`.
    ///
    /// # Errors
    /// The store cannot be opened, or nothing was ever stored.
    pub(super) fn open(layout: Layout, query: Query, show: Show, out: Out) -> Result<Follower, Failure> {
        let reader = Reader::open(&layout.home())?;
        Ok(Follower { layout, reader, query, cursor: None, show, out, said: None })
    }

    /// Writes what is there now; how many entries that was.
    ///
    /// # Errors
    /// [`End`].
    pub(super) fn first(&mut self, lines: Lines, ends_here: bool) -> Result<u64, End> {
        self.tell_life(!ends_here);
        let mut shown = match lines {
            Lines::All => self.look(0)?,
            Lines::Newest(most @ ..=KEPT_ENTRIES) => self.newest(usize::try_from(most).unwrap_or(usize::MAX))?,
            Lines::Newest(most) => {
                let all = self.reader.count(&self.query).map_err(End::Store)?;
                self.look((all.lines + all.gaps).saturating_sub(most))?
            }
        };
        if ends_here && lines != Lines::Newest(0) {
            shown += self.write(0, |reader, query, _, sink| reader.pending(query, sink).map(|()| None))?;
        }
        self.out.flush().map_err(End::Out)?;
        Ok(shown)
    }

    /// Goes on until the reader goes away or the store cannot be read.
    pub(super) fn follow(&mut self) -> End {
        let clock = MonotonicClock;
        let mut news = clock.now();
        loop {
            if let Err(end) = self.out.sleep(POLL) {
                return End::Out(end);
            }
            match self.look(0) {
                Ok(0) => {}
                Ok(_) => news = clock.now(),
                Err(end) => return end,
            }
            if let Err(end) = self.out.flush() {
                return End::Out(end);
            }
            if clock.now().saturating_sub(news) >= QUIET {
                news = clock.now();
                self.tell_life(true);
            }
        }
    }

    /// Writes what is there from the cursor on but the first `skip`, and moves the cursor.
    fn look(&mut self, skip: u64) -> Result<u64, End> {
        self.write(skip, |reader, query, from, sink| reader.read(query, from, sink).map(Some))
    }

    fn newest(&mut self, most: usize) -> Result<u64, End> {
        self.write(0, |reader, query, _, sink| reader.tail(query, most, sink).map(Some))
    }

    /// Writes what `read` hands out but the first `skip`; how many entries that was.
    fn write(
        &mut self,
        skip: u64,
        read: impl FnOnce(&mut Reader, &Query, Option<Cursor>, Sink<'_>) -> Read,
    ) -> Result<u64, End> {
        let (mut seen, mut ended) = (0_u64, None);
        let (show, out) = (&mut self.show, &mut self.out);
        let mut sink = |entry: Entry<'_>| {
            seen += 1;
            if seen <= skip {
                return ControlFlow::Continue(());
            }
            if let Some(words) = show.gap_beside(&entry) {
                say::note(words);
            }
            show.entry(&entry, &mut out.buffer);
            match out.lines_added() {
                Ok(()) => ControlFlow::Continue(()),
                Err(end) => {
                    ended = Some(end);
                    ControlFlow::Break(())
                }
            }
        };
        let read = read(&mut self.reader, &self.query, self.cursor, &mut sink);
        self.show.end(&mut self.out.buffer);
        if let Some(end) = ended {
            return Err(End::Out(end));
        }
        if let Some(cursor) = read.map_err(End::Store)? {
            self.cursor = Some(cursor);
        }
        Ok(seen.saturating_sub(skip))
    }

    /// Says on stderr, once per change, when nobody writes this log; that all is well only to a follower.
    fn tell_life(&mut self, following: bool) {
        let life = self.life();
        let before = self.said.replace(std::mem::discriminant(&life));
        if before == self.said {
            return;
        }
        let name = self.layout.name();
        match life {
            Life::Stale { age, is_dead } => {
                let supervisor = if is_dead { "died" } else { "gives no sign of life" };
                say::note(format_args!("{name} is {}: its supervisor {supervisor}", output::stale(age)));
            }
            Life::Ended if following => say::note(format_args!("{name} is not running; its next run continues here")),
            Life::Lives if following && before.is_some() => say::note(format_args!("{name} runs again")),
            Life::Ended | Life::Lives => {}
        }
    }

    fn life(&mut self) -> Life {
        match self.reader.heartbeat_age() {
            Ok(Some(age)) => {
                let is_dead = is_dead(&self.layout.lock());
                if is_dead || age.as_secs_f64() > STALE_AFTER_SECONDS {
                    Life::Stale { age, is_dead }
                } else {
                    Life::Lives
                }
            }
            // What cannot be read is told by the next look.
            Ok(None) | Err(_) => Life::Ended,
        }
    }
}

type Sink<'a> = &'a mut dyn FnMut(Entry<'_>) -> ControlFlow<()>;
type Read = Result<Option<Cursor>, StoreError>;

/// The process whose pid stands in the lock file is gone. False where that cannot be told.
fn is_dead(lock: &Path) -> bool {
    let mut text = String::new();
    let read = std::fs::File::open(lock).and_then(|file| file.take(32).read_to_string(&mut text));
    match text.trim().parse::<u32>() {
        Ok(pid) if read.is_ok() => !Path::new(&format!("/proc/{pid}")).exists(),
        _ => false,
    }
}
