//! What one stream prints now, from the bytes as they are read. Every read's lines and bytes are known; which templates they are is found
//! out from at most [`SAMPLES_PER_SECOND`] lines a second. Below that every line is looked at and all is exact; above it each line that is
//! looked at, drawn at random places, stands for those since the last.
//!
//! A line of 200 bytes that is looked at costs about 0.5 us, and finding it in a read of 64 KiB some 5 us: a few ms a second at most, 3.3 ns
//! a line at a million lines a second (`cargo bench -p plimsoll-store --bench volume`).

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::{Counted, Sketch, template};

/// Templates kept in each window.
pub const METER_TEMPLATES: usize = 32;
/// Lines looked at in a second, at most (and so many at once).
pub const SAMPLES_PER_SECOND: u64 = 2000;
/// Length of a window. Figures are those of this and the one before: of 30 to 60 seconds.
pub const WINDOW: Duration = Duration::from_secs(30);
/// Lines drawn from one read, when not all are looked at.
const DRAWN: u64 = 4;
/// What is kept of an unfinished line, to see it whole when the rest comes.
const PARTIAL_BYTES: usize = 4096;

/// See the top of the file.
#[derive(Debug)]
pub struct Meter {
    now: Window,
    before: Option<Window>,
    /// Lines that may be looked at.
    tokens: u64,
    refilled: Duration,
    /// Lines that no looked-at line stands for yet.
    owed: u64,
    partial: Partial,
    /// The line before, its beginning if it is long, where every line is looked at.
    last_line: Option<Vec<u8>>,
    /// The template of the line that was looked at last.
    made: Vec<u8>,
    random: u64,
}

/// The beginning of the line that is not finished.
#[derive(Debug)]
enum Partial {
    /// All of it.
    Known(Vec<u8>),
    /// It was not looked at, or is too long.
    Unknown,
}

#[derive(Debug)]
struct Window {
    began: Duration,
    sketch: Sketch,
    lines: u64,
    bytes: u64,
    looked_at: u64,
    repeated: u64,
}

/// What a [`Meter`] says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// The time that it is about.
    pub span: Duration,
    /// Lines in it; exact.
    pub lines: u64,
    /// Bytes in it; exact.
    pub bytes: u64,
    /// Lines that were looked at; all of them, or a sample.
    pub looked_at: u64,
    /// Lines that were the same as the one before; exact if all were looked at.
    pub repeated_lines: u64,
    /// Templates, most bytes first; at most [`METER_TEMPLATES`] of each window.
    pub templates: Vec<Counted>,
}

impl Measured {
    /// Whether every line was looked at.
    pub fn is_exact(&self) -> bool {
        self.looked_at >= self.lines
    }

    /// How far a share of the lines may be off, 0 to 1: two standard deviations of the sample; 0 if it is none.
    pub fn margin(&self, share: f64) -> f64 {
        if self.is_exact() || self.looked_at == 0 {
            return 0.0;
        }
        #[allow(clippy::cast_precision_loss)] // a figure for people
        let n = self.looked_at as f64;
        // Of none or all in the sample, three in it are the most that chance hides (rule of three).
        (2.0 * (share * (1.0 - share) / n).max(0.0).sqrt()).max(3.0 / n).min(1.0)
    }
}

impl Meter {
    /// Nothing seen yet; `now` on any clock that never goes back.
    pub fn new(now: Duration) -> Meter {
        Meter {
            now: Window::new(now),
            before: None,
            tokens: SAMPLES_PER_SECOND,
            refilled: now,
            owed: 0,
            partial: Partial::Known(Vec::new()),
            last_line: None,
            made: Vec::new(),
            random: RandomState::new().hash_one(0) | 1,
        }
    }

    /// Takes what one read brought: its bytes, and how many line ends are in them.
    pub fn see(&mut self, data: &[u8], lines: u64, now: Duration) {
        self.turn(now);
        self.now.lines += lines;
        self.now.bytes += data.len() as u64;
        if lines <= self.tokens {
            self.tokens -= lines;
            self.all(data);
            return;
        }
        self.partial = Partial::Unknown;
        self.owed += lines;
        let draw = DRAWN.min(self.tokens);
        self.tokens -= draw;
        if draw > 0 {
            self.draw(data, lines, draw);
        }
    }

