//! The class histogram of a JVM (`jcmd PID GC.class_histogram`, `jmap -histo`): classes with instances and bytes, counted, not sampled.
//!
//! A row is `num: instances bytes name [(module)]`. A histogram without its `Total` line is torn, and an error.

use std::io::Read;

use super::lines::Lines;
use super::{ENTRIES_MAX, ReadError, Warning, Warnings};
use crate::digest::Kind;
use crate::profile::{Entry, Frame, Profile, Sampling};

/// Reads a histogram.
///
/// # Errors
/// No table, a torn one, more than [`ENTRIES_MAX`] classes, or the reader's own.
pub fn read(input: impl Read) -> Result<(Profile, Vec<Warning>), ReadError> {
    let mut lines = Lines::new(input);
    let mut profile = Profile::new(Kind::Class, Sampling::Counted);
    let mut warnings = Warnings::default();
    let mut total = None;
    while let Some(line) = lines.read()? {
        let text = line.text.trim().to_owned();
        let cut = line.cut;
        let offset = lines.offset;
        if cut {
            warnings.add(offset, "a line that is too long was cut");
        }
        let mut words = text.split_whitespace();
        let first = words.next().unwrap_or_default();
        let figures = |mut words: std::str::SplitWhitespace<'_>| {
            let count: u64 = words.next()?.parse().ok()?;
            let bytes: u64 = words.next()?.parse().ok()?;
            Some((count, bytes, words.next().unwrap_or_default().to_owned()))
        };
        if first.eq_ignore_ascii_case("total") {
            total = figures(words).map(|(count, bytes, _)| (count, bytes));
            continue;
        }
        // jcmd writes the process's number first: `22437:`.
        let is_row = first.strip_suffix(':').is_some_and(|number| number.parse::<u64>().is_ok());
        if !is_row || words.clone().next().is_none() {
            continue;
        }
        let Some((count, bytes, name)) = figures(words).filter(|(_, _, name)| !name.is_empty()) else {
            warnings.add(offset, "a row that cannot be read was skipped");
            continue;
        };
        if profile.entries.len() >= ENTRIES_MAX {
            return Err(ReadError::TooMany { most: ENTRIES_MAX as u64, what: "classes" });
        }
        let at = profile.frames.len() as u32;
        profile.frames.push(Frame { name: readable(&name).into(), ..Frame::default() });
        profile.entries.push(Entry { frames: vec![at], bytes: bytes as f64, count: count as f64 });
    }
    let Some((count, bytes)) = total else {
        let what =
            if profile.entries.is_empty() { "no class histogram" } else { "the histogram ends before its total" };
        return Err(ReadError::damage(lines.offset, what));
    };
    if (profile.count(), profile.bytes()) != (count as f64, bytes as f64) {
        warnings.add(lines.offset, "the rows do not add up to the total");
    }
    Ok((profile, warnings.into_vec()))
}

/// `[B` as `byte[]`, `[[Ljava.lang.String;` as `java.lang.String[][]`; other names as they are.
fn readable(name: &str) -> String {
    let element = name.trim_start_matches('[');
    let depth = name.len() - element.len();
    let base = match element {
        _ if depth == 0 => element,
        "B" => "byte",
        "C" => "char",
        "D" => "double",
        "F" => "float",
        "I" => "int",
        "J" => "long",
        "S" => "short",
        "Z" => "boolean",
        class => class.strip_prefix('L').and_then(|class| class.strip_suffix(';')).unwrap_or(class),
    };
    format!("{base}{}", "[]".repeat(depth))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_arrays_are_readable() {
        for (name, shown) in [
            ("[B", "byte[]"),
            ("[[I", "int[][]"),
            ("[Ljava.lang.Object;", "java.lang.Object[]"),
            ("java.util.HashMap$Node", "java.util.HashMap$Node"),
            ("[", "[]"),
        ] {
            assert_eq!(readable(name), shown);
        }
    }

    #[test]
    fn a_torn_or_strange_file_is_an_error_with_its_place() {
        let whole = " num     #instances         #bytes  class name\n----\n   1:  2  64  [B\nTotal  2  64\n";
        assert_eq!(read(whole.as_bytes()).unwrap().0.bytes(), 64.0);
        for (text, expected) in [
            ("", "at byte 0: no class histogram"),
            ("hello\n", "at byte 6: no class histogram"),
            (&whole[..whole.len() - 14], "the histogram ends before its total"),
        ] {
            let error = read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
        }
        let (_, warnings) = read("1: 2 64 [B\n2: x y z\nTotal 3 64\n".as_bytes()).unwrap();
        assert_eq!(warnings.len(), 2);
    }
}
