//! Names of functions by where they lie in an ELF file, from its symbol table. The table is streamed in pieces of [`PIECE_BYTES`]
//! (1 MiB) and names are read one by one, so memory grows with what is asked for (at most a million places), not with the file:
//! debug information, often gigabytes, is never touched. Of what is damaged nothing is named.
//!
//! A place is an offset in the file, as a mapping tells it; segments turn it into the address that symbols have, whether the program
//! is position-independent or not.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader as _, SectionHeader as _, Sym};
use object::read::{FileKind, ReadCache, ReadRef};
use object::{Endianness, pod};

/// Bytes of a symbol table that are held at once; and of a header, more is damage.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes of a symbol table that are read: 89 million symbols of a 64-bit program.
const TABLE_BYTES_MAX: u64 = 2 << 30;
/// Bytes of a mangled name.
const NAME_BYTES_MAX: usize = 4096;
/// Notes that are searched for a build id.
const NOTES_MAX: usize = 16;
/// How far a symbol without a size reaches: functions written in assembler have none.
const UNSIZED_BYTES: u64 = 4096;

/// What an ELF file says.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Its build id in hexadecimal digits; empty where it has none.
    pub(super) build: String,
    /// The function at each place that was asked for.
    pub(super) names: Vec<Option<String>>,
    /// Stripped: only what it exports is named.
    pub(super) is_stripped: bool,
}

/// Headers and notes, each at most [`PIECE_BYTES`]: a damaged size must not become an allocation.
#[derive(Clone, Copy)]
struct Headers<'a>(&'a ReadCache<&'a File>);

impl<'a> ReadRef<'a> for Headers<'a> {
    fn len(self) -> Result<u64, ()> {
        self.0.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        if size > PIECE_BYTES as u64 { Err(()) } else { self.0.read_bytes_at(offset, size) }
    }

    fn read_bytes_at_until(self, _: std::ops::Range<u64>, _: u8) -> Result<&'a [u8], ()> {
        Err(())
    }
}

/// The functions at these offsets of the file. An offset is that behind a call, as stacks have it, so the byte before it is looked up.
///
/// # Errors
/// A sentence: it cannot be read, or is no ELF file.
pub(super) fn functions(file: &File, offsets: &[u64]) -> Result<Found, String> {
    let cache = ReadCache::new(file);
    let headers = Headers(&cache);
    match FileKind::parse(headers) {
        Ok(FileKind::Elf64) => of_class::<FileHeader64<Endianness>>(file, headers, offsets),
        Ok(FileKind::Elf32) => of_class::<FileHeader32<Endianness>>(file, headers, offsets),
        Ok(_) | Err(_) => Err("no ELF file".to_owned()),
    }
}

fn of_class<Elf: FileHeader<Endian = Endianness>>(
    file: &File,
    data: Headers<'_>,
    offsets: &[u64],
) -> Result<Found, String> {
    let failed = |error: object::read::Error| format!("damaged: {error}");
    let header = Elf::parse(data).map_err(failed)?;
    let endian = header.endian().map_err(failed)?;
    let segments = header.program_headers(endian, data).map_err(failed)?;
    let mut build = String::new();
    for segment in segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_NOTE).take(NOTES_MAX) {
        let Ok(Some(mut notes)) = segment.notes(endian, data) else { continue };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
                build = note.desc().iter().take(64).map(|byte| format!("{byte:02x}")).collect();
            }
        }
    }
    let mut wanted: Vec<Wanted> = Vec::with_capacity(offsets.len());
    for (index, offset) in offsets.iter().enumerate() {
        let before = offset.saturating_sub(1);
        let address = segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD).find_map(|segment| {
            let (begin, size): (u64, u64) = (segment.p_offset(endian).into(), segment.p_filesz(endian).into());
            let within = before.checked_sub(begin).filter(|within| *within < size)?;
            Some(segment.p_vaddr(endian).into().wrapping_add(within))
        });
        wanted.extend(address.map(|address| Wanted { address, index, best: None }));
    }
    wanted.sort_by_key(|wanted| wanted.address);
    let sections = header.section_headers(endian, data).map_err(failed)?;
    let of_type = |kind| sections.iter().find(|section| section.sh_type(endian) == kind);
    let full = of_type(elf::SHT_SYMTAB);
    let mut names = vec![None; offsets.len()];
    if let Some(table) = full.or_else(|| of_type(elf::SHT_DYNSYM)) {
        let strings = sections.get(table.sh_link(endian) as usize).and_then(|strings| strings.file_range(endian));
        if let (Some(table), Some(strings)) = (table.file_range(endian), strings) {
            search::<Elf::Sym>(file, endian, table, &mut wanted).map_err(|error| error.to_string())?;
            name(file, strings, &wanted, &mut names);
        }
    }
    Ok(Found { build, names, is_stripped: full.is_none() })
}

/// A place that is asked for.
struct Wanted {
    address: u64,
    index: usize,
    best: Option<Best>,
}

/// The symbol that fits best so far: the one that begins last, of those the exported one.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Best {
    begin: u64,
    is_exported: bool,
    name: u32,
}

