//! The bytes that wait for one terminal: bounded, whole lines, every line that did not fit counted. Pure.
//!
//! At most [`Lane::new`]'s `cap_bytes` wait, and as much again is being written. What does not fit is dropped up to the
//! next newline, so a terminal that falls behind sees fewer lines, not torn ones. Where two streams share a lane, the
//! unfinished end of a line is held back (at most [`HELD_BYTES`] per stream, and for [`HOLD`]) until the rest is there,
//! so that lines of the two do not run into each other; a prompt without a newline shows up after [`HOLD`].

use std::time::Duration;

/// The most of an unfinished line that is held back, per stream.
const HELD_BYTES: usize = 16 << 10;
/// How long an unfinished line is held back.
pub(super) const HOLD: Duration = Duration::from_millis(30);

/// Streams that can share a lane.
const STREAMS: usize = 2;

/// What waits for one terminal (or pipe, or file).
#[derive(Debug)]
pub(super) struct Lane {
    pending: Vec<u8>,
    held: [Vec<u8>; STREAMS],
    held_since: Option<Duration>,
    /// The rest of this stream's line goes the way of its beginning.
    skipping: [bool; STREAMS],
    cap_bytes: usize,
    hold_back: bool,
    /// The last byte that went in was no newline.
    open_line: bool,
    /// A line was cut off where it had been shown in part: the next byte begins a new line.
    owes_newline: bool,
    /// Lines dropped since the last [`Lane::take`].
    dropped_lines: u64,
}

/// Lines and bytes that one push could not place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) lines: u64,
    pub(super) bytes: u64,
}

impl Lane {
    /// An empty lane for at most `cap_bytes`; `hold_back` where two streams share it.
    pub(super) fn new(cap_bytes: usize, hold_back: bool) -> Lane {
        Lane {
            pending: Vec::new(),
            held: Default::default(),
            held_since: None,
            skipping: [false; STREAMS],
            cap_bytes,
            hold_back,
            open_line: false,
            owes_newline: false,
            dropped_lines: 0,
        }
    }

    /// Takes what `stream` (0 or 1) wrote, as far as there is room.
    pub(super) fn push(&mut self, stream: usize, data: &[u8], now: Duration) -> Dropped {
        let mut dropped = Dropped::default();
        let mut data = data;
        if self.skipping[stream] {
            let skipped = find(data, b'\n').map_or(data.len(), |newline| newline + 1);
            self.skipping[stream] = skipped == data.len() && data.last() != Some(&b'\n');
            dropped.bytes += skipped as u64;
            data = &data[skipped..];
        }
        let whole = if self.hold_back { rfind(data, b'\n').map_or(0, |newline| newline + 1) } else { data.len() };
        let (lines, rest) = data.split_at(whole);
        if !lines.is_empty() {
            let held = self.held[stream].len();
            let room = self.cap_bytes.saturating_sub(self.pending.len());
            let fits = if held + lines.len() <= room {
                lines.len()
            } else {
                // Up to the last newline for which there is room.
                lines.get(..room.saturating_sub(held)).and_then(|part| rfind(part, b'\n')).map_or(0, |i| i + 1)
            };
            if fits > 0 {
                self.append(stream, &lines[..fits]);
            }
            let lost = &lines[fits..];
            if !lost.is_empty() {
                dropped.bytes += (lost.len() + self.held[stream].len()) as u64;
                dropped.lines += count(lost, b'\n') + u64::from(lost.last() != Some(&b'\n'));
                self.skipping[stream] = lost.last() != Some(&b'\n') || !rest.is_empty();
                if !rest.is_empty() {
                    dropped.lines += 1;
                    dropped.bytes += rest.len() as u64;
                }
            }
            self.held[stream].clear();
        }
        if !rest.is_empty() && !self.skipping[stream] {
            self.hold(stream, rest, now, &mut dropped);
        }
        if self.held.iter().all(Vec::is_empty) {
            self.held_since = None;
        }
        self.owes_newline |= dropped.lines > 0 && self.open_line;
        self.dropped_lines += dropped.lines;
        dropped
    }

