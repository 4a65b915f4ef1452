//! jemalloc's heap profile (`heap_v2`, a text): stacks with objects and bytes, sampled each 2^`lg_prof_sample` bytes.
//!
//! Each stack's figures are scaled up by 1 / (1 − e^(−mean size / rate)), line by line and before anything is summed, exactly as
//! jeprof does. Addresses are named by the `--- symbol` section of a symbolised file, else by mapping and offset.

use std::collections::{HashMap, hash_map};
use std::io::Read;
use std::sync::Arc;

use super::lines::Lines;
use super::{ENTRIES_MAX, FRAMES_MAX, ReadError, STACK_MAX, Warning, Warnings};
use crate::digest::Kind;
use crate::profile::{Entry, Frame, Frames, Mapped, Profile, Sampling, TEXT_BYTES_MAX, Texts, cut};

/// Mappings that are kept; more are not needed to name an address.
const MAPPINGS_MAX: usize = 1 << 16;

/// The longest path that the kernel tells.
const PATH_BYTES_MAX: usize = 4_096;

/// The warning of a file without a `--- symbol` section: whoever has the program's file can name its functions.
pub const NO_SYMBOLS: &str = "no symbols in the file: functions are shown as file+offset";

/// A part of a mapped file.
struct Mapping {
    start: u64,
    end: u64,
    file_offset: u64,
    inode: u64,
    file: Arc<str>,
}

/// Which part of the file a line belongs to.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Before,
    Symbols,
    Heap,
    Libraries,
}

