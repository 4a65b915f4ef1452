//! The hot window: chunks that were read lately, or loaded ahead, decompressed in memory, so that the newest lines cost no disk and no
//! decompression. Shared by the readers of one process, whatever their directories.
//!
//! Bounded by `limit_bytes` (default 16 MiB; 0 keeps nothing) over all of them; the chunk that was used longest ago goes first. It
//! holds nothing that is not on disk: [`HotWindow::give_back`] loses nothing, the next reader only decompresses again. So it can be told to
//! give memory back at any time: plain values go in and out, and the program that knows who is short of memory joins them.
//!
//! A search through everything does not push out what the newest lines need: it adds only what there is room for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashlink::LinkedHashMap;
use parking_lot::Mutex;

use crate::chunk::Chunk;

/// Default of [`HotWindow::new`]'s limit: 16 MiB, about 16 chunks.
pub const DEFAULT_HOT_BYTES: u64 = 16 << 20;

/// See the top of the module.
#[derive(Debug)]
pub struct HotWindow {
    kept: Mutex<Kept>,
    limit: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    given_back: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    /// Least recently used first.
    chunks: LinkedHashMap<Key, Arc<Chunk>>,
    held_bytes: u64,
}

/// A chunk as it is in its database now: a merge that takes its row over gives it another first position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Device and inode of the database.
    pub(crate) file: (u64, u64),
    pub(crate) chunk: i64,
    pub(crate) first_position: u64,
    pub(crate) last_position: u64,
}

/// What a window holds and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HotStats {
    /// Decompressed chunks in it.
    pub chunks: u64,
    /// Memory that they take.
    pub held_bytes: u64,
    /// Memory that they may take.
    pub limit_bytes: u64,
    /// Chunks that were wanted and there.
    pub hits_total: u64,
    /// Chunks that were wanted and had to be read.
    pub misses_total: u64,
    /// Memory that was given back because somebody asked for it.
    pub given_back_bytes_total: u64,
}

impl HotWindow {
    /// An empty window that holds at most `limit_bytes`.
    pub fn new(limit_bytes: u64) -> HotWindow {
        HotWindow {
            kept: Mutex::default(),
            limit: AtomicU64::new(limit_bytes),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            given_back: AtomicU64::new(0),
        }
    }

    /// Memory that it takes now.
    pub fn held_bytes(&self) -> u64 {
        self.kept.lock().held_bytes
    }

    /// Frees at least `bytes`, if there is so much, least recently used first; returns how much. What a reader is just using is freed
    /// when it goes on.
    pub fn give_back(&self, bytes: u64) -> u64 {
        let freed = self.shrink(|held, freed| freed < bytes && held > 0);
        self.given_back.fetch_add(freed, Ordering::Relaxed);
        freed
    }

    /// From now on it holds at most `limit_bytes`; what is too much is freed.
    pub fn set_limit(&self, limit_bytes: u64) {
        self.limit.store(limit_bytes, Ordering::Relaxed);
        self.shrink(|held, _| held > limit_bytes);
    }

    /// The figures of this moment.
    pub fn stats(&self) -> HotStats {
        let kept = self.kept.lock();
        HotStats {
            chunks: kept.chunks.len() as u64,
            held_bytes: kept.held_bytes,
            limit_bytes: self.limit.load(Ordering::Relaxed),
            hits_total: self.hits.load(Ordering::Relaxed),
            misses_total: self.misses.load(Ordering::Relaxed),
            given_back_bytes_total: self.given_back.load(Ordering::Relaxed),
        }
    }

