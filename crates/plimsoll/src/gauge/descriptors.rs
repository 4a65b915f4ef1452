//! A process's open descriptors by kind: what leaks when its memory does not (sockets, pipes, `/proc` handles).
//!
//! 1–2 µs per descriptor, nothing allocated, two descriptors open meanwhile. At most [`MAX_CLASSIFIED`] are looked at;
//! the others are counted as [`Counts::unclassified`].

use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use super::files::{self, StackPath};
use super::{Root, Unread};

/// How many descriptors of one process are looked at one by one.
pub const MAX_CLASSIFIED: u64 = 16_384;

const WHAT: &str = "/proc/PID/fd";

/// Descriptors of one process by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files and directories, deleted ones too, on disk or on tmpfs (`/dev/shm`, memfd).
    pub file: u64,
    /// Sockets of any family.
    pub socket: u64,
    /// Pipes and FIFOs without a name. (A FIFO with a name counts as a file: the link does not tell.)
    pub pipe: u64,
    /// epoll, eventfd, timerfd, pidfd, inotify, io_uring …
    pub anon_inode: u64,
    /// Handles on `/proc`.
    pub proc: u64,
    /// Devices, terminals among them.
    pub device: u64,
    /// Anything else: namespaces, …
    pub other: u64,
    /// Beyond [`MAX_CLASSIFIED`], or not allowed to be looked at.
    pub unclassified: u64,
}

impl Counts {
    /// All descriptors.
    pub fn total(&self) -> u64 {
        self.by_kind().iter().map(|(_, count)| count).sum()
    }

    /// Each kind's name, as in metrics and JSON, with its count.
    pub fn by_kind(&self) -> [(&'static str, u64); 8] {
        [
            ("file", self.file),
            ("socket", self.socket),
            ("pipe", self.pipe),
            ("anon_inode", self.anon_inode),
            ("proc", self.proc),
            ("device", self.device),
            ("other", self.other),
            ("unclassified", self.unclassified),
        ]
    }
}

/// Counts a process's descriptors into `counts`, which is cleared first. Those that this very call opens do not count.
///
/// # Errors
/// `Missing` when the process is gone, `Denied` when it is another user's. `counts` is all zero then.
pub fn count(root: &Root, pid: i32, counts: &mut Counts) -> Result<(), Unread> {
    *counts = Counts::default();
    let proc_dir = files::open_dir(&root.proc, WHAT)?;
    let mut path = StackPath::new();
    path.push_number(pid).push(b"/fd");
    let path = path.as_c_str().ok_or(Unread::Malformed(WHAT))?;
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let dir =
        rustix::fs::openat(&proc_dir, path, flags, rustix::fs::Mode::empty()).map_err(|e| files::unread(WHAT, e))?;
    let own = own_descriptors(pid, [proc_dir.as_fd(), dir.as_fd()]);
    let (mut seen, mut read) = (0, Counts::default());
    let mut buffer = [MaybeUninit::uninit(); 8192];
    files::each_number(dir.as_fd(), &mut buffer, WHAT, |number| {
        if own.contains(&Some(number)) {
            return;
        }
        seen += 1;
        if seen > MAX_CLASSIFIED {
            read.unclassified += 1;
        } else if let Some(kind) = kind(&mut read, dir.as_fd(), number) {
            *kind += 1;
        }
    })?;
    *counts = read;
    Ok(())
}

fn own_descriptors(pid: i32, opened: [BorrowedFd<'_>; 2]) -> [Option<i32>; 2] {
    let ours = pid == rustix::process::getpid().as_raw_nonzero().get();
    opened.map(|fd| ours.then(|| fd.as_raw_fd()))
}

/// The counter that a descriptor belongs to; `None` when it was closed meanwhile.
fn kind<'c>(counts: &'c mut Counts, dir: BorrowedFd<'_>, number: i32) -> Option<&'c mut u64> {
    let mut name = StackPath::new();
    name.push_number(number);
    // The beginning tells: a longer target is cut.
    let mut target = [0; 64];
    match rustix::fs::readlinkat_raw(dir, name.as_c_str()?, &mut target[..]) {
        Ok(len) => Some(by_target(counts, &target[..len])),
        Err(rustix::io::Errno::NOENT) => None,
        Err(_) => Some(&mut counts.unclassified),
    }
}

fn by_target<'c>(counts: &'c mut Counts, target: &[u8]) -> &'c mut u64 {
    // tmpfs and huge pages that are mounted below /dev hold files.
    const FILES_BELOW_DEV: [&[u8]; 3] = [b"/dev/shm/", b"/dev/hugepages/", b"/dev/mqueue/"];
    let starts = |prefix: &[u8]| target.starts_with(prefix);
    if starts(b"socket:") {
        &mut counts.socket
    } else if starts(b"pipe:") {
        &mut counts.pipe
    } else if starts(b"anon_inode:") || starts(b"pidfd:") {
        &mut counts.anon_inode
    } else if starts(b"/proc/") || target == b"/proc" {
        &mut counts.proc
    } else if starts(b"/dev/") && !FILES_BELOW_DEV.iter().any(|prefix| starts(prefix)) {
        &mut counts.device
    } else if starts(b"/") {
        &mut counts.file
    } else {
        &mut counts.other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_by_what_its_link_says() {
        let table = [
            ("/var/log/app.log", "file"),
            ("/tmp/x (deleted)", "file"),
            ("/memfd:jit (deleted)", "file"),
            ("/dev/shm/ring", "file"),
            ("/", "file"),
            ("socket:[123]", "socket"),
            ("pipe:[19991]", "pipe"),
            ("anon_inode:[eventpoll]", "anon_inode"),
            ("anon_inode:[pidfd]", "anon_inode"),
            ("pidfd:[77]", "anon_inode"),
            ("/proc/12/stat", "proc"),
            ("/proc", "proc"),
            ("/processor", "file"),
            ("/dev/null", "device"),
            ("/dev/pts/3", "device"),
            ("mnt:[4026531841]", "other"),
        ];
        for (target, expected) in table {
            let mut counts = Counts::default();
            *by_target(&mut counts, target.as_bytes()) += 1;
            let counted: Vec<_> = counts.by_kind().into_iter().filter(|(_, count)| *count == 1).collect();
            assert_eq!(counted, [(expected, 1)], "{target}");
        }
    }
}
