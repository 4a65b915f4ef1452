//! What one terminal is shown of the pieces that reach it: whole lines, and how many are missing. Pure.
//!
//! Each piece says where in its stream it begins ([`Mark`]), so a hole is seen by whoever receives the next piece. Around
//! a hole the line that was torn is left out up to its end and counted, so a terminal that falls behind sees fewer lines,
//! not broken ones. Where two streams share a place, the unfinished end of a line is held back (at most [`HELD_BYTES`] per
//! stream, and for [`HOLD`]) until the rest is there, so that lines of the two do not run into each other; a prompt
//! without a newline shows up after [`HOLD`].

use std::time::Duration;

/// The most of an unfinished line that is held back, per stream, in bytes.
pub(super) const HELD_BYTES: usize = 16 << 10;
/// How long an unfinished line is held back.
pub(super) const HOLD: Duration = Duration::from_millis(30);

/// A place in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Bytes before it.
    pub(super) bytes: u64,
    /// Line ends before it.
    pub(super) lines: u64,
    /// The byte before it is no line end (and is there).
    pub(super) inside_line: bool,
}

impl Mark {
    /// The place behind `data`, which begins here.
    pub(super) fn after(self, data: &[u8]) -> Mark {
        Mark {
            bytes: self.bytes + data.len() as u64,
            lines: self.lines + count_lines(data),
            inside_line: data.last().map_or(self.inside_line, |byte| *byte != b'\n'),
        }
    }
}

/// One stream on its way to the terminal.
#[derive(Debug, Default)]
struct Course {
    /// Where the next piece begins if nothing is missing.
    expected: Mark,
    held: Vec<u8>,
    /// The rest of the line goes the way of its beginning; it is counted already.
    skipping: bool,
}

/// The streams that share one place.
#[derive(Debug)]
pub(super) struct Lines {
    courses: [Course; 2],
    held_since: Option<Duration>,
    hold_back: bool,
    newline: &'static str,
    /// The last byte shown was no line end.
    open_line: bool,
}

/// What a hole costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    /// Lines that are not shown, or not to their end.
    pub(super) lines: u64,
    /// Of these, how many have no line end inside the hole; below zero where one was counted before.
    pub(super) torn: i64,
}

impl Lines {
    /// `hold_back` where two streams share the place.
    pub(super) fn new(hold_back: bool, newline: &'static str) -> Lines {
        Lines { courses: Default::default(), held_since: None, hold_back, newline, open_line: false }
    }

    /// `stream` goes on at `at`; what is missing before it.
    pub(super) fn resume(&mut self, stream: usize, at: Mark) -> Missing {
        let course = &mut self.courses[stream];
        if at.bytes <= course.expected.bytes {
            return Missing::default();
        }
        let ends = at.lines - course.expected.lines;
        // The line that was being left out ends inside the hole: it is counted already.
        let counted = course.skipping && ends > 0;
        let still_skipping = course.skipping && ends == 0;
        let torn = i64::from(at.inside_line && !still_skipping) - i64::from(counted);
        course.skipping = at.inside_line;
        course.expected = at;
        course.held.clear();
        self.settle();
        Missing { lines: ends.saturating_add_signed(torn), torn }
    }

    /// Appends to `out` what is to be shown of `data`, which `stream` wrote at the place where it was expected.
    pub(super) fn piece(&mut self, stream: usize, data: &[u8], now: Duration, out: &mut Vec<u8>) {
        let course = &mut self.courses[stream];
        course.expected = course.expected.after(data);
        let mut data = data;
        if course.skipping {
            let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
            course.skipping = false;
            data = &data[end + 1..];
        }
        let last_end = data.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let (lines, rest) = data.split_at(if self.hold_back { last_end } else { data.len() });
        if !lines.is_empty() {
            out.append(&mut course.held);
            out.extend_from_slice(lines);
            self.open_line = lines.last() != Some(&b'\n');
        }
        if course.held.len() + rest.len() > HELD_BYTES {
            out.append(&mut course.held);
            out.extend_from_slice(rest);
            self.open_line = true;
        } else if !rest.is_empty() {
            course.held.extend_from_slice(rest);
            self.held_since.get_or_insert(now);
        }
        self.settle();
    }

    /// Appends a line of Plimsoll's own, on a line of its own.
    pub(super) fn say(&mut self, text: &str, out: &mut Vec<u8>) {
        if self.open_line {
            out.extend_from_slice(self.newline.as_bytes());
        }
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(self.newline.as_bytes());
        self.open_line = false;
    }

    /// When the held-back end of a line is due, if one is held.
    pub(super) fn due(&self) -> Option<Duration> {
        self.held_since.map(|since| since + HOLD)
    }

    /// Appends what is held back, whether due or not.
    pub(super) fn release(&mut self, out: &mut Vec<u8>) {
        for course in &mut self.courses {
            self.open_line |= !course.held.is_empty();
            out.append(&mut course.held);
        }
        self.settle();
    }

    fn settle(&mut self) {
        if self.courses.iter().all(|course| course.held.is_empty()) {
            self.held_since = None;
        }
    }
}

