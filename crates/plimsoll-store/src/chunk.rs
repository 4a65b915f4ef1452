//! A chunk: about 10,000 lines or 1 MiB of one stream, sealed into one compressed blob.
//!
//! Blob, little endian:
//!
//! | bytes | field |
//! |---|---|
//! | 0..2 | `P` `c` |
//! | 2 | version: 1, or 2 if tag bit 7 is used |
//! | 3 | codec, 1 = zstd |
//! | 4..8 | number of entries |
//! | 8..12, 12..16 | length of the entries' part and of the text, uncompressed; together at most 16 MiB |
//! | 16..20 | CRC-32 of bytes 0..16 |
//! | 20.. | one zstd frame with content checksum: the entries' part, then the text |
//!
//! The text is every line's bytes and a line end. An entry is a tag byte and varints (LEB128; *signed* ones zigzag):
//!
//! | tag bits | meaning |
//! |---|---|
//! | 0..3 | the line's level, 0 = none, 1 trace … 6 fatal; 7 = a gap |
//! | 3, 4 | the line goes on in the next entry; it ended without a line end |
//! | 5 | a varint follows: how far behind the entry before. Else: by this line's length + 1 |
//! | 6 | a signed varint follows: nanoseconds since the entry before. Else: the same time |
//! | 7 | the line is the same as that of the entry before: no length and no text follow |
//!
//! then for a line: its length; for a gap: reason (byte), lines, bytes, and as signed varints its first time less the entry's time, and
//! its last time less its first. Before the first entry position and time are 0. In a flood a line costs 2 bytes here, before zstd; a run of
//! one line has its text once, and of each further one the time and the position: nothing is lost by it.

use std::io;

use zstd::zstd_safe::CParameter;

use crate::filter::Tokens;
use crate::frame::Frame;
use crate::split::{Found, Resume, Splitter};
use crate::{GapReason, LogLevel, Stream};

/// A stream with this much text is worth sealing.
pub(crate) const FULL_BYTES: usize = 1 << 20;
/// A stream with this many lines is worth sealing.
pub(crate) const FULL_LINES: u64 = 10_000;
/// Largest uncompressed chunk: what a reader makes room for.
pub(crate) const MAX_BYTES: usize = 16 << 20;
/// A smaller chunk gets no token filter: reading one would cost as much as reading the chunk.
pub(crate) const MIN_FILTERED_BYTES: usize = 16 << 10;
/// zstd's level: 1, the fastest that is not "fast".
const ZSTD_LEVEL: i32 = 1;
const HEADER_BYTES: usize = 20;
/// Of a blob in which no line repeats the one before: what the first programs read.
const VERSION: u8 = 1;
/// Of one in which one does.
const VERSION_REPEATS: u8 = 2;
const CODEC_ZSTD: u8 = 1;

const KIND_MASK: u8 = 7;
const KIND_GAP: u8 = 7;
const CONTINUED: u8 = 1 << 3;
const UNTERMINATED: u8 = 1 << 4;
const HAS_POSITION: u8 = 1 << 5;
const HAS_TIME: u8 = 1 << 6;
const REPEATED: u8 = 1 << 7;

/// One line or gap as a chunk holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item<'a> {
    pub(crate) position: u64,
    pub(crate) at_unix_ns: u64,
    /// Of a line; a gap has none.
    pub(crate) level: Option<LogLevel>,
    pub(crate) found: Found<'a>,
}

/// A finished chunk: the columns of its row, and its blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) stream: Stream,
    /// Positions of the first and the last entry.
    pub(crate) first_position: u64,
    pub(crate) last_position: u64,
    /// Earliest and latest time in it, a gap's times included.
    pub(crate) first_unix_ns: u64,
    pub(crate) last_unix_ns: u64,
    pub(crate) lines: u64,
    pub(crate) gaps: u64,
    /// Lines that lie in the gaps.
    pub(crate) gap_lines: u64,
    /// Bit n: a line of level n is in it; bit 0: one without a level.
    pub(crate) levels: u8,
    /// Length of the lines with their line ends.
    pub(crate) raw_bytes: u64,
    pub(crate) blob: Vec<u8>,
    /// See [`crate::filter`]; `None`: too little or too much is in it.
    pub(crate) filter: Option<Vec<u8>>,
}

