//! The digest of a snapshot: what is kept when the file itself is dropped, and what trends are made of.
//!
//! A few KB of text, versioned by its first line, one row a line, and a last line that counts the rows, so that a torn file is
//! known as one. Reading stops at [`MAX_BYTES`], [`MAX_ROWS`] and [`MAX_KEY_BYTES`]; what is beyond them is an error, not a cut.
//!
//! ```text
//! plimsoll-digest 1
//! unix_ns 1795244462123456789
//! life 0
//! mark 4711 9c41f3a2                    id, hash of its type and name
//! class 7340032 9000 0 Session          kind, bytes, count, variance, key (\\ \n \r escaped)
//! end 1
//! ```

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};

/// Bytes of a digest that are read; more is an error.
pub const MAX_BYTES: u64 = 4 << 20;
/// Rows of a digest that are read; more is an error.
pub const MAX_ROWS: usize = 65_536;
/// Bytes of one key; what is longer is cut when written, at a character, and ends in `…`.
pub const MAX_KEY_BYTES: usize = 1024;
/// Identities that a digest keeps of a snapshot ([`Digest::marks`]).
pub const MARKS: usize = 256;

const HEAD: &str = "plimsoll-digest 1";
/// Common identities below which nothing is said about two lives.
const MARKS_NEEDED: usize = 8;
/// Share of common identities that must be the same thing. One life: above 0.97 with objects dying and ids reused by none;
/// two lives of one program: 0.22 of 73,396 common ids (Node 20, measured).
const SAME_LIFE_RATIO: f64 = 0.9;

/// What the keys of a digest's rows name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Objects of one class, with their shallow bytes.
    Class,
    /// A path from the roots that survives restarts (`global.__app.sessionCache → Map`), with the bytes it retains.
    Owner,
    /// A call stack, with the bytes allocated there and still live.
    Stack,
    /// A mapping of a process, with its resident bytes.
    Mapping,
    /// A figure of the process: RSS, live bytes, descriptors, threads.
    Total,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Class, Kind::Owner, Kind::Stack, Kind::Mapping, Kind::Total];

    /// The word that stands for it in files and in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Kind::Class => "class",
            Kind::Owner => "owner",
            Kind::Stack => "stack",
            Kind::Mapping => "mapping",
            Kind::Total => "total",
        }
    }
}

/// One key with its figures in one snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What `key` names.
    pub kind: Kind,
    /// The name, the same in every snapshot and every life of the program.
    pub key: String,
    /// Bytes (or the figure itself for what is not bytes).
    pub bytes: u64,
    /// Objects, samples or mappings behind it.
    pub count: u64,
    /// Variance of `bytes`, in bytes²: 0 for what was counted, sampling rate × bytes for what was sampled.
    pub variance: f64,
}

/// One identity that a snapshot gave to an object, and a hash of what that object is. Which identities are kept depends on the
/// identities alone, so two snapshots of one life keep mostly the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The object's id.
    pub id: u64,
    /// Hash of its type and name.
    pub what: u32,
}

/// What is kept of one snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Digest {
    /// When it was taken, in nanoseconds since 1970; 0 when the file does not say.
    pub unix_ns: u64,
    /// A number of this life of the process where the format or the capture knows one (start time, say); 0 when not.
    pub life: u64,
    /// At most [`MARKS`] identities, for formats that number their objects but not their lives (V8). Ask [`Digest::same_life`].
    pub marks: Vec<Mark>,
    /// The largest keys of each kind.
    pub rows: Vec<Row>,
}

/// Why a digest could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// The reader failed.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    /// A first line that is not ours, or of a later version.
    #[error("not a digest of version 1: it begins with {0:?}")]
    Head(String),
    /// A line that is none of ours.
    #[error("line {line}: {what}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The last line is missing: the writer was killed, or the file was cut.
    #[error("torn: it ends after line {0} without its `end`")]
    Torn(usize),
    /// Larger than what is read.
    #[error("larger than {MAX_BYTES} bytes or {MAX_ROWS} rows")]
    TooLarge,
}