    fn hold(&mut self, stream: usize, rest: &[u8], now: Duration, dropped: &mut Dropped) {
        let held = self.held[stream].len();
        if held + rest.len() <= HELD_BYTES {
            self.held[stream].extend_from_slice(rest);
            self.held_since.get_or_insert(now);
        } else if self.pending.len() + held + rest.len() <= self.cap_bytes {
            self.append(stream, rest);
        } else {
            dropped.lines += 1;
            dropped.bytes += (held + rest.len()) as u64;
            self.held[stream].clear();
            self.skipping[stream] = true;
        }
    }

    /// What is held back of `stream`, and then `data`.
    fn append(&mut self, stream: usize, data: &[u8]) {
        if std::mem::take(&mut self.owes_newline) {
            self.pending.push(b'\n');
        }
        self.pending.append(&mut self.held[stream]);
        self.pending.extend_from_slice(data);
        self.open_line = data.last() != Some(&b'\n');
    }

    /// Puts a line of Plimsoll's own in, on a line of its own; false when there is no room.
    pub(super) fn say(&mut self, text: &str, newline: &str) -> bool {
        if self.pending.len() + text.len() + 2 * newline.len() > self.cap_bytes {
            return false;
        }
        if self.open_line {
            self.pending.extend_from_slice(newline.as_bytes());
        }
        self.pending.extend_from_slice(text.as_bytes());
        self.pending.extend_from_slice(newline.as_bytes());
        self.open_line = false;
        self.owes_newline = false;
        true
    }

    /// When the held-back end of a line is due, if one is held.
    pub(super) fn due(&self) -> Option<Duration> {
        self.held_since.map(|since| since + HOLD)
    }

    /// Moves everything that waits into `out` (which is empty; its capacity is used again), together with what is held
    /// back and due at `now` (`None`: all of it). Says how many lines were dropped behind it.
    pub(super) fn take(&mut self, out: &mut Vec<u8>, now: Option<Duration>) -> u64 {
        if self.held_since.is_some_and(|since| now.is_none_or(|now| now >= since + HOLD)) {
            for held in &mut self.held {
                self.open_line |= !held.is_empty();
                self.pending.append(held);
            }
            self.held_since = None;
        }
        std::mem::swap(&mut self.pending, out);
        std::mem::take(&mut self.dropped_lines)
    }

    /// Nothing waits and nothing is held back.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.held_since.is_none()
    }

    /// Gives everything up, as when the terminal is gone; what was given up.
    pub(super) fn abandon(&mut self) -> Dropped {
        let mut all = std::mem::take(&mut self.pending);
        self.held.iter_mut().for_each(|held| all.append(held));
        self.held_since = None;
        self.dropped_lines = 0;
        Dropped {
            lines: count(&all, b'\n') + u64::from(all.last().is_some_and(|b| *b != b'\n')),
            bytes: all.len() as u64,
        }
    }
}

/// How often `byte` occurs.
pub(super) fn count(data: &[u8], byte: u8) -> u64 {
    data.iter().filter(|b| **b == byte).count() as u64
}

fn find(data: &[u8], byte: u8) -> Option<usize> {
    data.iter().position(|b| *b == byte)
}

