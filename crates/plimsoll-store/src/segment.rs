//! Segment files of a spool: `<start position, 16 hex digits>.seg`, about 16 MiB each.
//!
//! Header 32 bytes, little endian: `PLIMSPOL` · version u32 = 1 · content u32 · start position u64 · CRC-32 of bytes 0..24 · zero u32.
//! Then frames from `start` on; a frame never spans two segments. Content 0, the log: byte for byte as in the ring; a segment begins
//! where the one before it ends. Content 1, records: data frames of stream 1; a record longer than a frame goes on in the next one
//! (flag 1), in the same segment.
//!
//! At open every frame is checked (about 1 GB/s). The end of the newest segment may be torn, and nothing that was synced: it is cut there,
//! once. Of records, one that is not whole goes with it; anything else is damage, reported with path and offset and left as it is.
//!
//! The log is never refused for its spool: a power cut may tear older segments as well (they are synced every second, not when the next one
//! begins), and those are cut, too. A damaged one is set aside (`*.seg.damaged`, of which [`ASIDE_KEPT`] stay while the budget has room), and
//! what of it is whole before the damage stays. What is missing between two segments becomes a gap of unknown count.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::StoreError;
use crate::disk::Disk;
use crate::frame::{BadFrame, FLAG_GOES_ON, Frame, HEADER_BYTES, Kind};

/// Length of a segment's header.
pub(crate) const SEGMENT_HEADER: u64 = 32;
/// A segment that has this many bytes of frames is followed by a new one.
pub(crate) const SEGMENT_BYTES: u64 = 16 << 20;
/// So many damaged segments of a log are kept for people to look at, each as long as a segment.
pub(crate) const ASIDE_KEPT: usize = 2;
const ASIDE: &str = "seg.damaged";
const MAGIC: [u8; 8] = *b"PLIMSPOL";
const READ_BYTES: usize = 256 * 1024;

/// What the frames of a segment are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// The ring's frames.
    Log = 0,
    /// Records of [`crate::spool`].
    Records = 1,
}

/// The file of the segment that starts at `start`.
pub(crate) fn path(dir: &Path, start: u64) -> PathBuf {
    dir.join(format!("{start:016x}.seg"))
}

/// Start positions of all segments in `dir`, ascending. No directory is no segments.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut starts = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(starts),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let name = entry?.file_name();
        let start = name.to_str().and_then(|n| n.strip_suffix(".seg")).filter(|n| n.len() == 16);
        starts.extend(start.and_then(|hex| u64::from_str_radix(hex, 16).ok()));
    }
    starts.sort_unstable();
    Ok(starts)
}

/// The header of a segment that starts at `start`.
pub(crate) fn header(content: Content, start: u64) -> [u8; SEGMENT_HEADER as usize] {
    let mut h = [0u8; SEGMENT_HEADER as usize];
    h[..8].copy_from_slice(&MAGIC);
    h[8] = 1;
    h[12] = content as u8;
    h[16..24].copy_from_slice(&start.to_le_bytes());
    let sum = crc32fast::hash(&h[..24]);
    h[24..28].copy_from_slice(&sum.to_le_bytes());
    h
}

/// Makes (or, after a torn creation, makes again) the segment that starts at `start`, with room on disk for `room` bytes of frames.
pub(crate) fn create(
    disk: &dyn Disk,
    path: &Path,
    content: Content,
    start: u64,
    room: Option<u64>,
) -> io::Result<File> {
    let file = disk.create(path)?;
    if let Some(room) = room {
        disk.reserve(&file, SEGMENT_HEADER + room)?;
    }
    disk.write_all_at(&file, &header(content, start), 0)?;
    Ok(file)
}

/// Why reading stopped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// At the end of what there is (or of what the caller allowed).
    End,
    /// The segment with this position is not there (any more).
    Hole,
    /// The bytes at this offset of the segment are not the frame that should be there.
    Bad { segment: u64, offset: u64, why: BadFrame },
}

/// Reads frames forward, across segments, through one buffer of 256 KiB.
pub(crate) struct FrameReader {
    dir: PathBuf,
    content: Content,
    /// The open segment and its start.
    open: Option<(u64, File)>,
    /// Position of the next frame.
    position: u64,
    buffer: Vec<u8>,
    /// The next frame's place in the buffer.
    at: usize,
    found: Frame,
}

impl FrameReader {
    /// Reads frames of the log; gives its memory and its file back at each end.
    pub(crate) fn new(dir: &Path, position: u64) -> FrameReader {
        FrameReader::of(Content::Log, dir, position)
    }

