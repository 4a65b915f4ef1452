//! What is looked for in lines: a text or a regular expression, compiled once, and what every line with it must have ([`Needed`]), so
//! that chunks whose token filter lacks it are not opened.
//!
//! Only whole tokens help: `timeout` may stand inside `gettimeouts`, so as a text it asks every chunk; as a whole word, or as
//! `: timeout,`, it asks those that have the token. Words of other scripts than Latin are not in the filter.
//!
//! Bounds: an expression is understood as at most 16 alternatives of 512 pieces; what is beyond asks for nothing.

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind, Look};

use crate::filter::{Needed, pair_hash, token_hash};

/// Default of [`Find::size_limit_bytes`]: 4 MiB.
pub const DEFAULT_PATTERN_BYTES: usize = 4 << 20;
const MAX_RUNS: usize = 16;
const MAX_PIECES: usize = 512;
/// Beyond so many, one more token hardly tells chunks apart.
const MAX_HASHES: usize = 16;

/// How a [`Pattern`] looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Find {
    /// The text is no regular expression; it is found as it stands.
    pub plain_text: bool,
    /// Upper and lower case are the same.
    pub ignore_case: bool,
    /// Only where no letter, digit or `_` stands right before or behind.
    pub whole_words: bool,
    /// Most memory that the compiled expression may take; default [`DEFAULT_PATTERN_BYTES`].
    pub size_limit_bytes: usize,
}

impl Default for Find {
    fn default() -> Find {
        Find { plain_text: false, ignore_case: false, whole_words: false, size_limit_bytes: DEFAULT_PATTERN_BYTES }
    }
}

/// What lines are searched for; see the top of the module.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
    needed: Needed,
}

impl Pattern {
    /// Compiles `text`.
    ///
    /// # Errors
    /// What is wrong with the expression, or that it is larger than `find.size_limit_bytes`.
    ///
    /// # Examples
    /// ```
    /// use plimsoll_store::{Find, Pattern};
    ///
    /// let id = Pattern::new("8f3a9c", Find { plain_text: true, whole_words: true, ..Find::default() })?;
    /// assert!(id.is_match(b"GET /users/8f3a9c HTTP/1.1"));
    /// assert!(!id.is_match(b"GET /users/8f3a9c77 HTTP/1.1"));
    /// assert!(id.is_filtered(), "only chunks that have this token are opened");
    /// # Ok::<(), regex::Error>(())
    /// ```
    pub fn new(text: &str, find: Find) -> Result<Pattern, regex::Error> {
        let mut expression = if find.plain_text { regex::escape(text) } else { text.to_owned() };
        if find.whole_words {
            expression = format!(r"\b{{start-half}}(?:{expression})\b{{end-half}}");
        }
        let mut builder = RegexBuilder::new(&expression);
        let regex = builder.case_insensitive(find.ignore_case).size_limit(find.size_limit_bytes).build()?;
        let parser = regex_syntax::ParserBuilder::new().utf8(false).case_insensitive(find.ignore_case).build();
        let needed = { parser }.parse(&expression).map_or_else(|_| Needed::default(), |hir| needed(&hir));
        Ok(Pattern { regex, needed })
    }

    /// Whether it is found in `line`.
    pub fn is_match(&self, line: &[u8]) -> bool {
        self.regex.is_match(line)
    }

    /// Whether chunks without it can be told by their token filters.
    pub fn is_filtered(&self) -> bool {
        !self.needed.is_nothing()
    }

    pub(crate) fn needed(&self) -> &Needed {
        &self.needed
    }
}

/// A compiled expression, with flags that nobody can see: every chunk is asked.
impl From<Regex> for Pattern {
    fn from(regex: Regex) -> Pattern {
        Pattern { regex, needed: Needed::default() }
    }
}

/// One step of a match, as far as tokens are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    /// This letter or digit, in either case.
    Byte(u8),
    /// Something that no token goes across; a byte, if it is just that.
    Break(Option<u8>),
    /// Anything, of any length.
    Unknown,
}

type Run = Vec<Piece>;

fn needed(hir: &Hir) -> Needed {
    let any_of: Vec<Vec<u32>> = runs(hir).iter().map(|run| hashes(run)).collect();
    // One way to match that needs nothing: nothing is needed.
    if any_of.iter().any(Vec::is_empty) { Needed::default() } else { Needed { any_of } }
}

