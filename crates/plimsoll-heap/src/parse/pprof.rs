//! pprof's protobuf (`profile.proto`), plain or gzip: heap profiles of Go, Rust and others. Its figures are already scaled up; the
//! sampling rate is its period, and where that is 0 (jemalloc_pprof) no error bars can be given, which is said.
//!
//! Live bytes are the sample type `inuse_space`, else the default one, else the last that counts bytes. A protobuf cannot be read
//! as a stream (names come last), so at most [`BYTES`] (256 MiB, unpacked) are held.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use super::{ENTRIES_MAX, FRAMES_MAX, ReadError, STACK_MAX, Warning, Warnings};
use crate::digest::Kind;
use crate::format::Packing;
use crate::profile::{Entry, Frame, Frames, Mapped, Profile, Sampling};

/// Bytes of a profile after unpacking; more is an error.
pub const BYTES: u64 = 256 << 20;

/// A field of a message.
#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// A message, field by field.
struct Message<'a> {
    rest: &'a [u8],
    /// Of `rest`, from the beginning of the file.
    offset: u64,
}

impl<'a> Message<'a> {
    fn varint(&mut self) -> Result<u64, ReadError> {
        let mut value = 0;
        for (at, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f).checked_shl(7 * at as u32).unwrap_or(0);
            if byte & 0x80 == 0 {
                self.skip(at + 1);
                return Ok(value);
            }
        }
        Err(ReadError::damage(self.offset, "a number that does not end"))
    }

    fn skip(&mut self, n: usize) {
        self.rest = &self.rest[n..];
        self.offset += n as u64;
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8], ReadError> {
        let n = usize::try_from(n).ok().filter(|n| *n <= self.rest.len());
        let n = n.ok_or_else(|| ReadError::damage(self.offset, "a field longer than the file"))?;
        let taken = &self.rest[..n];
        self.skip(n);
        Ok(taken)
    }

    /// The next field; `None` at the end.
    fn field(&mut self) -> Result<Option<(u64, Value<'a>, u64)>, ReadError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let begin = self.offset;
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Bytes(self.take(4)?),
            _ => return Err(ReadError::damage(begin, "a field of no known kind")),
        };
        let inner = self.offset - if let Value::Bytes(bytes) = value { bytes.len() as u64 } else { 0 };
        Ok(Some((tag >> 3, value, inner)))
    }

    fn each(mut self, mut look: impl FnMut(u64, Value<'a>, u64) -> Result<(), ReadError>) -> Result<(), ReadError> {
        while let Some((number, value, offset)) = self.field()? {
            look(number, value, offset)?;
        }
        Ok(())
    }
}

/// Repeated numbers, packed or one by one.
fn numbers(value: Value<'_>, offset: u64, most: usize, out: &mut Vec<u64>) -> Result<(), ReadError> {
    match value {
        Value::Number(one) if out.len() < most => out.push(one),
        Value::Number(_) => {}
        Value::Bytes(rest) => {
            let mut packed = Message { rest, offset };
            while !packed.rest.is_empty() {
                let one = packed.varint()?;
                if out.len() < most {
                    out.push(one);
                }
            }
        }
    }
    Ok(())
}

#[derive(Default)]
struct Location {
    mapping: u64,
    address: u64,
    /// Function and line, the innermost first.
    lines: Vec<(u64, u64)>,
}

#[derive(Default)]
struct Mapping {
    start: u64,
    file_offset: u64,
    file: u64,
    build: u64,
}

#[derive(Default)]
struct Raw<'a> {
    types: Vec<(u64, u64)>,
    samples: Vec<(Vec<u64>, Vec<u64>)>,
    mappings: HashMap<u64, Mapping>,
    locations: HashMap<u64, Location>,
    functions: HashMap<u64, (u64, u64)>,
    strings: Vec<&'a [u8]>,
    time_ns: u64,
    period: u64,
    default_type: u64,
}