    /// Reads frames of records; keeps its file open at the end, since it will be asked again.
    pub(crate) fn of(content: Content, dir: &Path, position: u64) -> FrameReader {
        let found =
            Frame { kind: Kind::Break, stream: crate::Stream::Stdout, flags: 0, len: 0, position, at_unix_ns: 0 };
        FrameReader { dir: dir.to_path_buf(), content, open: None, position, buffer: Vec::new(), at: 0, found }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Goes on at another position; forgets what is buffered.
    pub(crate) fn seek(&mut self, position: u64) {
        self.position = position;
        self.forget();
    }

    fn forget(&mut self) {
        self.buffer = Vec::new();
        self.at = 0;
        self.open = None;
    }

    /// Moves to the next frame before position `limit`; `frame` and `payload` then give it. Bytes past `limit` are not looked at.
    pub(crate) fn step(&mut self, limit: u64) -> io::Result<Result<(), Stop>> {
        loop {
            if self.position >= limit {
                match self.content {
                    Content::Log => self.forget(),
                    Content::Records => (self.buffer, self.at) = (Vec::new(), 0),
                }
                return Ok(Err(Stop::End));
            }
            match Frame::decode(&self.buffer[self.at..], self.position).map(|(frame, _)| frame) {
                Ok(frame) => {
                    self.found = frame;
                    self.at += usize::try_from(frame.total()).unwrap_or(usize::MAX);
                    self.position = frame.end();
                    return Ok(Ok(()));
                }
                Err(BadFrame::Short) => {
                    if let Some(stop) = self.refill(limit)? {
                        self.forget();
                        return Ok(Err(stop));
                    }
                }
                Err(why) => {
                    let segment = self.open.as_ref().map_or(0, |(start, _)| *start);
                    let offset = SEGMENT_HEADER + (self.position - segment);
                    self.forget();
                    return Ok(Err(Stop::Bad { segment, offset, why }));
                }
            }
        }
    }

    pub(crate) fn frame(&self) -> Frame {
        self.found
    }

    /// The payload of the frame that the last `step` found.
    pub(crate) fn payload(&self) -> &[u8] {
        let start = self.at - usize::try_from(self.found.total()).unwrap_or(usize::MAX) + HEADER_BYTES;
        &self.buffer[start..start + self.found.len]
    }

    /// Reads more behind what is buffered, or opens the segment with the next frame.
    fn refill(&mut self, limit: u64) -> io::Result<Option<Stop>> {
        self.buffer.drain(..self.at);
        self.at = 0;
        if self.open.is_none() {
            match self.find()? {
                Some(found) => self.open = Some(found),
                None => return Ok(Some(Stop::Hole)),
            }
        }
        let Some((start, file)) = self.open.as_ref() else { return Ok(Some(Stop::Hole)) };
        let have = self.buffer.len();
        let behind = self.position + have as u64;
        let want = usize::try_from(limit - behind.min(limit)).unwrap_or(usize::MAX).min(READ_BYTES);
        self.buffer.resize(have + want, 0);
        let segment = *start;
        let got = match read_some(file, &mut self.buffer[have..], SEGMENT_HEADER + (behind - segment)) {
            Err(e) if is_unreadable(&e) => {
                let offset = SEGMENT_HEADER + (self.position - segment);
                return Ok(Some(Stop::Bad { segment, offset, why: BadFrame::Unreadable }));
            }
            other => other?,
        };
        self.buffer.truncate(have + got);
        if got > 0 {
            return Ok(None);
        }
        if have > 0 {
            let offset = SEGMENT_HEADER + (self.position - segment);
            return Ok(Some(Stop::Bad { segment, offset, why: BadFrame::Short }));
        }
        // The end of this segment: the next one begins exactly here.
        match open(self.content, &self.dir, self.position)? {
            Some(file) => {
                self.open = Some((self.position, file));
                Ok(None)
            }
            None if limit == u64::MAX => Ok(Some(Stop::End)),
            None => Ok(Some(Stop::Hole)),
        }
    }

    /// The segment that has `position`: the last one that starts at or before it.
    fn find(&self) -> io::Result<Option<(u64, File)>> {
        let starts = list(&self.dir)?;
        let Some(start) = starts.into_iter().rev().find(|s| *s <= self.position) else { return Ok(None) };
        let Some(file) = open(self.content, &self.dir, start)? else { return Ok(None) };
        let end = start + file.metadata()?.len().saturating_sub(SEGMENT_HEADER);
        Ok((self.position <= end).then_some((start, file)))
    }
}

/// Opens a segment if it is there and its header is right.
fn open(content: Content, dir: &Path, start: u64) -> io::Result<Option<File>> {
    let file = match File::open(path(dir, start)) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut head = [0u8; SEGMENT_HEADER as usize];
    let got = match read_some(&file, &mut head, 0) {
        Err(e) if is_unreadable(&e) => 0,
        other => other?,
    };
    Ok((got == head.len() && head == header(content, start)).then_some(file))
}

/// Whether the disk has lost the bytes: trying again does not help.
fn is_unreadable(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::IO)
}