    /// Whether it is there; asking is no use of it.
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.kept.lock().chunks.contains_key(key)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Chunk>> {
        let found = self.kept.lock().chunks.to_back(key).map(|chunk| chunk.clone());
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Keeps a chunk; without `push_out` only if there is room. False: it was not kept.
    pub(crate) fn put(&self, key: Key, chunk: &Arc<Chunk>, push_out: bool) -> bool {
        let bytes = chunk.held_bytes() as u64;
        let limit = self.limit.load(Ordering::Relaxed);
        if bytes > limit {
            return false;
        }
        let mut kept = self.kept.lock();
        if kept.held_bytes + bytes > limit && !push_out {
            return false;
        }
        if let Some(before) = kept.chunks.insert(key, chunk.clone()) {
            kept.held_bytes -= before.held_bytes() as u64;
        }
        kept.held_bytes += bytes;
        drop(kept);
        self.shrink(|held, _| held > limit);
        true
    }

    /// Drops chunks, each outside the lock, while `more` says so of what is held and what was freed.
    fn shrink(&self, more: impl Fn(u64, u64) -> bool) -> u64 {
        let mut freed = 0;
        loop {
            let mut kept = self.kept.lock();
            if !more(kept.held_bytes, freed) {
                return freed;
            }
            let Some((_, chunk)) = kept.chunks.pop_front() else { return freed };
            let bytes = chunk.held_bytes() as u64;
            kept.held_bytes -= bytes;
            freed += bytes;
            drop(kept);
            drop(chunk);
        }
    }
}

impl Default for HotWindow {
    fn default() -> HotWindow {
        HotWindow::new(DEFAULT_HOT_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stream;
    use crate::chunk::{Builder, Unpacker};
    use crate::split::Found;

    fn chunk(bytes: usize) -> Arc<Chunk> {
        let mut builder = Builder::new(Stream::Stdout);
        let text = vec![b'x'; bytes];
        builder.push(1, 1, Found::Line { text: &text, continued: false, unterminated: false });
        let sealed = builder.finish().expect("zstd compresses").expect("a line was pushed");
        let mut chunk = Chunk::default();
        chunk.load(&mut Unpacker::default(), &sealed.blob).expect("it is whole");
        Arc::new(chunk)
    }

    fn key(chunk: i64) -> Key {
        Key { file: (1, 1), chunk, first_position: 1, last_position: 7 }
    }

    #[test]
    fn the_least_recently_used_goes_first_and_the_limit_holds() {
        let one = chunk(10_000);
        let bytes = one.held_bytes() as u64;
        let hot = HotWindow::new(3 * bytes);
        for id in 1..=3 {
            assert!(hot.put(key(id), &one, true));
        }
        assert!(hot.get(&key(1)).is_some());
        assert!(!hot.put(key(4), &one, false), "there is no room");
        assert!(hot.put(key(4), &one, true));
        assert!(hot.get(&key(2)).is_none(), "it was used longest ago");
        assert!(!hot.put(key(5), &chunk(50_000), true), "larger than all");
        assert_eq!(hot.held_bytes(), 3 * bytes);
        let HotStats { chunks, hits_total, misses_total, .. } = hot.stats();
        assert_eq!((chunks, hits_total, misses_total), (3, 1, 1));
    }

    #[test]
    fn memory_is_given_back_down_to_nothing() {
        let one = chunk(10_000);
        let bytes = one.held_bytes() as u64;
        let hot = HotWindow::new(10 * bytes);
        for id in 1..=5 {
            hot.put(key(id), &one, true);
            hot.put(key(id), &one, true);
        }
        assert_eq!(hot.held_bytes(), 5 * bytes, "the same chunk counts once");
        assert_eq!(hot.give_back(bytes + 1), 2 * bytes);
        assert!(hot.get(&key(5)).is_some());
        hot.set_limit(bytes);
        assert_eq!(hot.held_bytes(), bytes);
        assert_eq!(hot.give_back(u64::MAX), bytes);
        assert_eq!(hot.give_back(1), 0);
        assert_eq!((hot.held_bytes(), hot.stats().given_back_bytes_total), (0, 3 * bytes));
        assert_eq!(Arc::strong_count(&one), 1, "nothing is held any more");
    }
}
