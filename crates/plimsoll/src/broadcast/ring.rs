//! The shared ring: every message once, in blocks of at most [`BLOCK_MESSAGES`]. No lock and no clock in here.
//!
//! A message has a number (0, 1, 2, …) and a place on a scale of bytes: what was published before it, each message with the
//! [`overhead`] of its place. A reader takes a reference to one block and reads from it without a lock and without
//! counting references of messages; a block's memory goes with its last holder, whole.
//!
//! A block has as many places as messages like its first would fill, so that what is counted and what is allocated differ by at most
//! the places that lighter or heavier messages after it leave empty ([`BLOCK_PART`] in all of one block), and its head of some 70 bytes.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::reclaim::ledger::Charge;

/// Messages in one block, and so in one [`Batch`](super::Batch), at most.
pub const BLOCK_MESSAGES: usize = 64;
/// A block is as heavy as this part of what a subscriber may be behind, or one message, at most.
const BLOCK_PART: u64 = 8;

/// What a message costs beside its own weight, in bytes: its place in the ring.
pub(super) const fn overhead<M>() -> u64 {
    size_of::<OnceLock<Entry<M>>>() as u64
}

pub(super) struct Entry<M> {
    message: M,
    /// The scale after this message.
    end_bytes: u64,
    _charge: Option<Charge<'static>>,
}

/// Messages with consecutive numbers, written once each, in order.
pub(super) struct Block<M> {
    first: u64,
    start_bytes: u64,
    entries: Box<[OnceLock<Entry<M>>]>,
    alive: Arc<AtomicU64>,
}

impl<M> Block<M> {
    /// The message at this place of the block, which was written before the place was given out.
    pub(super) fn message(&self, at: usize) -> Option<&M> {
        self.entries.get(at)?.get().map(|entry| &entry.message)
    }

    /// The scale before the message at this place.
    fn start_of(&self, at: usize) -> u64 {
        let before = at.checked_sub(1).and_then(|before| self.entries[before].get());
        before.map_or(self.start_bytes, |entry| entry.end_bytes)
    }

    fn bytes(&self) -> u64 {
        let last = self.entries.iter().map_while(OnceLock::get).last();
        last.map_or(0, |entry| entry.end_bytes - self.start_bytes)
    }
}

impl<M> Drop for Block<M> {
    fn drop(&mut self) {
        self.alive.fetch_sub(self.bytes(), Ordering::AcqRel);
    }
}

/// A run of messages in one block: from `at` on, `len` of them.
pub(super) struct Run<M> {
    pub(super) block: Arc<Block<M>>,
    pub(super) at: usize,
    pub(super) len: usize,
}

pub(super) struct Ring<M> {
    blocks: VecDeque<Arc<Block<M>>>,
    /// The number that the next message gets.
    head: u64,
    /// The scale after the newest message.
    head_bytes: u64,
    block_bytes: u64,
    alive: Arc<AtomicU64>,
}

impl<M> Ring<M> {
    /// Empty, for subscribers that may be so many bytes behind.
    pub(super) fn new(behind_bytes: u64) -> Ring<M> {
        let block_bytes = behind_bytes / BLOCK_PART;
        Ring { blocks: VecDeque::new(), head: 0, head_bytes: 0, block_bytes, alive: Arc::default() }
    }

    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Bytes in the ring.
    pub(super) fn bytes(&self) -> u64 {
        self.head_bytes - self.blocks.front().map_or(self.head_bytes, |block| block.start_bytes)
    }

    /// Bytes in the ring and in what readers still hold of what left it.
    pub(super) fn alive_bytes(&self) -> u64 {
        self.alive.load(Ordering::Acquire)
    }

    /// Bytes in blocks that are in nobody's hands: they go as soon as they leave the ring.
    pub(super) fn free_bytes(&self) -> u64 {
        let ends = self.blocks.iter().skip(1).map(|next| next.start_bytes).chain([self.head_bytes]);
        let free = self.blocks.iter().zip(ends).filter(|(block, _)| Arc::strong_count(block) == 1);
        free.map(|(block, end)| end - block.start_bytes).sum()
    }