/// Streams a symbol table past what is wanted.
fn search<S: Sym<Endian = Endianness>>(
    file: &File,
    endian: Endianness,
    (mut at, size): (u64, u64),
    wanted: &mut [Wanted],
) -> std::io::Result<()> {
    let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else { return Ok(()) };
    let (first, last) = (first.address, last.address);
    let one = size_of::<S>();
    let until = at.saturating_add(size.min(TABLE_BYTES_MAX));
    let mut piece = vec![0; PIECE_BYTES / one * one];
    while at < until {
        let some = piece.len().min(usize::try_from(until - at).unwrap_or(usize::MAX)) / one * one;
        if some == 0 {
            break;
        }
        file.read_exact_at(&mut piece[..some], at)?;
        at += some as u64;
        let Ok((symbols, _)) = pod::slice_from_bytes::<S>(&piece[..some], some / one) else { break };
        for symbol in symbols {
            let (begin, size): (u64, u64) = (symbol.st_value(endian).into(), symbol.st_size(endian).into());
            let end = begin.saturating_add(if size == 0 { UNSIZED_BYTES } else { size });
            let is_code = [elf::STT_FUNC, elf::STT_NOTYPE, elf::STT_GNU_IFUNC].contains(&symbol.st_type());
            if end <= first || begin > last || !is_code || symbol.is_undefined(endian) || symbol.st_name(endian) == 0 {
                continue;
            }
            let is_exported = symbol.st_bind() != elf::STB_LOCAL;
            let found = Best { begin, is_exported, name: symbol.st_name(endian) };
            let from = wanted.partition_point(|wanted| wanted.address < begin);
            for wanted in wanted[from..].iter_mut().take_while(|wanted| wanted.address < end) {
                if wanted.best.is_none_or(|best| found > best) {
                    wanted.best = Some(found);
                }
            }
        }
    }
    Ok(())
}

/// Reads the names of what was found, each once.
fn name(file: &File, (strings, size): (u64, u64), wanted: &[Wanted], names: &mut [Option<String>]) {
    let mut known: HashMap<u32, Option<String>> = HashMap::new();
    for wanted in wanted {
        let Some(best) = wanted.best.filter(|best| u64::from(best.name) < size) else { continue };
        let name = known.entry(best.name).or_insert_with(|| {
            let mut bytes = vec![0; NAME_BYTES_MAX];
            let read = file.read_at(&mut bytes, strings + u64::from(best.name)).unwrap_or(0);
            let end = bytes[..read].iter().position(|byte| *byte == 0)?;
            Some(readable(&String::from_utf8_lossy(&bytes[..end]))).filter(|name| !name.is_empty())
        });
        names[wanted.index].clone_from(name);
    }
}

/// A name as people write it: Rust's without hash and generic arguments, others without what a compiler put behind a dot.
fn readable(name: &str) -> String {
    match rustc_demangle::try_demangle(name) {
        Ok(demangled) => without_arguments(&format!("{demangled:#}")),
        Err(_) => name.split('.').next().unwrap_or_default().to_owned(),
    }
}

/// `serve::<Server<u8>>` becomes `serve`; what does not balance stays as it is.
fn without_arguments(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut depth = 0_u32;
    let mut rest = name;
    while let Some(next) = rest.chars().next() {
        if depth == 0 && rest.starts_with("::<") {
            depth = 1;
            rest = &rest[3..];
            continue;
        }
        // The arrow of a function's type closes nothing.
        let arrow = rest.starts_with("->");
        match next {
            '<' if depth > 0 => depth += 1,
            '>' if depth > 0 => depth -= 1,
            _ if depth == 0 => plain.push(next),
            _ => {}
        }
        let step = if arrow && depth > 0 { 2 } else { next.len_utf8() };
        rest = &rest[step..];
    }
    if depth == 0 { plain } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_people_write_them() {
        for (mangled, name) in [
            ("_ZN4leak13keep_sessions17h0123456789abcdefE", "leak::keep_sessions"),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            ("keep_pages.constprop.0", "keep_pages"),
            ("main", "main"),
            ("", ""),
        ] {
            assert_eq!(readable(mangled), name, "{mangled}");
        }
        for (name, plain) in [
            ("serve::<Server<u8>>::{closure#0}", "serve::{closure#0}"),
            ("map::<fn(u8) -> u8, _>", "map"),
            ("<Vec<u8> as Clone>::clone", "<Vec<u8> as Clone>::clone"),
            ("odd::<open", "odd::<open"),
        ] {
            assert_eq!(without_arguments(name), plain, "{name}");
        }
    }

    #[test]
    fn what_is_no_elf_or_damaged_is_an_error_and_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut part = vec![0; 65_536];
        File::open("/proc/self/exe").unwrap().read_exact_at(&mut part, 0).unwrap();
        for (bytes, begins) in [(&b""[..], "no ELF file"), (b"#!/bin/sh\n", "no ELF file"), (&part[..40], "damaged")] {
            std::fs::write(&path, bytes).unwrap();
            let why = functions(&File::open(&path).unwrap(), &[4096]).unwrap_err();
            assert!(why.starts_with(begins), "{why}");
        }
        // Every byte of the headers changed in turn; only the first 64 KiB are there.
        for at in 0..1_024 {
            part[at] ^= 0xff;
            std::fs::write(&path, &part).unwrap();
            if let Ok(found) = functions(&File::open(&path).unwrap(), &[4096, u64::MAX]) {
                assert_eq!(found.names.len(), 2);
            }
            part[at] ^= 0xff;
        }
    }
}
