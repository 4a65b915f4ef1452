//! Chunks on their way to a reader: decompressed, and searched for the query's pattern; in a long scan by helper threads, a few chunks
//! ahead of where it is.
//!
//! Bounds: the first [`ALONE`] chunks of a call are opened one by one by the caller's thread, so what finds enough in them costs no thread.
//! Then there are at most [`HELPERS`] threads, no more than there are cores, gone before the call returns, and at most [`AHEAD`] chunks on
//! their way, of all streams together: 1 to 2 MiB each and as much again for its blob, at most 32 MiB.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope};

use parking_lot::Mutex;

use super::archive::Identity;
use super::rows::{Blobs, Row};
use crate::GapReason;
use crate::chunk::{Chunk, Item, Items, Unpacker};
use crate::hot::{HotWindow, Key};
use crate::query::Pattern;
use crate::split::Found;

/// So many chunks of one call are opened before helpers are.
const ALONE: usize = 4;
/// Most helper threads.
const HELPERS: usize = 4;
/// Most chunks that wait, or are worked at, while there are helpers.
const AHEAD: usize = 2 * HELPERS;

/// Opens chunks for one call of a reader.
pub(super) struct Opener<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    pattern: Option<&'env Pattern>,
    hot: Option<&'env HotWindow>,
    file: Identity,
    /// What is opened here is worth keeping in the hot window.
    newest: bool,
    unpacker: Unpacker,
    helpers: Option<SyncSender<(Job, SyncSender<Opened>)>>,
    opened: usize,
    /// How many are opened before they are needed.
    ahead: usize,
    spare: Vec<(Vec<u8>, Chunk)>,
}

/// A chunk that is to be opened.
struct Job {
    row: Row,
    from: u64,
    source: Source,
}

enum Source {
    /// Compressed, and a buffer for what becomes of it.
    Blob(Vec<u8>, Chunk),
    /// It is in the hot window.
    Hot(Arc<Chunk>),
}

/// A chunk that can be read.
pub(super) struct Opened {
    pub(super) row: Row,
    /// What is before this position was handed out, or counted, before: the chunk was merged from several meanwhile.
    pub(super) from: u64,
    chunk: Arc<Chunk>,
    /// The buffer of the blob; `None`: it came from the hot window.
    blob: Option<Vec<u8>>,
    /// The chunk cannot be read: its row says what is missing.
    damaged: bool,
    /// Where the lines begin that have the pattern; `None`: there is no pattern.
    found: Option<Vec<usize>>,
}

/// A chunk that is opened already, or will be.
enum Coming {
    Here(Opened),
    Sent(Receiver<Opened>, Row),
}

/// Chunks of one stream on their way, in the order in which they are read.
#[derive(Default)]
pub(super) struct Queue(VecDeque<Coming>);

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The row of the chunk that is next.
    pub(super) fn next(&self) -> Option<Row> {
        self.0.front().map(|coming| match coming {
            Coming::Here(opened) => opened.row,
            Coming::Sent(_, row) => *row,
        })
    }
}

impl<'scope, 'env> Opener<'scope, 'env> {
    /// `newest`: what is opened is worth keeping in `hot`.
    pub(super) fn new(
        scope: &'scope Scope<'scope, 'env>,
        pattern: Option<&'env Pattern>,
        (hot, file): (Option<&'env HotWindow>, Identity),
        newest: bool,
    ) -> Opener<'scope, 'env> {
        let unpacker = Unpacker::default();
        let (helpers, opened, ahead, spare) = (None, 0, 0, Vec::new());
        Opener { scope, pattern, hot, file, newest, unpacker, helpers, opened, ahead, spare }
    }

    /// How many chunks may be on their way before they are needed.
    pub(super) fn ahead(&self) -> usize {
        self.ahead
    }

    /// Opens the chunk of `row`, which is there: read in the same transaction. It comes at the end of `queue`; `from`: [`Opened::from`].
    pub(super) fn open(
        &mut self,
        row: Row,
        from: u64,
        queue: &mut Queue,
        blobs: &mut Blobs<'_>,
    ) -> rusqlite::Result<()> {
        let source = match self.hot.and_then(|hot| hot.get(&key(self.file, &row))) {
            Some(chunk) => Source::Hot(chunk),
            None => {
                let (mut blob, chunk) = self.spare.pop().unwrap_or_default();
                blobs.read(row.id, &mut blob)?;
                Source::Blob(blob, chunk)
            }
        };
        self.opened += 1;
        if self.opened == ALONE {
            self.call_helpers();
        }
        let job = Job { row, from, source };
        queue.0.push_back(match &self.helpers {
            None => Coming::Here(job.open(self.pattern, &mut self.unpacker)),
            Some(helpers) => {
                let (reply, coming) = sync_channel(1);
                match helpers.send((job, reply)) {
                    Ok(()) => Coming::Sent(coming, row),
                    // Only if they all panicked, which the scope tells.
                    Err(refused) => Coming::Here(refused.0.0.open(self.pattern, &mut self.unpacker)),
                }
            }
        });
        Ok(())
    }

    /// The next chunk of a queue, opened.
    pub(super) fn take(&self, queue: &mut Queue) -> Option<Opened> {
        let opened = match queue.0.pop_front()? {
            Coming::Here(opened) => opened,
            Coming::Sent(coming, row) => coming.recv().unwrap_or_else(|_| Opened::lost(row)),
        };
        if let (Some(hot), Some(_), false) = (self.hot, &opened.blob, opened.damaged) {
            hot.put(key(self.file, &opened.row), &opened.chunk, self.newest);
        }
        Some(opened)
    }

    /// Takes the buffers of a chunk that is read, to use them again.
    pub(super) fn give_back(&mut self, opened: Opened) {
        if let (Some(blob), Some(chunk)) = (opened.blob, Arc::into_inner(opened.chunk))
            && self.spare.len() <= self.ahead
        {
            self.spare.push((blob, chunk));
        }
    }

    fn call_helpers(&mut self) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        if cores < 2 {
            return;
        }
        let (jobs, work) = sync_channel::<(Job, SyncSender<Opened>)>(AHEAD);
        let work = Arc::new(Mutex::new(work));
        for _ in 0..cores.min(HELPERS) {
            let (work, pattern) = (work.clone(), self.pattern);
            let help = move || {
                let mut unpacker = Unpacker::default();
                loop {
                    // One waits for work, the others for the lock.
                    let Ok((job, reply)) = work.lock().recv() else { return };
                    // Nobody may want it any more.
                    reply.send(job.open(pattern, &mut unpacker)).ok();
                }
            };
            if Builder::new().name("plimsoll-read".into()).spawn_scoped(self.scope, help).is_ok() {
                self.ahead = AHEAD;
            }
        }
        // Without a single thread the caller's goes on alone.
        self.helpers = (self.ahead > 0).then_some(jobs);
    }
}

