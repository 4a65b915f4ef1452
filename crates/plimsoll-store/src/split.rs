//! From frames to lines. One state machine per stream, the same for sealing and for reading what is not sealed yet, so both give the
//! same lines at the same positions. Memory: the unfinished line of each stream, at most `max_line_bytes`.
//!
//! The position of an entry is that of the byte which completed it: the line end; the first byte behind a piece; the frame of a break;
//! the second byte of a gap's frame (its first completes a line that the gap cut off). So positions are unique and rise in the order
//! in which entries are complete, across all streams.
//!
//! Around a gap with an exact count: the unfinished line before it is discarded (its end lies in the dropped bytes), and after a gap
//! whose last dropped byte was not a line end everything up to the next line end is discarded too. Both lines count as dropped, so a
//! line is stored whole or counted in exactly one gap. Around any other gap everything that is there is kept.

use crate::frame::{FLAG_GOES_ON, Frame, GapNote, Kind};
use crate::{GapReason, Stream};

/// What the splitter finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    Line {
        text: &'a [u8],
        /// The line goes on in the stream's next entry: this is a piece of a line longer than `max_line_bytes`.
        continued: bool,
        /// The line ended without a line end.
        unterminated: bool,
    },
    Gap {
        /// Exact if `reason` is; otherwise at least so many.
        lines: u64,
        bytes: u64,
        from_unix_ns: u64,
        to_unix_ns: u64,
        reason: GapReason,
    },
}

/// Where a stream's splitting goes on after everything before it is sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resume {
    /// Position of the frame to go on in.
    pub(crate) frame: u64,
    /// First byte of that frame's payload that is not sealed.
    pub(crate) byte: u32,
    /// The bytes up to the next line end belong to a line that lies in a gap.
    pub(crate) skipping: bool,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// Where to begin; frames before it are sealed.
    begin: Resume,
    /// The unfinished line, and where it starts.
    partial: Vec<u8>,
    start: (u64, u32),
    skipping: bool,
}

/// See the top of the file.
#[derive(Clone, Debug)]
pub(crate) struct Splitter {
    max_line: usize,
    streams: [State; 3],
}

impl Splitter {
    pub(crate) fn new(max_line_bytes: u32, resume: [Resume; 3]) -> Splitter {
        let streams = resume.map(|begin| State { begin, skipping: begin.skipping, ..State::default() });
        Splitter { max_line: max_line_bytes.max(1) as usize, streams }
    }

    /// Where `stream` would go on if everything complete before position `next` were sealed.
    pub(crate) fn resume(&self, stream: Stream, next: u64) -> Resume {
        let state = &self.streams[stream.index()];
        if state.begin.frame >= next {
            return state.begin;
        }
        let (frame, byte) = if state.partial.is_empty() { (next, 0) } else { state.start };
        Resume { frame, byte, skipping: state.skipping }
    }

    /// The streams with an unfinished line that began before `position`.
    pub(crate) fn unfinished_before(&self, position: u64) -> impl Iterator<Item = Stream> {
        Stream::ALL.into_iter().filter(move |stream| {
            let state = &self.streams[stream.index()];
            !state.partial.is_empty() && state.start.0 < position
        })
    }

    /// The unfinished line of a stream.
    pub(crate) fn unfinished(&self, stream: Stream) -> Option<&[u8]> {
        let partial = &self.streams[stream.index()].partial;
        (!partial.is_empty()).then_some(partial.as_slice())
    }

    /// What `note` would be if it stood here.
    pub(crate) fn gap_found(&self, stream: Stream, note: GapNote) -> Found<'static> {
        self.streams[stream.index()].gap_found(note)
    }

    /// Takes the next frame; `out` gets each entry's position and what it is. Frames that are sealed already are passed over.
    pub(crate) fn feed(&mut self, frame: &Frame, payload: &[u8], out: &mut dyn FnMut(u64, Found<'_>)) {
        let max_line = self.max_line;
        let state = &mut self.streams[frame.stream.index()];
        if frame.position < state.begin.frame {
            return;
        }
        let first = if frame.position == state.begin.frame { state.begin.byte as usize } else { 0 };
        match frame.kind {
            Kind::Data => state.data(frame, payload, first.min(payload.len()), max_line, out),
            Kind::Gap => {
                if let Some(note) = GapNote::decode(payload) {
                    state.gap(frame, note, out);
                }
            }
            Kind::Break => state.line_break(frame, out),
        }
    }
}