/// Reads a profile, gzip or plain.
///
/// # Errors
/// Damage with its offset, no sample type that counts bytes, more than is read of anything, or the reader's own.
pub fn read(mut input: impl Read) -> Result<(Profile, Vec<Warning>), ReadError> {
    let mut bytes = Vec::new();
    (&mut input).take(BYTES + 1).read_to_end(&mut bytes)?;
    if Packing::sniff(&bytes) == Some(Packing::Gzip) {
        let mut plain = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes.as_slice()).take(BYTES + 1).read_to_end(&mut plain)?;
        bytes = plain;
    }
    if bytes.len() as u64 > BYTES {
        return Err(ReadError::TooMany { most: BYTES, what: "bytes" });
    }
    if bytes.is_empty() {
        return Err(ReadError::damage(0, "an empty file"));
    }
    let raw = message(&bytes)?;
    profile(&raw, bytes.len() as u64)
}

fn message(bytes: &[u8]) -> Result<Raw<'_>, ReadError> {
    let mut raw = Raw::default();
    let of = |rest, offset| Message { rest, offset };
    of(bytes, 0).each(|number, value, offset| {
        match (number, value) {
            (1, Value::Bytes(part)) if raw.types.len() < 64 => raw.types.push(pair(part, offset, [1, 2])?),
            (2, Value::Bytes(part)) => {
                bounded(raw.samples.len(), ENTRIES_MAX, "samples")?;
                let (mut places, mut values) = (Vec::new(), Vec::new());
                of(part, offset).each(|number, value, offset| match number {
                    1 => numbers(value, offset, STACK_MAX, &mut places),
                    2 => numbers(value, offset, 64, &mut values),
                    _ => Ok(()),
                })?;
                raw.samples.push((places, values));
            }
            (3, Value::Bytes(part)) => {
                bounded(raw.mappings.len(), FRAMES_MAX, "mappings")?;
                let (mut id, mut mapping) = (0, Mapping::default());
                of(part, offset).each(|number, value, _| {
                    if let Value::Number(n) = value {
                        match number {
                            1 => id = n,
                            2 => mapping.start = n,
                            4 => mapping.file_offset = n,
                            5 => mapping.file = n,
                            6 => mapping.build = n,
                            _ => {}
                        }
                    }
                    Ok(())
                })?;
                raw.mappings.insert(id, mapping);
            }
            (4, Value::Bytes(part)) => {
                bounded(raw.locations.len(), FRAMES_MAX, "locations")?;
                let (mut id, mut location) = (0, Location::default());
                of(part, offset).each(|number, value, offset| {
                    match (number, value) {
                        (1, Value::Number(n)) => id = n,
                        (2, Value::Number(n)) => location.mapping = n,
                        (3, Value::Number(n)) => location.address = n,
                        (4, Value::Bytes(line)) if location.lines.len() < STACK_MAX => {
                            location.lines.push(pair(line, offset, [1, 2])?);
                        }
                        _ => {}
                    }
                    Ok(())
                })?;
                raw.locations.insert(id, location);
            }
            (5, Value::Bytes(part)) => {
                bounded(raw.functions.len(), FRAMES_MAX, "functions")?;
                let id = pair(part, offset, [1, 1])?.0;
                raw.functions.insert(id, pair(part, offset, [2, 4])?);
            }
            (6, Value::Bytes(text)) => {
                bounded(raw.strings.len(), FRAMES_MAX, "strings")?;
                raw.strings.push(text);
            }
            (9, Value::Number(n)) => raw.time_ns = n,
            (12, Value::Number(n)) => raw.period = n,
            (14, Value::Number(n)) => raw.default_type = n,
            _ => {}
        }
        Ok(())
    })?;
    Ok(raw)
}

fn bounded(n: usize, most: usize, what: &'static str) -> Result<(), ReadError> {
    if n < most { Ok(()) } else { Err(ReadError::TooMany { most: most as u64, what }) }
}

