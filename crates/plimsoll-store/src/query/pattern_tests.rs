//! What an expression is known to need, and that this is never more than what it finds has.

use proptest::prelude::*;

use super::*;
use crate::filter::Tokens;

fn of(expression: &str, find: Find) -> Pattern {
    Pattern::new(expression, find).unwrap_or_else(|e| panic!("{expression}: {e}"))
}

/// The tokens needed, as hashes of these words; one list an alternative.
fn words(lists: &[&[&str]]) -> Needed {
    let hash = |word: &&str| match word.split_once('.') {
        Some((first, second)) => pair_hash(first.as_bytes(), second.as_bytes()).expect("numbers"),
        None => token_hash(word.as_bytes()).expect("long enough"),
    };
    let list = |words: &&[&str]| {
        let mut list: Vec<u32> = words.iter().map(hash).collect();
        list.sort_unstable();
        list
    };
    Needed { any_of: lists.iter().map(list).collect() }
}

#[test]
fn whole_tokens_are_needed_and_no_others() {
    let plain = Find::default();
    let word = Find { whole_words: true, ..plain };
    let text = Find { plain_text: true, ..plain };
    let either = Find { ignore_case: true, ..plain };
    let table: [(&str, Find, &[&[&str]]); 27] = [
        ("timeout", plain, &[]),
        ("timeout", word, &[&["timeout"]]),
        (": timeout,", plain, &[&["timeout"]]),
        ("a timeout of", plain, &[&["timeout"]]),
        ("^error: ", plain, &[&["error"]]),
        ("done$", plain, &[]),
        (" done$", plain, &[&["done"]]),
        (r"\bTimeOut\b", plain, &[&["timeout"]]),
        (r"\btimeout\B", plain, &[]),
        (r"user=\d+ done ", plain, &[&["done"]]),
        (r"id\s+8f3a9c\s+x", plain, &[&["8f3a9c"]]),
        (r"id\s*8f3a9c\s*x", plain, &[]),
        (" (warn|error) ", plain, &[&["warn"], &["error"]]),
        ("(a warn |x*)", plain, &[]),
        (
            " (one|two) (three|four) ",
            plain,
            &[&["one", "three"], &["one", "four"], &["two", "three"], &["two", "four"]],
        ),
        ("( again)+ ", plain, &[]),
        ("( again )+", plain, &[&["again"]]),
        (r"203\.0\.113\.77", word, &[&["203", "203.0", "0.113", "113", "113.77"]]),
        ("203.0.113.77", Find { plain_text: true, ..word }, &[&["203", "203.0", "0.113", "113", "113.77"]]),
        ("203.0.113.77", word, &[]),
        ("[x] (y", text, &[]),
        (" GET (", text, &[&["get"]]),
        (" end ", either, &[&["end"]]),
        (" disk ", either, &[]),
        (r"\bпоезд\b", plain, &[]),
        ("", word, &[]),
        (".*", plain, &[]),
    ];
    for (expression, find, expected) in table {
        assert_eq!(of(expression, find).needed, words(expected), "{expression:?} {find:?}");
    }
}

#[test]
fn whole_words_end_where_words_end() {
    let find = Find { whole_words: true, ..Find::default() };
    for (line, found) in
        [("a foo b", true), ("foo", true), ("a food", false), ("a_foo", false), ("\u{2014}foo\u{2014}", true)]
    {
        assert_eq!(of("foo", find).is_match(line.as_bytes()), found, "{line:?}");
    }
    assert!(of("/api", find).is_match(b"GET /api HTTP"), "also what is no word");
}

#[test]
fn a_broken_or_huge_expression_is_an_error() {
    assert!(Pattern::new("(", Find::default()).is_err());
    assert!(Pattern::new(r"\w{500}{50}", Find { size_limit_bytes: 10_000, ..Find::default() }).is_err());
}

