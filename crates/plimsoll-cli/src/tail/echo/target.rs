//! Where echoed bytes go: Plimsoll's own stdout and stderr, written without ever waiting for them.
//!
//! The descriptors are inherited and their open file description is shared with the shell, so `O_NONBLOCK` must not be
//! set on them. A terminal or a pipe is opened a second time through `/proc/self/fd`, with a description of our own. A
//! socket is written with `MSG_DONTWAIT`. A regular file does not wait. Where opening again is refused (the terminal of
//! another user after `su`), it is written in pieces of at most [`CAREFUL_BYTES`] when `poll` says that it takes some.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// Largest piece for a descriptor that may block: what a terminal or pipe that polls writable takes at once.
const CAREFUL_BYTES: usize = 256;

/// One place to write to.
#[derive(Debug)]
pub(super) struct Target {
    fd: OwnedFd,
    how: How,
    /// Device and inode: tells whether two targets are one.
    identity: (u64, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    NonBlocking,
    Socket,
    Careful,
    /// `/dev/null`: nothing is copied at all.
    Nothing,
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    Bytes(usize),
    /// Nothing now; `poll` for it.
    NotNow,
    /// The reader is gone for good.
    Gone(Errno),
}

impl Target {
    /// Takes a descriptor of its own for what `fd` writes to.
    ///
    /// # Errors
    /// `fd` cannot be looked at or duplicated (it is closed, or no descriptor is left).
    pub(super) fn of(fd: BorrowedFd<'_>) -> io::Result<Target> {
        let stat = rustix::fs::fstat(fd)?;
        let again = |flags| {
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            rustix::fs::open(path, OFlags::WRONLY | OFlags::NOCTTY | OFlags::CLOEXEC | flags, Mode::empty())
        };
        let own = || rustix::io::fcntl_dupfd_cloexec(fd, 3);
        let (fd, how) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice if stat.st_rdev == rustix::fs::makedev(1, 3) => (own()?, How::Nothing),
            FileType::CharacterDevice | FileType::Fifo => match again(OFlags::NONBLOCK) {
                Ok(fd) => (fd, How::NonBlocking),
                Err(_) => (own()?, How::Careful),
            },
            FileType::Socket => (own()?, How::Socket),
            _ => (own()?, How::NonBlocking),
        };
        Ok(Target { fd, how, identity: (stat.st_dev, stat.st_ino) })
    }

    /// Both write to the same terminal, pipe or file.
    pub(super) fn is_same(&self, other: &Target) -> bool {
        self.identity == other.identity
    }

    /// Everything written there vanishes.
    pub(super) fn is_nothing(&self) -> bool {
        self.how == How::Nothing
    }

    /// Writes what goes at once.
    pub(super) fn write(&self, data: &[u8]) -> Written {
        let result = match self.how {
            How::Nothing => Ok(data.len()),
            How::NonBlocking => rustix::io::write(&self.fd, data),
            How::Socket => {
                use rustix::net::SendFlags;
                rustix::net::send(&self.fd, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            }
            How::Careful => match self.takes_some() {
                true => rustix::io::write(&self.fd, &data[..data.len().min(CAREFUL_BYTES)]),
                false => Err(Errno::AGAIN),
            },
        };
        match result {
            Ok(n) => Written::Bytes(n),
            Err(Errno::AGAIN | Errno::INTR) => Written::NotNow,
            Err(cause) => Written::Gone(cause),
        }
    }

    fn takes_some(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for Target {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_full_pipe_says_not_now_and_the_shared_description_stays_blocking() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let target = Target::of(write.as_fd()).unwrap();
        let mut total = 0;
        while let Written::Bytes(n) = target.write(&[b'x'; 4096]) {
            total += n;
        }
        assert_eq!(total, 65536);
        assert_eq!(target.write(b"x"), Written::NotNow);
        assert!(!rustix::fs::fcntl_getfl(&write).unwrap().contains(OFlags::NONBLOCK));
        drop(read);
        assert_eq!(target.write(b"x"), Written::Gone(Errno::PIPE));
    }

    #[test]
    fn a_full_socket_says_not_now() {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let target = Target::of(near.as_fd()).unwrap();
        while let Written::Bytes(_) = target.write(&[b'x'; 65536]) {}
        assert_eq!(target.write(b"x"), Written::NotNow);
        drop(far);
        assert!(matches!(target.write(b"x"), Written::Gone(_)));
    }

    #[test]
    fn one_place_is_known_by_two_descriptors() {
        let (_read, write) = rustix::pipe::pipe().unwrap();
        let (_read2, other) = rustix::pipe::pipe().unwrap();
        let copy = write.try_clone().unwrap();
        let target = Target::of(write.as_fd()).unwrap();
        assert!(target.is_same(&Target::of(copy.as_fd()).unwrap()));
        assert!(!target.is_same(&Target::of(other.as_fd()).unwrap()));
        let null = File::options().write(true).open("/dev/null").unwrap();
        assert!(Target::of(null.as_fd()).unwrap().is_nothing());
    }
}