impl Job {
    fn open(self, pattern: Option<&Pattern>, unpacker: &mut Unpacker) -> Opened {
        let (chunk, blob, damaged) = match self.source {
            Source::Hot(chunk) => (chunk, None, false),
            Source::Blob(blob, mut chunk) => {
                let damaged = chunk.load(unpacker, &blob).is_err();
                (Arc::new(chunk), Some(blob), damaged)
            }
        };
        let found = pattern.map(|pattern| pattern.lines_with_it(chunk.text()));
        Opened { row: self.row, from: self.from, chunk, blob, damaged, found }
    }
}

/// The chunk of `row` as a window knows it.
pub(super) fn key(file: Identity, row: &Row) -> Key {
    Key { file, chunk: row.id, first_position: row.first_position, last_position: row.last_position }
}

/// Decompresses the chunk of a row without searching it; `None`: it is damaged.
pub(super) fn load(row: &Row, blobs: &mut Blobs<'_>, unpacker: &mut Unpacker) -> rusqlite::Result<Option<Arc<Chunk>>> {
    let mut blob = Vec::new();
    blobs.read(row.id, &mut blob)?;
    let mut chunk = Chunk::default();
    Ok(chunk.load(unpacker, &blob).is_ok().then(|| Arc::new(chunk)))
}

impl Opened {
    fn lost(row: Row) -> Opened {
        Opened { row, from: row.first_position, chunk: Arc::default(), blob: None, damaged: true, found: None }
    }

    /// Its gaps, and its lines that have the pattern.
    pub(super) fn entries(&self) -> Entries<'_> {
        // Most chunks of a scan have nothing.
        let nothing = self.row.gaps == 0 && self.found.as_ref().is_some_and(Vec::is_empty);
        let items = (!self.damaged && !nothing).then(|| self.chunk.items());
        Entries { items, row: self.row, lost: self.damaged, found: self.found.as_deref() }
    }
}

/// See [`Opened::entries`]; in place of what cannot be read, a gap.
pub(super) struct Entries<'a> {
    items: Option<Items<'a>>,
    row: Row,
    lost: bool,
    /// Where lines begin that are still to come.
    found: Option<&'a [usize]>,
}

impl Entries<'_> {
    fn has_pattern(&mut self, line_start: usize) -> bool {
        let Some(found) = &mut self.found else { return true };
        while found.first().is_some_and(|start| *start < line_start) {
            *found = &found[1..];
        }
        found.first() == Some(&line_start)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        while let Some(items) = self.items.as_mut() {
            match items.next() {
                None => return None,
                Some(Err(_)) => (self.items, self.lost) = (None, true),
                Some(Ok(item)) => {
                    let line_start = items.line_start();
                    if matches!(item.found, Found::Gap { .. }) || self.has_pattern(line_start) {
                        return Some(item);
                    }
                }
            }
        }
        if !std::mem::take(&mut self.lost) {
            return None;
        }
        let row = self.row;
        let found = Found::Gap {
            lines: row.lines + row.gap_lines,
            bytes: row.raw_bytes,
            from_unix_ns: row.first_unix_ns,
            to_unix_ns: row.last_unix_ns,
            reason: GapReason::DatabaseLost,
        };
        Some(Item { position: row.last_position, at_unix_ns: row.last_unix_ns, level: None, found })
    }
}
