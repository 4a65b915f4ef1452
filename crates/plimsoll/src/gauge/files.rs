//! Kernel files, read without allocating: `pread` at offset 0 into a fixed buffer, and parsers over bytes.
//!
//! A kept-open file costs about 0.2–1 µs a reading where open + read + close costs 1.3 µs and `read_to_string` 2–3 µs.
//! Kernel pseudo files fill the whole buffer in one `pread`; what does not fit is cut back to its last whole line, so a
//! parser never sees half a number. Nothing here waits, and nothing here is kept but one descriptor per [`KeptFile`].

use std::ffi::CStr;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

use super::Unread;

/// Room for a cgroup's `memory.stat` (1.5–2.5 KiB today) and for `/proc/PID/status` of a process in many groups.
pub(crate) const BUFFER_BYTES: usize = 8 * 1024;

/// Turns an errno into a reason; `what` names the file.
pub(crate) fn unread(what: &'static str, errno: Errno) -> Unread {
    match errno {
        // ESRCH: the process is gone; ENODEV: the group is gone, though our descriptor still is open.
        Errno::NOENT | Errno::SRCH | Errno::NODEV | Errno::NOTDIR => Unread::Missing(what),
        Errno::ACCESS | Errno::PERM => Unread::Denied(what),
        other => Unread::Failed(what, other.raw_os_error()),
    }
}

/// One kernel file that stays open for as long as its gauge lives.
#[derive(Debug)]
pub(crate) struct KeptFile {
    fd: OwnedFd,
    what: &'static str,
}

impl KeptFile {
    /// Opens `dir/name`; `what` names it in a reason.
    pub(crate) fn open(dir: &Path, name: &str, what: &'static str) -> Result<KeptFile, Unread> {
        KeptFile::open_path(&dir.join(name), what)
    }

    /// Opens a file by its whole path.
    pub(crate) fn open_path(path: &Path, what: &'static str) -> Result<KeptFile, Unread> {
        let fd = rustix::fs::open(path, READ, Mode::empty()).map_err(|e| unread(what, e))?;
        Ok(KeptFile { fd, what })
    }

    /// Opens a path relative to a directory, without allocating.
    pub(crate) fn open_at(dir: BorrowedFd<'_>, path: &CStr, what: &'static str) -> Result<KeptFile, Unread> {
        let fd = rustix::fs::openat(dir, path, READ, Mode::empty()).map_err(|e| unread(what, e))?;
        Ok(KeptFile { fd, what })
    }

    /// What the file holds now: whole lines only when it did not fit.
    pub(crate) fn read<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], Unread> {
        self.read_from(0, buffer)
    }

    /// The same from an offset, for files longer than a buffer: go on at `offset + result.len()` until it is empty.
    pub(crate) fn read_from<'b>(&self, offset: u64, buffer: &'b mut [u8]) -> Result<&'b [u8], Unread> {
        let capacity = buffer.len();
        let n = rustix::io::retry_on_intr(|| rustix::io::pread(&self.fd, &mut *buffer, offset))
            .map_err(|e| unread(self.what, e))?;
        let read = &buffer[..n];
        if n < capacity {
            return Ok(read);
        }
        let whole = read.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        Ok(&read[..whole])
    }

    /// A file that holds one number, as cgroup files do. `max` is an error here: see [`parse_limit`].
    pub(crate) fn read_u64(&self) -> Result<u64, Unread> {
        let mut buffer = [0; 32];
        parse_u64(self.read(&mut buffer)?).ok_or(Unread::Malformed(self.what))
    }
}

impl AsFd for KeptFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);

/// Opens `path` below `dir`, reads it once and closes it, without allocating.
pub(crate) fn read_at<'b>(
    dir: BorrowedFd<'_>,
    path: &CStr,
    buffer: &'b mut [u8],
    what: &'static str,
) -> Result<&'b [u8], Unread> {
    KeptFile::open_at(dir, path, what)?.read(buffer)
}

