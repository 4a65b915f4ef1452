//! What the tests of this crate share: a store in a temporary directory, numbered lines, and the accounting check: every line that
//! was written is stored once, in order, or lies in a gap that counts it.
#![allow(clippy::disallowed_methods)] // tests read their own small files

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::chunk::{Chunk, Unpacker};
use crate::frame::{Frame, GAP_BYTES, HEADER_BYTES, Kind};
use crate::open::SPOOL_DIR;
use crate::ring::{Found as FoundRing, Ring};
use crate::segment::FrameReader;
use crate::split::{Found, Resume, Splitter};
use crate::{GapReason, Intake, Settings, Stream};

mod accounting;
mod keeping;
mod kills;
mod trouble;

/// A place for one store.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("web")
    }

    pub(crate) fn ring(&self) -> PathBuf {
        self.dir.path().join("web.ring")
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings { ring_bytes: 256 << 10, spool_bytes: 4 << 20, ..Settings::new(self.path(), self.ring(), "web") }
    }
}

/// A small filesystem below a place, in memory; unmounted when dropped.
pub(crate) struct Small {
    pub(crate) path: PathBuf,
}

impl Small {
    /// `None`, which is said: this user may not mount.
    pub(crate) fn mount(place: &Place, options: &std::ffi::CStr) -> Option<Small> {
        let path = place.dir.path().join("small");
        std::fs::create_dir(&path).unwrap();
        match rustix::mount::mount("tmpfs", &path, "tmpfs", rustix::mount::MountFlags::empty(), Some(options)) {
            Ok(()) => Some(Small { path }),
            Err(e) => {
                eprintln!("skipped: a tmpfs cannot be mounted here: {e}");
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.path, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

/// A non-blocking pipe: `(to read, to write)`.
pub(crate) fn pipe() -> (OwnedFd, File) {
    use rustix::pipe::{PipeFlags, pipe_with};
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
    (read, File::from(write))
}

/// One program's output: numbered lines on stdout and stderr, written in pieces of any size.
pub(crate) struct Program {
    ends: BTreeMap<Stream, (OwnedFd, File)>,
    /// The number of the next line, and what of it is not written yet.
    next: BTreeMap<Stream, (u64, Vec<u8>)>,
    seed: u64,
}

impl Program {
    pub(crate) fn new(seed: u64) -> Program {
        let streams = [Stream::Stdout, Stream::Stderr];
        Program {
            ends: streams.map(|s| (s, pipe())).into(),
            next: streams.map(|s| (s, (0, Vec::new()))).into(),
            seed: seed | 1,
        }
    }

    pub(crate) fn random(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) % below
    }

    /// Writes `len` bytes of numbered lines, or what the pipe takes.
    pub(crate) fn print(&mut self, stream: Stream, len: usize) {
        let widest = self.random(300);
        let (number, rest) = self.next.get_mut(&stream).unwrap();
        while rest.len() < len {
            rest.extend_from_slice(format!("{number} ").as_bytes());
            rest.extend(std::iter::repeat_n(b'a' + (*number % 26) as u8, (*number * 7919 % (widest + 1)) as usize));
            rest.push(b'\n');
            *number += 1;
        }
        match self.ends.get_mut(&stream).unwrap().1.write(&rest[..len]) {
            Ok(n) => drop(rest.drain(..n)),
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
        }
    }

    /// Writes what is left of the current lines; the pipe must have room.
    pub(crate) fn finish_lines(&mut self, stream: Stream) {
        let (_, rest) = self.next.get_mut(&stream).unwrap();
        self.ends.get_mut(&stream).unwrap().1.write_all(rest).unwrap();
        rest.clear();
    }

    /// Lets the store take everything that the pipe has.
    pub(crate) fn deliver(&self, intake: &mut Intake, stream: Stream, at_unix_ns: u64) -> usize {
        let mut bytes = 0;
        loop {
            match intake.read_from(stream, self.ends[&stream].0.as_fd(), at_unix_ns) {
                Ok(landed) => {
                    assert_eq!(landed.data.len(), landed.bytes);
                    bytes += landed.bytes;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return bytes,
                Err(e) => panic!("read_from failed: {e}"),
            }
        }
    }

    pub(crate) fn read_end(&self, stream: Stream) -> &OwnedFd {
        &self.ends[&stream].0
    }

    /// Writes what is left of all lines and lets the store take it.
    pub(crate) fn finish(&mut self, intake: &mut Intake) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.deliver(intake, stream, 1);
            while !self.next[&stream].1.is_empty() {
                let (_, rest) = self.next.get_mut(&stream).unwrap();
                let n = self.ends.get_mut(&stream).unwrap().1.write(rest).unwrap();
                rest.drain(..n);
                self.deliver(intake, stream, 1);
            }
        }
    }

    /// How many complete lines were taken from the pipe, and whether a part of one more was.
    pub(crate) fn taken(&mut self, stream: Stream) -> (u64, bool) {
        let (to_read, to_write) = self.ends.get_mut(&stream).unwrap();
        let mut waiting = vec![0u8; rustix::io::ioctl_fionread(&*to_read).unwrap() as usize];
        let n = if waiting.is_empty() { 0 } else { rustix::io::read(&*to_read, &mut waiting).unwrap() };
        assert_eq!(n, waiting.len());
        to_write.write_all(&waiting).unwrap();
        let (number, rest) = &self.next[&stream];
        let behind = [waiting.as_slice(), rest].concat();
        let complete = number - behind.iter().filter(|b| **b == b'\n').count() as u64;
        (complete, !behind.is_empty() && !behind.starts_with(format!("{complete} ").as_bytes()))
    }

    /// How many complete lines were written.
    pub(crate) fn lines(&self, stream: Stream) -> u64 {
        let (number, rest) = &self.next[&stream];
        number - rest.iter().filter(|b| **b == b'\n').count() as u64
    }
}

/// Holds the write lock of a store's database, as another process might.
pub(crate) fn hold_database(dir: &Path) -> rusqlite::Connection {
    let db = rusqlite::Connection::open(dir.join("logs.db")).unwrap();
    db.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    db
}

/// Waits for something that the store's threads do; at most 30 s.
pub(crate) fn until(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..15_000 {
        if is() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    panic!("waited in vain until {what}");
}

/// An entry of the store, as any reader should see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Line { text: Vec<u8>, continued: bool },
    Gap { lines: u64, reason: GapReason },
}

/// Everything that a store's files hold, per stream, in order; with no store open on them.
pub(crate) fn everything(dir: &Path, ring: &Path) -> BTreeMap<Stream, Vec<(u64, Entry)>> {
    let mut all: BTreeMap<Stream, Vec<(u64, Entry)>> = Stream::ALL.map(|s| (s, Vec::new())).into();
    let resume = sealed(dir, &mut all);
    let mut splitter = Splitter::new(crate::DEFAULT_MAX_LINE_BYTES, resume);
    let from = resume.iter().map(|r| r.frame).min().unwrap();
    let starts = crate::segment::list(&dir.join(SPOOL_DIR)).unwrap();
    let from = from.max(starts.first().copied().unwrap_or(0));
    let mut frames = FrameReader::new(&dir.join(SPOOL_DIR), from);
    let mut feed = |frame: &Frame, payload: &[u8]| {
        let of = all.get_mut(&frame.stream).unwrap();
        splitter.feed(frame, payload, &mut |position, found| of.push((position, entry(&found))));
    };
    while frames.step(u64::MAX).unwrap().is_ok() {
        feed(&frames.frame(), frames.payload());
    }
    let FoundRing::Alive(ring) = Ring::find(ring).unwrap() else { return all };
    let mut position = frames.position().max(ring.tail());
    while position < ring.head() {
        let (frame, _) = Frame::decode(ring.bytes(position, crate::frame::MAX_FRAME_BYTES), position).unwrap();
        feed(&frame, &ring.bytes(position, HEADER_BYTES + frame.len)[HEADER_BYTES..]);
        position = frame.end();
    }
    for stream in Stream::ALL {
        if let Some(gap) = ring.pending_gap(stream) {
            let frame = Frame { kind: Kind::Gap, stream, flags: 0, len: GAP_BYTES, position, at_unix_ns: 0 };
            feed(&frame, &gap.encode());
        }
    }
    all
}

fn sealed(dir: &Path, all: &mut BTreeMap<Stream, Vec<(u64, Entry)>>) -> [Resume; 3] {
    let path = dir.join("logs.db");
    if !path.exists() {
        return [Resume::default(); 3];
    }
    let db = rusqlite::Connection::open(path).unwrap();
    let mut rows = db.prepare("SELECT stream, blob FROM chunk ORDER BY last_position").unwrap();
    let mut rows = rows.query([]).unwrap();
    let mut chunk = Chunk::default();
    while let Some(row) = rows.next().unwrap() {
        let of = all.get_mut(&Stream::from_number(row.get(0).unwrap()).unwrap()).unwrap();
        chunk.load(&mut Unpacker::default(), &row.get::<_, Vec<u8>>(1).unwrap()).unwrap();
        of.extend(chunk.items().map(|item| item.map(|item| (item.position, entry(&item.found))).unwrap()));
    }
    crate::schema::position(&db).unwrap().resume
}

fn entry(found: &Found<'_>) -> Entry {
    match *found {
        Found::Line { text, continued, .. } => Entry::Line { text: text.to_vec(), continued },
        Found::Gap { lines, reason, .. } => Entry::Gap { lines, reason },
    }
}

/// The accounting: numbers rise by one, or by exactly what a gap says, up to `lines`. Returns how many lie in gaps.
///
/// # Panics
/// If a line is missing, doubled, torn, out of order, or counted twice.
pub(crate) fn account(entries: &[(u64, Entry)], lines: u64) -> u64 {
    let (next, missing) = count(entries);
    assert_eq!(next, lines, "lines are missing at the end");
    missing
}

/// The same in the middle of a line: `complete` lines were taken and, if `torn`, a part of one more, which a gap at the end may have
/// counted already.
pub(crate) fn account_torn(entries: &[(u64, Entry)], complete: u64, torn: bool) {
    let gap_last = matches!(entries.last(), Some((_, Entry::Gap { .. })));
    let (next, _) = count(entries);
    let most = complete + u64::from(torn && gap_last);
    assert!((complete..=most).contains(&next), "{next} lines are accounted for, {complete} were taken");
}

fn count(entries: &[(u64, Entry)]) -> (u64, u64) {
    let (mut next, mut missing) = (0, 0);
    let mut before = None;
    for (position, entry) in entries {
        assert!(before < Some(*position), "position {position} does not lie behind {before:?}");
        before = Some(*position);
        match entry {
            Entry::Line { text, continued } => {
                let text = str::from_utf8(text).unwrap();
                let (number, rest) = text.split_once(' ').unwrap_or_else(|| panic!("torn line {text:?}"));
                assert_eq!(number.parse(), Ok(next));
                assert!(!continued && rest.bytes().all(|b| b == b'a' + (next % 26) as u8), "torn line {text:?}");
                next += 1;
            }
            Entry::Gap { lines, reason } => {
                assert!(reason.is_exact(), "{reason}");
                next += lines;
                missing += lines;
            }
        }
    }
    (next, missing)
}
