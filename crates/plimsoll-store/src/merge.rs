//! Small chunks become large ones: a source that says a line a minute seals 1,440 chunks a day, and has about 20 of them after merging.
//!
//! Chunks are of a class by their size: below 2, 16 and 128 KiB, or 19, 156 and 1,250 entries. Eight of a class that follow each other, with
//! smaller ones between and behind them, are merged into one; larger ones stay. So a line alone comes into chunks of 8, 64, 512 and 4,096:
//! a byte is written again at most four times. One step, of at most [`MOST`] chunks a stream, follows a seal when nothing waits, or every [`EVERY_SEALS`] seals in a flood; it
//! runs on the sealer's thread, behind the seal, and holds two chunks (2 MiB, at most 17).
//!
//! The merged chunk takes the row of the last one in one transaction, so a kill leaves either. A chunk that cannot be read is left as it
//! is, and nothing across it is merged.

use crate::chunk::{Builder, Chunk, FULL_BYTES, FULL_LINES, Unpacker};
use crate::schema::{Database, Facts};
use crate::{StoreError, Stream};

/// In a flood: a step after so many seals.
pub(crate) const EVERY_SEALS: u64 = 64;
/// Fewer of a class are not worth writing them again.
const FEWEST: usize = 8;
/// Most chunks that one step merges.
const MOST: usize = 64;
/// How far back a step looks: what is older was looked at before.
const LOOK: usize = 256;

/// What steps of one life remember.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    /// Per stream: nothing at or before this position is looked at, since a chunk there cannot be read.
    unreadable: [u64; 3],
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    /// Chunks that are gone.
    pub(crate) from: u64,
    /// Chunks that stand in their place.
    pub(crate) into: u64,
}

impl Merger {
    /// Merges at most one run of each stream.
    pub(crate) fn step(&mut self, database: &mut Database) -> Result<Merged, StoreError> {
        let mut done = Merged::default();
        for stream in Stream::ALL {
            let mut facts = database.newest_facts(stream, self.unreadable[stream.index()], LOOK)?;
            facts.reverse();
            let Some(run) = find_run(&facts) else { continue };
            let run = &facts[run];
            match merge(database, stream, run)? {
                Ok(()) => {
                    done.from += run.len() as u64;
                    done.into += 1;
                }
                Err(position) => self.unreadable[stream.index()] = position,
            }
        }
        Ok(done)
    }
}

/// The classes whose chunks are merged.
const CLASSES: u32 = 3;

/// The size class of a chunk; [`CLASSES`] is one that stays as it is.
fn class(facts: &Facts) -> u32 {
    let of =
        |value: u64, full: u64| (0..CLASSES).find(|class| value < full >> (3 * (CLASSES - class))).unwrap_or(CLASSES);
    of(facts.raw_bytes, FULL_BYTES as u64).max(of(facts.entries, FULL_LINES))
}

/// The oldest run that is worth merging, of the lowest class that has one.
fn find_run(facts: &[Facts]) -> Option<std::ops::Range<usize>> {
    (0..CLASSES).find_map(|most| {
        let mut from = 0;
        while from < facts.len() {
            let (mut to, mut of_class, mut bytes, mut entries) = (from, 0, 0, 0);
            while let Some(next) = facts.get(to)
                && class(next) <= most
                && to - from < MOST
                && bytes + next.raw_bytes <= FULL_BYTES as u64
                && entries + next.entries <= FULL_LINES
            {
                (to, bytes, entries) = (to + 1, bytes + next.raw_bytes, entries + next.entries);
                of_class += usize::from(class(next) == most);
            }
            if of_class >= FEWEST {
                return Some(from..to);
            }
            from = to.max(from + 1);
        }
        None
    })
}

/// Merges a run; the position of a chunk that cannot be read is the inner error.
fn merge(database: &mut Database, stream: Stream, run: &[Facts]) -> Result<Result<(), u64>, StoreError> {
    let mut builder = Builder::new(stream);
    let (mut chunk, mut unpacker) = (Chunk::default(), Unpacker::default());
    for facts in run {
        let loaded = database.with_blob(facts.id, |blob| chunk.load(&mut unpacker, blob))?;
        if loaded.is_none_or(|loaded| loaded.is_err()) {
            return Ok(Err(facts.last_position));
        }
        for item in chunk.items() {
            let Ok(item) = item else { return Ok(Err(facts.last_position)) };
            builder.push(item.position, item.at_unix_ns, item.found);
        }
    }
    let sealed = builder.finish().map_err(StoreError::io("compress merged lines of", database.path()))?;
    let ids: Vec<i64> = run.iter().map(|facts| facts.id).collect();
    if let Some(sealed) = sealed {
        database.replace(&ids, &sealed)?;
    }
    Ok(Ok(()))
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