/// How many line ends.
pub(super) fn count_lines(data: &[u8]) -> u64 {
    data.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Duration = Duration::from_secs(1);

    /// A stream's writer and its terminal.
    struct Rig {
        lines: Lines,
        at: [Mark; 2],
        shown: Vec<u8>,
        missing: u64,
        torn: i64,
    }

    impl Rig {
        fn new(hold_back: bool) -> Rig {
            Rig { lines: Lines::new(hold_back, "\n"), at: Default::default(), shown: Vec::new(), missing: 0, torn: 0 }
        }

        fn write(&mut self, stream: usize, data: &[u8], arrives: bool) {
            let at = self.at[stream];
            self.at[stream] = at.after(data);
            if arrives {
                self.resume(stream, at);
                self.lines.piece(stream, data, T0, &mut self.shown);
            }
        }

        fn resume(&mut self, stream: usize, at: Mark) {
            let missing = self.lines.resume(stream, at);
            self.missing += missing.lines;
            self.torn += missing.torn;
        }

        fn text(&mut self) -> String {
            String::from_utf8(std::mem::take(&mut self.shown)).unwrap()
        }
    }

    #[test]
    fn lines_of_two_streams_do_not_run_into_each_other() {
        let mut rig = Rig::new(true);
        rig.write(0, b"one\nhalf of ", true);
        rig.write(1, b"error\n", true);
        rig.write(0, b"a line\n", true);
        assert_eq!(rig.text(), "one\nerror\nhalf of a line\n");
        assert_eq!(rig.lines.due(), None);
    }

    #[test]
    fn a_prompt_is_held_back_only_for_a_moment() {
        let mut rig = Rig::new(true);
        rig.write(0, b"Password: ", true);
        assert_eq!((rig.text(), rig.lines.due()), (String::new(), Some(T0 + HOLD)));
        rig.lines.release(&mut rig.shown);
        assert_eq!((rig.text(), rig.lines.due()), ("Password: ".to_owned(), None));
        rig.lines.say("plimsoll: hello", &mut rig.shown);
        assert_eq!(rig.text(), "\nplimsoll: hello\n", "on a line of its own");
    }

    #[test]
    fn a_stream_of_its_own_is_passed_on_byte_by_byte() {
        let mut rig = Rig::new(false);
        rig.write(0, b"50 %\r", true);
        assert_eq!(rig.text(), "50 %\r");
    }

    #[test]
    fn a_torn_line_is_left_out_and_counted_once() {
        for hold_back in [true, false] {
            let mut rig = Rig::new(hold_back);
            rig.write(0, b"aaaa\n", true);
            rig.write(0, b"bbbb\ncc", false);
            rig.write(0, b"cc\ndddd\n", true);
            assert_eq!((rig.text().as_str(), rig.missing, rig.torn), ("aaaa\ndddd\n", 2, 1), "hold_back {hold_back}");
            // Inside one long line, twice: one line.
            rig.write(0, b"xx", false);
            rig.write(0, b"xx", true);
            rig.write(0, b"xx", false);
            rig.write(0, b"xx\neeee\n", true);
            assert_eq!((rig.text().as_str(), rig.missing, rig.torn), ("eeee\n", 3, 2), "hold_back {hold_back}");
            // Its end lies in the next hole.
            rig.write(0, b"yy", false);
            rig.write(0, b"yy", true);
            rig.write(0, b"y\nzzzz\n", false);
            rig.write(0, b"ffff\n", true);
            assert_eq!((rig.text().as_str(), rig.missing, rig.torn), ("ffff\n", 5, 2), "hold_back {hold_back}");
        }
    }

    #[test]
    fn every_line_is_shown_or_counted_whatever_the_pieces_and_holes() {
        let text: Vec<u8> =
            (0..2000_u32).flat_map(|i| format!("{:0>1$}\n", i, 1 + (i % 37) as usize).into_bytes()).collect();
        let whole: std::collections::HashSet<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        for (piece, every) in [(1, 3), (7, 2), (64, 2), (64, 5), (333, 4), (4096, 3), (100_000, 9)] {
            let mut rig = Rig::new(true);
            let mut refused_ends = 0;
            for (i, part) in text.chunks(piece).enumerate() {
                // Runs of holes, not only single ones.
                let arrives = (i / 2) % every != 0;
                refused_ends += if arrives { 0 } else { count_lines(part) };
                rig.write(0, part, arrives);
            }
            let end = rig.at[0];
            rig.resume(0, end);
            rig.lines.release(&mut rig.shown);
            let shown: Vec<&[u8]> = rig.shown.split_inclusive(|byte| *byte == b'\n').collect();
            assert!(shown.iter().all(|line| whole.contains(line)), "piece {piece}: a line was torn");
            assert_eq!(shown.len() as u64 + rig.missing, 2000, "piece {piece}, a hole every {every}");
            assert_eq!(refused_ends.checked_add_signed(rig.torn), Some(rig.missing), "piece {piece}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_held_back_beyond_the_bound() {
        let mut rig = Rig::new(true);
        let mut shown = 0;
        for i in 1..=1000 {
            rig.write(0, &[b'x'; 10_000], true);
            shown += rig.text().len();
            assert!(i * 10_000 - shown <= HELD_BYTES);
        }
    }
}