/// Inodes of which a test says that the disk cannot read them from an offset on.
#[cfg(test)]
pub(crate) static UNREADABLE: parking_lot::Mutex<std::collections::BTreeMap<u64, u64>> =
    parking_lot::Mutex::new(std::collections::BTreeMap::new());

fn read_some(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    #[cfg(test)]
    if let Some(bad) = UNREADABLE.lock().get(&std::os::unix::fs::MetadataExt::ino(&file.metadata()?))
        && offset + into.len() as u64 > *bad
    {
        return Err(rustix::io::Errno::IO.into());
    }
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// What `check` found, and did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Start and end position of each segment, ascending.
    pub(crate) segments: Vec<(u64, u64)>,
    /// Bytes cut from torn ends.
    pub(crate) torn_bytes: u64,
    /// Places between two segments where frames are missing.
    pub(crate) holes: u64,
    /// Damaged segments of a log that were set aside.
    pub(crate) set_aside: u64,
    /// Positions before this were used, also if nothing has them any more.
    pub(crate) reached: u64,
}

/// Checks every frame of the spool; cuts torn ends, but nothing before `synced`, and sets damaged segments of a log aside. `each` sees every
/// frame that is there to stay.
pub(crate) fn check(
    content: Content,
    dir: &Path,
    synced: u64,
    each: &mut dyn FnMut(&Frame),
) -> Result<Checked, StoreError> {
    let starts = list(dir).map_err(StoreError::io("list", dir))?;
    let mut checked = Checked::default();
    for (i, start) in starts.iter().copied().enumerate() {
        let path = path(dir, start);
        let may_be_torn = i + 1 == starts.len() || content == Content::Log;
        if let Some((_, end)) = checked.segments.last().filter(|(_, end)| start < *end) {
            let what = format!("the segment before it goes up to position {end:#x}: they overlap");
            return Err(StoreError::Damaged { path, offset: 0, what });
        }
        let len = std::fs::metadata(&path).map_err(StoreError::io("stat", &path))?.len();
        if may_be_torn && len < SEGMENT_HEADER && start >= synced {
            std::fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
            checked.torn_bytes += len;
            continue;
        }
        let used_to = (start + len.saturating_sub(SEGMENT_HEADER)).next_multiple_of(8);
        match check_header(content, &path, start) {
            Err(e) if content == Content::Log && !is_of_others(&path) => {
                set_aside(&path).map_err(|_| e)?;
                checked.set_aside += 1;
                checked.reached = used_to;
                continue;
            }
            other => other?,
        }
        let whole = Whole::of(content, dir, start, len, each).map_err(StoreError::io("read", &path))?;
        if let Some(why) = whole.bad {
            let offset = SEGMENT_HEADER + (whole.frames - start);
            let torn = may_be_torn
                && whole.end >= synced
                && why != BadFrame::Unreadable
                && !frame_behind(&path, start, whole.frames).map_err(StoreError::io("read", &path))?;
            let keep = SEGMENT_HEADER + (whole.end - start);
            if torn {
                let file = OpenOptions::new().write(true).open(&path).map_err(StoreError::io("open", &path))?;
                file.set_len(keep).map_err(StoreError::io("cut", &path))?;
                checked.torn_bytes += len - keep;
            } else if content == Content::Log {
                let kept = set_aside_but(&path, keep).map_err(StoreError::io("set aside", &path))?;
                checked.set_aside += 1;
                checked.reached = used_to;
                if !kept {
                    continue;
                }
            } else {
                return Err(StoreError::Damaged { path, offset, what: why.to_string() });
            }
            if content == Content::Log && whole.end == start {
                std::fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
                continue;
            }
        }
        checked.holes += u64::from(checked.segments.last().is_some_and(|(_, end)| start > *end));
        checked.segments.push((start, whole.end));
    }
    Ok(checked)
}

