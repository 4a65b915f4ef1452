//! The token filter of a chunk: which words are in it, in 12 bits a distinct word, wrong for one chunk in a thousand that lacks a word.
//!
//! A *token* is a run of ASCII letters and digits, in either case; everything else, bytes of other scripts too, only ends it. Stored are
//! tokens of at least [`MIN_TOKEN_BYTES`], and pairs of tokens that begin with a digit and have just a `.` between them: without these
//! an address such as `203.0.113.77` could not be told from its parts.
//!
//! It is a Golomb-coded set of 32-bit hashes: cut into buckets of about 128, each with its own checksum, so a look-up reads 16 bytes of
//! header, 16 of directory, and about 190 of one bucket. Little endian:
//!
//! | bytes | field |
//! |---|---|
//! | 0..2 | `P` `t` |
//! | 2, 3 | version, 1; Rice parameter, 10 |
//! | 4..8, 8..12 | number of hashes; of buckets (b) |
//! | 12..16 | CRC-32 of bytes 0..12 |
//! | 16 + 8 i.. | of bucket i: where it ends behind the directory, and the CRC-32 of its bytes |
//! | 16 + 8 b.. | the buckets |
//!
//! A hash h lies in bucket (h × b) >> 32 with the value ((h × b) mod 2^32) >> 15. A bucket holds its values in rising order, each as the
//! difference to the one before (the first: to 0): its upper bits as so many zeros and a one, then its lower 10 bits; from each byte's
//! lowest bit up, zeros at the end.
//!
//! What a filter says no to is not in its chunk. A filter that cannot be read says yes. Memory while a chunk is sealed: 8 to 16 bytes a
//! distinct token, at most 2 MiB, 3 while it grows; a chunk with more than [`MAX_TOKENS`] has no filter.

/// Shorter tokens are not stored: there are so few that every chunk has them.
pub(crate) const MIN_TOKEN_BYTES: usize = 3;
/// A chunk with more distinct tokens (1 MiB has at most 262,144) gets no filter.
pub(crate) const MAX_TOKENS: usize = 1 << 18;
const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 8;
const VERSION: u8 = 1;
/// Hashes to a bucket, on the average.
const PER_BUCKET: usize = 128;
/// Bits of a value in a bucket: 2^17 / 128 = 1,024, of which one hits by chance.
const VALUE_SHIFT: u32 = 15;
const RICE: u32 = 10;
/// No bucket of an honest filter is longer.
const MAX_BUCKET_BYTES: usize = 4096;
const BLOCK: usize = 64;
/// What may be read behind a block.
const SLACK: usize = 16;

/// The distinct tokens of a chunk's text.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// Open addressing, at most half full; 0 is free.
    table: Vec<u32>,
    count: usize,
    too_many: bool,
}

impl Tokens {
    /// All tokens of `text`, which gets zeros behind its end for a while.
    pub(crate) fn of(text: &mut Vec<u8>) -> Tokens {
        let len = text.len();
        text.resize((len + 1).next_multiple_of(BLOCK) + SLACK, 0);
        // As many as there are of a word list that every chunk has most of: it need not grow then.
        let size = (len / 16).next_power_of_two().clamp(1 << 10, 1 << 16);
        let mut tokens = Tokens { table: vec![0; size], count: 0, too_many: false };
        each_token(text, &mut tokens);
        text.truncate(len);
        tokens
    }

    #[inline]
    fn add(&mut self, hash: u32) {
        let mask = self.table.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match self.table[at] {
                0 => break,
                there if there == hash => return,
                _ => at = (at + 1) & mask,
            }
        }
        if self.count == MAX_TOKENS {
            self.too_many = true;
            return;
        }
        self.table[at] = hash;
        self.count += 1;
        if self.count * 2 > self.table.len() {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        let larger = vec![0; self.table.len() * 2];
        let mask = larger.len() - 1;
        for hash in std::mem::replace(&mut self.table, larger).into_iter().filter(|hash| *hash != 0) {
            let mut at = hash as usize & mask;
            while self.table[at] != 0 {
                at = (at + 1) & mask;
            }
            self.table[at] = hash;
        }
    }