/// Collects entries of one stream, in the order of their positions.
#[derive(Debug)]
pub(crate) struct Builder {
    entries: Vec<u8>,
    text: Vec<u8>,
    count: u32,
    position: u64,
    at_unix_ns: u64,
    /// Length of the newest line, which ends the text; `None` behind a gap.
    newest: Option<usize>,
    /// Some line repeats the one before.
    repeats: bool,
    /// All columns but the blob, as far as they are known.
    row: Sealed,
}

impl Builder {
    pub(crate) fn new(stream: Stream) -> Builder {
        let row = Sealed {
            stream,
            first_position: 0,
            last_position: 0,
            first_unix_ns: u64::MAX,
            last_unix_ns: 0,
            lines: 0,
            gaps: 0,
            gap_lines: 0,
            levels: 0,
            raw_bytes: 0,
            blob: Vec::new(),
            filter: None,
        };
        Builder {
            entries: Vec::new(),
            text: Vec::new(),
            count: 0,
            position: 0,
            at_unix_ns: 0,
            newest: None,
            repeats: false,
            row,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Time to seal: [`FULL_BYTES`] or [`FULL_LINES`] are reached.
    pub(crate) fn is_full(&self) -> bool {
        self.text.len() >= FULL_BYTES || u64::from(self.count) >= FULL_LINES
    }

    /// Takes the next entry.
    pub(crate) fn push(&mut self, position: u64, at_unix_ns: u64, found: Found<'_>) {
        let repeated = matches!(found, Found::Line { text, .. } if self.is_newest(text));
        self.repeats |= repeated;
        let row = &mut self.row;
        let mut tag = if repeated { REPEATED } else { 0 };
        let mut next = self.position.wrapping_add(1);
        match found {
            Found::Line { text, continued, unterminated } => {
                let level = LogLevel::number(LogLevel::detect(text));
                tag |= level;
                tag |= if continued { CONTINUED } else { 0 } | if unterminated { UNTERMINATED } else { 0 };
                next = next.wrapping_add(text.len() as u64);
                row.lines += 1;
                row.levels |= 1 << level;
                row.raw_bytes += text.len() as u64 + 1;
            }
            Found::Gap { lines, from_unix_ns, to_unix_ns, .. } => {
                tag |= KIND_GAP;
                row.gaps += 1;
                row.gap_lines += lines;
                row.first_unix_ns = row.first_unix_ns.min(from_unix_ns);
                row.last_unix_ns = row.last_unix_ns.max(to_unix_ns);
            }
        }
        if self.count == 0 {
            row.first_position = position;
        }
        row.last_position = position;
        row.first_unix_ns = row.first_unix_ns.min(at_unix_ns);
        row.last_unix_ns = row.last_unix_ns.max(at_unix_ns);
        if self.count == 0 || position != next {
            tag |= HAS_POSITION;
        }
        if self.count == 0 || at_unix_ns != self.at_unix_ns {
            tag |= HAS_TIME;
        }
        self.entries.push(tag);
        if tag & HAS_POSITION != 0 {
            varint(&mut self.entries, position.wrapping_sub(self.position));
        }
        if tag & HAS_TIME != 0 {
            varint(&mut self.entries, zigzag(self.at_unix_ns, at_unix_ns));
        }
        match found {
            Found::Line { .. } if repeated => {}
            Found::Line { text, .. } => {
                varint(&mut self.entries, text.len() as u64);
                self.text.extend_from_slice(text);
                self.text.push(b'\n');
                self.newest = Some(text.len());
            }
            Found::Gap { lines, bytes, from_unix_ns, to_unix_ns, reason } => {
                self.newest = None;
                self.entries.push(reason.number());
                for value in [lines, bytes, zigzag(at_unix_ns, from_unix_ns), zigzag(from_unix_ns, to_unix_ns)] {
                    varint(&mut self.entries, value);
                }
            }
        }
        self.count += 1;
        self.position = position;
        self.at_unix_ns = at_unix_ns;
    }

    /// Whether the newest entry is a line with this text.
    fn is_newest(&self, text: &[u8]) -> bool {
        // The lengths differ more often than not.
        self.newest == Some(text.len()) && self.text[self.text.len() - 1 - text.len()..].starts_with(text)
    }

    /// Compresses what was pushed; `None` if that is nothing. The builder is empty afterwards and holds no memory.
    pub(crate) fn finish(&mut self) -> io::Result<Option<Sealed>> {
        if self.is_empty() {
            return Ok(None);
        }
        let mut done = std::mem::replace(self, Builder::new(self.row.stream));
        let mut head = [0u8; HEADER_BYTES];
        let version = if done.repeats { VERSION_REPEATS } else { VERSION };
        head[..4].copy_from_slice(&[b'P', b'c', version, CODEC_ZSTD]);
        for (at, value) in [(4, done.count as usize), (8, done.entries.len()), (12, done.text.len())] {
            head[at..at + 4].copy_from_slice(&u32::try_from(value).map_err(io::Error::other)?.to_le_bytes());
        }
        let sum = crc32fast::hash(&head[..16]);
        head[16..].copy_from_slice(&sum.to_le_bytes());
        let filter = if done.text.len() < MIN_FILTERED_BYTES { None } else { Tokens::of(&mut done.text).filter() };
        let mut content = done.entries;
        content.extend_from_slice(&done.text);
        drop(done.text);
        let mut zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
        zstd.set_parameter(CParameter::ChecksumFlag(true))?;
        let mut blob = vec![0u8; HEADER_BYTES + zstd::zstd_safe::compress_bound(content.len())];
        blob[..HEADER_BYTES].copy_from_slice(&head);
        let len = zstd.compress_to_buffer(&content, &mut blob[HEADER_BYTES..])?;
        blob.truncate(HEADER_BYTES + len);
        blob.shrink_to_fit();
        Ok(Some(Sealed { blob, filter, ..done.row }))
    }
}

/// One builder for each stream, fed with frames: what the sealer works with.
#[derive(Debug)]
pub(crate) struct Builders {
    splitter: Splitter,
    builders: [Builder; 3],
}

/// What one seal writes, in one transaction.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) sealed: Vec<Sealed>,
    /// Where each stream goes on afterwards, in the order of [`Stream::ALL`].
    pub(crate) resume: [Resume; 3],
}

impl Builders {
    /// Goes on where the database says that sealing stopped.
    pub(crate) fn new(max_line_bytes: u32, resume: [Resume; 3]) -> Builders {
        Builders { splitter: Splitter::new(max_line_bytes, resume), builders: Stream::ALL.map(Builder::new) }
    }