/// Renames a damaged segment, so that nobody reads it.
pub(crate) fn set_aside(path: &Path) -> io::Result<()> {
    std::fs::rename(path, path.with_extension(ASIDE))
}

/// The same, and puts its first `keep` bytes in its place; false if there is no room for them.
fn set_aside_but(path: &Path, keep: u64) -> io::Result<bool> {
    set_aside(path)?;
    let copy = || {
        let whole = File::open(path.with_extension(ASIDE))?;
        let mut part = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        io::copy(&mut whole.take(keep), &mut part)?;
        part.sync_data()
    };
    if copy().is_ok() {
        return Ok(true);
    }
    std::fs::remove_file(path)?;
    Ok(false)
}

/// The segments that were set aside, the oldest first, with their lengths.
pub(crate) fn aside(dir: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.ends_with(ASIDE)) {
            all.push((entry.path(), entry.metadata()?.len()));
        }
    }
    all.sort_unstable();
    Ok(all)
}

/// What of a segment is whole.
struct Whole {
    /// Position behind the last whole frame.
    frames: u64,
    /// Position behind the last frame that ends something: of the log each, of records the last one of a record.
    end: u64,
    /// Why there is no frame, or no end of a record, at `frames`, though the file goes on there or a record should.
    bad: Option<BadFrame>,
}

impl Whole {
    fn of(content: Content, dir: &Path, start: u64, len: u64, each: &mut dyn FnMut(&Frame)) -> io::Result<Whole> {
        let mut reader = FrameReader::of(content, dir, start);
        let file_end = start + (len - SEGMENT_HEADER);
        let mut whole = Whole { frames: start, end: start, bad: None };
        // Of a record that is not whole nothing counts.
        let mut waiting: Vec<Frame> = Vec::new();
        loop {
            match reader.step(file_end)? {
                Ok(()) => {
                    let frame = reader.frame();
                    whole.frames = frame.end();
                    let goes_on = content == Content::Records && frame.flags & FLAG_GOES_ON != 0;
                    waiting.push(frame);
                    if !goes_on {
                        whole.end = whole.frames;
                        waiting.drain(..).for_each(|frame| each(&frame));
                    }
                }
                Err(Stop::End) => break,
                Err(Stop::Bad { why, .. }) => {
                    whole.bad = Some(why);
                    break;
                }
                Err(Stop::Hole) => {
                    whole.bad = Some(BadFrame::Short);
                    break;
                }
            }
        }
        if !waiting.is_empty() {
            whole.bad = whole.bad.or(Some(BadFrame::Short));
        }
        Ok(whole)
    }
}

fn check_header(content: Content, path: &Path, start: u64) -> Result<(), StoreError> {
    let mut head = [0u8; SEGMENT_HEADER as usize];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.map_err(StoreError::io("read", path))?;
    if head == header(content, start) {
        return Ok(());
    }
    let what = if head[..8] != MAGIC {
        "not a spool segment".to_string()
    } else if head[8] != 1 {
        format!("a spool segment of version {}, this program knows 1", head[8])
    } else if head[12] != content as u8 {
        format!("a spool segment with content {}, expected was {}", head[12], content as u8)
    } else {
        "the segment's header does not match its name or checksum".to_string()
    };
    Err(StoreError::Damaged { path: path.to_path_buf(), offset: 0, what })
}

/// Whether a whole header stands there that is not ours: another version's, another content's. Not for us to move.
fn is_of_others(path: &Path) -> bool {
    let mut head = [0u8; SEGMENT_HEADER as usize];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head[..8] == MAGIC && head[24..28] == crc32fast::hash(&head[..24]).to_le_bytes()
}

/// Whether a whole frame stands anywhere behind the bad one: then the damage is not a torn end.
fn frame_behind(path: &Path, start: u64, bad: u64) -> io::Result<bool> {
    let mut rest = Vec::new();
    let from = SEGMENT_HEADER + (bad - start);
    let file = File::open(path)?;
    let len = usize::try_from(file.metadata()?.len().saturating_sub(from)).unwrap_or(usize::MAX);
    rest.resize(len, 0);
    let got = read_some(&file, &mut rest, from)?;
    rest.truncate(got);
    let hit = (8..rest.len()).step_by(8).any(|at| Frame::decode(&rest[at..], bad + at as u64).is_ok());
    Ok(hit)
}
