//! The one writer of the ring, and the protocol by which a SIGKILL at any instruction neither loses nor doubles a byte.
//!
//! A read goes: fill the last 16 bytes of the destination with a sentinel · publish the *intent* (mode stored last) · `read(2)` of
//! exactly `n <= FIONREAD` bytes · write the frame's header · **store head** (the commit) · store the counters · clear the intent.
//! A pipe hands out `n` bytes that it has without sleeping, and every destination page was touched before, so a kill falls before or
//! after the read, never inside: the sentinel tells which, and recovery finishes or forgets the read.
//! A sentinel of 16 random bytes is mistaken for data once in 2^128; a shorter read is looked at first with `tee(2)`, which consumes
//! nothing, and its sentinel is the complement of what will arrive: never mistaken.
//!
//! With less room than one whole frame (64 KiB) the writer *drops*: it reads into the scratch area, counts, and publishes the counts in
//! the gap slot that is not in use by advancing the stream's gap epoch (one store). It resumes at a quarter of the capacity free (so
//! that a slow disk makes one gap per 2 MiB, not one per read) and writes the gap as a frame before any data of that stream.
//! 4 KiB stay reserved for gap and break frames.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, tee};

use crate::frame::{self, FLAG_GOES_ON, Frame, GapNote, HEADER_BYTES, Kind, MAX_FRAME_BYTES, MAX_PAYLOAD_BYTES};
use crate::rate::Buckets;
use crate::ring::{DATA_AT, Ring, SCRATCH_AT, at, slot};
use crate::{GapReason, RateLimit, Stream, clock};

/// Room that data may not use: gap and break frames go there.
const RESERVE_BYTES: u64 = 4096;
/// Below this much room not even a break is written; what is left is for the gaps of three streams.
const LAST_BYTES: u64 = 1024;
/// How much memory is asked of the filesystem at a time.
const RESERVE_STEP: u64 = 256 * 1024;
/// One read of something that is not a pipe (a terminal): how much is there cannot be known beforehand.
const PLAIN_READ_BYTES: usize = 4096;
const SENTINEL_BYTES: usize = 16;
const PAGE: usize = 4096;

/// Modes of the intent.
pub(crate) mod mode {
    pub(crate) const NONE: u64 = 0;
    pub(crate) const STORE: u64 = 1;
    pub(crate) const DROP: u64 = 2;
    pub(crate) const STORE_PLAIN: u64 = 3;
    pub(crate) const DROP_PLAIN: u64 = 4;
    pub(crate) const GAP: u64 = 5;
}

/// What one read took.
pub(crate) struct Taken {
    /// Offset in the ring file.
    pub(crate) offset: usize,
    pub(crate) len: usize,
    /// Line ends in it.
    pub(crate) lines: u64,
    pub(crate) dropped: bool,
    pub(crate) more: bool,
}

/// See the top of the file. Lives behind one mutex.
pub(crate) struct Writer {
    ring: Arc<Ring>,
    dropping: bool,
    /// Data bytes from the ring's start that have memory behind them.
    reserved: u64,
    random: u64,
    peek: Option<(OwnedFd, OwnedFd)>,
    /// Streams whose end found no room for its break, with its time; in memory only.
    owed_breaks: [Option<u64>; 3],
    /// What stdout and stderr may still print.
    pub(crate) limits: [Option<Buckets>; 2],
    /// The store is closed: nothing is taken any more.
    pub(crate) closed: bool,
    #[cfg(test)]
    pub(crate) hook: Option<Box<dyn FnMut(&'static str) + Send>>,
}

impl Writer {
    pub(crate) fn new(ring: Arc<Ring>) -> Writer {
        use std::hash::{BuildHasher, Hasher};
        let random = std::collections::hash_map::RandomState::new().build_hasher().finish() | 1;
        Writer {
            ring,
            dropping: false,
            reserved: 0,
            random,
            peek: None,
            owed_breaks: [None; 3],
            limits: [None, None],
            closed: false,
            #[cfg(test)]
            hook: None,
        }
    }

    /// Limits what each of the program's streams may print from now on.
    pub(crate) fn limit(&mut self, limit: RateLimit) {
        let now = clock::monotonic();
        self.limits = [(); 2].map(|()| Buckets::new(limit, now));
    }