impl Digest {
    /// Whether two snapshots are of one life of one process; `None` when neither says.
    ///
    /// By [`Digest::life`] when both have one, else by the share of common [`Digest::marks`] that are the same thing.
    #[must_use]
    pub fn same_life(&self, other: &Digest) -> Option<bool> {
        if self.life != 0 && other.life != 0 {
            return Some(self.life == other.life);
        }
        let (mut common, mut same) = (0_usize, 0_usize);
        let theirs: HashMap<u64, u32> = other.marks.iter().map(|mark| (mark.id, mark.what)).collect();
        for mark in &self.marks {
            if let Some(what) = theirs.get(&mark.id) {
                common += 1;
                same += usize::from(*what == mark.what);
            }
        }
        (common >= MARKS_NEEDED).then_some(same as f64 >= SAME_LIFE_RATIO * common as f64)
    }

    /// Writes it in the form above.
    ///
    /// # Errors
    ///
    /// What `out` returns.
    ///
    /// # Examples
    ///
    /// ```
    /// use plimsoll_heap::digest::{Digest, Kind, Row};
    ///
    /// let row = Row { kind: Kind::Class, key: "Session".into(), bytes: 7 << 20, count: 9000, variance: 0.0 };
    /// let digest = Digest { unix_ns: 1_795_244_462_123_456_789, rows: vec![row], ..Digest::default() };
    /// let mut file = Vec::new();
    /// digest.write(&mut file)?;
    /// assert_eq!(Digest::read(file.as_slice())?, digest);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        let mut text = Vec::with_capacity(64 * (self.rows.len() + self.marks.len() + 2));
        writeln!(text, "{HEAD}\nunix_ns {}\nlife {}", self.unix_ns, self.life)?;
        for mark in &self.marks {
            writeln!(text, "mark {} {:08x}", mark.id, mark.what)?;
        }
        for row in &self.rows {
            let (kind, key) = (row.kind.word(), Escaped(&row.key));
            writeln!(text, "{kind} {} {} {} {key}", row.bytes, row.count, row.variance)?;
        }
        writeln!(text, "end {}", self.rows.len())?;
        out.write_all(&text)
    }

    /// Reads what [`Digest::write`] wrote, of this version.
    ///
    /// # Errors
    ///
    /// [`DigestError`]: not a digest, torn, damaged, too large, or the reader's own.
    pub fn read(input: impl Read) -> Result<Digest, DigestError> {
        let mut lines = BufReader::new(input.take(MAX_BYTES + 1));
        let mut digest = Digest::default();
        let (mut number, mut bytes) = (0_usize, 0_u64);
        let mut line = String::new();
        loop {
            line.clear();
            number += 1;
            let read = lines.read_line(&mut line)?;
            bytes += read as u64;
            if bytes > MAX_BYTES || digest.rows.len() > MAX_ROWS || digest.marks.len() > MAX_ROWS {
                return Err(DigestError::TooLarge);
            }
            let Some(text) = line.strip_suffix('\n') else {
                return Err(if number == 1 { head_error(&line) } else { DigestError::Torn(number - 1) });
            };
            if number == 1 {
                if text != HEAD {
                    return Err(head_error(text));
                }
                continue;
            }
            let bad = |what| DigestError::Line { line: number, what };
            let (word, rest) = text.split_once(' ').ok_or(bad("a word and a value expected"))?;
            match word {
                "unix_ns" => digest.unix_ns = rest.parse().map_err(|_| bad("not a time"))?,
                "life" => digest.life = rest.parse().map_err(|_| bad("not a number"))?,
                "mark" => digest.marks.push(parse_mark(rest).ok_or(bad("not an id and a hash"))?),
                "end" => {
                    let rows: usize = rest.parse().map_err(|_| bad("not a number of rows"))?;
                    return if rows == digest.rows.len() { Ok(digest) } else { Err(bad("rows are missing")) };
                }
                _ => {
                    let kind = Kind::ALL.into_iter().find(|kind| kind.word() == word).ok_or(bad("unknown word"))?;
                    digest.rows.push(parse_row(kind, rest).ok_or(bad("not bytes, count, variance and key"))?);
                }
            }
        }
    }
}

fn head_error(line: &str) -> DigestError {
    DigestError::Head(line.chars().take(40).collect())
}

fn parse_mark(text: &str) -> Option<Mark> {
    let (id, what) = text.split_once(' ')?;
    Some(Mark { id: id.parse().ok()?, what: u32::from_str_radix(what, 16).ok()? })
}