    /// What was printed in this window and the one before.
    pub fn measured(&mut self, now: Duration) -> Measured {
        self.turn(now);
        let windows = || [self.before.as_ref(), Some(&self.now)].into_iter().flatten();
        let sum = |of: fn(&Window) -> u64| windows().map(of).sum();
        let began = windows().map(|window| window.began).min().unwrap_or(now);
        let sketches: Vec<&Sketch> = windows().map(|window| &window.sketch).collect();
        Measured {
            span: now.saturating_sub(began),
            lines: sum(|window| window.lines),
            bytes: sum(|window| window.bytes),
            looked_at: sum(|window| window.looked_at),
            repeated_lines: sum(|window| window.repeated),
            templates: Sketch::sum(&sketches),
        }
    }

    /// Begins a new window when it is time, and allows new looks.
    fn turn(&mut self, now: Duration) {
        let age = now.saturating_sub(self.now.began);
        if age >= WINDOW {
            let full = std::mem::replace(&mut self.now, Window::new(now));
            self.before = (age < 2 * WINDOW).then_some(full);
        }
        let since = now.saturating_sub(self.refilled);
        let earned =
            u64::try_from(since.as_micros()).unwrap_or(u64::MAX).saturating_mul(SAMPLES_PER_SECOND) / 1_000_000;
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(SAMPLES_PER_SECOND);
            self.refilled = now;
        }
    }

    /// Looks at every line that ends in `data`.
    fn all(&mut self, data: &[u8]) {
        let mut from = 0;
        for end in memchr::memchr_iter(b'\n', data) {
            let piece = &data[from..end];
            from = end + 1;
            match std::mem::replace(&mut self.partial, Partial::Known(Vec::new())) {
                Partial::Known(begun) if begun.is_empty() => self.whole(piece),
                Partial::Known(mut begun) => {
                    begun.extend_from_slice(piece);
                    self.whole(&begun);
                    begun.clear();
                    self.partial = Partial::Known(begun);
                }
                // Only its end is known: the next one stands for it too.
                Partial::Unknown => self.owed += 1,
            }
        }
        let rest = &data[from..];
        match &mut self.partial {
            Partial::Known(begun) if begun.len() + rest.len() <= PARTIAL_BYTES => begun.extend_from_slice(rest),
            partial => *partial = Partial::Unknown,
        }
    }

    /// A line, with the one before it known.
    fn whole(&mut self, line: &[u8]) {
        let lines = 1 + std::mem::take(&mut self.owed);
        self.now.looked_at += 1;
        let kept = &line[..line.len().min(PARTIAL_BYTES)];
        if self.last_line.as_deref() == Some(kept) {
            self.now.repeated += lines;
        } else {
            template(line, &mut self.made);
            let last = self.last_line.get_or_insert_default();
            last.clear();
            last.extend_from_slice(kept);
        }
        self.now.sketch.add(&self.made, lines, lines * (line.len() as u64 + 1));
    }

    /// Looks at `count` of the `lines` lines that end in `data`, evenly apart from a random first one; together they stand for all that is
    /// owed. (Lines at random *bytes* would be long ones, and those that follow long ones, more often than not.) The first line is
    /// passed over: its beginning came before.
    fn draw(&mut self, data: &[u8], lines: u64, count: u64) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let step = (lines / count).max(1);
        let mut next = self.random % step;
        let (mut left, mut begin) = (count, None);
        let mut before: Option<&[u8]> = None;
        self.last_line = None;
        for (index, end) in (0..lines).zip(memchr::memchr_iter(b'\n', data)) {
            let line = begin.map(|begin: usize| &data[begin..end]);
            if index == next {
                next += step;
                if let Some(line) = line {
                    let stands_for = self.owed / left;
                    self.owed -= stands_for;
                    template(line, &mut self.made);
                    self.now.looked_at += 1;
                    self.now.repeated += if before == Some(line) { stands_for } else { 0 };
                    self.now.sketch.add(&self.made, stands_for, stands_for * (line.len() as u64 + 1));
                }
                left -= 1;
                if left == 0 {
                    return;
                }
            }
            (before, begin) = (line, Some(end + 1));
        }
    }
}

