//! Which format a file has, by its first bytes: [`SNIFF_BYTES`] are enough for every format, names and endings are never asked.

/// Bytes of the beginning that tell every format.
pub const SNIFF_BYTES: usize = 4096;

/// A format that Plimsoll reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// A heap graph of V8 or another writer of its format: Node, Chrome, Electron, Deno, Bun, Hermes, Julia.
    V8Snapshot,
    /// A sampling heap profile of V8 (`.heapprofile`).
    V8Profile,
    /// A pprof protobuf: Go, Rust; uncompressed.
    Pprof,
    /// A jemalloc `heap_v2` text.
    Jemalloc,
    /// A class histogram of a JVM (`jcmd PID GC.class_histogram`).
    JvmHistogram,
    /// `/proc/PID/smaps` or `smaps_rollup`.
    Smaps,
    /// A digest of Plimsoll's own.
    Digest,
}

/// How a file is packed around its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

impl Packing {
    /// How the file that begins so is packed; `None` when it is not, or not in a way we know.
    #[must_use]
    pub fn sniff(head: &[u8]) -> Option<Packing> {
        match head {
            [0x1f, 0x8b, ..] => Some(Packing::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Packing::Zstd),
            _ => None,
        }
    }
}

impl Format {
    /// What is captured of programs: all of them but [`Format::Digest`], which is made of them.
    pub const CAPTURED: [Format; 6] =
        [Format::V8Snapshot, Format::V8Profile, Format::Pprof, Format::Jemalloc, Format::JvmHistogram, Format::Smaps];

    /// How the names of its files end, without packing.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Format::V8Snapshot => "heapsnapshot",
            Format::V8Profile => "heapprofile",
            Format::Pprof => "pb.gz",
            Format::Jemalloc => "heap",
            Format::JvmHistogram => "histogram",
            Format::Smaps => "smaps",
            Format::Digest => "digest",
        }
    }

    /// The captured format of that extension.
    #[must_use]
    pub fn from_extension(extension: &str) -> Option<Format> {
        Format::CAPTURED.into_iter().find(|format| format.extension() == extension)
    }

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Format::V8Snapshot => "V8 heap snapshot",
            Format::V8Profile => "V8 sampling heap profile",
            Format::Pprof => "pprof profile",
            Format::Jemalloc => "jemalloc heap profile",
            Format::JvmHistogram => "JVM class histogram",
            Format::Smaps => "smaps",
            Format::Digest => "Plimsoll digest",
        }
    }

    /// The format of a file that begins so, unpacked; `None` when it is none of ours.
    ///
    /// # Examples
    ///
    /// ```
    /// use plimsoll_heap::format::Format;
    ///
    /// assert_eq!(Format::sniff(b"heap_v2/524288\n  t*: 1: 64 [0: 0]\n"), Some(Format::Jemalloc));
    /// assert_eq!(Format::sniff(b"PK\x03\x04"), None);
    /// ```
    #[must_use]
    pub fn sniff(head: &[u8]) -> Option<Format> {
        let head = &head[..head.len().min(SNIFF_BYTES)];
        let text = head.trim_ascii_start();
        if head.starts_with(b"plimsoll-digest ") {
            Some(Format::Digest)
        } else if text.starts_with(b"heap_v2/") || text.starts_with(b"--- symbol") {
            Some(Format::Jemalloc)
        } else if let Some(object) = text.strip_prefix(b"{") {
            let object = object.trim_ascii_start();
            let begins = |keys: &[&str]| keys.iter().any(|key| object.starts_with(key.as_bytes()));
            if begins(&["\"snapshot\""]) {
                Some(Format::V8Snapshot)
            } else {
                begins(&["\"head\"", "\"samples\""]).then_some(Format::V8Profile)
            }
        } else if is_mapping_line(head) {
            Some(Format::Smaps)
        } else if memchr::memmem::find(head, b"#instances").is_some() && memchr::memmem::find(head, b"#bytes").is_some()
        {
            Some(Format::JvmHistogram)
        } else {
            is_pprof(head).then_some(Format::Pprof)
        }
    }
}

/// `55d4c8a00000-55d4c8a21000 rw-p …`
fn is_mapping_line(head: &[u8]) -> bool {
    let mut words = head.split(|b| *b == b' ');
    let (range, access) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut ends = range.split(|b| *b == b'-');
    let is_hex = |end: Option<&[u8]>| end.is_some_and(|end| !end.is_empty() && end.iter().all(u8::is_ascii_hexdigit));
    is_hex(ends.next()) && is_hex(ends.next()) && access.len() == 4 && access.iter().all(|b| b"rwxps-".contains(b))
}

/// A message whose first field is `sample_type` (1) or, as Go writes it, `period_type` (11): a short message of two small numbers.
fn is_pprof(head: &[u8]) -> bool {
    matches!(head, [0x0a | 0x5a, length @ 1..=20, 0x08 | 0x10, ..] if head.len() > usize::from(*length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        for (head, format) in [
            (&b"{\"snapshot\":{\"meta\":{"[..], Some(Format::V8Snapshot)),
            (b"\n { \"snapshot\" : {", Some(Format::V8Snapshot)),
            (b"{\"head\":{\"callFrame\":", Some(Format::V8Profile)),
            (b"{\"other\":1}", None),
            (b"heap_v2/524288\n", Some(Format::Jemalloc)),
            (b"plimsoll-digest 1\n", Some(Format::Digest)),
            (b"55d4c8a00000-55d4c8a21000 r--p 00000000 fe:00 1 /bin/x\n", Some(Format::Smaps)),
            (b"5650a000-7ffd1000 ---p 00000000 00:00 0 [rollup]\n", Some(Format::Smaps)),
            (b"42:\n num     #instances         #bytes  class name (module)\n", Some(Format::JvmHistogram)),
            (b"\x0a\x04\x08\x01\x10\x02\x0a\x04", Some(Format::Pprof)),
            (b"", None),
            (b"{", None),
            (b"\0\0\0\0", None),
        ] {
            assert_eq!(Format::sniff(head), format, "{}", String::from_utf8_lossy(head));
        }
        assert_eq!(Packing::sniff(&[0x1f, 0x8b, 8]), Some(Packing::Gzip));
        assert_eq!(Packing::sniff(&[0x28, 0xb5, 0x2f, 0xfd]), Some(Packing::Zstd));
        assert_eq!(Packing::sniff(b"{"), None);
    }
}
