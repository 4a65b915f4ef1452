//! One process: its resident memory split by kind, and what tells it from another of the same number.
//!
//! | reading | cost | what |
//! |---|---|---|
//! | `statm`, kept open | 0.3–1 µs | anonymous pages; file and shared ones in one sum |
//! | `status` | 2–8 µs | the split (anon, file, shmem), swap, page tables, threads, caught signals |
//! | `smaps_rollup` | 9–40 µs, and 2.6–3.3 ms per GB | PSS: shared pages in proportion |
//! | `stat` | 3–10 µs | parent, process group, session, start time |
//!
//! Nothing here allocates. A zombie has no memory: its figures are 0 because they are, not because they could not be read.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd};

use super::files::{self, BUFFER_BYTES, KeptFile, StackPath};
use super::{Root, Unread};

/// A process's name as the kernel knows it: at most 15 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Comm {
    bytes: [u8; 16],
    len: u8,
}

impl Comm {
    fn new(text: &[u8]) -> Comm {
        let mut comm = Comm::default();
        let len = text.len().min(15);
        comm.bytes[..len].copy_from_slice(&text[..len]);
        comm.len = u8::try_from(len).unwrap_or(0);
        comm
    }

    /// The bytes, which need not be UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Display for Comm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl std::fmt::Debug for Comm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// What `/proc/PID/stat` tells: who a process is, and whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its number.
    pub pid: i32,
    /// Its name.
    pub comm: Comm,
    /// `R`, `S`, `D`, `Z`, `T` …
    pub state: u8,
    /// Its parent; 0 for the first process of a namespace.
    pub parent: i32,
    /// Its process group.
    pub process_group: i32,
    /// Its session.
    pub session: i32,
    /// When it started, in clock ticks since the machine's start. With the pid it names one process for ever.
    pub start_ticks: u64,
}

/// A process's memory and threads at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessReading {
    /// Who it is.
    pub identity: Identity,
    /// Resident anonymous memory: heap, stacks, private pages that were written.
    pub anon_bytes: u64,
    /// Resident pages of mapped files. The kernel can drop or write them back.
    pub file_bytes: u64,
    /// Resident shared memory and tmpfs pages that it maps.
    pub shmem_bytes: u64,
    /// Swapped out anonymous memory. `None` where the kernel has no swap.
    pub swap_bytes: Option<u64>,
    /// Page tables.
    pub page_tables_bytes: Option<u64>,
    /// Virtual size, which `RLIMIT_AS` bounds.
    pub virtual_bytes: u64,
    /// Private writable mappings, which `RLIMIT_DATA` bounds.
    pub data_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Bit `n - 1` is set when the process has a handler of its own for signal `n`.
    pub signals_caught: u64,
    /// How eager the kernel's OOM killer is to take this process: -1000 (never) to 1000. `None`: not readable.
    pub oom_score_adj: Option<i32>,
}

impl ProcessReading {
    /// Resident memory: anonymous, file and shared.
    pub fn resident_bytes(&self) -> u64 {
        self.anon_bytes.saturating_add(self.file_bytes).saturating_add(self.shmem_bytes)
    }

    /// Whether the process has a handler for `signal` (by number).
    pub fn catches(&self, signal: i32) -> bool {
        catches(self.signals_caught, signal)
    }
}

/// Whether a `SigCgt` mask has the bit of `signal` (1..=64).
pub fn catches(mask: u64, signal: i32) -> bool {
    (1..=64).contains(&signal) && mask >> (signal - 1) & 1 == 1
}

