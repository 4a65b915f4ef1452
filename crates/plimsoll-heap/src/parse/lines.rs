//! Lines of an untrusted text, one at a time: each at most [`LINE_MAX`] (64 KiB), all together at most [`super::BYTES_MAX`]. What is
//! longer is cut and said.

use std::io::{BufRead, BufReader, Read};

use super::{BYTES_MAX, ReadError};

/// Bytes of a line that are kept.
pub(super) const LINE_MAX: usize = 64 << 10;

/// A text, line by line.
pub(super) struct Lines<R> {
    input: BufReader<R>,
    line: Vec<u8>,
    /// Bytes before the line that was read last, and behind it.
    pub(super) offset: u64,
    next: u64,
    /// Whether the line that was read last had an end: what has none is torn, or the last of a text that ends without one.
    pub(super) ended: bool,
}

/// One line, without its end.
pub(super) struct Line<'a> {
    pub(super) text: std::borrow::Cow<'a, str>,
    pub(super) cut: bool,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R) -> Lines<R> {
        Lines { input: BufReader::new(input), line: Vec::new(), offset: 0, next: 0, ended: false }
    }

    /// The next line; `None` at the end.
    pub(super) fn read(&mut self) -> Result<Option<Line<'_>>, ReadError> {
        self.line.clear();
        self.offset = self.next;
        let (mut cut, mut ended) = (false, false);
        loop {
            let some = self.input.fill_buf()?;
            if some.is_empty() {
                break;
            }
            let end = memchr::memchr(b'\n', some);
            let used = end.map_or(some.len(), |at| at + 1);
            let room = LINE_MAX - self.line.len();
            let text = &some[..end.unwrap_or(some.len())];
            cut |= text.len() > room;
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            self.input.consume(used);
            self.next += used as u64;
            if self.next > BYTES_MAX {
                return Err(ReadError::TooMany { most: BYTES_MAX, what: "bytes" });
            }
            if end.is_some() {
                ended = true;
                break;
            }
        }
        if self.next == self.offset {
            return Ok(None);
        }
        self.ended = ended;
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(Some(Line { text: String::from_utf8_lossy(&self.line), cut }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_know_where_they_are() {
        let long = "x".repeat(LINE_MAX + 5);
        let text = format!("one\r\n{long}\n\nlast");
        let mut lines = Lines::new(text.as_bytes());
        let mut seen = Vec::new();
        while let Some(line) = lines.read().unwrap() {
            let (length, cut) = (line.text.len(), line.cut);
            seen.push((lines.offset, length, cut));
            assert_eq!(lines.ended, lines.next < text.len() as u64);
        }
        let after = 5 + long.len() as u64 + 1;
        assert_eq!(seen, [(0, 3, false), (5, LINE_MAX, true), (after, 0, false), (after + 1, 4, false)]);
    }
}
