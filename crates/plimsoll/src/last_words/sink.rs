//! Writing without waiting: what the kernel takes at once is written, the rest is said to be waiting, and for whom.
//!
//! A watchdog that waits for a full pipe or for a slow disk is no watchdog. With `RWF_NOWAIT` (pipes since Linux 6.4, tmpfs,
//! xfs, btrfs) the kernel refuses instead; elsewhere a pipe is asked first, and a file is written once waiting is allowed.

use std::fmt;
use std::io::{self, IoSlice, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::io::{Errno, ReadWriteFlags};

use crate::clock::{Clock as _, MonotonicClock};

/// Where one copy of the text goes, and how far it got.
pub(super) struct Sink<F> {
    fd: F,
    written: usize,
}

impl<F: AsFd> Sink<F> {
    pub(super) fn new(fd: F) -> Sink<F> {
        Sink { fd, written: 0 }
    }

    /// Another text begins.
    pub(super) fn rewind(&mut self) {
        self.written = 0;
    }

    pub(super) fn is_done(&self, text: &[u8]) -> bool {
        self.written == text.len()
    }

    /// Writes what is not written yet; with a patience of zero only what the kernel takes without waiting.
    pub(super) fn push(&mut self, text: &[u8], patience: Duration) {
        let until = MonotonicClock.now() + patience;
        while let Some(rest) = text.get(self.written..).filter(|rest| !rest.is_empty()) {
            match write_now(self.fd.as_fd(), rest) {
                Ok(n) if n > 0 => self.written += n,
                Err(Wait::Disk) if !patience.is_zero() => match rustix::io::write(&self.fd, rest) {
                    Ok(n) if n > 0 => self.written += n,
                    _ => return,
                },
                Err(Wait::Reader) if MonotonicClock.now() < until => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                _ => return,
            }
        }
    }
}

enum Wait {
    /// A file: writing may have to wait for its disk.
    Disk,
    /// A pipe, socket or terminal that is full.
    Reader,
    /// It cannot be written at all.
    Never,
}

/// A write that does not wait, also where the descriptor is a blocking one: with `RWF_NOWAIT` where the kernel can, else
/// after asking whether there is room (a pipe that is ready takes 4 KiB at once).
fn write_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Wait> {
    // An offset of -1: where the file stands.
    match rustix::io::pwritev2(fd, &[IoSlice::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT) {
        Ok(n) => return Ok(n),
        Err(Errno::AGAIN) if is_file(fd) => return Err(Wait::Disk),
        Err(Errno::AGAIN) => return Err(Wait::Reader),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
        Err(_) => return Err(Wait::Never),
    }
    if is_file(fd) {
        return Err(Wait::Disk);
    }
    let mut set = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    match poll(&mut set, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(n) if n > 0 && set[0].revents().contains(PollFlags::OUT) => {
            rustix::io::write(fd, bytes).map_err(|errno| if errno == Errno::AGAIN { Wait::Reader } else { Wait::Never })
        }
        Ok(0) | Err(Errno::INTR) => Err(Wait::Reader),
        _ => Err(Wait::Never),
    }
}

fn is_file(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

/// One line to stderr, if it takes it without waiting.
pub(crate) fn whisper(text: fmt::Arguments<'_>) {
    let mut line = [0u8; 256];
    let mut rest = &mut line[..];
    rest.write_fmt(text).ok();
    let len = 256 - rest.len();
    write_now(io::stderr().as_fd(), &line[..len]).ok();
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_full_pipe_is_not_waited_for_and_is_written_once_it_has_room() {
        let (mut read, write) = std::io::pipe().unwrap();
        let mut filler = Sink::new(write.try_clone().unwrap());
        let flood = vec![b'x'; 4 << 20];
        filler.push(&flood, Duration::ZERO);
        assert!(!filler.is_done(&flood), "a pipe takes less than 4 MiB");
        let mut sink = Sink::new(write);
        let began = MonotonicClock.now();
        sink.push(b"last words", Duration::ZERO);
        sink.push(b"last words", Duration::from_millis(30));
        assert!(!sink.is_done(b"last words"));
        assert!(MonotonicClock.now() - began < Duration::from_secs(5), "not for ever");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut all = vec![0; filler.written];
                read.read_exact(&mut all).unwrap();
            });
            sink.push(b"last words", Duration::from_secs(20));
        });
        assert!(sink.is_done(b"last words"));
        let mut text = [0; 10];
        read.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"last words");
    }

    #[test]
    fn a_pipe_without_a_reader_is_given_up() {
        let (read, write) = std::io::pipe().unwrap();
        drop(read);
        let mut sink = Sink::new(write);
        sink.push(b"nobody hears", Duration::from_secs(60));
        assert!(!sink.is_done(b"nobody hears"));
    }

    #[test]
    fn a_file_is_written_at_once_or_as_soon_as_waiting_is_allowed() {
        let file = tempfile::tempfile().unwrap();
        let mut sink = Sink::new(file);
        sink.push(b"text", Duration::ZERO);
        sink.push(b"text", Duration::from_secs(1));
        assert!(sink.is_done(b"text"));
    }
}