    /// The filter; `None` for more than [`MAX_TOKENS`].
    pub(crate) fn filter(self) -> Option<Vec<u8>> {
        if self.too_many {
            return None;
        }
        let mut hashes = self.table;
        hashes.retain(|hash| *hash != 0);
        hashes.sort_unstable();
        let buckets = hashes.len().div_ceil(PER_BUCKET).max(1);
        let mut out = vec![0u8; HEADER_BYTES + ENTRY_BYTES * buckets];
        out.reserve(hashes.len() * 3 / 2 + buckets);
        out[..4].copy_from_slice(&[b'P', b't', VERSION, RICE as u8]);
        put(&mut out, 4, hashes.len() as u32);
        put(&mut out, 8, buckets as u32);
        let sum = crc32fast::hash(&out[..12]);
        put(&mut out, 12, sum);
        let data = out.len();
        let mut hashes = hashes.into_iter().peekable();
        for bucket in 0..buckets {
            let from = out.len();
            let mut bits = Bits { out: &mut out, word: 0, used: 0 };
            let mut before = 0;
            let mut first = true;
            while let Some((_, value)) = hashes.peek().map(|hash| place(*hash, buckets)).filter(|(at, _)| *at == bucket)
            {
                hashes.next();
                if first || value != before {
                    bits.code(value - before);
                }
                (before, first) = (value, false);
            }
            bits.end();
            let sum = crc32fast::hash(&out[from..]);
            let end = (out.len() - data) as u32;
            put(&mut out, HEADER_BYTES + ENTRY_BYTES * bucket, end);
            put(&mut out, HEADER_BYTES + ENTRY_BYTES * bucket + 4, sum);
        }
        Some(out)
    }
}

fn put(out: &mut [u8], at: usize, value: u32) {
    out[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn place(hash: u32, buckets: usize) -> (usize, u32) {
    let product = u64::from(hash) * buckets as u64;
    ((product >> 32) as usize, (product as u32) >> VALUE_SHIFT)
}

/// Writes Rice codes, from each byte's lowest bit up.
struct Bits<'a> {
    out: &'a mut Vec<u8>,
    word: u64,
    used: u32,
}

impl Bits<'_> {
    fn code(&mut self, value: u32) {
        let (mut high, low) = (value >> RICE, u64::from(value & ((1 << RICE) - 1)));
        while high >= 16 {
            self.bits(0, 16);
            high -= 16;
        }
        self.bits((1 | low << 1) << high, high + 1 + RICE);
    }

    /// At most 32 at a time.
    fn bits(&mut self, value: u64, count: u32) {
        self.word |= value << self.used;
        self.used += count;
        if self.used >= 32 {
            self.out.extend_from_slice(&(self.word as u32).to_le_bytes());
            self.word >>= 32;
            self.used -= 32;
        }
    }

    fn end(self) {
        self.out.extend_from_slice(&self.word.to_le_bytes()[..self.used.div_ceil(8) as usize]);
    }
}

/// Whether a bucket has this value.
fn bucket_has(bytes: &[u8], wanted: u32) -> bool {
    let bit = |at: usize| bytes.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
    let (mut at, end, mut value) = (0, bytes.len() * 8, 0u32);
    let mut first = true;
    loop {
        let mut high = 0u32;
        while !bit(at) {
            at += 1;
            high += 1;
            if at >= end {
                return false;
            }
        }
        at += 1;
        let low = (0..RICE as usize).fold(0, |low, i| low | u32::from(bit(at + i)) << i);
        at += RICE as usize;
        value = if first { 0 } else { value }.saturating_add(high << RICE | low);
        first = false;
        if value >= wanted {
            return value == wanted;
        }
    }
}

/// What a text must have for a pattern to be found in it: all of one of these lists of hashes. No list at all: nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needed {
    pub(crate) any_of: Vec<Vec<u32>>,
}

impl Needed {
    pub(crate) fn is_nothing(&self) -> bool {
        self.any_of.is_empty()
    }

    /// Whether the text of this filter may have what is needed; `read` fills a buffer from an offset of the filter, and says whether it
    /// could.
    pub(crate) fn may_be_in(&self, read: &mut dyn FnMut(&mut [u8], usize) -> bool) -> bool {
        let mut head = [0u8; HEADER_BYTES];
        if self.is_nothing() || !read(&mut head, 0) {
            return true;
        }
        let field = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let known = head[..4] == [b'P', b't', VERSION, RICE as u8] && crc32fast::hash(&head[..12]) == field(12);
        let buckets = field(8) as usize;
        if !known || buckets == 0 {
            return true;
        }
        self.any_of.iter().any(|all| all.iter().all(|hash| has(*hash, buckets, read)))
    }
}

fn has(hash: u32, buckets: usize, read: &mut dyn FnMut(&mut [u8], usize) -> bool) -> bool {
    let (bucket, value) = place(hash, buckets);
    // The end of the bucket before, its checksum, the end of this one, its checksum.
    let mut entries = [0u8; 2 * ENTRY_BYTES];
    let at = HEADER_BYTES + ENTRY_BYTES * bucket;
    let whole = if bucket == 0 { read(&mut entries[ENTRY_BYTES..], at) } else { read(&mut entries, at - ENTRY_BYTES) };
    let field = |at: usize| u32::from_le_bytes([entries[at], entries[at + 1], entries[at + 2], entries[at + 3]]);
    let (from, to) = (field(0) as usize, field(8) as usize);
    if !whole || to < from || to - from > MAX_BUCKET_BYTES {
        return true;
    }
    let mut bytes = [0u8; MAX_BUCKET_BYTES];
    let bytes = &mut bytes[..to - from];
    if !read(bytes, HEADER_BYTES + ENTRY_BYTES * buckets + from) || crc32fast::hash(bytes) != field(12) {
        return true;
    }
    bucket_has(bytes, value)
}