    /// Takes the next frame of any stream. Frames that are sealed already are passed over.
    pub(crate) fn push(&mut self, frame: &Frame, payload: &[u8]) {
        let builder = &mut self.builders[frame.stream.index()];
        self.splitter.feed(frame, payload, &mut |position, found| builder.push(position, frame.at_unix_ns, found));
    }

    /// One of the streams has a chunk's worth.
    pub(crate) fn is_full(&self) -> bool {
        self.builders.iter().any(Builder::is_full)
    }

    /// Nothing complete is waiting to be sealed (an unfinished line may be).
    pub(crate) fn is_empty(&self) -> bool {
        self.builders.iter().all(Builder::is_empty)
    }

    /// The streams with an unfinished line that began before `position`: it keeps that part of the spool from being freed.
    pub(crate) fn unfinished_before(&self, position: u64) -> impl Iterator<Item = Stream> {
        self.splitter.unfinished_before(position)
    }

    /// Compresses everything complete; `next` is the position behind the last frame that was pushed. The unfinished lines stay, and
    /// pushing goes on from there: keep the batch until it is in the database.
    pub(crate) fn finish(&mut self, next: u64) -> io::Result<Batch> {
        let mut sealed = Vec::new();
        for builder in &mut self.builders {
            sealed.extend(builder.finish()?);
        }
        Ok(Batch { sealed, resume: Stream::ALL.map(|stream| self.splitter.resume(stream, next)) })
    }
}

/// A decompressed chunk; its buffer is used again by the next one.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    content: Vec<u8>,
    entries: usize,
    count: u32,
}

