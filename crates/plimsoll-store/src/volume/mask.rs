//! A line without what differs from one to the next.
//!
//! | in the line | in the template |
//! |---|---|
//! | numbers, with what joins them: `3.7`, `07:00:30`, `10.0.0.8:443`, `2026-11-21`, UUIDs | `#` |
//! | hexadecimal with a digit in it, `0x…` | `#` |
//! | digits in words: `worker12`, `42ms` | `worker#`, `#ms` |
//! | quoted parts: `open "/var/db"` | `open "*"` |
//! | … but keys of JSON, and what `msg`, `error`, `level` and their like are (`msg="no room for 3"`) | as they are, numbers left out |
//! | terminal colours | nothing |

/// The longest template; what comes behind is cut.
pub const TEMPLATE_BYTES: usize = 240;
/// From this length on a word of nothing but a-f is taken for hexadecimal.
const HEX_WORD: usize = 16;
/// Keys whose values say what happened, and not to whom.
const TELLING: [&[u8]; 14] = [
    b"msg",
    b"message",
    b"event",
    b"level",
    b"lvl",
    b"severity",
    b"error",
    b"err",
    b"logger",
    b"target",
    b"method",
    b"kind",
    b"type",
    b"reason",
];

/// Writes the template of `line` (without its line end) into `into`, in place of what is there.
///
/// # Examples
/// ```
/// use plimsoll_store::volume::template;
///
/// let mut made = Vec::new();
/// template(b"conn 17 from 10.0.0.8: EMFILE", &mut made);
/// assert_eq!(made, b"conn # from #: EMFILE");
/// ```
pub fn template(line: &[u8], into: &mut Vec<u8>) {
    into.clear();
    let mut at = 0;
    while at < line.len() && into.len() < TEMPLATE_BYTES {
        at = match line[at] {
            quote @ (b'"' | b'\'' | b'`') => match closing(line, at) {
                Some(end) => {
                    quoted(line, at, end, into);
                    end + 1
                }
                None => {
                    into.push(quote);
                    at + 1
                }
            },
            _ => plain(line, at, into),
        };
    }
    into.truncate(TEMPLATE_BYTES);
}

/// Takes one word, or one byte that is in none; returns where to go on.
fn plain(line: &[u8], at: usize, into: &mut Vec<u8>) -> usize {
    let first = line[at];
    if first == 0x1b {
        return escape(line, at);
    }
    if !first.is_ascii_alphanumeric() {
        // A sign belongs to its number.
        let sign = first == b'-'
            && line.get(at + 1).is_some_and(u8::is_ascii_digit)
            && at.checked_sub(1).is_none_or(|before| matches!(line[before], b' ' | b'=' | b':' | b'(' | b'[' | b','));
        if !sign {
            into.push(first);
        }
        return at + 1;
    }
    let length = line[at..].iter().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(line.len() - at);
    let word = &line[at..at + length];
    let (mut digits, mut hex) = (0, true);
    for byte in word {
        digits += usize::from(byte.is_ascii_digit());
        hex &= byte.is_ascii_hexdigit();
    }
    let joined = into.len() >= 2 && into[into.len() - 2] == b'#' && into[into.len() - 1] == b'-';
    if digits == word.len() || (hex && (digits > 0 || joined || length >= HEX_WORD)) {
        number(into);
    } else if digits == 0 {
        into.extend_from_slice(word);
    } else if word.starts_with(b"0x") && word[2..].iter().all(u8::is_ascii_hexdigit) {
        number(into);
    } else {
        let mut rest = word;
        while let Some(first) = rest.first() {
            let digits = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
            if digits > 0 {
                number(into);
                rest = &rest[digits..];
            } else {
                into.push(*first);
                rest = &rest[1..];
            }
        }
    }
    at + length
}

/// Adds a number; one that is joined to a number before it is the same one.
fn number(into: &mut Vec<u8>) {
    match into.as_slice() {
        [.., b'#'] => {}
        [.., b'#', b'.' | b':' | b'-' | b'/' | b','] => drop(into.pop()),
        _ => into.push(b'#'),
    }
}

/// Where the quote that opens at `at` closes, if it opens one: not the one in `don't`.
fn closing(line: &[u8], at: usize) -> Option<usize> {
    let quote = line[at];
    if quote != b'"' && at > 0 && line[at - 1].is_ascii_alphanumeric() {
        return None;
    }
    let mut end = at + 1;
    loop {
        let found = end + memchr::memchr2(quote, b'\\', line.get(end..)?)?;
        if line[found] == quote {
            return Some(found);
        }
        end = found + 2;
    }
}

