//! The listening ends: a Unix socket (0600) that survives a killed predecessor and a long path, and a loopback TCP port.
//!
//! A stale socket (nobody accepts) is replaced; a live one is an error; anything else at that path is left alone. The
//! kernel takes paths of at most 107 bytes; a longer one is reached through `/proc/self/fd/DIRFD/`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// The longest path that fits into a Unix socket address.
const PATH_BYTES_MAX: usize = 107;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// A path as the kernel takes it: short enough, through an open directory when it has to be.
struct Reach {
    path: PathBuf,
    /// Kept open while the path goes through it.
    _directory: Option<OwnedFd>,
}

fn reach(path: &Path) -> io::Result<Reach> {
    if path.as_os_str().len() <= PATH_BYTES_MAX {
        return Ok(Reach { path: path.to_owned(), _directory: None });
    }
    let invalid =
        || io::Error::new(io::ErrorKind::InvalidInput, format!("{}: not the path of a socket", path.display()));
    let directory = path.parent().ok_or_else(invalid)?;
    let file = path.file_name().ok_or_else(invalid)?;
    let directory = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(file);
    Ok(Reach { path, _directory: Some(directory) })
}

/// Binds the supervisor's socket at `path`, mode 0600, close-on-exec, listening.
///
/// # Errors
/// `AddrInUse` when somebody listens there; `AlreadyExists` when something that is no socket is there; else the kernel's.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            let what = format!("{}: exists and is no socket; it is left alone", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        Ok(_) => {
            if listens(path)? {
                let what = format!("{}: another supervisor listens there", path.display());
                return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
            }
            std::fs::remove_file(path)?;
        }
    }
    let reach = reach(path)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // The mode of the socket itself becomes the mode of its file, so there is no moment in which others may connect.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&reach.path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Binds a datagram socket at `path`, mode 0600, close-on-exec, that never waits and is told each sender's pid. A socket that is
/// there already is replaced: the caller knows that nobody else may own it.
///
/// # Errors
/// `AlreadyExists` when something that is no socket is there; else the kernel's.
pub(crate) fn bind_datagram(path: &Path) -> io::Result<OwnedFd> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => {
            let what = format!("{}: exists and is no socket; it is left alone", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
    }
    let reach = reach(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    rustix::net::sockopt::set_socket_passcred(&socket, true)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&reach.path)?)?;
    Ok(socket)
}

/// Whether somebody listens at `path`; a hung one, whose backlog may be full, does.
fn listens(path: &Path) -> io::Result<bool> {
    match connect(path) {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Ok(true),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(false),
            _ => Err(error),
        },
    }
}

/// Connects to the socket at `path` without ever waiting.
///
/// # Errors
/// `NotFound`: no socket. `ConnectionRefused`: nobody listens any more. `WouldBlock`: somebody does, but does not accept.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    let reach = reach(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(&reach.path)?)?;
    Ok(UnixStream::from(socket))
}

/// Binds a loopback TCP port for reading.
///
/// # Errors
/// See [`loopback_only`]; `AddrInUse` when the port is taken, which a caller should say and go on without.
pub(crate) fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    loopback_only(address)?;
    TcpListener::bind(address)
}

/// Refuses an address that others than this machine can reach: that needs a token, which this version does not have.
///
/// # Errors
/// `InvalidInput` with the address and what to do.
pub(crate) fn loopback_only(address: SocketAddr) -> io::Result<()> {
    if address.ip().is_loopback() {
        return Ok(());
    }
    let what = format!(
        "{address}: only loopback addresses are served (others need a token); forward the port, or use 127.0.0.1"
    );
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let first = bind(&path).unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(path.exists(), "a dropped listener leaves its file, as a killed one does");
        let second = bind(&path).unwrap();
        assert!(connect(&path).is_ok());
        drop(second);
    }

    #[test]
    fn only_its_own_user_may_connect() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let _listener = bind(&path).unwrap();
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_path_longer_than_a_socket_address_works() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("control.sock");
        let listener = bind(&path).unwrap();
        assert!(path.exists());
        assert!(connect(&path).is_ok());
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(bind(&path).is_ok());
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(path.metadata().unwrap().len(), 8);
    }

    #[test]
    fn a_full_backlog_counts_as_live() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let _hung = bind(&path).unwrap();
        let mut waiting = Vec::new();
        let full = loop {
            match connect(&path) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
            assert!(waiting.len() < 1_000, "the backlog is bounded");
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn only_loopback_is_served() {
        for good in ["127.0.0.1:0", "[::1]:7117", "127.9.9.9:1"] {
            assert!(loopback_only(good.parse().unwrap()).is_ok(), "{good}");
        }
        for bad in ["0.0.0.0:7117", "[::]:7117", "192.168.1.4:80"] {
            let error = loopback_only(bad.parse().unwrap()).unwrap_err();
            assert!(error.to_string().contains("token"), "{error}");
        }
    }
}
