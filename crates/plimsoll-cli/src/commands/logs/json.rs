//! One JSON object a line, written by hand into a buffer: a million lines a second, no allocation per line.
//!
//! Text that is not UTF-8 is given twice: `text` with U+FFFD in place of what is wrong, and `text_base64`, which has
//! every byte. `text_base64` is there only then.

/// Appends `text` as a JSON string, quotes included; false if something in it was not UTF-8.
pub(super) fn push_string(out: &mut Vec<u8>, text: &[u8]) -> bool {
    out.push(b'"');
    let mut whole = true;
    for chunk in text.utf8_chunks() {
        push_escaped(out, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
            whole = false;
        }
    }
    out.push(b'"');
    whole
}

fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, 0..=0x1f | b'"' | b'\\' | 0x7f)) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let [high, low] = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Appends a decimal number.
pub(super) fn push_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
}

/// Appends base64 with padding (RFC 4648, section 4).
pub(super) fn push_base64(out: &mut Vec<u8>, data: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in data.chunks(3) {
        let bits = group.iter().enumerate().fold(0_u32, |bits, (i, byte)| bits | u32::from(*byte) << (16 - 8 * i));
        for i in 0..4 {
            let sextet = ALPHABET[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= group.len() { sextet } else { b'=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_string_reads_back_as_it_was() {
        let all: String = (0..0x300).filter_map(char::from_u32).chain("漢字 🚢".chars()).collect();
        for text in ["", "plain", "\"quoted\" \\ \n\r\t\0\u{1b}\u{7f}", &all] {
            let mut out = Vec::new();
            assert!(push_string(&mut out, text.as_bytes()));
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn what_is_not_utf_8_is_marked() {
        let mut out = Vec::new();
        assert!(!push_string(&mut out, b"a\xff\xfeb"));
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), "a\u{fffd}\u{fffd}b");
    }

    #[test]
    fn base64_as_in_rfc_4648() {
        let expected =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (text, encoded) in expected {
            let mut out = Vec::new();
            push_base64(&mut out, text.as_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), encoded);
        }
        let mut out = Vec::new();
        push_base64(&mut out, &[0xfb, 0xff]);
        assert_eq!(out, b"+/8=");
    }

    #[test]
    fn numbers_have_all_their_digits() {
        for number in [0, 7, 10, 4211, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
