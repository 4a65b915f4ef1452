//! No filter says no to what is there; it rarely says yes to what is not; damage makes it say yes.

use proptest::prelude::*;

use super::*;

fn filter(text: &[u8]) -> Vec<u8> {
    let mut copy = text.to_vec();
    let tokens = Tokens::of(&mut copy);
    assert_eq!(copy, text, "the text is as it was");
    tokens.filter().expect("few tokens")
}

fn may_have(filter: &[u8], hash: u32) -> bool {
    let needed = Needed { any_of: vec![vec![hash]] };
    needed.may_be_in(&mut |into, at| {
        let Some(from) = filter.get(at..at + into.len()) else { return false };
        into.copy_from_slice(from);
        true
    })
}

/// What the filter must hold, told the slow way.
fn told(text: &[u8]) -> Vec<Vec<u8>> {
    let words = text.split(|b| !b.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    words.map(<[u8]>::to_vec).collect()
}

#[test]
fn every_token_is_found_whatever_its_case_and_place() {
    let text = b"GET /api/v2/users?id=8f3a9c HTTP/1.1\" 203.0.113.77 - caf\xc3\xa9 x_y_zed \xff\xfeend 0123456789abcdef0123456789ABCDEF";
    let filter = filter(text);
    for word in ["get", "API", "users", "8F3A9C", "http", "203", "113", "caf", "zed", "end"] {
        assert!(may_have(&filter, token_hash(word.as_bytes()).expect("long enough")), "{word}");
    }
    let long = b"0123456789abcdef0123456789abcdef";
    assert!(may_have(&filter, token_hash(long).expect("long enough")));
    for (first, second) in [("203", "0"), ("0", "113"), ("113", "77"), ("1", "1")] {
        let hash = pair_hash(first.as_bytes(), second.as_bytes()).expect("numbers");
        assert!(may_have(&filter, hash), "{first}.{second}");
    }
    assert_eq!(token_hash(b"v2"), None);
    assert_eq!(pair_hash(b"api", b"2"), None);
    for word in ["user", "203011377", "8f3a9", "caf\u{e9}"] {
        assert!(!may_have(&filter, token_hash(word.as_bytes()).expect("long enough")), "{word}");
    }
}

#[test]
fn one_in_a_thousand_is_taken_for_there_and_twelve_bits_are_enough() {
    let text: Vec<u8> =
        (0..25_000u32).flat_map(|i| format!("w{:x} ", i.wrapping_mul(0x9e37_79b1)).into_bytes()).collect();
    let filter = filter(&text);
    let bits = filter.len() * 8 / 25_000;
    assert!(bits <= 12, "{bits} bits a token");
    let wrong = (0..100_000u32)
        .filter(|i| may_have(&filter, token_hash(format!("z{i:05}q").as_bytes()).expect("long")))
        .count();
    assert!((30..220).contains(&wrong), "{wrong} of 100,000");
}

#[test]
fn nothing_and_far_too_much() {
    assert!(!may_have(&filter(b""), 7));
    assert!(!may_have(&filter(b"a b c"), 7));
    let mut text: Vec<u8> = (0..300_000u32).flat_map(|i| format!("{i:06} ").into_bytes()).collect();
    assert_eq!(Tokens::of(&mut text).filter(), None);
}

#[test]
fn every_flipped_bit_says_yes_or_the_truth() {
    let words: Vec<String> = (0..300).map(|i| format!("word{i}")).collect();
    let good = filter(words.join(" ").as_bytes());
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        for word in words.iter().step_by(37) {
            assert!(may_have(&bad, token_hash(word.as_bytes()).expect("long enough")), "bit {bit}, {word}");
        }
    }
    for len in 0..good.len() {
        assert!(may_have(&good[..len], token_hash(b"word7").expect("long enough")), "cut at {len}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_the_slow_way_finds_is_there(text in prop::collection::vec(prop_oneof![4 => 0x2fu8..0x3a, 4 => 0x5eu8..0x7c, 1 => any::<u8>(), 1 => Just(b'.')], 0..400)) {
        let filter = filter(&text);
        for word in told(&text) {
            if let Some(hash) = token_hash(&word) {
                prop_assert!(may_have(&filter, hash), "{:?}", String::from_utf8_lossy(&word));
            }
        }
    }
}