/// Reads a profile.
///
/// # Errors
/// No `heap_v2` line, a stack that ends before its figures, an end that is missing, too many stacks, or the reader's own.
pub fn read(input: impl Read) -> Result<(Profile, Vec<Warning>), ReadError> {
    let mut lines = Lines::new(input);
    let mut warnings = Warnings::default();
    let mut part = Part::Before;
    let mut rate = 0;
    let mut symbols = Symbols::default();
    let mut mappings: Vec<Mapping> = Vec::new();
    let mut stacks: Vec<(Vec<u64>, f64, f64)> = Vec::new();
    let mut frames = Frames::default();
    let mut total: Option<(u64, u64)> = None;
    // What the stacks sum up to, as it was sampled.
    let mut sampled: (u64, u64) = (0, 0);
    let mut open: Option<Vec<u64>> = None;
    while let Some(line) = lines.read()? {
        let (text, cut) = (line.text.into_owned(), line.cut);
        let offset = lines.offset;
        if cut {
            warnings.add(offset, "a line that is too long was cut");
        }
        if let Some(after) = text.strip_prefix("heap_v2/") {
            rate = after.trim().parse().map_err(|_| ReadError::damage(offset, "no sampling rate after heap_v2/"))?;
            part = Part::Heap;
        } else if text.starts_with("--- symbol") {
            part = Part::Symbols;
        } else if text.starts_with("---") {
            part = if rate > 0 { part } else { Part::Before };
        } else if text.starts_with("MAPPED_LIBRARIES:") {
            if open.is_some() {
                return Err(ReadError::damage(offset, "a stack without figures"));
            }
            part = Part::Libraries;
        } else {
            match part {
                Part::Before => return Err(ReadError::damage(offset, "no heap_v2 line")),
                Part::Symbols => symbols.add(&text),
                Part::Libraries if mappings.len() < MAPPINGS_MAX => mappings.extend(mapping(&text, &mut frames.texts)),
                Part::Libraries => warnings.add(offset, "more mappings than are kept"),
                Part::Heap => {
                    if let Some(addresses) = text.trim_start().strip_prefix('@') {
                        if open.is_some() {
                            return Err(ReadError::damage(offset, "a stack without figures"));
                        }
                        let all = addresses.split_whitespace().filter_map(hex);
                        open = Some(all.take(STACK_MAX).collect());
                    } else if let Some(figures) = text.trim_start().strip_prefix("t*:") {
                        let Some((count, bytes)) = figures_of(figures) else {
                            return Err(ReadError::damage(offset, "figures that cannot be read"));
                        };
                        match open.take() {
                            None => total = Some((count, bytes)),
                            Some(_) if stacks.len() >= ENTRIES_MAX => {
                                return Err(ReadError::TooMany { most: ENTRIES_MAX as u64, what: "stacks" });
                            }
                            Some(addresses) => {
                                sampled = (sampled.0.saturating_add(count), sampled.1.saturating_add(bytes));
                                let scale = scale(count, bytes, rate);
                                stacks.push((addresses, count as f64 * scale, bytes as f64 * scale));
                            }
                        }
                    } else if !text.trim().is_empty() && !text.trim_start().starts_with('t') {
                        warnings.add(offset, "a line that cannot be read was skipped");
                    }
                }
            }
        }
    }
    if rate == 0 {
        return Err(ReadError::damage(lines.offset, "no heap_v2 line"));
    }
    let Some((count, bytes)) = total.filter(|_| open.is_none()) else {
        return Err(ReadError::damage(lines.offset, "the profile ends before its figures"));
    };
    if !lines.ended {
        return Err(ReadError::damage(lines.offset, "the profile ends inside a line"));
    }
    // jemalloc writes its mappings last. Where it can read none it writes none; then its stacks must be all that its total counts.
    // (Elsewhere they need not: jemalloc 5.3 corrects each of its lines for what sampling misses, the total's, too.)
    if part != Part::Libraries {
        if (count, bytes) != sampled {
            return Err(ReadError::damage(
                lines.offset,
                "the profile ends before its MAPPED_LIBRARIES and lacks stacks",
            ));
        }
        warnings.add(lines.offset, "no MAPPED_LIBRARIES: functions cannot be told apart by their files");
    }
    let mut profile = Profile::new(Kind::Stack, Sampling::Every { bytes: rate });
    // The kernel writes them so.
    mappings.sort_by_key(|m| m.start);
    let mut told = vec![false; mappings.len()];
    let mut known: HashMap<u64, Vec<u32>> = HashMap::new();
    for (addresses, count, bytes) in stacks {
        let mut stack = Vec::with_capacity(addresses.len());
        for address in addresses {
            let indices = match known.entry(address) {
                hash_map::Entry::Occupied(known) => known.into_mut(),
                hash_map::Entry::Vacant(place) => {
                    let (named, mapping) = name(address, &symbols, &mappings, &mut frames);
                    if let Some(at) = mapping.filter(|at| !std::mem::replace(&mut told[*at], true)) {
                        frames.maps(mapped(&mappings[at]), &mut profile);
                    }
                    let mut indices = Vec::with_capacity(named.len());
                    for frame in named {
                        let too_many = ReadError::TooMany { most: FRAMES_MAX as u64, what: "frames" };
                        indices.push(frames.index(frame, &mut profile.frames).ok_or(too_many)?);
                    }
                    place.insert(indices)
                }
            };
            // What is inlined counts, too: a stack is bounded, however its symbols are written.
            let room = STACK_MAX.saturating_sub(stack.len());
            stack.extend(indices.iter().take(room));
        }
        profile.entries.push(Entry { frames: stack, bytes, count });
    }
    if symbols.names.is_empty() && !profile.entries.is_empty() {
        warnings.add(0, NO_SYMBOLS);
    }
    if symbols.left_out {
        warnings.add(0, "more symbols than are kept");
    }
    frames.warn(&mut warnings);
    Ok((profile, warnings.into_vec()))
}

/// jeprof's correction of one line: what was sampled stands for what was not.
fn scale(count: u64, bytes: u64, rate: u64) -> f64 {
    if count == 0 || bytes == 0 {
        return 1.0;
    }
    let ratio = bytes as f64 / count as f64 / rate as f64;
    1.0 / -(-ratio).exp_m1()
}

