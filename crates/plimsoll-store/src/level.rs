//! The level of a log line, guessed from its first 160 bytes (512 of a JSON line): a guess that is cheap enough to make for every
//! line (about 20 ns when nothing matches). The first match wins; a line that says nothing has no level.

use memchr::memmem;

/// How bad a line says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LogLevel {
    /// `trace`
    Trace = 1,
    /// `debug`
    Debug = 2,
    /// `info`, `notice`
    Info = 3,
    /// `warn`, `warning`
    Warn = 4,
    /// `error`, `err`
    Error = 5,
    /// `fatal`, `critical`, `panic`, `alert`, `emerg`
    Fatal = 6,
}

const PLAIN_BYTES: usize = 160;
const JSON_BYTES: usize = 512;
const LONGEST_WORD: usize = 9;

impl LogLevel {
    /// All levels, mildest first.
    pub const ALL: [LogLevel; 6] =
        [LogLevel::Trace, LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error, LogLevel::Fatal];

    /// `trace` … `fatal`.
    pub fn name(self) -> &'static str {
        match self {
            LogLevel::Trace => "trace",
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
            LogLevel::Fatal => "fatal",
        }
    }

    /// The level that a word means, in any case: `warning` is [`LogLevel::Warn`].
    pub fn from_word(word: &str) -> Option<LogLevel> {
        from_bytes(word.as_bytes())
    }

    /// What `line` says about itself.
    pub fn detect(line: &[u8]) -> Option<LogLevel> {
        match line.first()? {
            b'{' => json(&line[..line.len().min(JSON_BYTES)]),
            b'<' => syslog(line).or_else(|| plain(line)),
            _ => plain(line),
        }
    }

    pub(crate) fn number(level: Option<LogLevel>) -> u8 {
        level.map_or(0, |l| l as u8)
    }

    pub(crate) fn from_number(number: u8) -> Option<LogLevel> {
        LogLevel::ALL.into_iter().find(|l| *l as u8 == number)
    }
}

impl std::fmt::Display for LogLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

fn from_bytes(word: &[u8]) -> Option<LogLevel> {
    if word.is_empty() || word.len() > LONGEST_WORD {
        return None;
    }
    let mut lower = [0u8; LONGEST_WORD];
    lower[..word.len()].copy_from_slice(word);
    lower.make_ascii_lowercase();
    Some(match &lower[..word.len()] {
        b"trace" => LogLevel::Trace,
        b"debug" => LogLevel::Debug,
        b"info" | b"notice" => LogLevel::Info,
        b"warn" | b"warning" => LogLevel::Warn,
        b"error" | b"err" => LogLevel::Error,
        b"fatal" | b"critical" | b"crit" | b"panic" | b"alert" | b"emerg" | b"emergency" => LogLevel::Fatal,
        _ => return None,
    })
}

/// `<3>text`: the severity is the number modulo 8 (RFC 5424, section 6.2.1).
fn syslog(line: &[u8]) -> Option<LogLevel> {
    let end = line.iter().take(5).position(|b| *b == b'>')?;
    let number: u32 = std::str::from_utf8(&line[1..end]).ok()?.parse().ok()?;
    Some(match number % 8 {
        0..=2 => LogLevel::Fatal,
        3 => LogLevel::Error,
        4 => LogLevel::Warn,
        5 | 6 => LogLevel::Info,
        _ => LogLevel::Debug,
    })
}

/// `"level":"warn"`, also `lvl` and `severity`; numbers as pino and bunyan write them (10 trace … 60 fatal).
fn json(head: &[u8]) -> Option<LogLevel> {
    for key in [&b"\"level\""[..], b"\"lvl\"", b"\"severity\""] {
        let Some(found) = memmem::find(head, key) else { continue };
        let mut rest = &head[found + key.len()..];
        while let [b' ' | b':', tail @ ..] = rest {
            rest = tail;
        }
        if let [b'"', word @ ..] = rest {
            return from_bytes(letters(word));
        }
        return match rest {
            [d @ b'1'..=b'6', b'0', ..] => LogLevel::from_number(d - b'0'),
            _ => None,
        };
    }
    None
}