fn rfind(data: &[u8], byte: u8) -> Option<usize> {
    data.iter().rposition(|b| *b == byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Duration = Duration::from_secs(1);

    fn taken(lane: &mut Lane, now: Duration) -> String {
        let mut out = Vec::new();
        lane.take(&mut out, Some(now));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_of_two_streams_do_not_run_into_each_other() {
        let mut lane = Lane::new(1024, true);
        lane.push(0, b"one\nhalf of ", T0);
        lane.push(1, b"error\n", T0);
        lane.push(0, b"a line\n", T0);
        assert_eq!(taken(&mut lane, T0), "one\nerror\nhalf of a line\n");
        assert!(lane.is_empty());
    }

    #[test]
    fn a_prompt_is_held_back_only_for_a_moment() {
        let mut lane = Lane::new(1024, true);
        lane.push(0, b"Password: ", T0);
        assert_eq!(lane.due(), Some(T0 + HOLD));
        assert_eq!(taken(&mut lane, T0 + HOLD / 2), "");
        assert_eq!(taken(&mut lane, T0 + HOLD), "Password: ");
        assert_eq!(lane.due(), None);
    }

    #[test]
    fn a_stream_of_its_own_is_passed_on_byte_by_byte() {
        let mut lane = Lane::new(1024, false);
        lane.push(0, b"50 %\r", T0);
        assert_eq!(taken(&mut lane, T0), "50 %\r");
    }

    #[test]
    fn what_does_not_fit_is_dropped_in_whole_lines_and_counted() {
        for hold_back in [true, false] {
            let mut lane = Lane::new(10, hold_back);
            let dropped = lane.push(0, b"aaaa\nbbbb\ncccc\ndd", T0);
            assert_eq!(dropped, Dropped { lines: 2, bytes: 7 }, "hold_back {hold_back}");
            assert_eq!(lane.push(0, b"dd\neeee\n", T0), Dropped { lines: 1, bytes: 8 });
            let mut out = Vec::new();
            assert_eq!(lane.take(&mut out, Some(T0)), 3, "what to report: cccc, dddd, eeee");
            assert_eq!(out, b"aaaa\nbbbb\n");
            lane.push(0, b"ffff\n", T0);
            assert_eq!(taken(&mut lane, T0), "ffff\n");
        }
    }

    #[test]
    fn every_byte_is_taken_or_counted_whatever_the_pieces() {
        let text: Vec<u8> =
            (0..2000_u32).flat_map(|i| format!("{:0>1$}\n", i, 1 + (i % 37) as usize).into_bytes()).collect();
        for (piece, cap) in [(1, 64), (7, 64), (64, 64), (333, 100), (4096, 1000), (100_000, 1 << 20)] {
            for hold_back in [true, false] {
                let (mut lane, mut out, mut seen, mut lost) =
                    (Lane::new(cap, hold_back), Vec::new(), Vec::new(), Dropped::default());
                for (i, part) in text.chunks(piece).enumerate() {
                    let dropped = lane.push(0, part, T0);
                    lost = Dropped { lines: lost.lines + dropped.lines, bytes: lost.bytes + dropped.bytes };
                    if i % 5 == 0 {
                        lane.take(&mut out, Some(T0));
                        seen.append(&mut out);
                    }
                }
                lane.take(&mut out, None);
                seen.append(&mut out);
                // Where a line was shown in part and then cut off, it is ended and counted as dropped.
                let ended = count(&seen, b'\n') + lost.lines - 2000;
                assert!(ended == 0 || !hold_back, "piece {piece} cap {cap}: {ended} lines torn");
                assert_eq!(
                    seen.len() as u64 - ended + lost.bytes,
                    text.len() as u64,
                    "piece {piece} cap {cap} {hold_back}"
                );
            }
        }
    }

    #[test]
    fn an_own_line_starts_on_a_line_of_its_own() {
        let mut lane = Lane::new(100, false);
        lane.push(0, b"half", T0);
        assert!(lane.say("plimsoll: 3 lines not echoed", "\n"));
        assert_eq!(taken(&mut lane, T0), "half\nplimsoll: 3 lines not echoed\n");
        assert!(!lane.say(&"x".repeat(100), "\n"), "no room");
    }

    #[test]
    fn a_line_longer_than_the_lane_is_dropped_once() {
        let mut lane = Lane::new(HELD_BYTES * 2, true);
        let mut dropped = 0;
        for _ in 0..1000 {
            dropped += lane.push(0, &[b'x'; 10_000], T0).lines;
        }
        dropped += lane.push(0, b"\nnext\n", T0).lines;
        assert_eq!(dropped, 1);
        assert!(taken(&mut lane, T0).ends_with("x\nnext\n"), "the cut line is ended");
    }
}