/// Reads one process: three files, opened and closed (8–25 µs). Allocates nothing.
///
/// # Errors
/// `Missing` when the process is gone; a zombie is read, with all its memory 0.
pub fn read_process(root: &Root, pid: i32) -> Result<ProcessReading, Unread> {
    let proc_dir = files::open_dir(&root.proc, "/proc")?;
    let identity = identity_at(proc_dir.as_fd(), pid)?;
    let status = status_at(proc_dir.as_fd(), pid)?;
    let zombie = matches!(identity.state, b'Z' | b'X');
    let told = |value: Option<u64>| value.or(zombie.then_some(0)).ok_or(Unread::Malformed(STATUS));
    Ok(ProcessReading {
        identity,
        anon_bytes: told(status.anon_bytes)?,
        file_bytes: told(status.file_bytes)?,
        shmem_bytes: told(status.shmem_bytes)?,
        swap_bytes: status.swap_bytes,
        page_tables_bytes: status.page_tables_bytes,
        virtual_bytes: told(status.virtual_bytes)?,
        data_bytes: told(status.data_bytes)?,
        threads: status.threads.ok_or(Unread::Malformed(STATUS))?,
        signals_caught: status.signals_caught.ok_or(Unread::Malformed(STATUS))?,
        oom_score_adj: oom_score_adj(proc_dir.as_fd(), pid),
    })
}

/// Who a process is: its start time with its number tells it from a later one of the same number.
///
/// # Errors
/// `Missing` when the process is gone.
pub fn read_identity(root: &Root, pid: i32) -> Result<Identity, Unread> {
    identity_at(files::open_dir(&root.proc, "/proc")?.as_fd(), pid)
}

const STAT: &str = "/proc/PID/stat";
const STATM: &str = "/proc/PID/statm";
const STATUS: &str = "/proc/PID/status";
const ROLLUP: &str = "/proc/PID/smaps_rollup";

fn name(path: &StackPath) -> Result<&CStr, Unread> {
    path.as_c_str().ok_or(Unread::Malformed("path"))
}

/// Bytes per page.
pub(crate) fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// `/proc/PID/statm`, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statm {
    pub(crate) resident: u64,
    /// File and shared memory pages, in one figure.
    pub(crate) shared: u64,
}

impl Statm {
    pub(crate) fn anon_pages(self) -> u64 {
        self.resident.saturating_sub(self.shared)
    }
}

/// Reads a kept-open `statm`.
pub(crate) fn read_statm(file: &KeptFile) -> Result<Statm, Unread> {
    let mut buffer = [0; 128];
    parse_statm(file.read(&mut buffer)?).ok_or(Unread::Malformed(STATM))
}

/// Opens `statm` to keep it open.
pub(crate) fn open_statm(proc_dir: BorrowedFd<'_>, pid: i32) -> Result<KeptFile, Unread> {
    KeptFile::open_at(proc_dir, name(&StackPath::of_pid(pid, "statm"))?, STATM)
}

/// Opens, reads and closes `statm`.
pub(crate) fn statm_at(proc_dir: BorrowedFd<'_>, pid: i32) -> Result<Statm, Unread> {
    read_statm(&open_statm(proc_dir, pid)?)
}

fn parse_statm(text: &[u8]) -> Option<Statm> {
    let mut fields = files::fields(text).skip(1).map(files::parse_u64);
    Some(Statm { resident: fields.next()??, shared: fields.next()?? })
}

/// `/proc/PID/status`, as far as it is about memory, threads and signals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) anon_bytes: Option<u64>,
    pub(crate) file_bytes: Option<u64>,
    pub(crate) shmem_bytes: Option<u64>,
    pub(crate) swap_bytes: Option<u64>,
    pub(crate) page_tables_bytes: Option<u64>,
    pub(crate) virtual_bytes: Option<u64>,
    pub(crate) data_bytes: Option<u64>,
    pub(crate) threads: Option<u64>,
    pub(crate) signals_caught: Option<u64>,
}

/// Opens, reads and closes `status`.
pub(crate) fn status_at(proc_dir: BorrowedFd<'_>, pid: i32) -> Result<Status, Unread> {
    let mut buffer = [0; BUFFER_BYTES];
    files::read_at(proc_dir, name(&StackPath::of_pid(pid, "status"))?, &mut buffer, STATUS).map(parse_status)
}