/// All ways to match.
fn runs(hir: &Hir) -> Vec<Run> {
    let unknown = || vec![vec![Piece::Unknown]];
    match hir.kind() {
        HirKind::Empty => vec![Vec::new()],
        HirKind::Literal(literal) => vec![literal.0.iter().map(|byte| piece(*byte)).collect()],
        HirKind::Class(class) => vec![vec![class_piece(class)]],
        HirKind::Look(Look::WordAsciiNegate | Look::WordUnicodeNegate) => vec![Vec::new()],
        // A line's ends, and every other kind of word boundary: on one side at least there is no part of a word.
        HirKind::Look(_) => vec![vec![Piece::Break(None)]],
        HirKind::Repetition(repetition) if repetition.min == 0 => unknown(),
        HirKind::Repetition(repetition) => {
            let inner = runs(&repetition.sub);
            let breaks = |run: &Run| !run.is_empty() && run.iter().all(|piece| matches!(piece, Piece::Break(_)));
            if inner.iter().all(breaks) {
                return vec![vec![Piece::Break(None)]];
            }
            let around = |run: Run| [vec![Piece::Unknown], run, vec![Piece::Unknown]].concat();
            inner.into_iter().map(around).collect()
        }
        HirKind::Capture(capture) => runs(&capture.sub),
        HirKind::Alternation(ways) => {
            let all: Vec<Run> = ways.iter().flat_map(runs).take(MAX_RUNS + 1).collect();
            if all.len() > MAX_RUNS { unknown() } else { all }
        }
        HirKind::Concat(parts) => {
            let mut all = vec![Vec::new()];
            for part in parts {
                let next = runs(part);
                let next = if all.len() * next.len() > MAX_RUNS { unknown() } else { next };
                all = all.iter().flat_map(|run| next.iter().map(|more| [&run[..], &more[..]].concat())).collect();
                if all.iter().any(|run| run.len() > MAX_PIECES) {
                    return unknown();
                }
            }
            all
        }
    }
}

fn piece(byte: u8) -> Piece {
    if byte.is_ascii_alphanumeric() { Piece::Byte(byte | 0x20) } else { Piece::Break(Some(byte)) }
}

fn class_piece(class: &Class) -> Piece {
    let ranges: Vec<(u32, u32)> = match class {
        Class::Unicode(class) => class.ranges().iter().map(|r| (r.start().into(), r.end().into())).collect(),
        Class::Bytes(class) => class.ranges().iter().map(|r| (r.start().into(), r.end().into())).collect(),
    };
    let word =
        |(from, to): &(u32, u32)| [(0x30, 0x39), (0x41, 0x5a), (0x61, 0x7a)].iter().any(|(a, b)| from <= b && to >= a);
    match ranges[..] {
        [(upper, upper_end), (lower, lower_end)]
            if upper == upper_end && lower == lower_end && word(&(upper, upper)) && upper | 0x20 == lower =>
        {
            u8::try_from(lower).map_or(Piece::Unknown, Piece::Byte)
        }
        _ if ranges.iter().any(word) || ranges.is_empty() => Piece::Unknown,
        _ => Piece::Break(None),
    }
}

/// The hashes of the tokens that lie whole in a run.
fn hashes(run: &[Piece]) -> Vec<u32> {
    let mut hashes = Vec::new();
    // The token so far, if its beginning is known; the number before it, if just a point is between.
    let (mut token, mut whole, mut number): (Vec<u8>, bool, Option<Vec<u8>>) = (Vec::new(), false, None);
    for piece in run {
        match piece {
            Piece::Byte(byte) => token.push(*byte),
            Piece::Unknown => {
                token.clear();
                (whole, number) = (false, None);
            }
            Piece::Break(between) => {
                let ended = std::mem::take(&mut token);
                let before = number.take();
                if whole && !ended.is_empty() {
                    hashes.extend(token_hash(&ended));
                    hashes.extend(before.and_then(|before| pair_hash(&before, &ended)));
                    number = Some(ended).filter(|_| *between == Some(b'.'));
                }
                whole = true;
            }
        }
    }
    hashes.sort_unstable();
    hashes.dedup();
    hashes.truncate(MAX_HASHES);
    hashes
}

#[cfg(test)]
#[path = "pattern_tests.rs"]
mod tests;
