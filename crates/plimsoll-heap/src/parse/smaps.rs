//! `/proc/PID/smaps` and `smaps_rollup`: resident bytes by mapping, of any process; counted, in kibibytes as the kernel writes them.
//!
//! Mappings of one file are one row, and so are those of each nameless kind: `[anon]`, `[glibc arena]` (a 64 MiB reservation,
//! aligned to its size), `[heap]`, `[stack]`. Totals: rss, pss, private, swap, anonymous.

use std::collections::HashMap;
use std::io::Read;

use super::lines::Lines;
use super::{ENTRIES_MAX, ReadError, Warning, Warnings};
use crate::digest::Kind;
use crate::profile::{Entry, Frame, Profile, Sampling};

/// glibc reserves its arenas in this size, aligned to it.
const ARENA_BYTES: u64 = 64 << 20;

/// How the line begins that Plimsoll's own captures end with; behind it stands how many bytes are before it.
pub const END: &str = "plimsoll-end ";

/// One mapping while it is read.
#[derive(Clone, Default)]
struct Mapping {
    start: u64,
    end: u64,
    access: String,
    name: String,
    rss: u64,
}

/// Reads either file. Where it was cut behind a whole mapping is not seen in a file without [`END`]; where the program's `[stack]`, which
/// the kernel writes near the end, is missing, that is a warning.
///
/// # Errors
/// No mapping in it, a last one that is not whole, bytes missing before [`END`], more than [`ENTRIES_MAX`] names, or the reader's own.
pub fn read(input: impl Read) -> Result<(Profile, Vec<Warning>), ReadError> {
    let mut lines = Lines::new(input);
    let mut warnings = Warnings::default();
    let mut rows: HashMap<String, (u64, u64)> = HashMap::new();
    let mut totals = [("rss", 0), ("pss", 0), ("private", 0), ("swap", 0), ("anonymous", 0)];
    let mut last: Option<Mapping> = None;
    let mut seen_rss = true;
    let (mut mappings, mut has_stack, mut has_end) = (0_u64, false, false);
    // The last field of the first mapping: each has it.
    let (mut first, mut whole) = (None::<String>, false);
    while let Some(line) = lines.read()? {
        let text = line.text.into_owned();
        let offset = lines.offset;
        if has_end {
            return Err(ReadError::damage(offset, "more behind the end"));
        }
        if let Some(bytes) = text.strip_prefix(END) {
            if bytes.parse() != Ok(offset) || !lines.ended {
                return Err(ReadError::damage(offset, "not as many bytes as its last line says"));
            }
            has_end = true;
            continue;
        }
        if let Some(next) = mapping(&text) {
            has_stack |= next.name == "[stack]";
            whole = false;
            if !seen_rss {
                warnings.add(offset, "a mapping without its resident bytes counts as none");
            }
            if let Some(last) = last.replace(next.clone()) {
                keep(&mut rows, &last, Some(&next))?;
            }
            seen_rss = false;
            mappings += 1;
            continue;
        }
        if let Some((name, _)) = text.split_once(':') {
            if mappings == 1 {
                first = Some(name.to_owned());
            }
            whole |= mappings > 1 && first.as_deref() == Some(name) || name == "Locked" && is_rollup(last.as_ref());
        }
        let Some((field, bytes)) = field(&text) else {
            // Flags and protection keys are no sizes.
            if !text.starts_with("VmFlags:") && !text.trim().is_empty() && !text.contains(':') {
                warnings.add(offset, "a line that cannot be read was skipped");
            }
            continue;
        };
        let Some(current) = last.as_mut() else {
            return Err(ReadError::damage(offset, "a size before the first mapping"));
        };
        let mut add = |at: usize| totals[at].1 = u64::saturating_add(totals[at].1, bytes);
        match field {
            "Rss" => {
                current.rss = bytes;
                seen_rss = true;
                add(0);
            }
            "Pss" => add(1),
            "Private_Clean" | "Private_Dirty" => add(2),
            "Swap" => add(3),
            "Anonymous" => add(4),
            _ => {}
        }
    }
    let Some(last) = last else { return Err(ReadError::damage(lines.offset, "no mapping")) };
    if !seen_rss {
        return Err(ReadError::damage(lines.offset, "the last mapping ends before its resident bytes"));
    }
    if !lines.ended {
        return Err(ReadError::damage(lines.offset, "the file ends inside a line"));
    }
    let is_rollup = rows.is_empty() && is_rollup(Some(&last));
    if !whole && (mappings > 1 || is_rollup) {
        return Err(ReadError::damage(lines.offset, "the last mapping ends before its last field"));
    }
    if !has_stack && !has_end && !is_rollup {
        warnings.add(lines.offset, "no [stack]: the end of the file may be missing");
    }
    let mut profile = Profile::new(Kind::Mapping, Sampling::Counted);
    if !is_rollup {
        keep(&mut rows, &last, None)?;
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by(|a, b| (b.1.0, &a.0).cmp(&(a.1.0, &b.0)));
    for (name, (bytes, count)) in rows {
        profile.entries.push(Entry {
            frames: vec![profile.frames.len() as u32],
            bytes: bytes as f64,
            count: count as f64,
        });
        profile.frames.push(Frame { name: name.into(), ..Frame::default() });
    }
    profile.totals = totals.to_vec();
    Ok((profile, warnings.into_vec()))
}

/// The one mapping of a `smaps_rollup`, whose last field is `Locked`.
fn is_rollup(one: Option<&Mapping>) -> bool {
    one.is_some_and(|one| one.name == "[rollup]")
}

fn keep(rows: &mut HashMap<String, (u64, u64)>, one: &Mapping, next: Option<&Mapping>) -> Result<(), ReadError> {
    let name = match one.name.as_str() {
        "" if is_arena(one, next) => "[glibc arena]".to_owned(),
        "" => "[anon]".to_owned(),
        name => name.strip_suffix(" (deleted)").unwrap_or(name).to_owned(),
    };
    if rows.len() >= ENTRIES_MAX && !rows.contains_key(&name) {
        return Err(ReadError::TooMany { most: ENTRIES_MAX as u64, what: "mappings" });
    }
    let (bytes, count) = rows.entry(name).or_default();
    *bytes = bytes.saturating_add(one.rss);
    *count += 1;
    Ok(())
}

/// Writable from a 64 MiB boundary on, and reserved up to the next.
fn is_arena(one: &Mapping, next: Option<&Mapping>) -> bool {
    let reserved = |next: &Mapping| {
        next.name.is_empty()
            && next.access.starts_with("---")
            && next.start == one.end
            && next.end == one.start + ARENA_BYTES
    };
    let aligned =
        one.start > 0 && one.start.is_multiple_of(ARENA_BYTES) && one.start.checked_add(ARENA_BYTES).is_some();
    aligned && one.access.starts_with("rw") && (one.end == one.start + ARENA_BYTES || next.is_some_and(reserved))
}

/// `55d4c8a00000-55d4c8a21000 rw-p 00000000 00:00 0   [heap]`
fn mapping(line: &str) -> Option<Mapping> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    let mut fields = rest.splitn(4, ' ');
    let access = fields.next()?.to_owned();
    let (_offset, _device) = (fields.next()?, fields.next()?);
    let name = fields.next()?.split_once(' ').map_or("", |(_, name)| name.trim());
    Some(Mapping { start, end, access, name: name.to_owned(), rss: 0 })
}

