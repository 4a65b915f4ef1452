//! The FIFOs that are the child's stdout and stderr: 0600, 1 MiB each where the kernel grants it.
//!
//! The child holds its FIFO open for reading *and* writing, so a killed supervisor neither kills it (no SIGPIPE) nor
//! loses what the pipe holds. The supervisor opens its end `O_RDWR | O_NONBLOCK` as well: with a writer that never goes
//! away (itself) the pipe never reports end of file or `POLLHUP`, so between two lives of the child the tail thread
//! sleeps instead of spinning. "The child is gone" is learnt from its pidfd, never from the pipe; "the pipe is empty"
//! is `EAGAIN`.
//!
//! A FIFO that is there already is always used again: what a grandchild of an earlier life wrote is still in it.
//! Anything else at that path (a file, a link, a FIFO of another user or open to others) is an error, never replaced.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Size of the pipe that is asked for, in bytes; also the default of `fs.pipe-max-size`.
pub(crate) const PIPE_BYTES: usize = 1 << 20;
/// Smaller sizes are asked for in turn, halving, down to this one, which is the kernel's own default.
const SMALLEST_PIPE_BYTES: usize = 64 << 10;

/// Why a FIFO cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FifoError {
    #[error("make the FIFO {path:?}: {cause}")]
    Make { path: PathBuf, cause: io::Error },
    #[error("open the FIFO {path:?}: {cause}")]
    Open { path: PathBuf, cause: io::Error },
    #[error("use {path:?}: it is {found}, not a FIFO; move it away")]
    NotAFifo { path: PathBuf, found: &'static str },
    #[error("use the FIFO {path:?}: it belongs to uid {uid} with mode {mode:03o}, expected uid {own_uid} and mode 600")]
    Foreign { path: PathBuf, uid: u32, own_uid: u32, mode: u32 },
}

/// One FIFO with the supervisor's end open.
#[derive(Debug)]
pub(crate) struct Fifo {
    path: PathBuf,
    reader: OwnedFd,
    /// Bytes that the pipe holds before the child blocks. Less than [`PIPE_BYTES`] when the kernel refused more: the
    /// user's pipes together are above `fs.pipe-user-pages-soft`, or `fs.pipe-max-size` is lower.
    size_bytes: usize,
}

impl Fifo {
    /// Makes the FIFO at `path` (0600) or takes the one that is there, opens the supervisor's end and widens the pipe.
    ///
    /// # Errors
    /// [`FifoError`]: what is at `path` is no FIFO or not ours, or the system call that failed.
    pub(crate) fn prepare(path: &Path) -> Result<Fifo, FifoError> {
        let made = |cause: Errno| FifoError::Make { path: path.to_owned(), cause: cause.into() };
        match rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(cause) => return Err(made(cause)),
        }
        let reader = open(path, OFlags::NONBLOCK)?;
        let size_bytes = widen(&reader);
        Ok(Fifo { path: path.to_owned(), reader, size_bytes })
    }

    /// Opens the child's end: blocking, for reading and writing, close-on-exec (it becomes fd 1 or 2 by `dup2`).
    ///
    /// # Errors
    /// As [`Fifo::prepare`].
    #[cfg(test)]
    pub(crate) fn child_end(&self) -> Result<OwnedFd, FifoError> {
        open(&self.path, OFlags::empty())
    }

    /// One sentence when the pipe is smaller than asked for.
    pub(crate) fn warning(&self) -> Option<String> {
        (self.size_bytes < PIPE_BYTES).then(|| {
            format!(
                "{} holds {} KiB instead of {} KiB: {}",
                self.path.display(),
                self.size_bytes >> 10,
                PIPE_BYTES >> 10,
                match pipe_max_bytes() {
                    Some(most) if most < PIPE_BYTES => format!("fs.pipe-max-size is {most}"),
                    _ => "the user's pipes are above fs.pipe-user-pages-soft".to_owned(),
                }
            )
        })
    }

    /// The supervisor's end, for the tail thread.
    pub(crate) fn into_reader(self) -> OwnedFd {
        self.reader
    }
}

