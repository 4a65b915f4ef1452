//! A scanner of JSON that is mostly arrays of small integers, over any reader and a buffer of 1 MiB.
//!
//! A number is found eight bytes at a time: the first byte that is no digit gives its length, three multiplications its value
//! (Mula, "SIMD-ized faster parse of numbers"; Lemire, "Quickly parsing eight digits", 2022). Where a number begins depends on the
//! length of the one before, and that wait is most of the cost: fields that nearly always have one digit are tried as such first, which
//! the processor guesses ahead. Values that are not wanted are stepped over, never built.

use std::io::{ErrorKind, Read};

use super::V8Error;

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 1 << 20;
/// Zeros after the buffer's end, so that eight bytes may be loaded anywhere in it.
const PAD_BYTES: usize = 32;
/// Bytes of the longest record: 16 numbers of 20 digits with their separators, and blanks between them.
const RECORD_BYTES: usize = 1024;
/// Brackets inside brackets that are stepped over; more is an error.
const MAX_DEPTH: usize = 1 << 20;

pub(super) struct Scanner<R> {
    input: R,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    /// Bytes of the input before the buffer.
    before: u64,
    finished: bool,
    /// What is being read, for errors.
    pub(super) part: &'static str,
}

/// What follows a value in an array or object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Comma,
    Close,
}

impl<R: Read> Scanner<R> {
    pub(super) fn new(input: R) -> Scanner<R> {
        let buffer = vec![0; BUFFER_BYTES + PAD_BYTES];
        Scanner { input, buffer, at: 0, end: 0, before: 0, finished: false, part: "the beginning" }
    }

    /// Bytes read so far.
    pub(super) fn offset(&self) -> u64 {
        self.before + self.at as u64
    }

    pub(super) fn truncated(&self) -> V8Error {
        V8Error::Truncated { part: self.part, offset: self.before + self.end as u64 }
    }

    pub(super) fn invalid(&self, what: &'static str) -> V8Error {
        V8Error::Invalid { part: self.part, what, offset: self.offset() }
    }

    /// Moves what is left to the front and reads until `wanted` bytes are there, or the input ends.
    #[cold]
    fn fill(&mut self, wanted: usize) -> Result<(), V8Error> {
        self.buffer.copy_within(self.at..self.end, 0);
        self.before += self.at as u64;
        self.end -= self.at;
        self.at = 0;
        while self.end < wanted && !self.finished {
            match self.input.read(&mut self.buffer[self.end..BUFFER_BYTES]) {
                Ok(0) => self.finished = true,
                Ok(read) => self.end += read.min(BUFFER_BYTES - self.end),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(V8Error::Io { offset: self.before + self.end as u64, error }),
            }
        }
        self.buffer[self.end..self.end + PAD_BYTES].fill(0);
        Ok(())
    }

    /// The next byte, not taken; `None` at the end.
    pub(super) fn peek(&mut self) -> Result<Option<u8>, V8Error> {
        if self.at == self.end {
            self.fill(1)?;
        }
        Ok((self.at < self.end).then(|| self.buffer[self.at]))
    }

    /// The next byte that is no blank, not taken.
    pub(super) fn peek_token(&mut self) -> Result<u8, V8Error> {
        loop {
            match self.peek()? {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(byte) => return Ok(byte),
                None => return Err(self.truncated()),
            }
        }
    }

    /// Takes the next byte that is no blank, which must be `wanted`.
    pub(super) fn expect(&mut self, wanted: u8, what: &'static str) -> Result<(), V8Error> {
        if self.peek_token()? != wanted {
            return Err(self.invalid(what));
        }
        self.at += 1;
        Ok(())
    }

    /// Takes `wanted` when it comes next.
    pub(super) fn take(&mut self, wanted: u8) -> Result<bool, V8Error> {
        let here = self.peek_token()? == wanted;
        self.at += usize::from(here);
        Ok(here)
    }

