//! What is looked for in lines: a text or a regular expression, compiled once, and what every line with it must have ([`Needed`]), so
//! that chunks whose token filter lacks it are not opened.
//!
//! A chunk that is opened is searched as one text, line ends included, and not line by line: most have nothing, and the search for a
//! literal runs through them at memory speed. For that, the expression is compiled so that it cannot match a line end, and `^` and `$` mean
//! a line's ends; one that asks for the ends of the text (`\A`, `\z`) is tried line by line.
//!
//! Only whole tokens help: `timeout` may stand inside `gettimeouts`, so as a text it asks every chunk; as a whole word, or as
//! `: timeout,`, it asks those that have the token. Words of other scripts than Latin are not in the filter.
//!
//! Bounds: an expression is understood as at most 16 alternatives of 512 pieces; what is beyond asks for nothing.

use regex::bytes::{Regex, RegexBuilder};
use regex_automata::{Input, meta};
use regex_syntax::hir::{Capture, Class, ClassBytes, ClassBytesRange, ClassUnicode, ClassUnicodeRange};
use regex_syntax::hir::{Hir, HirKind, Look, Repetition};

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
    /// The same, for lines that stand in one text with their ends.
    in_text: Option<meta::Regex>,
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
        let mut parser = regex_syntax::ParserBuilder::new();
        parser.utf8(false).case_insensitive(find.ignore_case).multi_line(true);
        let Ok(hir) = parser.build().parse(&expression) else { return Ok(regex.into()) };
        let limits = meta::Config::new().nfa_size_limit(Some(find.size_limit_bytes)).utf8_empty(false);
        let in_text =
            within_lines(&hir).and_then(|hir| meta::Builder::new().configure(limits).build_from_hir(&hir).ok());
        Ok(Pattern { regex, in_text, needed: needed(&hir) })
    }

    /// Whether it is found in `line`.
    pub fn is_match(&self, line: &[u8]) -> bool {
        self.regex.is_match(line)
    }

    /// Where the lines of `text` begin that it is found in, in rising order. Each line of `text` has its end.
    pub(crate) fn lines_with_it(&self, text: &[u8]) -> Vec<usize> {
        let (mut starts, mut at) = (Vec::new(), 0);
        let Some(in_text) = &self.in_text else {
            for line in memchr::memchr_iter(b'\n', text) {
                if self.is_match(&text[at..line]) {
                    starts.push(at);
                }
                at = line + 1;
            }
            return starts;
        };
        while at < text.len()
            && let Some(found) = in_text.search_half(&Input::new(text).range(at..).earliest(true))
        {
            let end = found.offset();
            // A match has no line end in it: it lies in the line that it ends in.
            let start = memchr::memrchr(b'\n', &text[at..end]).map_or(at, |before| at + before + 1);
            let Some(line) = memchr::memchr(b'\n', &text[end..]) else { break };
            starts.push(start);
            at = end + line + 1;
        }
        starts
    }

    /// Whether chunks without it can be told by their token filters.
    pub fn is_filtered(&self) -> bool {
        !self.needed.is_nothing()
    }

    pub(crate) fn needed(&self) -> &Needed {
        &self.needed
    }
}

/// A compiled expression, with flags that nobody can see: every chunk is asked, line by line.
impl From<Regex> for Pattern {
    fn from(regex: Regex) -> Pattern {
        Pattern { regex, in_text: None, needed: Needed::default() }
    }
}

/// The same expression for text of many lines: none of its matches has a line end. `None`: it asks for the ends of the text.
fn within_lines(hir: &Hir) -> Option<Hir> {
    let all = |parts: &[Hir]| parts.iter().map(within_lines).collect::<Option<Vec<Hir>>>();
    Some(match hir.kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) if literal.0.contains(&b'\n') => Hir::fail(),
        HirKind::Literal(literal) => Hir::literal(literal.0.clone()),
        HirKind::Class(Class::Unicode(class)) => {
            let mut class = class.clone();
            class.difference(&ClassUnicode::new([ClassUnicodeRange::new('\n', '\n')]));
            Hir::class(Class::Unicode(class))
        }
        HirKind::Class(Class::Bytes(class)) => {
            let mut class = class.clone();
            class.difference(&ClassBytes::new([ClassBytesRange::new(b'\n', b'\n')]));
            Hir::class(Class::Bytes(class))
        }
        HirKind::Look(Look::Start | Look::End | Look::StartCRLF | Look::EndCRLF) => return None,
        HirKind::Look(look) => Hir::look(*look),
        HirKind::Repetition(repetition) => {
            let sub = Box::new(within_lines(&repetition.sub)?);
            Hir::repetition(Repetition { sub, ..repetition.clone() })
        }
        HirKind::Capture(capture) => {
            let sub = Box::new(within_lines(&capture.sub)?);
            Hir::capture(Capture { sub, ..capture.clone() })
        }
        HirKind::Concat(parts) => Hir::concat(all(parts)?),
        HirKind::Alternation(ways) => Hir::alternation(all(ways)?),
    })
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
