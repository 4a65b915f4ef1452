//! The 20,000 words that log lines are drawn from: committed as `data/words.txt`, made by [`generate`] and nothing else.
//!
//! Real dictionaries would do as well; a generated list has no licence, and a test holds the file to its generator. Words are
//! lower-case ASCII, pronounceable, distinct, 2 to [`MAX_WORD_BYTES`] bytes long with the lengths of English dictionary words
//! (mean about 7.5). Uniform draws from them are *harder* to compress than prose, where few words make most of the text.

use std::collections::HashSet;

/// How many words the list has.
pub const WORDS: usize = 20_000;
/// The longest word, in bytes. Generation of lines relies on it (fixed 16-byte copies).
pub const MAX_WORD_BYTES: usize = 15;

/// The committed list, one word a line.
pub const TEXT: &str = include_str!("../data/words.txt");

/// A small, fast, well-mixed generator (splitmix64): one state word, one output per step.
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator whose whole sequence is determined by `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, uniform to within 2⁻³².
    #[inline]
    pub fn below(&mut self, bound: u32) -> u32 {
        (((self.bits() >> 32) * u64::from(bound)) >> 32) as u32
    }
}

/// Words by length, out of 1,000: the shape of an English dictionary of common words, lengths 2 to 15.
const LENGTHS_PER_MILLE: [u32; 14] = [4, 28, 80, 115, 150, 165, 150, 118, 85, 50, 30, 14, 7, 4];
const ONSETS: [&str; 24] = [
    "b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "st", "tr", "ch", "sh", "pl",
    "gr", "th",
];
const VOWELS: [&str; 8] = ["a", "e", "i", "o", "u", "ea", "ou", "ai"];
const CODAS: [&str; 10] = ["", "", "", "n", "r", "s", "t", "l", "nd", "ck"];

/// Makes the list: the same words in the same order on every machine.
pub fn generate() -> Vec<String> {
    let mut random = Random::new(0x706c_696d_736f_6c6c);
    let mut seen = HashSet::new();
    let mut words = Vec::with_capacity(WORDS);
    while words.len() < WORDS {
        let mut at = random.below(1000);
        let mut length = 2;
        for share in LENGTHS_PER_MILLE {
            if at < share {
                break;
            }
            at -= share;
            length += 1;
        }
        let mut word = String::with_capacity(length + 6);
        while word.len() < length {
            word.push_str(ONSETS[random.below(ONSETS.len() as u32) as usize]);
            word.push_str(VOWELS[random.below(VOWELS.len() as u32) as usize]);
            word.push_str(CODAS[random.below(CODAS.len() as u32) as usize]);
        }
        word.truncate(length.min(MAX_WORD_BYTES));
        if seen.insert(word.clone()) {
            words.push(word);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_list_is_what_the_generator_makes() {
        let made = generate();
        let committed: Vec<&str> = TEXT.lines().collect();
        assert_eq!(made, committed, "write it again with `plimsoll-load words > tests/incidents/data/words.txt`");
        assert_eq!(made.len(), WORDS);
        let mean = made.iter().map(String::len).sum::<usize>() as f64 / WORDS as f64;
        assert!((7.0..8.0).contains(&mean), "mean length {mean}");
        assert!(made.iter().all(|word| (2..=MAX_WORD_BYTES).contains(&word.len())));
    }
}