    /// Takes a quoted string and appends what stands between its quotes, escapes as they are; at most `most` bytes.
    pub(super) fn raw_string(&mut self, out: &mut Vec<u8>, most: usize) -> Result<(), V8Error> {
        self.expect(b'"', "expected a string")?;
        let begin = out.len();
        loop {
            if self.peek()?.is_none() {
                return Err(self.truncated());
            }
            let rest = &self.buffer[self.at..self.end];
            let (length, stop) = match memchr::memchr2(b'"', b'\\', rest) {
                Some(length) => (length, Some(rest[length])),
                None => (rest.len(), None),
            };
            out.extend_from_slice(&rest[..length]);
            self.at += length;
            if out.len() - begin > most {
                return Err(self.invalid("a string that is too long"));
            }
            match stop {
                None => {}
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(_) => {
                    self.at += 1;
                    let Some(escaped) = self.peek()? else { return Err(self.truncated()) };
                    self.at += 1;
                    out.extend_from_slice(&[b'\\', escaped]);
                }
            }
        }
    }

    /// Takes any value and appends its text; at most `most` bytes.
    pub(super) fn raw_value(&mut self, out: &mut Vec<u8>, most: usize) -> Result<(), V8Error> {
        self.walk_value(|bytes| {
            out.extend_from_slice(bytes);
            out.len() <= most
        })
    }

    /// Steps over any value.
    pub(super) fn skip_value(&mut self) -> Result<(), V8Error> {
        self.walk_value(|_| true)
    }

    /// Takes any value, giving its bytes in pieces to `see`, which says whether to go on.
    fn walk_value(&mut self, mut see: impl FnMut(&[u8]) -> bool) -> Result<(), V8Error> {
        let mut depth = 0_usize;
        let mut quoted = false;
        let first = self.peek_token()?;
        let scalar = !matches!(first, b'{' | b'[' | b'"');
        loop {
            if self.peek()?.is_none() {
                return if scalar && depth == 0 && !quoted { Ok(()) } else { Err(self.truncated()) };
            }
            let begin = self.at;
            let mut done = false;
            while self.at < self.end && !done {
                let byte = self.buffer[self.at];
                if quoted {
                    if byte == b'\\' {
                        if self.at + 1 == self.end {
                            break;
                        }
                        self.at += 1;
                    } else if byte == b'"' {
                        quoted = false;
                        done = depth == 0;
                    }
                } else {
                    match byte {
                        b'"' => quoted = true,
                        b'[' | b'{' => depth += 1,
                        b']' | b'}' | b',' if scalar && depth == 0 => break,
                        b']' | b'}' => {
                            depth -= 1;
                            done = depth == 0;
                        }
                        b' ' | b'\n' | b'\r' | b'\t' if scalar => break,
                        _ => {}
                    }
                }
                self.at += 1;
            }
            if depth > MAX_DEPTH {
                return Err(self.invalid("brackets too deep"));
            }
            let ended = done || (scalar && self.at < self.end);
            if !see(&self.buffer[begin..self.at]) {
                return Err(self.invalid("a value that is too long"));
            }
            if ended {
                return Ok(());
            }
            if self.at < self.end {
                // An escape at the buffer's end: bring the byte after it in.
                self.fill(2)?;
                if self.end < 2 {
                    return Err(self.truncated());
                }
                let pair = [self.buffer[0], self.buffer[1]];
                self.at = 2;
                if !see(&pair) {
                    return Err(self.invalid("a value that is too long"));
                }
            }
        }
    }