fn open(path: &Path, extra: OFlags) -> Result<OwnedFd, FifoError> {
    let failed = |cause: Errno| FifoError::Open { path: path.to_owned(), cause: cause.into() };
    // Looked at before it is opened (opening a device or a directory may do something) and again after (no race).
    let before = rustix::fs::statat(CWD, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    check(path, &before)?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY | extra;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
    check(path, &rustix::fs::fstat(&fd).map_err(failed)?)?;
    Ok(fd)
}

fn check(path: &Path, stat: &rustix::fs::Stat) -> Result<(), FifoError> {
    let found = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => None,
        FileType::RegularFile => Some("a regular file"),
        FileType::Directory => Some("a directory"),
        FileType::Symlink => Some("a symbolic link"),
        FileType::Socket => Some("a socket"),
        _ => Some("a device"),
    };
    if let Some(found) = found {
        return Err(FifoError::NotAFifo { path: path.to_owned(), found });
    }
    let (mode, own_uid) = (stat.st_mode & 0o777, rustix::process::geteuid().as_raw());
    if stat.st_uid != own_uid || mode & 0o077 != 0 {
        return Err(FifoError::Foreign { path: path.to_owned(), uid: stat.st_uid, own_uid, mode });
    }
    Ok(())
}

/// Asks for [`PIPE_BYTES`], then for half as much and so on; what holds in the end, in bytes.
fn widen(fd: impl AsFd) -> usize {
    let mut wanted = PIPE_BYTES;
    let now = rustix::pipe::fcntl_getpipe_size(&fd).unwrap_or(0);
    while wanted > now && wanted >= SMALLEST_PIPE_BYTES {
        if let Ok(obtained) = rustix::pipe::fcntl_setpipe_size(&fd, wanted) {
            return obtained;
        }
        wanted /= 2;
    }
    now
}

fn pipe_max_bytes() -> Option<usize> {
    let mut text = String::new();
    File::open("/proc/sys/fs/pipe-max-size").ok()?.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout.fifo");
        (dir, path)
    }

    fn read(fd: &OwnedFd) -> Result<Vec<u8>, Errno> {
        let mut buffer = vec![0; 4096];
        let n = rustix::io::read(fd, &mut buffer)?;
        buffer.truncate(n);
        Ok(buffer)
    }

    #[test]
    fn is_made_private_and_as_wide_as_the_kernel_grants() {
        let (_dir, path) = place();
        let fifo = Fifo::prepare(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fifo.size_bytes, rustix::pipe::fcntl_getpipe_size(&fifo.reader).unwrap());
        if pipe_max_bytes().is_some_and(|most| most >= PIPE_BYTES) && rustix::process::geteuid().is_root() {
            assert_eq!((fifo.size_bytes, fifo.warning()), (PIPE_BYTES, None));
        }
    }

    #[test]
    fn an_empty_pipe_reads_as_would_block_with_and_without_a_child() {
        let (_dir, path) = place();
        let fifo = Fifo::prepare(&path).unwrap();
        assert_eq!(read(&fifo.reader), Err(Errno::AGAIN));
        let child = fifo.child_end().unwrap();
        rustix::io::write(&child, b"line\n").unwrap();
        drop(child);
        assert_eq!(read(&fifo.reader).unwrap(), b"line\n");
        assert_eq!(read(&fifo.reader), Err(Errno::AGAIN), "the last writer left: still no end of file");
    }

    #[test]
    fn what_a_dead_supervisor_left_in_the_pipe_is_read_by_the_next() {
        let (_dir, path) = place();
        let first = Fifo::prepare(&path).unwrap();
        let child = first.child_end().unwrap();
        drop(first);
        rustix::io::write(&child, b"written while nobody read\n").unwrap();
        let second = Fifo::prepare(&path).unwrap();
        assert_eq!(read(&second.reader).unwrap(), b"written while nobody read\n");
    }

    #[test]
    fn anything_but_an_own_private_fifo_is_refused_and_left_alone() {
        let (dir, path) = place();
        std::fs::write(&path, b"precious").unwrap();
        assert!(matches!(Fifo::prepare(&path), Err(FifoError::NotAFifo { found: "a regular file", .. })));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 8);

        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(Fifo::prepare(&link), Err(FifoError::NotAFifo { found: "a symbolic link", .. })));
        assert!(matches!(Fifo::prepare(dir.path()), Err(FifoError::NotAFifo { found: "a directory", .. })));

        let open = dir.path().join("open");
        drop(Fifo::prepare(&open).unwrap());
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o622)).unwrap();
        let refused = Fifo::prepare(&open).unwrap_err();
        assert!(matches!(refused, FifoError::Foreign { mode: 0o622, .. }), "{refused}");
    }
}