/// Opens, reads and closes `dir/name`: for what is read seldom. Allocates for the path.
pub(crate) fn read_once<'b>(
    dir: &Path,
    name: &str,
    buffer: &'b mut [u8],
    what: &'static str,
) -> Result<&'b [u8], Unread> {
    KeptFile::open(dir, name, what)?.read(buffer)
}

/// One number from `dir/name`, opened and closed. Allocates for the path.
pub(crate) fn read_u64_once(dir: &Path, name: &str, what: &'static str) -> Result<u64, Unread> {
    let mut buffer = [0; 32];
    parse_u64(read_once(dir, name, &mut buffer, what)?).ok_or(Unread::Malformed(what))
}

/// Opens a directory for listing and for opening files below it.
pub(crate) fn open_dir(path: &Path, what: &'static str) -> Result<OwnedFd, Unread> {
    let flags = READ.union(OFlags::DIRECTORY);
    let mut text = StackPath::new();
    match text.push(path.as_os_str().as_bytes()).as_c_str() {
        Some(path) => rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|e| unread(what, e)),
        None => Err(Unread::Failed(what, Errno::NAMETOOLONG.raw_os_error())),
    }
}

/// Calls `each` with every entry of a directory whose name is a number, through a buffer on the caller's stack.
pub(crate) fn each_number(
    dir: BorrowedFd<'_>,
    buffer: &mut [MaybeUninit<u8>],
    what: &'static str,
    mut each: impl FnMut(i32),
) -> Result<(), Unread> {
    rustix::fs::seek(dir, SeekFrom::Start(0)).map_err(|e| unread(what, e))?;
    let mut entries = RawDir::new(dir, buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|e| unread(what, e))?;
        if let Some(number) = parse_u64(entry.file_name().to_bytes()).and_then(|n| i32::try_from(n).ok()) {
            each(number);
        }
    }
    Ok(())
}

/// A path put together on the stack: up to 511 bytes.
pub(crate) struct StackPath {
    bytes: [u8; 512],
    len: usize,
    overflow: bool,
}

impl StackPath {
    pub(crate) fn new() -> Self {
        StackPath { bytes: [0; 512], len: 0, overflow: false }
    }

    /// `PID/name`, relative to the directory that plays `/proc`.
    pub(crate) fn of_pid(pid: i32, name: &str) -> Self {
        let mut path = StackPath::new();
        path.push_number(pid).push(b"/").push(name.as_bytes());
        path
    }

    pub(crate) fn push(&mut self, part: &[u8]) -> &mut Self {
        let end = self.len + part.len();
        if end < self.bytes.len() {
            self.bytes[self.len..end].copy_from_slice(part);
            self.len = end;
        } else {
            self.overflow = true;
        }
        self
    }

    pub(crate) fn push_number(&mut self, number: i32) -> &mut Self {
        let mut digits = [0u8; 12];
        let mut rest = &mut digits[..];
        let written = write!(rest, "{number}").is_ok();
        let len = 12 - rest.len();
        debug_assert!(written, "an i32 has at most 11 characters");
        self.push(&digits[..len])
    }

    /// `None` when the parts did not fit or held a zero byte.
    pub(crate) fn as_c_str(&self) -> Option<&CStr> {
        if self.overflow {
            return None;
        }
        CStr::from_bytes_with_nul(&self.bytes[..=self.len]).ok()
    }
}

/// A decimal number with white space around it; anything else is `None`. Overflow is `None`.
pub(crate) fn parse_u64(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |sum, &b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// A process, group or session id.
pub(crate) fn parse_pid(text: &[u8]) -> Option<i32> {
    let text = text.trim_ascii();
    match text.strip_prefix(b"-") {
        Some(rest) => parse_u64(rest).and_then(|n| i32::try_from(n).ok()).map(|n| -n),
        None => parse_u64(text).and_then(|n| i32::try_from(n).ok()),
    }
}

/// A limit: `Ok(None)` is "no limit" (`max`, or v1's huge number: anything from 1 EiB up), `None` is malformed.
pub(crate) fn parse_limit(text: &[u8]) -> Option<Option<u64>> {
    const NO_LIMIT: u64 = 1 << 60;
    let text = text.trim_ascii();
    if text == b"max" {
        return Some(None);
    }
    // v1 of old kernels printed u64::MAX; a number beyond u64 is still malformed.
    parse_u64(text).map(|bytes| (bytes < NO_LIMIT).then_some(bytes))
}

/// The lines of a file, without their ends.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&b| b == b'\n').filter(|line| !line.is_empty())
}