    /// Takes an array of records of `N` non-negative integers each, giving every record to `see`. An error that `see` names is
    /// returned with the record's offset. Fields whose bit is set in `short` are expected to have one digit: guessing right, the
    /// processor need not wait for the length of a number to know where the next one begins.
    pub(super) fn records<const N: usize>(
        &mut self,
        short: u32,
        mut see: impl FnMut([u64; N]) -> Result<(), &'static str>,
    ) -> Result<(), V8Error> {
        self.expect(b'[', "expected an array")?;
        if self.take(b']')? {
            return Ok(());
        }
        loop {
            if self.end - self.at < RECORD_BYTES && !self.finished {
                self.fill(RECORD_BYTES)?;
            }
            let (buffer, end) = (&self.buffer[..self.end + PAD_BYTES], self.end);
            let mut at = self.at;
            // As many records as the buffer holds for certain.
            let last = if self.finished { end } else { end - RECORD_BYTES.min(end) };
            loop {
                let mut record = [0_u64; N];
                let mut after = After::Comma;
                for (field, value) in record.iter_mut().enumerate() {
                    match number(buffer, at, short >> field & 1 != 0) {
                        Some((found, next, follows)) if next <= end && (follows == After::Comma || field == N - 1) => {
                            (*value, at, after) = (found, next, follows);
                        }
                        _ => return Err(self.bad_record(at)),
                    }
                }
                if let Err(what) = see(record) {
                    self.at = at;
                    return Err(self.invalid(what));
                }
                if after == After::Close {
                    self.at = at;
                    return Ok(());
                }
                if at >= last {
                    break;
                }
            }
            self.at = at;
        }
    }

    /// Why no number or separator stands at `at`: the end of the input, or something else.
    #[cold]
    fn bad_record(&mut self, at: usize) -> V8Error {
        self.at = at.min(self.end);
        let junk = |byte: &u8| !byte.is_ascii_digit() && !b" \n\r\t,".contains(byte);
        if self.finished && !self.buffer[self.at..self.end].iter().any(junk) {
            return self.truncated();
        }
        self.invalid("expected non-negative integers in whole records")
    }
}

/// The number at `at`, what follows it, and where the next one begins. `short` when one digit is likely.
#[inline(always)]
fn number(buffer: &[u8], at: usize, short: bool) -> Option<(u64, usize, After)> {
    let word = load(buffer, at)?;
    if short && (word as u8).is_ascii_digit() {
        if (word >> 8) as u8 == b',' {
            return Some((word & 0xf, at + 2, After::Comma));
        }
        if (word >> 8) as u16 == u16::from_le_bytes(*b"\n,") {
            return Some((word & 0xf, at + 3, After::Comma));
        }
    }
    let digits = word ^ 0x3030_3030_3030_3030;
    // The high half of a byte is set from the first byte on that is no digit.
    let other = (digits.wrapping_add(0x0606_0606_0606_0606) | digits) & 0xf0f0_f0f0_f0f0_f0f0;
    let length = other.trailing_zeros() >> 3;
    let next = at + length as usize;
    if length > 0 {
        let value = eight_digits(digits << (64 - 8 * length));
        match buffer.get(next..next + 2)? {
            [b',', _] => return Some((value, next + 1, After::Comma)),
            [b'\n', b','] => return Some((value, next + 2, After::Comma)),
            _ => {}
        }
    }
    uncommon_number(buffer, at)
}

/// A number with blanks around it, of more than eight digits, or at the end of its array.
#[inline(never)]
fn uncommon_number(buffer: &[u8], mut at: usize) -> Option<(u64, usize, After)> {
    while matches!(buffer.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    let mut value = u64::from(buffer.get(at).filter(|byte| byte.is_ascii_digit())? - b'0');
    at += 1;
    while let Some(digit) = buffer.get(at).filter(|byte| byte.is_ascii_digit()) {
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        at += 1;
    }
    loop {
        match buffer.get(at)? {
            b',' => return Some((value, at + 1, After::Comma)),
            b']' => return Some((value, at + 1, After::Close)),
            b' ' | b'\n' | b'\r' | b'\t' => at += 1,
            _ => return None,
        }
    }
}

/// The value of eight digits, each in a byte of its own, the first in the lowest.
#[inline(always)]
fn eight_digits(digits: u64) -> u64 {
    const PAIRS: u64 = 0x0000_00ff_0000_00ff;
    let tens = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let low = (tens & PAIRS).wrapping_mul(100 + (1_000_000 << 32));
    let high = ((tens >> 16) & PAIRS).wrapping_mul(1 + (10_000 << 32));
    low.wrapping_add(high) >> 32
}

#[inline(always)]
fn load(buffer: &[u8], at: usize) -> Option<u64> {
    buffer.get(at..at + 8)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
