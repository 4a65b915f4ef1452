//! A line of toned words that knows its width, and how it is written to a terminal.
//!
//! Colours are the terminal's own sixteen, so that a light or dark theme stays readable. Widths count East Asian wide
//! characters as two columns and control characters as the one column of their replacement.

use std::io::IsTerminal;

/// What a word means, and so how it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Dim,
    Strong,
    /// All is well.
    Good,
    /// Worth a look: elevated, backing off.
    Warn,
    /// Act soon: high.
    Alarm,
    /// Now: critical, stale, killed.
    Critical,
    /// A figure or name to find quickly.
    Note,
    /// The background of a filled bar shows through: a mark inside it.
    Cut(&'static str),
}

impl Tone {
    /// The escape sequence before a word of this tone.
    fn begin(self) -> &'static str {
        match self {
            Tone::Plain => "",
            Tone::Dim => "\x1b[2m",
            Tone::Strong => "\x1b[1m",
            Tone::Good => "\x1b[32m",
            Tone::Warn => "\x1b[33m",
            Tone::Alarm => "\x1b[31m",
            Tone::Critical => "\x1b[1;7;31m",
            Tone::Note => "\x1b[36m",
            Tone::Cut(begin) => begin,
        }
    }
}

/// One line. Built from left to right; never longer than it is clipped to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    spans: Vec<(Tone, String)>,
    width: usize,
}

impl Line {
    pub(crate) fn new() -> Line {
        Line::default()
    }

    /// Adds words.
    pub(crate) fn add(mut self, tone: Tone, words: impl AsRef<str>) -> Line {
        self.push(tone, words.as_ref());
        self
    }

    /// Adds plain words.
    pub(crate) fn plain(self, words: impl AsRef<str>) -> Line {
        self.add(Tone::Plain, words)
    }

    pub(crate) fn push(&mut self, tone: Tone, words: &str) {
        let clean: String = words.chars().map(printable).collect();
        self.width += width(&clean);
        match self.spans.last_mut() {
            Some((last, text)) if *last == tone => text.push_str(&clean),
            _ if clean.is_empty() => {}
            _ => self.spans.push((tone, clean)),
        }
    }

    /// Adds blanks up to a column; at least none.
    pub(crate) fn pad_to(mut self, column: usize) -> Line {
        let missing = column.saturating_sub(self.width);
        self.push(Tone::Plain, &" ".repeat(missing));
        self
    }

    /// Appends another line at its left edge here.
    pub(crate) fn join(mut self, other: Line) -> Line {
        for (tone, words) in other.spans {
            self.push(tone, &words);
        }
        self
    }

    /// Puts another line at the right edge of `columns`, when there is room for it and two blanks.
    pub(crate) fn right(self, other: Line, columns: usize) -> Line {
        if self.width + other.width + 2 > columns {
            return self;
        }
        let column = columns - other.width;
        self.pad_to(column).join(other)
    }

    /// Columns it takes.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Cuts what does not fit into `columns`, with a sign that something was cut.
    pub(crate) fn clip(self, columns: usize) -> Line {
        if self.width <= columns {
            return self;
        }
        let mut cut = Line::new();
        let room = columns.saturating_sub(1);
        'spans: for (tone, words) in self.spans {
            for c in words.chars() {
                if cut.width + char_width(c) > room {
                    break 'spans;
                }
                cut.push(tone, c.encode_utf8(&mut [0; 4]));
            }
        }
        if columns > 0 {
            cut.push(Tone::Dim, "…");
        }
        cut
    }

    /// Writes it, without an end of line.
    pub(crate) fn write(&self, out: &mut String, colour: bool) {
        for (tone, words) in &self.spans {
            let begin = tone.begin();
            if colour && !begin.is_empty() {
                out.push_str(begin);
                out.push_str(words);
                out.push_str("\x1b[0m");
            } else {
                out.push_str(words);
            }
        }
    }
}

/// All lines with an end each, blanks at line ends removed when plain.
pub(crate) fn write_lines(lines: &[Line], colour: bool) -> String {
    let mut out = String::new();
    for line in lines {
        line.write(&mut out, colour);
        if !colour {
            out.truncate(out.trim_end_matches(' ').len());
        }
        out.push('\n');
    }
    out
}

/// Whether stdout shall have colours: a terminal and no `NO_COLOR`, or `CLICOLOR_FORCE`.
pub(crate) fn colour_for_stdout() -> bool {
    let set = |key: &str| std::env::var_os(key).is_some_and(|v| !v.is_empty());
    if set("NO_COLOR") || std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        return false;
    }
    std::env::var_os("CLICOLOR_FORCE").is_some_and(|v| v != "0") || std::io::stdout().is_terminal()
}

/// A character that cannot steer a terminal.
fn printable(c: char) -> char {
    let steers =
        c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if steers { '·' } else { c }
}

/// Columns of a text.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

fn char_width(c: char) -> usize {
    match u32::from(c) {
        0x300..=0x36f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &Line, colour: bool) -> String {
        let mut out = String::new();
        line.write(&mut out, colour);
        out
    }

    #[test]
    fn a_program_cannot_steer_the_terminal() {
        let line = Line::new().plain("a\x1b[2Jb\r\n\u{202e}c");
        assert_eq!(shown(&line, true), "a·[2Jb···c");
    }

    #[test]
    fn clipping_says_that_something_was_cut_and_keeps_the_width() {
        let line = Line::new().add(Tone::Good, "abc").plain("日本語");
        assert_eq!(line.width(), 9);
        for columns in 0..12 {
            let cut = line.clone().clip(columns);
            assert!(cut.width() <= columns, "{columns}: {cut:?}");
        }
        assert_eq!(shown(&line.clone().clip(6), false), "abc日…");
        assert_eq!(shown(&line.clip(9), false), "abc日本語");
    }

    #[test]
    fn right_alignment_gives_way_when_there_is_no_room() {
        let left = || Line::new().plain("left");
        let right = || Line::new().plain("right");
        assert_eq!(shown(&left().right(right(), 12), false), "left   right");
        assert_eq!(shown(&left().right(right(), 10), false), "left");
    }

    #[test]
    fn without_colour_there_is_no_escape_sequence() {
        let line = Line::new().add(Tone::Critical, "x").add(Tone::Dim, "y  ");
        assert_eq!(write_lines(std::slice::from_ref(&line), false), "xy\n");
        assert!(shown(&line, true).starts_with("\x1b[1;7;31mx\x1b[0m"));
    }
}