impl State {
    fn data(&mut self, frame: &Frame, bytes: &[u8], first: usize, max: usize, out: &mut dyn FnMut(u64, Found<'_>)) {
        let mut at = first;
        if self.skipping {
            match memchr::memchr(b'\n', &bytes[at..]) {
                None => return,
                Some(end) => at += end + 1,
            }
            self.skipping = false;
        }
        let from = at;
        for end in memchr::memchr_iter(b'\n', &bytes[from..]) {
            let end = from + end;
            at = self.pieces(frame, bytes, at, end, max, out);
            if self.partial.is_empty() {
                out(frame.byte(end), line(&bytes[at..end], Ends::AtLineEnd));
            } else {
                self.partial.extend_from_slice(&bytes[at..end]);
                out(frame.byte(end), line(&self.partial, Ends::AtLineEnd));
                self.partial.clear();
            }
            at = end + 1;
        }
        at = self.pieces(frame, bytes, at, bytes.len(), max, out);
        if at < bytes.len() {
            if self.partial.is_empty() {
                self.start = (frame.position, u32::try_from(at).unwrap_or(u32::MAX));
            }
            self.partial.extend_from_slice(&bytes[at..]);
        }
    }

    /// Hands out full pieces while more than `max` bytes of one line stand before `end`; returns where the rest begins.
    fn pieces(
        &mut self,
        frame: &Frame,
        bytes: &[u8],
        mut at: usize,
        end: usize,
        max: usize,
        out: &mut dyn FnMut(u64, Found<'_>),
    ) -> usize {
        while self.partial.len() + (end - at) > max {
            let more = max - self.partial.len().min(max);
            let piece = &bytes[at..at + more];
            at += more;
            if self.partial.is_empty() {
                out(frame.byte(at), line(piece, Ends::GoesOn));
            } else {
                self.partial.extend_from_slice(piece);
                out(frame.byte(at), line(&self.partial, Ends::GoesOn));
                self.partial.clear();
            }
        }
        at
    }

    fn gap(&mut self, frame: &Frame, note: GapNote, out: &mut dyn FnMut(u64, Found<'_>)) {
        if !note.reason.is_exact() && !self.partial.is_empty() {
            // Nobody counted this line: what there is of it is kept.
            out(frame.position, line(&self.partial, Ends::Bare));
        }
        self.partial.clear();
        let found = self.gap_found(note);
        self.skipping = note.open;
        out(frame.position + 1, found);
    }

    fn gap_found(&self, note: GapNote) -> Found<'static> {
        // A line that an earlier gap has counted already ends, or goes on, in this one.
        let counted = u64::from(self.skipping);
        let GapNote { newlines, bytes, from_unix_ns, to_unix_ns, open, reason } = note;
        let lines = (newlines + u64::from(open)).saturating_sub(counted);
        Found::Gap { lines, bytes, from_unix_ns, to_unix_ns, reason }
    }

    fn line_break(&mut self, frame: &Frame, out: &mut dyn FnMut(u64, Found<'_>)) {
        let goes_on = frame.flags & FLAG_GOES_ON != 0;
        if !self.partial.is_empty() {
            out(frame.position, line(&self.partial, if goes_on { Ends::GoesOn } else { Ends::Bare }));
            self.partial.clear();
        }
        if !goes_on {
            self.skipping = false;
        }
    }
}

/// How a line's bytes end.
#[derive(Clone, Copy)]
enum Ends {
    AtLineEnd,
    GoesOn,
    Bare,
}

fn line(text: &[u8], ends: Ends) -> Found<'_> {
    Found::Line { text, continued: matches!(ends, Ends::GoesOn), unterminated: matches!(ends, Ends::Bare) }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
