//! Text of a program made safe for a terminal: it may colour itself, and nothing else.
//!
//! Printable text, tabs and colour sequences (`ESC [ … m`, at most [`SGR_BYTES`] long) pass; every other control
//! character, invalid UTF-8 and the characters that reorder text are shown as `\x1b`, `\xff` or `\u{202e}`, so that no
//! line can move the cursor, set the title, answer for the terminal or look like another line.

/// Longest colour sequence that is passed on, in bytes.
const SGR_BYTES: usize = 32;

/// Appends `text` to `out`; colour sequences are kept if `colours`, else left out. True if a colour may be left on.
pub(super) fn push(out: &mut Vec<u8>, text: &[u8], colours: bool) -> bool {
    // Most lines are plain ASCII: one pass over the bytes, one copy.
    if text.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
        out.extend_from_slice(text);
        return false;
    }
    // What a pseudo-terminal puts before each newline.
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let mut coloured = false;
    for chunk in text.utf8_chunks() {
        let mut valid = chunk.valid();
        while let Some(c) = valid.chars().next() {
            if c == '\x1b'
                && let Some(length) = colour_sequence(valid.as_bytes())
            {
                if colours {
                    out.extend_from_slice(&valid.as_bytes()[..length]);
                    coloured = true;
                }
                valid = &valid[length..];
                continue;
            }
            push_char(out, c);
            valid = &valid[c.len_utf8()..];
        }
        for byte in chunk.invalid() {
            push_hex(out, *byte);
        }
    }
    coloured
}

fn push_char(out: &mut Vec<u8>, c: char) {
    match c {
        '\t' => out.push(b'\t'),
        '\0'..='\x1f' | '\x7f' => push_hex(out, c as u8),
        // C1 controls, marks and overrides of direction, line and paragraph separators.
        '\u{80}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            out.extend(c.escape_unicode().map(|c| c as u8));
        }
        _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

fn push_hex(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(&[b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

/// The length of the colour sequence at the beginning of `text`, if there is one.
fn colour_sequence(text: &[u8]) -> Option<usize> {
    let inner = text.strip_prefix(b"\x1b[")?;
    let end = inner.iter().take(SGR_BYTES).position(|byte| !matches!(byte, b'0'..=b'9' | b';' | b':'))?;
    (inner[end] == b'm').then_some(2 + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &[u8], colours: bool) -> String {
        let mut out = Vec::new();
        push(&mut out, text, colours);
        String::from_utf8(out).expect("what is shown is always UTF-8")
    }

    #[test]
    fn only_colours_get_through() {
        for (text, expected) in [
            (b"plain\ttext".as_slice(), "plain\ttext"),
            ("naïve ✓ 漢字".as_bytes(), "naïve ✓ 漢字"),
            (b"\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
            (b"\x1b[38:2::1:2:3mx", "\x1b[38:2::1:2:3mx"),
            (b"\x1b[2Jcleared", "\\x1b[2Jcleared"),
            (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            (b"\x1b[6n", "\\x1b[6n"),
            (b"\x1b[", "\\x1b["),
            (b"\x1b", "\\x1b"),
            (b"over\rwritten", "over\\x0dwritten"),
            (b"from a terminal\r", "from a terminal"),
            (b"\xff\xfe\x00", "\\xff\\xfe\\x00"),
            (b"\xe2\x82", "\\xe2\\x82"),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
            ("a\u{202e}b".as_bytes(), "a\\u{202e}b"),
        ] {
            assert_eq!(shown(text, true), expected, "{text:?}");
        }
        assert_eq!(shown(b"\x1b[1;31mred\x1b[0m", false), "red");
        assert_eq!(shown(&[b"\x1b[".as_slice(), &[b'1'; 99], b"m"].concat(), true).len(), 2 + 3 + 99 + 1);
    }

    #[test]
    fn no_control_character_gets_through_whatever_the_bytes() {
        let mut state = 7_u64;
        for _ in 0..2000 {
            let text: Vec<u8> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    [b'\x1b', b'[', b'm', b'1', (state >> 33) as u8][(state >> 60) as usize % 5]
                })
                .collect();
            let shown = shown(&text, false);
            assert!(!shown.chars().any(|c| c.is_control() && c != '\t'), "{text:?} -> {shown:?}");
        }
    }
}