    /// Whether the stream has printed more than it may.
    fn is_over(&mut self, stream: Stream) -> bool {
        let limit = self.limits.get_mut(stream.index()).and_then(Option::as_mut);
        limit.is_some_and(|buckets| !buckets.allow(clock::monotonic()))
    }

    /// A place where a test may look at (or copy) the ring as a kill would leave it.
    #[inline]
    fn step(&mut self, _place: &'static str) {
        #[cfg(test)]
        if let Some(hook) = self.hook.as_mut() {
            hook(_place);
        }
    }

    /// Takes what `fd` has, at most 64 KiB, into the ring, or counts it as dropped.
    pub(crate) fn read(&mut self, stream: Stream, fd: BorrowedFd<'_>, at_unix_ns: u64) -> io::Result<Taken> {
        if self.closed {
            return Err(io::Error::other("the log store is closed"));
        }
        let pipe = is_pipe(fd)?;
        let available = if pipe { available(fd)? } else { PLAIN_READ_BYTES };
        if available == 0 {
            return Ok(Taken { offset: SCRATCH_AT, len: 0, lines: 0, dropped: false, more: false });
        }
        let n = available.min(MAX_PAYLOAD_BYTES);
        let over = self.is_over(stream);
        // With no room a line is dropped for that, whatever its rate.
        let room = self.has_room();
        let reason = if over && room { GapReason::RateLimited } else { GapReason::RingFull };
        self.end_gap_of_another(stream, reason);
        self.ring.set(at::INTENT_REASON, reason.number().into());
        let store = !over && room && self.flush_gaps() && self.reserve(frame::frame_bytes(n));
        let (mode, offset) = match (store, pipe) {
            (true, true) => (mode::STORE, self.ring.offset(self.ring.head()) + HEADER_BYTES),
            (true, false) => (mode::STORE_PLAIN, self.ring.offset(self.ring.head()) + HEADER_BYTES),
            (false, true) => (mode::DROP, SCRATCH_AT),
            (false, false) => (mode::DROP_PLAIN, SCRATCH_AT),
        };
        let got = self.take(mode, stream, fd, offset, n, at_unix_ns)?;
        let mut lines = 0;
        if got > 0 && store {
            lines = self.commit_data(stream, got, at_unix_ns);
            if let Some(buckets) = self.limits.get_mut(stream.index()).and_then(Option::as_mut) {
                buckets.take(got as u64, lines);
            }
        } else if got > 0 {
            lines = self.count_drop(stream, got, at_unix_ns, reason);
        }
        self.ring.set(at::INTENT_MODE, mode::NONE);
        self.step("intent cleared");
        Ok(Taken { offset, len: got, lines, dropped: !store, more: available > n || (!pipe && got == n) })
    }

    /// Sentinel, intent, read.
    fn take(
        &mut self,
        mode: u64,
        stream: Stream,
        fd: BorrowedFd<'_>,
        offset: usize,
        n: usize,
        at_unix_ns: u64,
    ) -> io::Result<usize> {
        // Touched before the read, so that the copy inside it meets no page fault that a kill could cut short.
        for page in (0..n).step_by(PAGE) {
            self.ring.fill(offset + page, 1)[0] = 0;
        }
        self.ring.fill(offset + n - 1, 1)[0] = 0;
        let mut sentinel = [0u8; SENTINEL_BYTES];
        let low = self.next_random();
        let high = self.next_random();
        sentinel[..8].copy_from_slice(&low.to_le_bytes());
        sentinel[8..].copy_from_slice(&high.to_le_bytes());
        if mode == mode::STORE_PLAIN || mode == mode::DROP_PLAIN {
            pattern(low, self.ring.fill(offset, n));
        } else {
            if n < SENTINEL_BYTES {
                self.complement_of_next(fd, &mut sentinel[..n])?;
            }
            let guard = n.min(SENTINEL_BYTES);
            self.ring.fill(offset + n - guard, guard).copy_from_slice(&sentinel[..guard]);
        }
        self.step("sentinel placed");
        let base = at::stream(stream.number());
        let ring = &self.ring;
        for (word, value) in [
            (at::INTENT_STREAM, u64::from(stream.number())),
            (at::INTENT_HEAD, ring.head()),
            (at::INTENT_LEN, n as u64),
            (at::INTENT_TIME, at_unix_ns),
            (at::INTENT_EPOCH, ring.get(base + at::GAP_EPOCH)),
            (at::INTENT_SENTINEL, frame::word(&sentinel, 0)),
            (at::INTENT_SENTINEL + 8, frame::word(&sentinel, 8)),
            (at::INTENT_LINES, ring.get(base + at::LINES_IN)),
            (at::INTENT_BYTES, ring.get(base + at::BYTES_IN)),
        ] {
            ring.set(word, value);
        }
        self.ring.set(at::INTENT_MODE, mode);
        self.step("intent published");
        let outcome = loop {
            match rustix::io::read(fd, self.ring.fill(offset, n)) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other,
            }
        };
        self.step("read done");
        if outcome.is_err() || outcome == Ok(0) {
            self.ring.set(at::INTENT_MODE, mode::NONE);
        }
        Ok(outcome?)
    }