    pub(super) fn push(&mut self, message: M, weight: u64, charge: Option<Charge<'static>>) {
        let fits = self.blocks.back().is_some_and(|block| {
            self.place(block) < block.entries.len() && self.head_bytes - block.start_bytes + weight <= self.block_bytes
        });
        if !fits {
            self.blocks.push_back(Arc::new(Block {
                first: self.head,
                start_bytes: self.head_bytes,
                entries: std::iter::repeat_with(OnceLock::new).take(self.places_for(weight)).collect(),
                alive: Arc::clone(&self.alive),
            }));
        }
        // There is a block: the one that had room, or the one just made.
        if let Some(block) = self.blocks.back() {
            let entry = Entry { message, end_bytes: self.head_bytes + weight, _charge: charge };
            let written = block.entries[self.place(block)].set(entry).is_ok();
            debug_assert!(written, "each place is written once");
            self.alive.fetch_add(weight, Ordering::AcqRel);
            self.head += 1;
            self.head_bytes += weight;
        }
    }

    /// How many places a block gets whose first message weighs so much.
    fn places_for(&self, weight: u64) -> usize {
        let places = self.block_bytes.checked_div(weight).unwrap_or(u64::MAX);
        usize::try_from(places).unwrap_or(usize::MAX).clamp(1, BLOCK_MESSAGES)
    }

    /// Bytes of places that no message has.
    #[cfg(all(test, not(loom)))]
    pub(super) fn empty_bytes(&self) -> u64 {
        let empty = self.blocks.iter().map(|block| block.entries.iter().filter(|entry| entry.get().is_none()).count());
        empty.sum::<usize>() as u64 * overhead::<M>()
    }

    /// The place in this block, the last one, that the next message would get.
    fn place(&self, block: &Block<M>) -> usize {
        (self.head - block.first) as usize
    }

    /// Where the message of this number is.
    fn find(&self, number: u64) -> Option<usize> {
        let first = self.blocks.front()?.first;
        let guess = (number.checked_sub(first)? as usize / BLOCK_MESSAGES).min(self.blocks.len() - 1);
        let holds = |index: usize| {
            let end = self.blocks.get(index + 1).map_or(self.head, |next| next.first);
            self.blocks.get(index).is_some_and(|block| block.first <= number && number < end)
        };
        // Blocks have that many but where messages are heavy.
        if holds(guess) {
            return Some(guess);
        }
        let index = self.blocks.partition_point(|block| block.first <= number).checked_sub(1)?;
        holds(index).then_some(index)
    }

    /// At most `most` messages from this number on, as far as they lie in one block. `None`: there is none yet.
    pub(super) fn run(&self, number: u64, most: usize) -> Option<Run<M>> {
        let index = self.find(number)?;
        let block = &self.blocks[index];
        let end = self.blocks.get(index + 1).map_or(self.head, |next| next.first);
        let len = usize::try_from(end - number).unwrap_or(most).min(most);
        Some(Run { block: Arc::clone(block), at: (number - block.first) as usize, len })
    }

    /// How many bytes who reads this message next is behind.
    pub(super) fn behind_bytes(&self, number: u64) -> u64 {
        match self.find(number) {
            Some(index) => {
                let block = &self.blocks[index];
                self.head_bytes - block.start_of((number - block.first) as usize)
            }
            None if number >= self.head => 0,
            None => self.bytes(),
        }
    }

    /// Lets go of the blocks that lie wholly before this number.
    pub(super) fn drop_before(&mut self, number: u64) {
        loop {
            let end = self.blocks.get(1).map_or(self.head, |next| next.first);
            if self.blocks.is_empty() || end > number {
                break;
            }
            self.blocks.pop_front();
        }
        if self.blocks.is_empty() {
            self.blocks.shrink_to(BLOCK_MESSAGES);
        }
    }

    /// The number after the oldest block; `None` when the ring is empty.
    pub(super) fn oldest_end(&self) -> Option<u64> {
        let second = self.blocks.get(1).map_or(self.head, |next| next.first);
        (!self.blocks.is_empty()).then_some(second)
    }
}

impl<M> fmt::Debug for Run<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("first", &(self.block.first + self.at as u64)).field("len", &self.len).finish()
    }
}
