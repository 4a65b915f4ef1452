//! Lines as records again. Everything that is not exactly a line of version 1 is an error with its byte and line; only a last line
//! without its end, which a full disk leaves, is cut off and counted.

use std::time::Duration;

use super::{HEADER, LINE_BYTES_MAX, Record};
use crate::event::{Effect, Supply, Want};
use crate::gauge::{Protected, Unread};
use crate::governor::{Cause, Decision, Growth, Reading};
use crate::level::Level;
use crate::policy::{Overrides, Policy};

/// A log as it was read.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Log {
    /// In the order in which they were written.
    pub records: Vec<Record>,
    /// Bytes of a last line that has no end; they are no record.
    pub torn_bytes: usize,
}

/// Where a log cannot be understood, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}, line {line}: {what}")]
pub struct LogError {
    /// Where the line begins.
    pub offset: usize,
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

/// Reads a log, or several that were written one after the other.
///
/// # Errors
/// The first line that is none of version 1: an unknown word, a number that is none, a line that is too long, no header.
///
/// # Examples
/// ```
/// use plimsoll::governor::log::parse;
///
/// let log = parse(b"plimsoll-decisions 1\ngap samples=3\ngap sam").unwrap();
/// assert_eq!((log.records.len(), log.torn_bytes), (1, 7));
/// let error = parse(b"plimsoll-decisions 1\ngap samples=three\n").unwrap_err();
/// assert_eq!(error.to_string(), "byte 21, line 2: samples=three: expected a whole number");
/// ```
pub fn parse(text: &[u8]) -> Result<Log, LogError> {
    let mut log = Log::default();
    let (mut offset, mut policy) = (0, None);
    for (line, content) in (1..).zip(text.split_inclusive(|byte| *byte == b'\n')) {
        let fault = |what: String| LogError { offset, line, what };
        let first = line == 1;
        let Some(content_text) = content.strip_suffix(b"\n") else {
            // The header is the one line that must be there whole.
            if first {
                return Err(fault(no_header(content)));
            }
            log.torn_bytes = content.len();
            break;
        };
        if content.len() > LINE_BYTES_MAX {
            return Err(fault(format!("{} bytes: a line has at most {LINE_BYTES_MAX}", content.len())));
        }
        if first && !content_text.starts_with(b"plimsoll-decisions ") {
            return Err(fault(no_header(content_text)));
        }
        let plain = |byte: &u8| matches!(byte, b' '..=b'~');
        if let Some(at) = content_text.iter().position(|byte| !plain(byte)) {
            return Err(fault(format!("byte {:#04x} at its place {at}: not plain text", content_text[at])));
        }
        let shown = std::str::from_utf8(content_text).map_err(|_| fault("not text".to_owned()))?;
        if shown == HEADER {
            offset += content.len();
            continue;
        }
        if first {
            return Err(fault(no_header(content_text)));
        }
        let record = record(shown, policy.as_ref()).map_err(fault)?;
        if let Record::Policy { policy: new, .. } = &record {
            policy = Some(*new);
        }
        log.records.push(record);
        offset += content.len();
    }
    if text.is_empty() {
        return Err(LogError { offset: 0, line: 1, what: "empty: no log begins without its header".to_owned() });
    }
    Ok(log)
}

fn no_header(begin: &[u8]) -> String {
    let begin = String::from_utf8_lossy(&begin[..begin.len().min(40)]).escape_debug().to_string();
    match begin.strip_prefix("plimsoll-decisions ") {
        Some(version) => format!("version {version} of the decision log: this program reads version 1"),
        None => format!("expected {HEADER:?}, found \"{begin}\""),
    }
}

fn record(text: &str, policy: Option<&Policy>) -> Result<Record, String> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    match word {
        "start" => {
            let mut fields = Fields::new(rest);
            let record = Record::Start { at: fields.must("at", seconds)?, at_unix: fields.must("unix", seconds)? };
            fields.end().map(|()| record)
        }
        "policy" => {
            let mut fields = Fields::new(rest);
            let at = fields.must("at", seconds)?;
            let mut overrides = Overrides::default();
            while let Some((key, value)) = fields.next()? {
                overrides.set(key, value).map_err(|allowed| format!("{key}={value}: expected {allowed}"))?;
            }
            let policy =
                overrides.apply(&Policy::observe()).map_err(|errors| errors.to_string().replace('\n', "; "))?;
            Ok(Record::Policy { at, policy })
        }
        "sample" => {
            let (inputs, outcome) = rest.split_once(" -> ").ok_or("no \" -> \" between reading and decision")?;
            let reading = reading(inputs)?;
            let decision = decision(outcome, &reading, policy.and_then(|policy| policy.budget_bytes))?;
            Ok(Record::Sample { reading, decision })
        }
        "gap" => {
            let mut fields = Fields::new(rest);
            let samples = fields.must("samples", whole)?;
            fields.end().map(|()| Record::Gap { samples })
        }
        other => {
            let other: String = other.chars().take(40).collect();
            Err(format!("unknown record \"{}\": expected start, policy, sample or gap", other.escape_debug()))
        }
    }
}

fn reading(text: &str) -> Result<Reading, String> {
    let mut fields = Fields::new(text);
    let at = fields.must("at", seconds)?;
    let fast_bytes = fields.may("fast", whole)?;
    let confirmed = match fields.may("program", whole)? {
        Some(program_bytes) => {
            Some(Ok(Protected { program_bytes, kernel_bytes: fields.may("kernel", whole)?, ..Protected::default() }))
        }
        None => fields.may("unread", unread)?.map(Err),
    };
    let guard_bytes = fields.may("guard", whole)?;
    let supply = match fields.may("held", whole)? {
        Some(held_bytes) => Some(Supply {
            held_bytes,
            claimed_bytes_total: fields.must("claimed", whole)?,
            withdrawn_bytes_total: fields.must("withdrawn", whole)?,
            floor_bytes: fields.must("floor", whole)?,
        }),
        None => None,
    };
    fields.end()?;
    Ok(Reading { at, fast_bytes, confirmed, guard_bytes, supply })
}

