//! Standard output of `plimsoll logs`: gathered to 64 KiB, written in whole lines, and known to be closed without having
//! to write: a reader that went away ends a follower that has nothing to say within one poll.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

/// What is gathered before it is written, in bytes.
const GATHERED_BYTES: usize = 64 << 10;

/// Why no more is written.
#[derive(Debug)]
pub(super) enum Ended {
    /// The reader went away (`| head`, a closed terminal): all is well.
    Closed,
    /// It cannot be written, a full disk for one.
    Failed(io::Error),
}

/// A descriptor that lines are written to.
pub(super) struct Out {
    fd: OwnedFd,
    /// Whole lines that wait. Append to it, then call [`Out::lines_added`].
    pub(super) buffer: Vec<u8>,
}

impl Out {
    /// Writes to a duplicate of `fd`.
    ///
    /// # Errors
    /// `fd` is closed, or no descriptor is left.
    pub(super) fn new(fd: BorrowedFd<'_>) -> io::Result<Out> {
        let fd = rustix::io::fcntl_dupfd_cloexec(fd, 3)?;
        Ok(Out { fd, buffer: Vec::with_capacity(GATHERED_BYTES + (8 << 10)) })
    }

    /// Writes what was gathered if it is enough.
    ///
    /// # Errors
    /// [`Ended`].
    pub(super) fn lines_added(&mut self) -> Result<(), Ended> {
        if self.buffer.len() >= GATHERED_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes what was gathered, waiting as long as the reader takes.
    ///
    /// # Errors
    /// [`Ended`].
    pub(super) fn flush(&mut self) -> Result<(), Ended> {
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() {
            match rustix::io::write(&self.fd, rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::INTR) => {}
                // Somebody else made it non-blocking; it is shared.
                Err(Errno::AGAIN) => {
                    rustix::event::poll(&mut [PollFd::new(&self.fd, PollFlags::OUT)], None).ok();
                }
                // A terminal that hung up says EIO.
                Err(Errno::PIPE | Errno::CONNRESET | Errno::IO) => return Err(Ended::Closed),
                Err(cause) => return Err(Ended::Failed(cause.into())),
            }
        }
        self.buffer.clear();
        // One long line is no reason to stay large.
        self.buffer.shrink_to(2 * GATHERED_BYTES);
        Ok(())
    }

    /// Sleeps for `pause`, or until the reader goes away.
    ///
    /// # Errors
    /// [`Ended::Closed`] when it did.
    pub(super) fn sleep(&self, pause: Duration) -> Result<(), Ended> {
        let timeout =
            Timespec { tv_sec: pause.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: pause.subsec_nanos().into() };
        // No event is asked for: an error and a hang-up are reported all the same.
        let mut fds = [PollFd::new(&self.fd, PollFlags::empty())];
        let gone = rustix::event::poll(&mut fds, Some(&timeout)).is_ok() && !fds[0].revents().is_empty();
        if gone { Err(Ended::Closed) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_reader_that_goes_away_is_noticed_while_there_is_nothing_to_write() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut out = Out::new(write.as_fd()).unwrap();
        assert!(out.sleep(Duration::from_millis(1)).is_ok(), "a quiet reader is a reader");
        drop(read);
        assert!(matches!(out.sleep(Duration::from_secs(30)), Err(Ended::Closed)));
        out.buffer.extend_from_slice(b"late\n");
        assert!(matches!(out.flush(), Err(Ended::Closed)));
    }

    #[test]
    fn everything_is_written_also_through_a_pipe_that_somebody_made_non_blocking() {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        rustix::io::ioctl_fionbio(&read, false).unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = 0;
            let mut piece = vec![0; 5000];
            while let Ok(n @ 1..) = rustix::io::read(&read, &mut piece) {
                all += n;
            }
            all
        });
        let mut out = Out::new(write.as_fd()).unwrap();
        drop(write);
        for _ in 0..3000 {
            out.buffer.extend_from_slice(&[b'x'; 100]);
            out.lines_added().unwrap();
        }
        out.flush().unwrap();
        drop(out);
        assert_eq!(reader.join().unwrap(), 300_000);
    }

    #[test]
    fn a_full_disk_is_a_failure_and_not_a_reader_that_left() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut out = Out::new(full.as_fd()).unwrap();
        out.buffer.push(b'x');
        assert!(matches!(out.flush(), Err(Ended::Failed(_))));
    }
}
