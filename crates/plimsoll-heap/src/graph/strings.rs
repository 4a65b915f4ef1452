//! The strings of a snapshot, escaped as in the file, end to end in one array; one is unescaped when it is asked for.
//!
//! Four bytes a string beside its text; any number of bytes in sum.

use std::borrow::Cow;

/// All strings of one snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Strings {
    arena: Vec<u8>,
    /// The low half of where each ends.
    ends: Vec<u32>,
    /// The first strings whose end has one more in its high half.
    turns: Vec<usize>,
}

impl Strings {
    /// Where the bytes of the next string are appended.
    pub(crate) fn arena(&mut self) -> &mut Vec<u8> {
        &mut self.arena
    }

    /// What was appended since the last one is a string.
    pub(crate) fn end_of_string(&mut self) {
        let end = self.arena.len() as u64;
        while (end >> 32) as usize > self.turns.len() {
            self.turns.push(self.ends.len());
        }
        self.ends.push(end as u32);
    }

    pub(crate) fn shrink(&mut self) {
        self.arena.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    fn end(&self, index: usize) -> usize {
        let high = self.turns.partition_point(|turn| *turn <= index);
        (high << 32) + self.ends[index] as usize
    }

    /// As in the file; empty for an index that is none.
    pub(crate) fn raw(&self, index: usize) -> &[u8] {
        if index >= self.ends.len() {
            return &[];
        }
        let begin = if index == 0 { 0 } else { self.end(index - 1) };
        &self.arena[begin..self.end(index)]
    }

    /// The text. What is no text (half a surrogate pair, bytes that are not UTF-8) is replaced.
    pub(crate) fn get(&self, index: u64) -> Cow<'_, str> {
        let raw = self.raw(usize::try_from(index).unwrap_or(usize::MAX));
        if memchr::memchr(b'\\', raw).is_none() {
            return String::from_utf8_lossy(raw);
        }
        Cow::Owned(unescape(&String::from_utf8_lossy(raw)))
    }

    /// The index of a string that needs no escapes.
    pub(crate) fn find(&self, text: &str) -> Option<u64> {
        (0..self.len()).find(|index| self.raw(*index) == text.as_bytes()).map(|index| index as u64)
    }

    /// Every string that contains `needle`, by one walk over all.
    pub(crate) fn containing<'a>(&'a self, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
        let mut latest = None;
        memchr::memmem::find_iter(&self.arena, needle).filter_map(move |at| {
            let index = self.index_at(at);
            (latest.replace(index) != Some(index) && self.end(index) >= at + needle.len()).then_some(index)
        })
    }

    /// Which string stands at a byte of the arena.
    fn index_at(&self, at: usize) -> usize {
        let (mut low, mut high) = (0, self.ends.len().saturating_sub(1));
        while low < high {
            let middle = (low + high) / 2;
            if self.end(middle) <= at { low = middle + 1 } else { high = middle }
        }
        low
    }
}

fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let mut chars = rest[at + 1..].chars();
        let escaped = chars.next();
        rest = chars.as_str();
        match escaped {
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some('r') => text.push('\r'),
            Some('b') => text.push('\u{8}'),
            Some('f') => text.push('\u{c}'),
            Some('u') => {
                let (c, after) = unicode(rest);
                text.push(c);
                rest = after;
            }
            Some(c) => text.push(c),
            None => {}
        }
    }
    text.push_str(rest);
    text
}

/// The character whose `\u` was just read, and what follows it.
fn unicode(rest: &str) -> (char, &str) {
    let unit = |text: &str| text.get(..4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let Some(first) = unit(rest) else { return (char::REPLACEMENT_CHARACTER, rest) };
    let rest = &rest[4..];
    if let (0xd800..=0xdbff, Some(second)) = (first, rest.strip_prefix("\\u").and_then(unit))
        && (0xdc00..=0xdfff).contains(&second)
    {
        let both = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(both).unwrap_or(char::REPLACEMENT_CHARACTER), &rest[6..]);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(raws: &[&str]) -> Strings {
        let mut strings = Strings::default();
        for raw in raws {
            strings.arena().extend_from_slice(raw.as_bytes());
            strings.end_of_string();
        }
        strings
    }

    #[test]
    fn strings_are_unescaped_when_asked_for() {
        let raws = ["", "plain", r#"a\"b\\c\/d\n\t"#, r"\u00e4 \ud83d\ude00", r"half \ud83d!", r"bad \u12", r"\u12ä€x"];
        let strings = of(&raws);
        for (index, expected) in
            ["", "plain", "a\"b\\c/d\n\t", "ä 😀", "half \u{fffd}!", "bad \u{fffd}12", "\u{fffd}12ä€x"]
                .iter()
                .enumerate()
        {
            assert_eq!(strings.get(index as u64), *expected);
        }
        assert_eq!(strings.get(99), "");
        assert_eq!(strings.find("plain"), Some(1));
        assert_eq!(strings.find("none"), None);
    }

    #[test]
    fn what_spans_two_strings_is_in_neither() {
        let strings = of(&["xab", "cab", "c", "abc abc"]);
        assert_eq!(strings.containing("abc").collect::<Vec<_>>(), [3]);
    }
}