/// The expression as it stands, asked of each line by itself.
fn line_by_line(expression: &str, find: Find, text: &[u8]) -> Vec<usize> {
    let mut builder = RegexBuilder::new(expression);
    let regex = builder.case_insensitive(find.ignore_case).build().unwrap_or_else(|e| panic!("{expression}: {e}"));
    let mut at = 0;
    let mut starts = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if regex.is_match(&line[..line.len() - 1]) {
            starts.push(at);
        }
        at += line.len();
    }
    starts
}

#[test]
fn a_text_of_many_lines_is_searched_as_each_line_would_be() {
    let text = b"first line\n\n  second\r\nTHIRD \xff line\nend\n";
    let table = [
        (r"line$", true),
        (r"^\s", true),
        (r"^$", true),
        ("", true),
        (r"line\s+second", true),
        ("[^q]*second", true),
        (r"(?s)line.*second", true),
        (r"line\n", true),
        ("line[\n]?", true),
        ("(?i)third|first", true),
        (r"\r$", true),
        (r"\bend\b", true),
        (r"(?-u:\xff)", true),
        (r"(?-m:^)end", false),
        (r"\Aend\z", false),
        (r"(?R)second$", false),
        (r"(?-m)end$", false),
    ];
    for (expression, in_text) in table {
        let pattern = of(expression, Find::default());
        assert_eq!(pattern.lines_with_it(text), line_by_line(expression, Find::default(), text), "{expression:?}");
        assert_eq!(pattern.in_text.is_some(), in_text, "{expression:?}");
    }
}

fn expression() -> impl Strategy<Value = String> {
    let atom = prop_oneof![
        8 => "[abkK1.3]{1,4}",
        4 => Just(" ".to_string()),
        1 => Just(r"\.".to_string()),
        1 => Just(r"\b".to_string()),
        1 => Just("^".to_string()),
        1 => Just("$".to_string()),
        1 => Just("[ab]".to_string()),
        1 => Just(r"\s+".to_string()),
        1 => Just("é".to_string()),
        1 => Just(r"\W".to_string()),
        1 => Just("[^a]*".to_string()),
        1 => Just(r"\z".to_string()),
    ];
    let parts = prop::collection::vec(atom, 1..6).prop_map(|parts| parts.concat());
    parts.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("(?:{a}|{b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}{b}")),
            inner.clone().prop_map(|a| format!("(?:{a})+")),
            inner.clone().prop_map(|a| format!("(?:{a})?")),
            inner.prop_map(|a| format!("({a}){{2}}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// A line that matches has a filter that says yes.
    #[test]
    fn nothing_that_is_found_is_filtered_out(
        expression in expression(), line in "[abkK13. é_\u{212a}]{0,24}", ignore_case in any::<bool>(), whole_words in any::<bool>(),
    ) {
        let pattern = of(&expression, Find { ignore_case, whole_words, ..Find::default() });
        if pattern.is_match(line.as_bytes()) {
            let mut text = line.clone().into_bytes();
            text.push(b'\n');
            let filter = Tokens::of(&mut text).filter().expect("few tokens");
            let may = pattern.needed.may_be_in(&mut |into, at| {
                let Some(from) = filter.get(at..at + into.len()) else { return false };
                into.copy_from_slice(from);
                true
            });
            prop_assert!(may, "{expression:?} is found in {line:?}");
        }
    }

    /// All lines at once, and each by itself: the same lines.
    #[test]
    fn lines_are_found_together_as_they_are_alone(
        expression in expression(), text in "([abkK13. é_\u{212a}\r]{0,8}\n){0,6}", ignore_case in any::<bool>(),
    ) {
        let find = Find { ignore_case, ..Find::default() };
        let found = of(&expression, find).lines_with_it(text.as_bytes());
        prop_assert_eq!(found, line_by_line(&expression, find, text.as_bytes()), "{:?} in {:?}", expression, text);
    }
}