const ONES: u64 = 0x0101_0101_0101_0101;
/// Set in every digit, and what tells a small letter from a capital one.
const CASE: u64 = 0x20 * ONES;

/// Bit i: byte i of the eight is an ASCII letter or digit.
#[inline]
fn word_mask(x: u64) -> u64 {
    let y = x & (0x7f * ONES);
    let lower = y | CASE;
    let letter = (lower + 0x1f * ONES) & !(lower + 0x05 * ONES);
    let digit = (y + 0x50 * ONES) & !(y + 0x46 * ONES);
    let word = (letter | digit) & !x & (0x80 * ONES);
    (word >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

#[inline]
fn load(text: &[u8], at: usize) -> u64 {
    text.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Walks over `text`, which ends in zeros: whole blocks and [`SLACK`] more.
#[inline]
fn each_token(text: &[u8], tokens: &mut Tokens) {
    let blocks = (text.len() - SLACK) / BLOCK;
    let (mut inside, mut start) = (0u64, 0usize);
    // The token before, if it began with a digit: where it ended, and its hash.
    let mut number = (usize::MAX - 1, 0u64);
    for block in 0..blocks {
        let base = block * BLOCK;
        let mut mask = 0u64;
        for i in 0..8 {
            mask |= word_mask(load(text, base + 8 * i)) << (8 * i);
        }
        // Where words begin and end: a change from the byte before.
        let mut changes = mask ^ (mask << 1 | inside);
        let mut open = inside == 1;
        inside = mask >> 63;
        while changes != 0 {
            let at = base + changes.trailing_zeros() as usize;
            changes &= changes - 1;
            if !open {
                start = at;
                open = true;
                continue;
            }
            open = false;
            let hash = hash(text, start, at);
            if at - start >= MIN_TOKEN_BYTES {
                tokens.add(short(hash));
            }
            if text[start].is_ascii_digit() {
                if number.0.wrapping_add(1) == start && text[number.0] == b'.' {
                    tokens.add(pair(number.1, hash));
                }
                number = (at, hash);
            }
        }
    }
}

/// Of the token at `start..end`, with 16 bytes behind it that may be read. The common lengths go one way, without a branch to guess.
#[inline]
fn hash(text: &[u8], start: usize, end: usize) -> u64 {
    let (mut at, mut state) = (start, 0u64);
    while end - at > 16 {
        state = mix(state ^ (load(text, at) | CASE));
        at += 8;
    }
    let len = end - at;
    let first = (load(text, at) | CASE) & lowest_bytes(len.min(8));
    let second = (load(text, at + 8) | CASE) & lowest_bytes(len.saturating_sub(8));
    mix(state ^ first ^ second.wrapping_mul(0xa076_1d64_78bd_642f))
}

/// A mask of the lowest `count` bytes, at most 8.
#[inline]
fn lowest_bytes(count: usize) -> u64 {
    let mask = (1u64 << (8 * (count & 7))).wrapping_sub(1);
    if count == 8 { u64::MAX } else { mask }
}

#[inline]
fn mix(value: u64) -> u64 {
    let once = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (once ^ once >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

#[inline]
fn short(hash: u64) -> u32 {
    ((hash >> 32) as u32).max(1)
}

#[inline]
fn pair(first: u64, second: u64) -> u32 {
    short(mix(first.rotate_left(23) ^ second))
}

/// The hash under which a whole token is stored; `None` for one that is not.
pub(crate) fn token_hash(token: &[u8]) -> Option<u32> {
    (token.len() >= MIN_TOKEN_BYTES).then(|| short(padded_hash(token)))
}

/// The hash under which `first.second` is stored; `None` if that is not.
pub(crate) fn pair_hash(first: &[u8], second: &[u8]) -> Option<u32> {
    let number = |token: &[u8]| token.first().is_some_and(u8::is_ascii_digit);
    (number(first) && number(second)).then(|| pair(padded_hash(first), padded_hash(second)))
}

fn padded_hash(token: &[u8]) -> u64 {
    let mut padded = token.to_vec();
    padded.resize(token.len() + SLACK, 0);
    hash(&padded, 0, token.len())
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
