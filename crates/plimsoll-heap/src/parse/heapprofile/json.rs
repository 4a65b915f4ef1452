//! JSON as a row of tokens, without recursion: commas and colons are passed over, brackets are not matched with each other. For
//! files of programs we trust to write JSON; what is torn is an error with its offset.

use super::super::ReadError;

/// Bytes of a text that are kept.
const TEXT_MAX: usize = 4096;

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// `{` or `[`.
    Begin(u8),
    /// `}` or `]`.
    End,
    /// A text before a colon.
    Key(String),
    Text(String),
    Number(f64),
    /// `true`, `false`, `null`.
    Word,
}

pub(super) struct Json<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Json<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Json<'a> {
        Json { bytes, at: 0 }
    }

    pub(super) fn offset(&self) -> u64 {
        self.at as u64
    }

    fn skip(&mut self, also: &[u8]) {
        while self.bytes.get(self.at).is_some_and(|b| b.is_ascii_whitespace() || also.contains(b)) {
            self.at += 1;
        }
    }

    /// The next token; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Token>, ReadError> {
        self.skip(b",:");
        let Some(byte) = self.bytes.get(self.at).copied() else { return Ok(None) };
        let begin = self.at;
        Ok(Some(match byte {
            b'{' | b'[' => {
                self.at += 1;
                Token::Begin(byte)
            }
            b'}' | b']' => {
                self.at += 1;
                Token::End
            }
            b'"' => {
                let text = self.text()?;
                self.skip(b"");
                if self.bytes.get(self.at) == Some(&b':') { Token::Key(text) } else { Token::Text(text) }
            }
            b'-' | b'0'..=b'9' => {
                let in_number = |b: &u8| b.is_ascii_digit() || b"+-.eE".contains(b);
                self.at += self.bytes[begin..].iter().take_while(|b| in_number(b)).count();
                let text = std::str::from_utf8(&self.bytes[begin..self.at]).unwrap_or_default();
                let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
                Token::Number(number.ok_or_else(|| ReadError::damage(begin as u64, "a number that cannot be read"))?)
            }
            b'a'..=b'z' => {
                self.at += self.bytes[begin..].iter().take_while(|b| b.is_ascii_lowercase()).count();
                Token::Word
            }
            _ => return Err(ReadError::damage(begin as u64, "not JSON")),
        }))
    }

    /// A text, unescaped and bounded.
    fn text(&mut self) -> Result<String, ReadError> {
        let begin = self.at;
        let torn = || ReadError::damage(begin as u64, "a text that does not end");
        let mut text = Vec::new();
        self.at += 1;
        loop {
            let byte = *self.bytes.get(self.at).ok_or_else(torn)?;
            self.at += 1;
            match byte {
                b'"' => break,
                b'\\' => {
                    let escaped = *self.bytes.get(self.at).ok_or_else(torn)?;
                    self.at += 1;
                    let plain = match escaped {
                        b'n' => '\n',
                        b't' => '\t',
                        b'r' => '\r',
                        b'u' => self.unicode().ok_or_else(torn)?,
                        other => char::from(other),
                    };
                    if text.len() < TEXT_MAX {
                        text.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                }
                other if text.len() < TEXT_MAX => text.push(other),
                _ => {}
            }
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Four digits, and four more where they are half of a pair.
    fn unicode(&mut self) -> Option<char> {
        let first = self.digits()?;
        let is_high = (0xd800..0xdc00).contains(&first);
        if is_high && self.bytes[self.at..].starts_with(b"\\u") {
            let back = self.at;
            self.at += 2;
            let second = self.digits()?;
            if (0xdc00..0xe000).contains(&second) {
                return char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
            }
            self.at = back;
        }
        Some(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn digits(&mut self) -> Option<u32> {
        let digits = self.bytes.get(self.at..self.at + 4)?;
        self.at += 4;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let mut json = Json::new(br#"{"a\u00e9\ud83d\ude00": [1.5, "x\n\ud800", true]}"#);
        let mut seen = Vec::new();
        while let Some(token) = json.next().unwrap() {
            seen.push(token);
        }
        let key = Token::Key("a\u{e9}\u{1f600}".into());
        let text = Token::Text("x\n\u{fffd}".into());
        let expected = [
            Token::Begin(b'{'),
            key,
            Token::Begin(b'['),
            Token::Number(1.5),
            text,
            Token::Word,
            Token::End,
            Token::End,
        ];
        assert_eq!(seen, expected);
    }
}
