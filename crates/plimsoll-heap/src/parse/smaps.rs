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

/// One mapping while it is read.
#[derive(Clone, Default)]
struct Mapping {
    start: u64,
    end: u64,
    access: String,
    name: String,
    rss: u64,
}

/// Reads either file.
///
/// # Errors
/// No mapping in it, more than [`ENTRIES_MAX`] names, or the reader's own.
pub fn read(input: impl Read) -> Result<(Profile, Vec<Warning>), ReadError> {
    let mut lines = Lines::new(input);
    let mut warnings = Warnings::default();
    let mut rows: HashMap<String, (u64, u64)> = HashMap::new();
    let mut totals = [("rss", 0), ("pss", 0), ("private", 0), ("swap", 0), ("anonymous", 0)];
    let mut last: Option<Mapping> = None;
    let mut seen_rss = true;
    while let Some(line) = lines.read()? {
        let text = line.text.into_owned();
        let offset = lines.offset;
        if let Some(next) = mapping(&text) {
            if !seen_rss {
                warnings.add(offset, "a mapping without its resident bytes counts as none");
            }
            if let Some(last) = last.replace(next.clone()) {
                keep(&mut rows, &last, Some(&next))?;
            }
            seen_rss = false;
            continue;
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
    let mut profile = Profile::new(Kind::Mapping, Sampling::Counted);
    let is_rollup = rows.is_empty() && last.name == "[rollup]";
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
        profile.frames.push(Frame { name, ..Frame::default() });
    }
    profile.totals = totals.to_vec();
    Ok((profile, warnings.into_vec()))
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
        assert_eq!(warnings, []);
    }

    #[test]
    fn a_rollup_has_totals_only() {
        let text = "55d4c8a00000-7fffffffe000 ---p 00000000 00:00 0    [rollup]\nRss: 100 kB\nSwap: 5 kB\n";
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
    }
}