pub(crate) fn parse_status(text: &[u8]) -> Status {
    let mut status = Status::default();
    for (key, bytes) in files::kilobytes(text) {
        let field = match key {
            b"RssAnon" => &mut status.anon_bytes,
            b"RssFile" => &mut status.file_bytes,
            b"RssShmem" => &mut status.shmem_bytes,
            b"VmSwap" => &mut status.swap_bytes,
            b"VmPTE" => &mut status.page_tables_bytes,
            b"VmSize" => &mut status.virtual_bytes,
            b"VmData" => &mut status.data_bytes,
            _ => continue,
        };
        *field = bytes;
    }
    status.threads = value(text, b"Threads:").and_then(files::parse_u64);
    status.signals_caught = value(text, b"SigCgt:").and_then(parse_mask);
    status
}

fn value<'t>(text: &'t [u8], key: &[u8]) -> Option<&'t [u8]> {
    files::lines(text).find_map(|line| line.strip_prefix(key))
}

fn parse_mask(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    u64::from_str_radix(text, 16).ok()
}

/// What `smaps_rollup` tells that PSS is for: shared pages counted in proportion, so that a sum over a tree counts
/// each page once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rollup {
    pub(crate) anon_bytes: u64,
    pub(crate) shmem_bytes: u64,
    pub(crate) file_bytes: u64,
    pub(crate) swap_bytes: u64,
}

/// Opens, reads and closes `smaps_rollup`. Costs milliseconds per GB that the process maps.
pub(crate) fn rollup_at(proc_dir: BorrowedFd<'_>, pid: i32) -> Result<Rollup, Unread> {
    let mut buffer = [0; 4096];
    let text = files::read_at(proc_dir, name(&StackPath::of_pid(pid, "smaps_rollup"))?, &mut buffer, ROLLUP)?;
    // The kernel gives an empty file for a process without memory: a zombie, a kernel thread.
    if text.is_empty() {
        return Ok(Rollup::default());
    }
    parse_rollup(text).ok_or(Unread::Malformed(ROLLUP))
}

fn parse_rollup(text: &[u8]) -> Option<Rollup> {
    let (mut anon, mut shmem, mut file, mut swap) = (None, None, None, None);
    for (key, bytes) in files::kilobytes(text) {
        match key {
            b"Pss_Anon" => anon = bytes,
            b"Pss_Shmem" => shmem = bytes,
            b"Pss_File" => file = bytes,
            b"SwapPss" => swap = bytes,
            _ => {}
        }
    }
    // No SwapPss line: a kernel without swap.
    Some(Rollup { anon_bytes: anon?, shmem_bytes: shmem?, file_bytes: file?, swap_bytes: swap.unwrap_or(0) })
}

/// Opens, reads and closes `stat`.
pub(crate) fn identity_at(proc_dir: BorrowedFd<'_>, pid: i32) -> Result<Identity, Unread> {
    let mut buffer = [0; 1024];
    let text = files::read_at(proc_dir, name(&StackPath::of_pid(pid, "stat"))?, &mut buffer, STAT)?;
    parse_identity(text).ok_or(Unread::Malformed(STAT))
}

/// `pid (comm) state ppid pgrp session …`; a name may hold spaces and brackets, so the last `)` ends it.
fn parse_identity(text: &[u8]) -> Option<Identity> {
    let open = text.iter().position(|&b| b == b'(')?;
    let close = text.iter().rposition(|&b| b == b')')?;
    let pid = files::parse_pid(&text[..open])?;
    let comm = Comm::new(text.get(open + 1..close)?);
    let mut fields = files::fields(&text[close + 1..]);
    let state = *fields.next()?.first()?;
    let mut number = || files::parse_pid(fields.next()?);
    let (parent, process_group, session) = (number()?, number()?, number()?);
    // Field 22 of the file; field 7 comes next.
    let start_ticks = files::parse_u64(fields.nth(15)?)?;
    Some(Identity { pid, comm, state, parent, process_group, session, start_ticks })
}

fn oom_score_adj(proc_dir: BorrowedFd<'_>, pid: i32) -> Option<i32> {
    let mut buffer = [0; 32];
    let path = StackPath::of_pid(pid, "oom_score_adj");
    files::parse_pid(files::read_at(proc_dir, path.as_c_str()?, &mut buffer, "oom_score_adj").ok()?)
}