    /// For a read too short for a random sentinel: the complement of the bytes that will arrive.
    fn complement_of_next(&mut self, fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<()> {
        if self.peek.is_none() {
            self.peek = Some(pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?);
        }
        let Some((out, to)) = self.peek.as_ref() else { return Ok(()) };
        let n = tee(fd, to, into.len(), SpliceFlags::NONBLOCK)?;
        let mut got = 0;
        while got < n {
            match rustix::io::read(out, &mut into[got..n])? {
                0 => break,
                more => got += more,
            }
        }
        if got < into.len() {
            // Somebody else reads this pipe too; nothing that this store promises holds then.
            self.peek = None;
            return Err(io::Error::other("the pipe has a second reader"));
        }
        for byte in into {
            *byte = !*byte;
        }
        Ok(())
    }

    /// Completes the frame whose payload already lies behind head, and commits it; the line ends in it.
    pub(crate) fn commit_data(&mut self, stream: Stream, len: usize, at_unix_ns: u64) -> u64 {
        let lines = self.ring.get(at::INTENT_LINES);
        let bytes = self.ring.get(at::INTENT_BYTES);
        let payload = self.ring.look(self.ring.offset(self.ring.head()) + HEADER_BYTES, len);
        let newlines = memchr::memchr_iter(b'\n', payload).count() as u64;
        self.commit(Kind::Data, stream, 0, len, at_unix_ns);
        let base = at::stream(stream.number());
        self.ring.set(base + at::LINES_IN, lines + newlines);
        self.step("lines counted");
        self.ring.set(base + at::BYTES_IN, bytes + len as u64);
        self.step("bytes counted");
        newlines
    }

    /// Header, padding, head.
    fn commit(&mut self, kind: Kind, stream: Stream, flags: u8, len: usize, at_unix_ns: u64) {
        let head = self.ring.head();
        let offset = self.ring.offset(head);
        let end = frame::frame_bytes(len);
        self.ring.fill(offset + HEADER_BYTES + len, end - HEADER_BYTES - len).fill(0);
        let payload = self.ring.look(offset + HEADER_BYTES, len);
        let frame = Frame { kind, stream, flags, len, position: head, at_unix_ns };
        self.ring.fill(offset, HEADER_BYTES).copy_from_slice(&frame.header(payload));
        self.step("frame complete");
        self.ring.set(at::HEAD, head + end as u64);
        self.step("head stored");
    }

    /// Adds the bytes in the scratch area to the stream's gap; the line ends among them.
    pub(crate) fn count_drop(&mut self, stream: Stream, len: usize, at_unix_ns: u64, reason: GapReason) -> u64 {
        let data = self.ring.look(SCRATCH_AT, len);
        let newlines = memchr::memchr_iter(b'\n', data).count() as u64;
        let open = data.last() != Some(&b'\n');
        let (bytes, from_unix_ns, to_unix_ns) = (len as u64, at_unix_ns, at_unix_ns);
        self.add_gap(stream, GapNote { newlines, bytes, from_unix_ns, to_unix_ns, open, reason });
        if reason == GapReason::RateLimited {
            let base = at::stream(stream.number());
            for (word, more) in [(at::LIMITED_LINES, newlines), (at::LIMITED_BYTES, bytes)] {
                self.ring.set(base + word, self.ring.get(base + word) + more);
            }
        }
        newlines
    }

    /// Merges `add` into the stream's pending gap and publishes the sum.
    pub(crate) fn add_gap(&mut self, stream: Stream, add: GapNote) {
        let base = at::stream(stream.number());
        let epoch = self.ring.get(base + at::GAP_EPOCH);
        let (lines, bytes) = self.ring.dropped(stream);
        let sum = match self.ring.pending_gap(stream) {
            None => add,
            Some(old) => GapNote {
                newlines: old.newlines + add.newlines,
                bytes: old.bytes + add.bytes,
                from_unix_ns: old.from_unix_ns.min(add.from_unix_ns),
                to_unix_ns: old.to_unix_ns.max(add.to_unix_ns),
                open: add.open,
                reason: if old.reason.is_exact() { add.reason } else { old.reason },
            },
        };
        let slot = slot(stream, epoch + 1);
        let meta = u64::from(sum.open) | u64::from(sum.reason.number()) << 8;
        let words = [sum.newlines, sum.bytes, sum.from_unix_ns, sum.to_unix_ns, meta];
        for (i, value) in words.into_iter().enumerate() {
            self.ring.set(slot + 8 * i, value);
        }
        self.ring.set(slot + 40, lines + add.newlines);
        self.ring.set(slot + 48, bytes + add.bytes);
        self.step("gap slot filled");
        self.ring.set(base + at::GAP_EPOCH, epoch + 1);
        self.step("gap epoch stored");
    }

    /// Writes pending gaps, and breaks that found no room, as frames. True if none is left.
    pub(crate) fn flush_gaps(&mut self) -> bool {
        Stream::ALL.into_iter().all(|stream| self.flush_gap(stream) && self.pay_break(stream))
    }

    fn pay_break(&mut self, stream: Stream) -> bool {
        let Some(at_unix_ns) = self.owed_breaks[stream.index()] else { return true };
        if self.free() < LAST_BYTES || !self.reserve(frame::frame_bytes(0)) {
            return false;
        }
        self.commit(Kind::Break, stream, 0, 0, at_unix_ns);
        self.owed_breaks[stream.index()] = None;
        true
    }

    /// A gap has one reason: with another one pending it becomes a frame, for which room is reserved.
    pub(crate) fn end_gap_of_another(&mut self, stream: Stream, reason: GapReason) {
        if self.ring.pending_gap(stream).is_some_and(|gap| gap.reason != reason) {
            self.flush_gap(stream);
        }
    }

    fn flush_gap(&mut self, stream: Stream) -> bool {
        let Some(gap) = self.ring.pending_gap(stream) else { return true };
        let len = frame::GAP_BYTES;
        if self.free() < frame::frame_bytes(len) as u64 || !self.reserve(frame::frame_bytes(len)) {
            return false;
        }
        let base = at::stream(stream.number());
        let epoch = self.ring.get(base + at::GAP_EPOCH);
        self.ring.set(at::INTENT_STREAM, u64::from(stream.number()));
        self.ring.set(at::INTENT_HEAD, self.ring.head());
        self.ring.set(at::INTENT_EPOCH, epoch);
        self.ring.set(at::INTENT_MODE, mode::GAP);
        self.step("gap intent published");
        let offset = self.ring.offset(self.ring.head()) + HEADER_BYTES;
        self.ring.fill(offset, len).copy_from_slice(&gap.encode());
        self.commit(Kind::Gap, stream, 0, len, gap.to_unix_ns);
        self.ring.set(base + at::GAP_WRITTEN, epoch);
        self.step("gap taken");
        self.ring.set(at::INTENT_MODE, mode::NONE);
        true
    }

    /// Ends the stream's unfinished line, now or as soon as there is room.
    pub(crate) fn end_line(&mut self, stream: Stream, at_unix_ns: u64) {
        self.owed_breaks[stream.index()] = Some(at_unix_ns);
        self.flush_gaps();
    }

    /// Cuts the stream's unfinished line, which goes on, so that its first part can be sealed. Nothing happens without room.
    pub(crate) fn cut_line(&mut self, stream: Stream, at_unix_ns: u64) {
        if self.free() >= LAST_BYTES && self.flush_gaps() && self.reserve(frame::frame_bytes(0)) {
            self.commit(Kind::Break, stream, FLAG_GOES_ON, 0, at_unix_ns);
        }
    }

    /// Writes `text` as one line of `Stream::Plimsoll`. Line ends inside become spaces; past 64 KiB it is cut.
    pub(crate) fn note(&mut self, text: &str, at_unix_ns: u64) {
        let stream = Stream::Plimsoll;
        let len = text.len().min(MAX_PAYLOAD_BYTES - 1);
        if self.closed {
            return;
        }
        let base = at::stream(stream.number());
        self.ring.set(at::INTENT_LINES, self.ring.get(base + at::LINES_IN));
        self.ring.set(at::INTENT_BYTES, self.ring.get(base + at::BYTES_IN));
        let room = self.has_room() && self.flush_gaps() && self.reserve(frame::frame_bytes(len + 1));
        let offset = if room { self.ring.offset(self.ring.head()) + HEADER_BYTES } else { SCRATCH_AT };
        let into = self.ring.fill(offset, len + 1);
        for (to, from) in into.iter_mut().zip(text.bytes()) {
            *to = if from == b'\n' { b' ' } else { from };
        }
        into[len] = b'\n';
        if room {
            self.commit_data(stream, len + 1, at_unix_ns);
        } else {
            self.count_drop(stream, len + 1, at_unix_ns, GapReason::RingFull);
        }
    }

    /// With everything spooled: gives back the memory beyond the first `RESERVE_STEP` bytes. At most one call of about 1 ms.
    pub(crate) fn trim(&mut self) {
        if self.ring.used() > 0 || self.reserved <= RESERVE_STEP {
            return;
        }
        self.ring.set(at::ORIGIN, self.ring.head());
        if self.ring.give_back(RESERVE_STEP, self.ring.capacity()).is_ok() {
            self.reserved = RESERVE_STEP;
        }
    }

    fn free(&self) -> u64 {
        self.ring.capacity() - self.ring.used()
    }

    /// Room for one whole frame besides the reserve, with the hysteresis that the top of the file describes.
    fn has_room(&mut self) -> bool {
        let one = MAX_FRAME_BYTES as u64 + RESERVE_BYTES;
        let wanted = if self.dropping { (self.ring.capacity() / 4).max(one) } else { one };
        self.dropping = self.free() < wanted;
        !self.dropping
    }

    /// Whether the writer would store rather than drop now.
    pub(crate) fn would_store(&mut self) -> bool {
        self.has_room()
    }

    /// Memory for the next `size` bytes behind head; starts the ring again at its first byte when that is free of cost.
    fn reserve(&mut self, size: usize) -> bool {
        let head = self.ring.head();
        if self.ring.used() == 0 && head - self.ring.get(at::ORIGIN) > RESERVE_STEP / 2 {
            self.ring.set(at::ORIGIN, head);
        }
        let capacity = self.ring.capacity();
        let from = (self.ring.offset(head) - DATA_AT) as u64;
        let to = (from + size as u64).min(capacity);
        if to <= self.reserved {
            return true;
        }
        let goal = to.next_multiple_of(RESERVE_STEP).min(capacity);
        let done = self.ring.reserve(self.reserved, goal).is_ok();
        if done {
            self.reserved = goal;
        }
        done
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Fills `into` with the bytes that follow from `seed`; recovery compares against the same.
pub(crate) fn pattern(seed: u64, into: &mut [u8]) {
    let mut state = seed | 1;
    for chunk in into.chunks_mut(8) {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let word = (state ^ state >> 33).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

fn is_pipe(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo)
}

/// Bytes in the pipe; 0 is its end; an empty pipe with a writer is `WouldBlock`.
fn available(fd: BorrowedFd<'_>) -> io::Result<usize> {
    loop {
        let n = rustix::io::ioctl_fionread(fd)?;
        if n > 0 {
            return Ok(usize::try_from(n).unwrap_or(usize::MAX));
        }
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        let seen = fds[0].revents();
        if !seen.contains(PollFlags::IN) {
            let ended = seen.contains(PollFlags::HUP);
            return if ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
    }
}