/// ` 1: 200 [0: 0]`: objects and bytes that are live.
fn figures_of(text: &str) -> Option<(u64, u64)> {
    let (count, rest) = text.split_once(':')?;
    let bytes = rest.split_whitespace().next()?;
    Some((count.trim().parse().ok()?, bytes.parse().ok()?))
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

/// The names of addresses, at most [`TEXT_BYTES_MAX`] of them.
#[derive(Default)]
struct Symbols {
    names: HashMap<u64, String>,
    bytes: usize,
    left_out: bool,
}

impl Symbols {
    /// `0x55d4c8a21000 outer--inlined`
    fn add(&mut self, line: &str) {
        let Some((address, name)) = line.split_once(' ') else { return };
        let Some(address) = address.strip_prefix("0x").and_then(hex) else { return };
        // jeprof writes where the function begins behind its name: `main<0000000000401202>`.
        let name = name.trim();
        let behind = name.strip_suffix('>').and_then(|inner| inner.rsplit_once('<'));
        let is_address = |begin: &str| !begin.is_empty() && begin.bytes().all(|b| b.is_ascii_hexdigit());
        let name = behind.filter(|(_, begin)| is_address(begin)).map_or(name, |(name, _)| name);
        self.bytes += name.len();
        if self.names.len() >= FRAMES_MAX || self.bytes > TEXT_BYTES_MAX {
            self.left_out = true;
            return;
        }
        self.names.insert(address, name.to_owned());
    }
}

/// `55d4c8a00000-55d4c8a21000 r-xp 00002000 fe:00 326279    /opt/app/bin/server`; a path may hold blanks.
fn mapping(line: &str, texts: &mut Texts) -> Option<Mapping> {
    let mut rest = line.trim_start();
    let mut word = || {
        let (word, behind) = rest.split_once(char::is_whitespace)?;
        rest = behind.trim_start();
        Some(word)
    };
    let (start, end) = word()?.split_once('-')?;
    let (_access, file_offset, _device, inode) = (word()?, word()?, word()?, word()?);
    let file = rest.trim_end();
    let file = cut(file, PATH_BYTES_MAX);
    let inode = inode.parse().unwrap_or(0);
    (!file.is_empty()).then_some(())?;
    Some(Mapping { start: hex(start)?, end: hex(end)?, file_offset: hex(file_offset)?, inode, file: texts.keep(file) })
}

/// What the kernel writes behind the path of a file that is there no more.
const DELETED: &str = " (deleted)";

fn mapped(m: &Mapping) -> Mapped {
    let file = m.file.strip_suffix(DELETED);
    Mapped {
        file: file.unwrap_or(&m.file).to_owned(),
        inode: m.inode,
        is_deleted: file.is_some(),
        build: String::new(),
    }
}

/// The frames of an address, the innermost first, at most [`STACK_MAX`], and the mapping it is in if nothing names it; those are in order
/// of their starts. A caller's address is the one behind its call, which may be in the next function.
fn name(address: u64, symbols: &Symbols, mappings: &[Mapping], frames: &mut Frames) -> (Vec<Frame>, Option<usize>) {
    let names = &symbols.names;
    if let Some(names) = names.get(&address).or_else(|| names.get(&address.wrapping_sub(1))) {
        return (names.split("--").take(STACK_MAX).map(|name| frames.named(name)).collect(), None);
    }
    let before = mappings.partition_point(|m| m.start <= address).checked_sub(1);
    match before.filter(|at| address < mappings[*at].end) {
        Some(at) => {
            let m = &mappings[at];
            let file = m.file.strip_suffix(DELETED).unwrap_or(&m.file);
            (vec![frames.address(file, (address - m.start).saturating_add(m.file_offset))], Some(at))
        }
        None => (vec![frames.named(&format!("{address:#x}"))], None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "heap_v2/1024\n  t*: 3: 600 [0: 0]\n  t0: 3: 600 [0: 0]\n@ 0x1010 0x1020\n  t*: 1: 200 [0: 0]\n  t0: 1: 200 [0: 0]\n@ 0x9\n  t*: 2: 400 [0: 0]\n\nMAPPED_LIBRARIES:\n00001000-00002000 r-xp 00000500 08:01 5  /bin/leaky\n";

    #[test]
    fn figures_are_scaled_line_by_line() {
        let (profile, warnings) = read(SMALL.as_bytes()).unwrap();
        let scale = 1.0 / (1.0 - (-200.0_f64 / 1_024.0).exp());
        assert!((profile.bytes() - 600.0 * scale).abs() < 1e-9 && (profile.count() - 3.0 * scale).abs() < 1e-9);
        assert_eq!(profile.key(&profile.entries[0]), "leaky+0x510 ← leaky+0x520");
        assert_eq!(profile.key(&profile.entries[1]), "0x9");
        assert_eq!(warnings[0].what, NO_SYMBOLS);
        let leaky = Mapped { file: "/bin/leaky".into(), inode: 5, is_deleted: false, build: String::new() };
        assert_eq!(profile.mapped, [leaky]);
        assert!((profile.rows()[0].variance - 1_024.0 * 400.0 * scale).abs() < 1.0);
    }

    #[test]
    fn a_symbolised_file_names_its_functions() {
        let text =
            format!("--- symbol\nbinary=/bin/leaky\n0x1010 inner--leak_small\n0x101f main\n---\n--- heap\n{SMALL}");
        let (profile, _) = read(text.as_bytes()).unwrap();
        assert_eq!(profile.key(&profile.entries[0]), "inner ← leak_small ← main");
    }

    #[test]
    fn a_file_that_was_replaced_keeps_its_name_and_paths_may_hold_blanks() {
        let text = SMALL.replace("/bin/leaky", "/opt/my app/leaky (deleted)");
        let (profile, _) = read(text.as_bytes()).unwrap();
        assert_eq!(profile.key(&profile.entries[0]), "leaky+0x510 ← leaky+0x520");
        assert_eq!((profile.mapped[0].file.as_str(), profile.mapped[0].is_deleted), ("/opt/my app/leaky", true));
    }

    #[test]
    fn what_jeprof_writes_behind_a_name_is_cut() {
        // The last was found by fuzzing: blanks before a name, and no letters of one byte.
        for (line, name) in [
            ("0x1 main<0000000000401202>", "main"),
            ("0x1 Vec<T>", "Vec<T>"),
            ("0x1 f<>", "f<>"),
            ("0x1 \t\u{fffd}\u{fffd}4.26<0a0a67>", "\u{fffd}\u{fffd}4.26"),
        ] {
            let mut symbols = Symbols::default();
            symbols.add(line);
            assert_eq!(symbols.names.get(&1).map(String::as_str), Some(name), "{line}");
        }
    }

    #[test]
    fn addresses_of_one_file_share_its_path() {
        let path = format!("/{}/leaky", "d".repeat(4_000));
        let stacks: String = (0..2_000).map(|at| format!("@ {:#x}\n  t*: 1: 100 [0: 0]\n", 0x1000 + at)).collect();
        let text = format!(
            "heap_v2/1024\n  t*: 2000: 200000 [0: 0]\n{stacks}\nMAPPED_LIBRARIES:\n00008000-00009000 r--p 0 08:01 5 /other\n00001000-00002000 r-xp 00000500 08:01 5  {path}\n"
        );
        let (profile, _) = read(text.as_bytes()).unwrap();
        assert_eq!((profile.frames.len(), &*profile.frames[0].name, profile.mapped.len()), (2_000, "leaky+0x500", 1));
        assert!(profile.frames.iter().all(|frame| Arc::ptr_eq(&frame.file, &profile.frames[0].file)));
    }

    #[test]
    fn a_system_without_mappings_ends_with_its_stacks() {
        let (profile, warnings) = read(&SMALL.as_bytes()[..SMALL.find("\nMAPPED").unwrap()]).unwrap();
        assert_eq!((profile.entries.len(), warnings.len()), (2, 2), "{warnings:?}");
        // With mappings the total may differ from the stacks.
        let corrected = SMALL.replace("t*: 3: 600", "t*: 4: 777");
        assert_eq!(read(corrected.as_bytes()).unwrap().0.entries.len(), 2);
    }

    #[test]
    fn torn_files_are_errors_with_their_place() {
        for (text, expected) in [
            ("", "at byte 0: no heap_v2 line"),
            ("hello\n", "at byte 0: no heap_v2 line"),
            ("heap_v2/x\n", "at byte 0: no sampling rate after heap_v2/"),
            ("heap_v2/0\n", "no heap_v2 line"),
            (&SMALL[..14], "the profile ends before its figures"),
            (&SMALL[..75], "figures that cannot be read"),
            (&SMALL[..69], "the profile ends before its figures"),
            (&SMALL[..SMALL.find("@ 0x9").unwrap()], "the profile ends before its MAPPED_LIBRARIES and lacks stacks"),
            (&SMALL[..SMALL.len() - 1], "the profile ends inside a line"),
            ("heap_v2/9\nt*: 1: 2 [0: 0]\n@ 0x1\n@ 0x2\n", "a stack without figures"),
        ] {
            let error = read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.ends_with(expected), "{text:?}: {error}");
        }
    }
}