/// What decompressing needs besides the chunk: 160 KB, so whoever reads many chunks keeps it.
#[derive(Default)]
pub(crate) struct Unpacker(Option<zstd::bulk::Decompressor<'static>>);

impl Chunk {
    /// Decompresses and checks `blob`; the text says what is wrong with it.
    pub(crate) fn load(&mut self, unpacker: &mut Unpacker, blob: &[u8]) -> Result<(), String> {
        (self.entries, self.count) = (0, 0);
        self.content.clear();
        if blob.len() < HEADER_BYTES || blob[..2] != *b"Pc" {
            return Err("not a chunk".into());
        }
        if !(VERSION..=VERSION_REPEATS).contains(&blob[2]) || blob[3] != CODEC_ZSTD {
            return Err(format!(
                "a chunk of version {} and codec {}, this program knows 1 to 2 and 1",
                blob[2], blob[3]
            ));
        }
        let field = |at: usize| u32::from_le_bytes([blob[at], blob[at + 1], blob[at + 2], blob[at + 3]]);
        if crc32fast::hash(&blob[..16]) != field(16) {
            return Err("the checksum of the chunk's header does not match".into());
        }
        let (entries, text) = (field(8) as usize, field(12) as usize);
        let len = entries.saturating_add(text);
        if len > MAX_BYTES {
            return Err(format!("the chunk says that it has {len} bytes, allowed are {MAX_BYTES}"));
        }
        self.content.reserve_exact(len);
        let failed = |e: io::Error| format!("the chunk cannot be decompressed: {e}");
        let zstd = match &mut unpacker.0 {
            Some(zstd) => zstd,
            none => none.insert(zstd::bulk::Decompressor::new().map_err(failed)?),
        };
        let got = zstd.decompress_to_buffer(&blob[HEADER_BYTES..], &mut self.content).map_err(failed)?;
        if got != len {
            self.content.clear();
            return Err(format!("the chunk has {got} bytes, its header says {len}"));
        }
        (self.entries, self.count) = (entries, field(4));
        Ok(())
    }

    /// Memory that it takes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.content.capacity() + std::mem::size_of::<Chunk>()
    }

    /// All lines, each with its line end; one that is the same as the one before it only once.
    pub(crate) fn text(&self) -> &[u8] {
        &self.content[self.entries..]
    }

    /// The entries, oldest first. Nothing is copied. A chunk whose content contradicts itself ends early with an error.
    pub(crate) fn items(&self) -> Items<'_> {
        let (entries, text) = self.content.split_at(self.entries);
        Items { entries, text, text_bytes: text.len(), left: self.count, position: 0, at_unix_ns: 0, newest: None }
    }
}

/// See [`Chunk::items`].
#[derive(Clone, Debug)]
pub(crate) struct Items<'a> {
    entries: &'a [u8],
    text: &'a [u8],
    /// Length of all of the text.
    text_bytes: usize,
    left: u32,
    position: u64,
    at_unix_ns: u64,
    /// Text of the entry before, if that is a line.
    newest: Option<&'a [u8]>,
}

impl<'a> Items<'a> {
    /// Where in [`Chunk::text`] the line begins that came last; of a gap, nowhere that matters.
    pub(crate) fn line_start(&self) -> usize {
        let behind = self.text_bytes - self.text.len();
        behind - self.newest.map_or(0, |line| line.len() + 1).min(behind)
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.entries.split_first()?;
        self.entries = rest;
        Some(*first)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// The next line of the text.
    fn text(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        let (text, rest) = self.text.split_at_checked(len)?;
        self.text = rest.strip_prefix(b"\n")?;
        Some(text)
    }

    fn item(&mut self) -> Option<Item<'a>> {
        let tag = self.byte()?;
        let step = if tag & HAS_POSITION != 0 { Some(self.varint()?) } else { None };
        if tag & HAS_TIME != 0 {
            self.at_unix_ns = unzigzag(self.at_unix_ns, self.varint()?);
        }
        let (level, found, own) = if tag & KIND_MASK == KIND_GAP {
            let reason = GapReason::from_number(self.byte()?)?;
            let (lines, bytes) = (self.varint()?, self.varint()?);
            let from_unix_ns = unzigzag(self.at_unix_ns, self.varint()?);
            let to_unix_ns = unzigzag(from_unix_ns, self.varint()?);
            self.newest = None;
            (None, Found::Gap { lines, bytes, from_unix_ns, to_unix_ns, reason }, 1)
        } else {
            let text = if tag & REPEATED != 0 { self.newest? } else { self.text()? };
            self.newest = Some(text);
            let (continued, unterminated) = (tag & CONTINUED != 0, tag & UNTERMINATED != 0);
            let level = LogLevel::from_number(tag & KIND_MASK);
            (level, Found::Line { text, continued, unterminated }, text.len() as u64 + 1)
        };
        self.position = self.position.wrapping_add(step.unwrap_or(own));
        Some(Item { position: self.position, at_unix_ns: self.at_unix_ns, level, found })
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let item = self.item();
        if item.is_none() {
            self.left = 0;
        }
        Some(item.ok_or_else(|| "the chunk's entries contradict its text".to_string()))
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The way from `from` to `to`, small in both directions.
fn zigzag(from: u64, to: u64) -> u64 {
    let way = to.wrapping_sub(from).cast_signed();
    (way << 1 ^ way >> 63).cast_unsigned()
}

fn unzigzag(from: u64, way: u64) -> u64 {
    from.wrapping_add((way >> 1) ^ (way & 1).wrapping_neg())
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;