/// The fields of a line, split at white space.
pub(crate) fn fields(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty())
}

/// `key value` lines (cgroup stat files). A line of another shape yields its key and `None`.
pub(crate) fn pairs(text: &[u8]) -> impl Iterator<Item = (&[u8], Option<u64>)> {
    lines(text).map(|line| match line.iter().position(|&b| b == b' ') {
        Some(at) => (&line[..at], parse_u64(&line[at + 1..])),
        None => (line, None),
    })
}

/// `Key:   N kB` lines (`status`, `smaps_rollup`, `meminfo`) as bytes. Other lines yield `None`.
pub(crate) fn kilobytes(text: &[u8]) -> impl Iterator<Item = (&[u8], Option<u64>)> {
    lines(text).filter_map(|line| {
        let at = line.iter().position(|&b| b == b':')?;
        let value = line[at + 1..].trim_ascii();
        let bytes = value.strip_suffix(b" kB").and_then(parse_u64).and_then(|n| n.checked_mul(1024));
        Some((&line[..at], bytes))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_whole_or_nothing() {
        let table: [(&[u8], Option<u64>); 9] = [
            (b"0\n", Some(0)),
            (b" 42 \n", Some(42)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"", None),
            (b"\n", None),
            (b"12 34", None),
            (b"-1", None),
            (b"0x10", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_u64(text), expected, "{:?}", String::from_utf8_lossy(text));
        }
        assert_eq!(parse_pid(b"-1"), Some(-1));
        assert_eq!(parse_pid(b"4294967296"), None);
    }

    #[test]
    fn no_limit_has_three_spellings() {
        let table: [(&[u8], Option<Option<u64>>); 7] = [
            (b"max\n", Some(None)),
            (b"9223372036854771712\n", Some(None)),
            (b"18446744073709551615\n", Some(None)),
            (b"0\n", Some(Some(0))),
            (b"419430400\n", Some(Some(419_430_400))),
            (b"unlimited", None),
            (b"", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_limit(text), expected, "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn pairs_and_kilobytes_skip_nothing_silently() {
        let stat = b"anon 12\nfile\nslab x\n\nshmem 7\n";
        let all: Vec<_> = pairs(stat).collect();
        assert_eq!(all, [(&b"anon"[..], Some(12)), (b"file", None), (b"slab", None), (b"shmem", Some(7))]);
        let status = b"Name:\tcat\nVmRSS:\t    1672 kB\nThreads:\t1\nbroken\n";
        let all: Vec<_> = kilobytes(status).collect();
        assert_eq!(all, [(&b"Name"[..], None), (b"VmRSS", Some(1672 * 1024)), (b"Threads", None)]);
    }

    #[test]
    fn what_does_not_fit_is_cut_to_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "first 1\nsecond 22222\n").unwrap();
        let file = KeptFile::open(dir.path(), "f", "f").unwrap();
        let mut small = [0; 12];
        assert_eq!(file.read(&mut small), Ok(&b"first 1\n"[..]));
        let mut large = [0; 64];
        assert_eq!(file.read(&mut large), Ok(&b"first 1\nsecond 22222\n"[..]));
        assert_eq!(KeptFile::open(dir.path(), "g", "g").unwrap_err(), Unread::Missing("g"));
    }

    #[test]
    fn stack_paths_end_at_their_bound() {
        assert_eq!(StackPath::of_pid(12, "statm").as_c_str(), Some(c"12/statm"));
        assert_eq!(StackPath::new().push_number(i32::MIN).as_c_str(), Some(c"-2147483648"));
        assert_eq!(StackPath::new().push(&[b'a'; 512]).as_c_str(), None);
        assert!(StackPath::new().push(&[b'a'; 511]).as_c_str().is_some());
    }
}