/// Two numbers of a message, by their fields.
fn pair(part: &[u8], offset: u64, fields: [u64; 2]) -> Result<(u64, u64), ReadError> {
    let mut found = (0, 0);
    Message { rest: part, offset }.each(|number, value, _| {
        if let Value::Number(n) = value {
            if number == fields[0] {
                found.0 = n;
            }
            if number == fields[1] {
                found.1 = n;
            }
        }
        Ok(())
    })?;
    Ok(found)
}

fn profile(raw: &Raw<'_>, length: u64) -> Result<(Profile, Vec<Warning>), ReadError> {
    let mut warnings = Warnings::default();
    let text = |at: u64| {
        let bytes = usize::try_from(at).ok().and_then(|at| raw.strings.get(at)).copied().unwrap_or_default();
        String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]).into_owned()
    };
    let names: Vec<(String, String)> = raw.types.iter().map(|(name, unit)| (text(*name), text(*unit))).collect();
    let named = |name: &str| names.iter().position(|(n, _)| n == name);
    let default = text(raw.default_type);
    let in_bytes = |at: &usize| names[*at].1 == "bytes";
    let bytes_at = named("inuse_space")
        .or_else(|| named(&default).filter(in_bytes))
        .or_else(|| (0..names.len()).rev().find(in_bytes))
        .ok_or_else(|| ReadError::damage(length, "no sample type that counts bytes: not a heap profile"))?;
    if names[bytes_at].0.starts_with("alloc") {
        warnings.add(0, "counts what was ever allocated, not what is live");
    }
    let count_at = named("inuse_objects").or_else(|| named("objects"));
    let sampling = match raw.period {
        0 => {
            warnings.add(0, "the file does not say its sampling rate: no error bars");
            Sampling::Unknown
        }
        1 => Sampling::Counted,
        bytes => Sampling::Every { bytes },
    };
    let mut profile = Profile::new(Kind::Stack, sampling);
    profile.unix_ns = raw.time_ns;
    profile.builds =
        raw.mappings.values().map(|m| text(m.build)).filter(|build| !build.is_empty()).take(4096).collect();
    profile.builds.sort();
    let mut frames = Frames::default();
    let mut known: HashMap<u64, Vec<u32>> = HashMap::new();
    let mut told = HashSet::new();
    for (places, values) in &raw.samples {
        let value = |at: usize| values.get(at).map_or(0.0, |v| *v as i64 as f64);
        let mut stack = Vec::with_capacity(places.len());
        for place in places {
            if !known.contains_key(place) {
                let mut indices = Vec::new();
                let mapping = raw.locations.get(place).filter(|location| location.lines.is_empty());
                if let Some(m) = mapping.filter(|m| told.insert(m.mapping)).and_then(|m| raw.mappings.get(&m.mapping)) {
                    let mapped = Mapped { file: text(m.file), inode: 0, is_deleted: false, build: text(m.build) };
                    frames.maps(mapped, &mut profile);
                }
                for frame in name(*place, raw, &text, &mut frames) {
                    let too_many = ReadError::TooMany { most: FRAMES_MAX as u64, what: "frames" };
                    indices.push(frames.index(frame, &mut profile.frames).ok_or(too_many)?);
                }
                known.insert(*place, indices);
            }
            let room = STACK_MAX.saturating_sub(stack.len());
            stack.extend(known[place].iter().take(room));
        }
        let (bytes, count) = (value(bytes_at), count_at.map_or(0.0, value));
        if bytes != 0.0 || count != 0.0 {
            profile.entries.push(Entry { frames: stack, bytes, count });
        }
    }
    frames.warn(&mut warnings);
    if raw.samples.is_empty() {
        warnings.add(length, "no samples in the file");
    }
    if profile.entries.iter().any(|entry| entry.bytes < 0.0) {
        warnings.add(0, "negative figures: a difference of two profiles");
    }
    Ok((profile, warnings.into_vec()))
}