fn decision(text: &str, reading: &Reading, budget_bytes: Option<u64>) -> Result<Decision, String> {
    let mut fields = Fields::new(text);
    let level = fields.must("level", level)?;
    let previous = fields.may("was", self::level)?.unwrap_or(level);
    let cause = fields.must("cause", cause)?;
    let charged_bytes = fields.may("charged", whole)?;
    let growth = match fields.may("growth", real)? {
        Some(bytes_per_second) => Some(Growth { bytes_per_second, confidence: fields.must("confidence", real)? }),
        None => None,
    };
    let time_to_limit = fields.may("limit-in", seconds)?;
    let sleep = fields.must("sleep", seconds)?;
    let blind = fields.may("blind", yes)?.is_some();
    let want = match fields.may("evict", whole)? {
        Some(evict_bytes) => Some(Want {
            evict_bytes,
            ordered_bytes_total: fields.must("ordered", whole)?,
            hold_bytes: fields.must("hold", whole)?,
            in_flight_bytes: fields.must("in-flight", whole)?,
            base_bytes: fields.must("base", whole)?,
            spread_bytes: fields.must("spread", whole)?,
            delay: fields.must("delay", seconds)?,
            lag: fields.must("lag", seconds)?,
            effect: fields.must("effect", effect)?,
            purge: fields.may("purge", yes)?.is_some(),
            stuck: fields.may("stuck", yes)?.is_some(),
        }),
        None => None,
    };
    fields.end()?;
    Ok(Decision {
        at: reading.at,
        level,
        previous,
        charged_bytes,
        confirmed: matches!(reading.confirmed, Some(Ok(_))),
        fast_bytes: reading.fast_bytes,
        budget_bytes,
        growth,
        time_to_limit,
        sleep,
        blind,
        unread: reading.confirmed.and_then(Result::err),
        cause,
        want,
    })
}

/// The `key=value` fields of a line, which stand in a fixed order.
struct Fields<'t> {
    rest: &'t str,
}

impl<'t> Fields<'t> {
    fn new(rest: &'t str) -> Fields<'t> {
        Fields { rest }
    }

    fn next(&mut self) -> Result<Option<(&'t str, &'t str)>, String> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (field, rest) = self.rest.split_once(' ').unwrap_or((self.rest, ""));
        self.rest = rest;
        match field.split_once('=') {
            Some((key, value)) => Ok(Some((key, value))),
            None => Err(format!("\"{}\": expected key=value", cut(field))),
        }
    }

    /// The next field, if it is this one.
    fn may<T>(&mut self, key: &str, read: fn(&str) -> Result<T, &'static str>) -> Result<Option<T>, String> {
        if !self.rest.strip_prefix(key).is_some_and(|rest| rest.starts_with('=')) {
            return Ok(None);
        }
        let Some((key, value)) = self.next()? else { return Ok(None) };
        read(value).map(Some).map_err(|expected| format!("{key}={}: expected {expected}", cut(value)))
    }

    fn must<T>(&mut self, key: &str, read: fn(&str) -> Result<T, &'static str>) -> Result<T, String> {
        let found = cut(self.rest.split(' ').next().unwrap_or_default());
        self.may(key, read)?.ok_or_else(|| format!("expected {key}=…, found \"{found}\""))
    }

    fn end(&self) -> Result<(), String> {
        if self.rest.is_empty() { Ok(()) } else { Err(format!("\"{}\": nothing was expected here", cut(self.rest))) }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(40).collect::<String>().escape_debug().to_string()
}

fn whole(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "a whole number")
}

fn real(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or("a number")
}

fn yes(text: &str) -> Result<(), &'static str> {
    if text == "yes" { Ok(()) } else { Err("yes") }
}

/// Seconds with nine decimals.
fn seconds(text: &str) -> Result<Duration, &'static str> {
    const EXPECTED: &str = "seconds with nine decimals";
    let (whole, nanos) = text.split_once('.').ok_or(EXPECTED)?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if nanos.len() != 9 || !digits(nanos) || !digits(whole) {
        return Err(EXPECTED);
    }
    let (whole, nanos) = (whole.parse().map_err(|_| EXPECTED)?, nanos.parse().map_err(|_| EXPECTED)?);
    Ok(Duration::new(whole, nanos))
}

fn level(text: &str) -> Result<Level, &'static str> {
    text.parse().map_err(|_| "normal, elevated, high or critical")
}

fn cause(text: &str) -> Result<Cause, &'static str> {
    Cause::ALL.into_iter().find(|cause| cause.as_str() == text).ok_or("a cause")
}

fn effect(text: &str) -> Result<Effect, &'static str> {
    let all = [Effect::Open, Effect::Helped, Effect::Fruitless];
    all.into_iter().find(|effect| effect.as_str() == text).ok_or("open, helped or fruitless")
}

/// The file behind it is not in the log.
fn unread(text: &str) -> Result<Unread, &'static str> {
    const WHAT: &str = "recorded reading";
    match text {
        "missing" => Ok(Unread::Missing(WHAT)),
        "denied" => Ok(Unread::Denied(WHAT)),
        "malformed" => Ok(Unread::Malformed(WHAT)),
        "failed" => Ok(Unread::Failed(WHAT, 0)),
        _ => Err("missing, denied, malformed or failed"),
    }
}