/// `Rss:      123 kB`
fn field(line: &str) -> Option<(&str, u64)> {
    let (name, rest) = line.split_once(':')?;
    let mut words = rest.split_whitespace();
    let kib: u64 = words.next()?.parse().ok()?;
    (words.next() == Some("kB")).then(|| (name, kib.saturating_mul(1024)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARENA: &str = "7f0000000000-7f0000021000 rw-p 00000000 00:00 0 \nRss: 12 kB\n7f0000021000-7f0004000000 ---p 00000000 00:00 0 \nRss: 0 kB\n";

    #[test]
    fn mappings_of_one_name_are_one_row() {
        let text = format!(
            "{ARENA}55d4c8a00000-55d4c8a21000 rw-p 00000000 00:00 0    [heap]\nRss: 8 kB\nPss: 4 kB\nVmFlags: rd wr\n"
        );
        let (profile, warnings) = read(text.as_bytes()).unwrap();
        let rows: Vec<_> = profile.rows().into_iter().map(|r| (r.key, r.bytes, r.count)).collect();
        let row = |key: &str, kib: u64, n| (key.to_owned(), kib * 1024, n);
        assert_eq!(rows, [row("[glibc arena]", 12, 1), row("[heap]", 8, 1), row("[anon]", 0, 1)]);
        assert_eq!(profile.totals[..2], [("rss", 20 * 1024), ("pss", 4 * 1024)]);
        assert_eq!(
            warnings.iter().map(|w| w.what).collect::<Vec<_>>(),
            ["no [stack]: the end of the file may be missing"]
        );
    }

    #[test]
    fn a_rollup_has_totals_only() {
        let text =
            "55d4c8a00000-7fffffffe000 ---p 00000000 00:00 0    [rollup]\nRss: 100 kB\nSwap: 5 kB\nLocked: 0 kB\n";
        let (profile, _) = read(text.as_bytes()).unwrap();
        assert_eq!(
            (profile.entries.len(), profile.totals[0], profile.totals[3]),
            (0, ("rss", 102_400), ("swap", 5_120))
        );
    }

    #[test]
    fn torn_files_are_errors() {
        for text in ["", "Rss: 5 kB\n", "nonsense\n", &ARENA[..50]] {
            assert!(read(text.as_bytes()).is_err(), "{text:?}");
        }
        let rollup = "55d4c8a00000-7fffffffe000 ---p 00000000 00:00 0    [rollup]\nRss: 100 kB\n";
        assert!(
            read(rollup.as_bytes()).unwrap_err().to_string().ends_with("the last mapping ends before its last field")
        );
    }

    #[test]
    fn a_capture_knows_its_end() {
        let whole = format!("{ARENA}{END}{}\n", ARENA.len());
        let (profile, warnings) = read(whole.as_bytes()).unwrap();
        assert_eq!((profile.totals[0].1, warnings), (12 * 1024, Vec::new()));
        let begin = ARENA.find("\n7f0000021000").unwrap() + 1;
        let lacks = whole.replace(&ARENA[begin..], "");
        for (text, said) in [
            (lacks.as_str(), "not as many bytes as its last line says"),
            (&whole[..whole.len() - 1], "not as many bytes as its last line says"),
            (&format!("{whole}{ARENA}"), "more behind the end"),
        ] {
            assert!(read(text.as_bytes()).unwrap_err().to_string().ends_with(said), "{text:?}");
        }
    }
}
