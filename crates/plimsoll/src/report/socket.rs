//! A datagram socket that never waits: what the other end does not take at once is dropped, and counted with a reason.
//!
//! Nothing is connected: each datagram names its address, so a supervisor that was killed and replaced hears the next one. One
//! descriptor (two where the path is longer than the 107 bytes that an address holds). Sending allocates nothing.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

/// The longest path that an address holds.
const PATH_BYTES_MAX: usize = 107;

/// Why a datagram did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// The other end reads too slowly, or not at all: its queue is full.
    Full,
    /// Nobody listens there (any more, or yet).
    Gone,
    /// The socket may not be written by us.
    Denied,
    /// The kernel refused for another reason.
    Failed,
}

impl Dropped {
    /// All of them.
    pub const ALL: [Dropped; 4] = [Dropped::Full, Dropped::Gone, Dropped::Denied, Dropped::Failed];

    /// The name used in reports, metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Dropped::Full => "full",
            Dropped::Gone => "gone",
            Dropped::Denied => "denied",
            Dropped::Failed => "failed",
        }
    }
}

/// What became of the datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// Taken by the kernel for the other end.
    pub sent_total: u64,
    /// Dropped, in the order of [`Dropped::ALL`].
    pub dropped_total: [u64; 4],
}

impl Sent {
    /// What was dropped for this reason.
    pub fn dropped_for(&self, reason: Dropped) -> u64 {
        self.dropped_total[reason as usize]
    }
}

/// The sending end.
pub(super) struct Outlet {
    fd: OwnedFd,
    address: SocketAddrUnix,
    /// Kept open while the address goes through it.
    _directory: Option<OwnedFd>,
    shown: PathBuf,
    sent: AtomicU64,
    dropped: [AtomicU64; 4],
}

impl Outlet {
    /// For an address as environment variables have it: an absolute path, or `@` and an abstract name.
    pub(super) fn open(address: &OsStr) -> io::Result<Outlet> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why);
        let (sockaddr, directory) = match address.as_bytes() {
            [b'@', name @ ..] if !name.is_empty() => (SocketAddrUnix::new_abstract_name(name)?, None),
            [b'/', ..] => reach(Path::new(address))?,
            _ => return Err(invalid("neither an absolute path nor @ and an abstract name")),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        Ok(Outlet {
            fd,
            address: sockaddr,
            _directory: directory,
            shown: address.into(),
            sent: AtomicU64::new(0),
            dropped: Default::default(),
        })
    }

    /// Sends one datagram, at once or not at all.
    pub(super) fn send(&self, bytes: &[u8]) -> Result<(), Dropped> {
        let dropped =
            match rustix::net::sendto(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &self.address) {
                Ok(_) => {
                    self.sent.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => Dropped::Full,
                Err(Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR | Errno::CONNRESET) => Dropped::Gone,
                Err(Errno::ACCESS | Errno::PERM) => Dropped::Denied,
                Err(_) => Dropped::Failed,
            };
        self.dropped[dropped as usize].fetch_add(1, Ordering::Relaxed);
        Err(dropped)
    }

    pub(super) fn shown(&self) -> &Path {
        &self.shown
    }

    pub(super) fn counts(&self) -> Sent {
        Sent {
            sent_total: self.sent.load(Ordering::Relaxed),
            dropped_total: std::array::from_fn(|i| self.dropped[i].load(Ordering::Relaxed)),
        }
    }
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet").field("address", &self.shown).field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// The address of a path; through its open directory where it is too long.
fn reach(path: &Path) -> io::Result<(SocketAddrUnix, Option<OwnedFd>)> {
    if path.as_os_str().len() <= PATH_BYTES_MAX {
        return Ok((SocketAddrUnix::new(path)?, None));
    }
    let (Some(directory), Some(file)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of a socket"));
    };
    let directory = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(file);
    Ok((SocketAddrUnix::new(&short)?, Some(directory)))
}