/// The frames of a location, the innermost first.
fn name(place: u64, raw: &Raw<'_>, text: &dyn Fn(u64) -> String, frames: &mut Frames) -> Vec<Frame> {
    let Some(location) = raw.locations.get(&place) else {
        return vec![frames.named("?")];
    };
    if location.lines.is_empty() {
        return vec![match raw.mappings.get(&location.mapping) {
            Some(m) => {
                let offset = location.address.wrapping_sub(m.start).wrapping_add(m.file_offset);
                frames.address(&text(m.file), offset)
            }
            None => frames.named(&format!("{:#x}", location.address)),
        }];
    }
    let mut line = |(function, line): &(u64, u64)| {
        let (name, file) = raw.functions.get(function).copied().unwrap_or_default();
        let (name, file) = (frames.texts.keep(&text(name)), frames.texts.keep(&text(file)));
        Frame { name, file, line: u32::try_from(*line).unwrap_or(0), offset: 0 }
    };
    location.lines.iter().map(&mut line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_and_strange_files_are_errors_with_their_place() {
        for (bytes, expected) in [
            (&b""[..], "at byte 0: an empty file"),
            (&[0x0a, 0x50, 1, 2], "at byte 2: a field longer than the file"),
            (&[0xff; 12], "at byte 0: a number that does not end"),
            (&[0x0b], "at byte 0: a field of no known kind"),
            (&[0x48, 5], "at byte 2: no sample type that counts bytes: not a heap profile"),
        ] {
            assert_eq!(read(bytes).unwrap_err().to_string(), expected);
        }
        assert!(read(&[0x1f, 0x8b, 8, 0][..]).is_err(), "a torn gzip");
    }

    #[test]
    fn a_hand_made_profile() {
        // sample_type {1: 1, 2: 2}, two strings, one sample of one location without lines.
        let bytes = [
            &[0x0a, 4, 8, 1, 16, 2][..],
            &[0x12, 6, 0x0a, 1, 7, 0x12, 1, 100],
            &[0x22, 4, 8, 7, 24, 5],
            &[0x32, 0, 0x32, 11],
            b"inuse_space",
            &[0x32, 5],
            b"bytes",
            &[0x60, 64],
        ]
        .concat();
        let (profile, warnings) = read(bytes.as_slice()).unwrap();
        assert_eq!((profile.bytes(), profile.sampling), (100.0, Sampling::Every { bytes: 64 }));
        assert_eq!(profile.rows()[0].key, "0x5");
        assert_eq!(warnings, []);
    }

    #[test]
    fn locations_of_one_function_share_its_name() {
        // A location for each line of one function whose name and file are long, each with a sample of its own.
        fn put(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
            out.push(field << 3 | 2);
            varint(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        fn varint(out: &mut Vec<u8>, mut value: u64) {
            while value >= 0x80 {
                out.push(value as u8 | 0x80);
                value >>= 7;
            }
            out.push(value as u8);
        }
        let mut bytes = Vec::new();
        put(&mut bytes, 1, &[8, 1, 16, 2]);
        for at in 1..=2_000 {
            let (mut line, mut location, mut places, mut sample) = (vec![8, 1, 16], vec![8], Vec::new(), Vec::new());
            varint(&mut line, at);
            varint(&mut location, at);
            put(&mut location, 4, &line);
            put(&mut bytes, 4, &location);
            varint(&mut places, at);
            put(&mut sample, 1, &places);
            put(&mut sample, 2, &[1]);
            put(&mut bytes, 2, &sample);
        }
        put(&mut bytes, 5, &[8, 1, 16, 3, 32, 4]);
        for text in ["", "inuse_space", "bytes", &"n".repeat(4_000), &"f".repeat(4_000)] {
            put(&mut bytes, 6, text.as_bytes());
        }
        let (profile, _) = read(bytes.as_slice()).unwrap();
        assert_eq!((profile.frames.len(), profile.bytes()), (2_000, 2_000.0));
        let first = &profile.frames[0];
        let shared = |one: &Frame| {
            std::sync::Arc::ptr_eq(&one.name, &first.name) && std::sync::Arc::ptr_eq(&one.file, &first.file)
        };
        assert!(profile.frames.iter().all(shared) && first.name.len() == 4_000);
    }
}