impl Window {
    fn new(began: Duration) -> Window {
        Window { began, sketch: Sketch::new(METER_TEMPLATES), lines: 0, bytes: 0, looked_at: 0, repeated: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn see(meter: &mut Meter, text: &str, now: Duration) {
        meter.see(text.as_bytes(), text.matches('\n').count() as u64, now);
    }

    fn told(measured: &Measured) -> Vec<(String, u64, u64)> {
        measured.templates.iter().map(|c| (String::from_utf8(c.template.clone()).unwrap(), c.lines, c.bytes)).collect()
    }

    #[test]
    fn a_quiet_stream_is_measured_exactly_wherever_reads_cut_it() {
        let text = "conn 1\nconn 2\nsame\nsame\nsame\n\nconn 30\n".repeat(20);
        for step in [1, 3, 7, 1000] {
            let mut meter = Meter::new(at(0));
            let mut rest = text.as_str();
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(rest.len().min(step));
                see(&mut meter, piece, at(1));
                rest = more;
            }
            let measured = meter.measured(at(2000));
            assert_eq!((measured.lines, measured.bytes), (140, text.len() as u64));
            assert!(measured.is_exact() && measured.margin(0.5) == 0.0);
            assert_eq!(measured.repeated_lines, 40, "step {step}");
            let expected = [("conn #".to_string(), 60, 440), ("same".to_string(), 60, 300), (String::new(), 20, 20)];
            assert_eq!(told(&measured), expected, "step {step}");
            assert_eq!(measured.span, at(2000));
        }
    }

    #[test]
    fn a_flood_is_measured_by_a_sample_that_says_how_far_it_may_be_off() {
        let mut meter = Meter::new(at(0));
        // Three in four lines are the flood's; ten seconds of 300,000 lines a second, a read each millisecond.
        let block: String = (0..300)
            .map(|n| if n % 4 == 3 { format!("request {n} served\n") } else { "accept: EMFILE\n".into() })
            .collect();
        for ms in 0..10_000 {
            see(&mut meter, &block, at(ms));
        }
        let measured = meter.measured(at(10_000));
        assert_eq!(measured.lines, 3_000_000);
        assert!(!measured.is_exact() && measured.looked_at <= 11 * SAMPLES_PER_SECOND, "{}", measured.looked_at);
        let found = told(&measured);
        assert_eq!(found[0].0, "accept: EMFILE", "{found:?}");
        let share = found[0].1 as f64 / 3e6;
        assert!((share - 0.75).abs() <= 2.0 * measured.margin(share), "{share} +- {}", measured.margin(share));
        assert!(measured.margin(share) < 0.02, "{}", measured.margin(share));
        let repeated = measured.repeated_lines as f64 / 3e6;
        assert!((repeated - 0.5).abs() < 0.05, "{repeated}");
        let all: u64 = measured.templates.iter().map(|c| c.lines).sum();
        assert!(measured.lines - all <= 300, "every line is stood for, but for the last read's: {all}");
    }

    #[test]
    fn the_first_line_repeats_nothing_also_if_it_is_empty() {
        let mut meter = Meter::new(at(0));
        see(&mut meter, "\n\na\na\n", at(1));
        assert_eq!(meter.measured(at(2)).repeated_lines, 2);
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut meter = Meter::new(at(0));
        see(&mut meter, "old\n", at(10));
        see(&mut meter, "new\n", at(31_000));
        assert_eq!(meter.measured(at(32_000)).lines, 2);
        assert_eq!(told(&meter.measured(at(61_500))), [("new".to_string(), 1, 4)]);
        let nothing = meter.measured(at(200_000));
        assert_eq!((nothing.lines, nothing.templates.len()), (0, 0));
    }

    #[test]
    fn a_line_without_end_and_no_line_at_all_cost_nothing() {
        let mut meter = Meter::new(at(0));
        for ms in 0..1000 {
            meter.see(&[b'x'; 65_536], 0, at(ms));
        }
        see(&mut meter, "end\nnext\n", at(1000));
        let measured = meter.measured(at(1000));
        assert_eq!((measured.lines, measured.looked_at), (2, 1));
        assert_eq!(told(&measured), [("next".to_string(), 2, 10)]);
    }
}