/// A quoted part from `at` to `end`, both quotes.
fn quoted(line: &[u8], at: usize, end: usize, into: &mut Vec<u8>) {
    let quote = line[at];
    let is_key = quote == b'"' && line.get(end + 1) == Some(&b':') && opens_entry(line, at);
    into.push(quote);
    if is_key || TELLING.contains(&key_before(line, at)) {
        let mut from = at + 1;
        while from < end && into.len() < TEMPLATE_BYTES {
            from = plain(&line[..end], from, into);
        }
    } else if end > at + 1 {
        into.push(b'*');
    }
    into.push(quote);
}

/// Whether an entry of a JSON object begins at `at`.
fn opens_entry(line: &[u8], at: usize) -> bool {
    line[..at].iter().rfind(|b| **b != b' ').is_some_and(|b| matches!(b, b'{' | b','))
}

/// The key whose value begins at `at`: of `"msg": "` and `msg="`, `msg`.
fn key_before(line: &[u8], at: usize) -> &[u8] {
    let before = line[..at].trim_ascii_end();
    let Some((b':' | b'=', before)) = before.split_last() else { return b"" };
    let before = before.strip_suffix(b"\"").unwrap_or(before);
    let from = before.iter().rposition(|b| !b.is_ascii_alphanumeric()).map_or(0, |at| at + 1);
    &before[from..]
}

/// Behind the terminal sequence at `at`.
fn escape(line: &[u8], at: usize) -> usize {
    if line.get(at + 1) != Some(&b'[') {
        return at + 1;
    }
    let end = line[at + 2..].iter().position(|b| (0x40..=0x7e).contains(b));
    end.map_or(line.len(), |end| at + 3 + end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(line: &str) -> String {
        let mut made = b"what was there".to_vec();
        template(line.as_bytes(), &mut made);
        String::from_utf8(made).unwrap()
    }

    #[test]
    fn what_differs_is_left_out() {
        for (line, expected) in [
            ("", ""),
            ("listening", "listening"),
            ("conn 17 from 10.0.0.8:4431: EMFILE", "conn # from #: EMFILE"),
            ("took 15 ms", "took # ms"),
            ("hash e3, user ann7", "hash #, user ann#"),
            ("took 1.5ms, -3 left, x=-7", "took #ms, # left, x=#"),
            ("worker12 of pool_3", "worker# of pool_#"),
            ("2026-11-21T07:00:30.123Z INFO up", "#T#Z INFO up"),
            ("[21/Nov/2026:07:00:30 +0000]", "[#/Nov/# +#]"),
            ("id 550e8400-e29b-41d4-a716-446655440000 gone", "id # gone"),
            ("at 0x7ffd1c, commit a1b2c3d", "at #, commit #"),
            ("facade decade", "facade decade"),
            ("deadbeefdeadbeef", "#"),
            ("open \"/var/lib/x 3.db\": no such file", "open \"*\": no such file"),
            ("open \"\": empty", "open \"\": empty"),
            ("can't open 'a b' or `c`", "can't open '*' or `*`"),
            ("an open \" quote 3", "an open \" quote #"),
            ("say \"a \\\" b\" 1", "say \"*\" #"),
            ("\x1b[31mERROR\x1b[0m no 5", "ERROR no #"),
            (
                "{\"level\":\"error\",\"msg\":\"accept 17 failed\",\"user\":\"bob\",\"n\":3}",
                "{\"level\":\"error\",\"msg\":\"accept # failed\",\"user\":\"*\",\"n\":#}",
            ),
            ("{\"time\": \"2026\", \"msg\": \"up\"}", "{\"time\": \"*\", \"msg\": \"up\"}"),
            ("level=info msg=\"no room for 3\" path=\"/a\"", "level=info msg=\"no room for #\" path=\"*\""),
            ("grüße an 3 Gäste", "grüße an # Gäste"),
        ] {
            assert_eq!(of(line), expected, "{line:?}");
        }
    }

    #[test]
    fn the_incident_s_lines_are_one() {
        let made: std::collections::BTreeSet<String> = (0..5000)
            .map(|n| {
                of(&format!(
                    "2026-05-01T07:{:02}:{:02}Z ERROR accept: EMFILE, fd {n}, conn {n:08x}",
                    n / 60 % 60,
                    n % 60
                ))
            })
            .collect();
        assert_eq!(made.len(), 1, "{made:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_have_one_and_it_is_bounded(line in proptest::collection::vec(any::<u8>(), 0..600)) {
            let (mut once, mut twice) = (Vec::new(), Vec::new());
            template(&line, &mut once);
            template(&line, &mut twice);
            prop_assert_eq!(&once, &twice);
            prop_assert!(once.len() <= TEMPLATE_BYTES);
        }
    }
}
