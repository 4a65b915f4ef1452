//! Numbered log lines that anybody can make again: line *n* depends on the seed and *n* alone.
//!
//! A line is `NNNNNNNN word word word …` and exactly [`LineMaker::line_bytes`] bytes long, line feed included; the number is
//! decimal, at least 8 digits. So a reader that knows seed, length and count can tell for every stored byte whether it is the
//! right one, and for every missing byte which line it belonged to.

use crate::words::{MAX_WORD_BYTES, Random, TEXT, WORDS};

/// The shortest and longest line that can be asked for, in bytes.
pub const LINE_BYTES: std::ops::RangeInclusive<usize> = 32..=4096;
/// What a copied word may touch beyond the end of the line.
const SLACK_BYTES: usize = 32;

/// Makes the lines of one seed.
pub struct LineMaker {
    /// Each word followed by a blank and padded, so that copying one is a copy of constant size.
    words: Vec<([u8; 16], u8)>,
    seed: u64,
    line_bytes: usize,
}

impl LineMaker {
    /// Lines of `line_bytes` bytes each, line feed included; clamped to [`LINE_BYTES`].
    pub fn new(seed: u64, line_bytes: usize) -> LineMaker {
        let mut words = Vec::with_capacity(WORDS);
        for word in TEXT.lines() {
            let mut padded = [b' '; 16];
            let length = word.len().min(MAX_WORD_BYTES);
            padded[..length].copy_from_slice(&word.as_bytes()[..length]);
            words.push((padded, length as u8 + 1));
        }
        LineMaker { words, seed, line_bytes: line_bytes.clamp(*LINE_BYTES.start(), *LINE_BYTES.end()) }
    }

    /// The length of every line in bytes, line feed included.
    pub fn line_bytes(&self) -> usize {
        self.line_bytes
    }

    /// Appends line `number` (the first is 1) to `out`.
    pub fn append(&self, number: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + self.line_bytes + SLACK_BYTES, 0);
        let line = &mut out[start..];
        let mut at = digits(number, line);
        let mut random = Random::new(self.seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        while at < self.line_bytes {
            let (word, length) = self.words[random.below(WORDS as u32) as usize];
            line[at..at + 16].copy_from_slice(&word);
            at += usize::from(length);
        }
        line[self.line_bytes - 1] = b'\n';
        out.truncate(start + self.line_bytes);
    }

    /// The number at the head of `text`, if it is a line's head.
    pub fn number(text: &[u8]) -> Option<u64> {
        let end = text.iter().position(|byte| !byte.is_ascii_digit())?;
        if end < 8 || text[end] != b' ' {
            return None;
        }
        std::str::from_utf8(&text[..end]).ok()?.parse().ok()
    }
}

/// Writes `number` with at least 8 digits and a blank; answers how many bytes that took.
fn digits(number: u64, out: &mut [u8]) -> usize {
    let mut reversed = [b'0'; 20];
    let (mut count, mut rest) = (0, number);
    while rest > 0 || count < 8 {
        reversed[count] = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
    }
    for (to, from) in out.iter_mut().zip(reversed[..count].iter().rev()) {
        *to = *from;
    }
    out[count] = b' ';
    count + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_its_length_its_number_and_always_the_same() {
        let maker = LineMaker::new(7, 200);
        for number in [1, 42, 99_999_999, 100_000_000, u64::MAX] {
            let (mut once, mut again) = (Vec::new(), b"before".to_vec());
            maker.append(number, &mut once);
            maker.append(number, &mut again);
            assert_eq!(once.len(), 200);
            assert_eq!(once[199], b'\n');
            assert_eq!(once.iter().filter(|&&byte| byte == b'\n').count(), 1);
            assert_eq!(once, again[6..]);
            assert_eq!(LineMaker::number(&once), Some(number));
        }
        assert_eq!(LineMaker::number(b"123 too few digits"), None);
        assert_eq!(LineMaker::number(b"word word"), None);
    }
}