fn parse_row(kind: Kind, text: &str) -> Option<Row> {
    let mut parts = text.splitn(4, ' ');
    let bytes = parts.next()?.parse().ok()?;
    let count = parts.next()?.parse().ok()?;
    let variance: f64 = parts.next()?.parse().ok()?;
    if !variance.is_finite() || variance < 0.0 {
        return None;
    }
    Some(Row { kind, key: unescape(parts.next()?)?, bytes, count, variance })
}

/// A key on one line, cut to [`MAX_KEY_BYTES`].
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, c) in self.0.char_indices() {
            if at + c.len_utf8() > MAX_KEY_BYTES {
                return fmt::Write::write_char(f, '…');
            }
            match c {
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                c => fmt::Write::write_char(f, c)?,
            }
        }
        Ok(())
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut key = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        key.push(match c {
            '\\' => match chars.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            c => c,
        });
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOLDEN: &str = "plimsoll-digest 1\nunix_ns 7\nlife 0\nmark 4711 9c41f3a2\nclass 7340032 9000 0 Session\n\
                          owner 9 1 2.5 global.a\\n\\\\b → Map\nend 2\n";

    fn golden() -> Digest {
        let row = |kind, key: &str, bytes, count, variance| Row { kind, key: key.into(), bytes, count, variance };
        Digest {
            unix_ns: 7,
            life: 0,
            marks: vec![Mark { id: 4711, what: 0x9c41_f3a2 }],
            rows: vec![
                row(Kind::Class, "Session", 7 << 20, 9000, 0.0),
                row(Kind::Owner, "global.a\n\\b → Map", 9, 1, 2.5),
            ],
        }
    }

    #[test]
    fn the_form_on_disk_is_the_one_that_was_released() {
        let mut out = Vec::new();
        golden().write(&mut out).expect("write");
        assert_eq!(String::from_utf8(out).expect("text"), GOLDEN);
        assert_eq!(Digest::read(GOLDEN.as_bytes()).expect("read"), golden());
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error_and_never_a_smaller_digest() {
        for end in 0..GOLDEN.len() {
            assert!(Digest::read(&GOLDEN.as_bytes()[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn damage_is_named_with_its_line() {
        for (from, to, said) in [
            ("digest 1", "digest 2", "not a digest of version 1: it begins with \"plimsoll-digest 2\""),
            ("unix_ns 7", "unix_ns x", "line 2: not a time"),
            ("9c41f3a2", "9c41f3a2f", "line 4: not an id and a hash"),
            ("7340032 9000 0", "7340032 9000 NaN", "line 5: not bytes, count, variance and key"),
            ("class", "klass", "line 5: unknown word"),
            ("end 2", "end 3", "line 7: rows are missing"),
        ] {
            let error = Digest::read(GOLDEN.replace(from, to).as_bytes()).expect_err(to);
            assert_eq!(error.to_string(), said);
        }
        let endless = std::io::repeat(b'a');
        assert!(matches!(Digest::read(endless), Err(DigestError::TooLarge)));
    }

    #[test]
    fn one_life_is_told_from_another() {
        let with = |life, what: fn(u64) -> u32| Digest {
            life,
            marks: (0..100).map(|id| Mark { id, what: what(id) }).collect(),
            ..Digest::default()
        };
        let (a, b) = (with(0, |id| id as u32), with(0, |id| id as u32 + u32::from(id < 60)));
        assert_eq!(a.same_life(&a), Some(true));
        assert_eq!(a.same_life(&b), Some(false));
        assert_eq!(a.same_life(&Digest::default()), None, "nothing in common says nothing");
        assert_eq!(with(3, |_| 0).same_life(&with(3, |_| 1)), Some(true), "a known life needs no marks");
        assert_eq!(with(3, |_| 0).same_life(&with(4, |_| 0)), Some(false));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(key in ".{0,200}", bytes: u64, count: u64, variance in 0.0..1e300_f64) {
            let mut digest = golden();
            digest.rows.push(Row { kind: Kind::Stack, key, bytes, count, variance });
            let mut out = Vec::new();
            digest.write(&mut out).expect("write");
            prop_assert_eq!(Digest::read(out.as_slice()).expect("read"), digest);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Digest::read(bytes.as_slice()).is_err());
        }
    }
}