/// An upper-case level word, `level=warn`, or a word in brackets, `[error]`.
fn plain(line: &[u8]) -> Option<LogLevel> {
    let head = &line[..line.len().min(PLAIN_BYTES)];
    for (block, bytes) in head.chunks(16).enumerate() {
        // One pass that the compiler turns into vector code; most blocks of most logs have no such byte.
        let any = bytes.iter().fold(false, |seen, b| seen | b.is_ascii_uppercase() | (*b == b'=') | (*b == b'['));
        if !any {
            continue;
        }
        for i in block * 16..block * 16 + bytes.len() {
            let found = match head[i] {
                b'=' => after_equals(&head[..i], &line[i + 1..]),
                b'[' => bracketed(&line[i + 1..]),
                b'T' | b'D' | b'I' | b'N' | b'W' | b'E' | b'F' | b'C' | b'P' | b'A' => upper_word(line, i),
                _ => None,
            };
            if found.is_some() {
                return found;
            }
        }
    }
    None
}

fn letters(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().take(LONGEST_WORD + 1).position(|b| !b.is_ascii_alphabetic());
    &bytes[..end.unwrap_or(bytes.len().min(LONGEST_WORD + 1))]
}

fn after_equals(before: &[u8], after: &[u8]) -> Option<LogLevel> {
    let is_level = [&b"level"[..], b"lvl", b"severity"].iter().any(|key| before.ends_with(key));
    let word = if let [b'"', word @ ..] = after { word } else { after };
    if is_level { from_bytes(letters(word)) } else { None }
}

fn bracketed(after: &[u8]) -> Option<LogLevel> {
    let word = letters(after);
    if after.get(word.len()) == Some(&b']') { from_bytes(word) } else { None }
}

fn upper_word(line: &[u8], start: usize) -> Option<LogLevel> {
    let joins = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    if start > 0 && joins(&line[start - 1]) {
        return None;
    }
    let word = letters(&line[start..]);
    let whole = !line.get(start + word.len()).is_some_and(joins);
    let shouted = word.len() >= 3 && word.iter().all(u8::is_ascii_uppercase);
    if whole && shouted { from_bytes(word) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_their_level() {
        use LogLevel::{Debug, Error, Fatal, Info, Trace, Warn};
        let table: [(&str, Option<LogLevel>); 28] = [
            ("", None),
            ("plain words and nothing else", None),
            (r#"{"ts":1,"level":"error","msg":"x"}"#, Some(Error)),
            (r#"{"level": "WARN"}"#, Some(Warn)),
            (r#"{"lvl":"dbg"}"#, None),
            (r#"{"severity":"CRITICAL"}"#, Some(Fatal)),
            (r#"{"level":30,"msg":"pino"}"#, Some(Info)),
            (r#"{"level":3}"#, None),
            (r#"{"msg":"an ERROR in text"}"#, None),
            ("ts=1 level=warn msg=x", Some(Warn)),
            (r#"level="error" msg=x"#, Some(Error)),
            ("sublevel=warn", Some(Warn)),
            ("mode=warn", None),
            ("2026-11-21T07:00:00Z  INFO app: started", Some(Info)),
            ("ERROR: no such file", Some(Error)),
            ("WARNING:root:careful", Some(Warn)),
            ("[2026] [error] 12#0: open() failed", Some(Error)),
            ("[warn]", Some(Warn)),
            ("[errors]", None),
            ("TERROR of the deep", None),
            ("ERRORS: 0", None),
            ("MY_ERROR", None),
            ("Error: written so by node", None),
            ("<3>kernel says", Some(Error)),
            ("<30>daemon info", Some(Info)),
            ("<html> DEBUG", Some(Debug)),
            ("TRACE", Some(Trace)),
            (r#"127.0.0.1 - - "GET / HTTP/1.1" 200"#, None),
        ];
        for (line, level) in table {
            assert_eq!(LogLevel::detect(line.as_bytes()), level, "{line:?}");
        }
    }

    #[test]
    fn far_behind_is_not_looked_at() {
        let mut line = vec![b'x'; 200];
        line.extend_from_slice(b" ERROR");
        assert_eq!(LogLevel::detect(&line), None);
    }

    #[test]
    fn numbers_and_words_go_both_ways() {
        for level in LogLevel::ALL {
            assert_eq!(LogLevel::from_number(LogLevel::number(Some(level))), Some(level));
            assert_eq!(LogLevel::from_word(level.name()), Some(level));
        }
        assert_eq!(LogLevel::from_number(0), None);
    }
}
