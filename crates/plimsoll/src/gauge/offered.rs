//! Memory pressure as a service manager offers it: `$MEMORY_PRESSURE_WATCH`, as another [`Wake`]. It wakes early, it never decides.
//!
//! The protocol is systemd's (<https://systemd.io/MEMORY_PRESSURE>). The variable names a pressure file of the kernel (below
//! `/proc` or `/sys/fs/cgroup`, polled for `PRI`), a FIFO or a Unix stream socket (both polled for `IN`, and read empty);
//! `/dev/null` is off. What `$MEMORY_PRESSURE_WRITE` holds in base64, at most [`WRITE_BYTES_MAX`] bytes, is written there
//! once. One descriptor. `plimsoll run` offers it to its program.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{Wake, WakeKind};

/// What to watch.
pub const WATCH_VAR: &str = "MEMORY_PRESSURE_WATCH";
/// What to write there first, in base64.
pub const WRITE_VAR: &str = "MEMORY_PRESSURE_WRITE";
/// The value that switches it off.
pub const OFF: &str = "/dev/null";
/// The longest text that is written.
pub const WRITE_BYTES_MAX: usize = 4096;

/// What the environment offers.
#[derive(Debug)]
#[non_exhaustive]
pub enum Offered {
    /// Nothing is offered: a service may watch what it finds by itself.
    Nothing,
    /// The operator wants none to be watched.
    Off,
    /// This.
    Wake(Wake),
}

/// An offer that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{variable}={value:?}: {cause}")]
#[non_exhaustive]
pub struct OfferError {
    /// The variable.
    pub variable: &'static str,
    /// What it holds, at most 128 characters of it.
    pub value: String,
    /// What is wrong with it, or what the kernel says.
    #[source]
    pub cause: io::Error,
}

/// Opens what the environment offers.
///
/// # Errors
/// [`OfferError`]; a watchdog without it looks as early by its own readings.
///
/// # Examples
/// ```
/// use plimsoll::gauge::offered::{self, Offered};
/// use plimsoll::watchdog::{Config, Watchdog};
///
/// let mut watchdog = Watchdog::new(Config::from_env().0);
/// match offered::from_env() {
///     Ok(Offered::Wake(wake)) => watchdog = watchdog.wake(wake),
///     Ok(_) => {}
///     Err(error) => eprintln!("memory pressure: {error}"),
/// }
/// ```
pub fn from_env() -> Result<Offered, OfferError> {
    from_vars(|name| std::env::var_os(name))
}

/// As [`from_env`], from anything that holds the two variables.
///
/// # Errors
/// As [`from_env`].
pub fn from_vars(get: impl Fn(&str) -> Option<OsString>) -> Result<Offered, OfferError> {
    let Some(watch) = get(WATCH_VAR).filter(|value| !value.is_empty()) else { return Ok(Offered::Nothing) };
    if watch == OFF {
        return Ok(Offered::Off);
    }
    let problem = |variable, value: &OsStr, cause: io::Error| OfferError {
        variable,
        value: value.to_string_lossy().chars().take(128).collect(),
        cause,
    };
    let write = get(WRITE_VAR).unwrap_or_default();
    let bytes = decode(write.as_encoded_bytes()).ok_or_else(|| {
        let why = format!("not base64 of at most {WRITE_BYTES_MAX} bytes");
        problem(WRITE_VAR, &write, io::Error::new(io::ErrorKind::InvalidInput, why))
    })?;
    open(Path::new(&watch), &bytes).map(Offered::Wake).map_err(|cause| problem(WATCH_VAR, &watch, cause))
}

fn open(path: &Path, write: &[u8]) -> io::Result<Wake> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why);
    if !path.is_absolute() {
        return Err(invalid("not an absolute path"));
    }
    let kind = FileType::from_raw_mode(rustix::fs::stat(path)?.st_mode);
    // A FIFO that is open at both ends never hangs up, whoever writes to it comes and goes.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let (fd, kind) = match kind {
        FileType::RegularFile => (rustix::fs::open(path, flags, Mode::empty())?, WakeKind::Pressure),
        FileType::Fifo => (rustix::fs::open(path, flags, Mode::empty())?, WakeKind::Offered),
        FileType::Socket => {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            rustix::net::connect(&fd, &SocketAddrUnix::new(path)?)?;
            (fd, WakeKind::Offered)
        }
        _ => return Err(invalid("neither a file, a FIFO nor a socket")),
    };
    if !write.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&fd, write))?;
        if written != write.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(Wake { fd, kind, guard_bytes: None })
}

/// Reads what an offered FIFO or socket holds, so that the next poll waits; at most 64 KiB of it.
pub(super) fn drain(fd: impl std::os::fd::AsFd) -> io::Result<()> {
    let mut bytes = [0u8; 1024];
    for _ in 0..64 {
        match rustix::io::read(&fd, &mut bytes[..]) {
            // The other end closed it: it will never be ready again, or always.
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Base64 with or without padding (RFC 4648, section 4); blanks are not allowed. `None`: something else, or too long.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for four in text.chunks(4) {
        let mut bits = 0u32;
        for symbol in four {
            let six = match symbol {
                b'A'..=b'Z' => symbol - b'A',
                b'a'..=b'z' => symbol - b'a' + 26,
                b'0'..=b'9' => symbol - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(six);
        }
        let missing = 4 - four.len();
        let three = (bits << (6 * missing)).to_be_bytes();
        match four.len() {
            4 => bytes.extend(&three[1..4]),
            3 => bytes.extend(&three[1..3]),
            2 => bytes.push(three[1]),
            _ => return None,
        }
    }
    (bytes.len() <= WRITE_BYTES_MAX).then_some(bytes)
}

/// Base64 with padding: for who offers.
pub fn encode(bytes: &[u8]) -> String {
    const SYMBOLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for n in 0..4 {
            let six = (bits >> (18 - 6 * n)) & 63;
            text.push(if n <= three.len() { char::from(SYMBOLS[six as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixListener;

    use rustix::event::{PollFd, Timespec, poll};

    use super::*;

    fn offer(watch: &Path, write: &[u8]) -> Result<Offered, OfferError> {
        let write = encode(write);
        from_vars(|name| match name {
            WATCH_VAR => Some(watch.into()),
            WRITE_VAR => Some(OsString::from(&write)),
            _ => None,
        })
    }

    fn wake(offered: Result<Offered, OfferError>) -> Wake {
        match offered {
            Ok(Offered::Wake(wake)) => wake,
            other => panic!("{other:?}"),
        }
    }

    fn is_ready(wake: &Wake) -> bool {
        let mut set = [PollFd::from_borrowed_fd(wake.as_fd(), wake.kind.poll_flags())];
        poll(&mut set, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    #[test]
    fn base64_both_ways() {
        // RFC 4648, section 10, and systemd's own default.
        let table: [(&[u8], &str); 8] = [
            (b"", ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (b"fooba", "Zm9vYmE="),
            (b"foobar", "Zm9vYmFy"),
            (b"some 200000 2000000\0", "c29tZSAyMDAwMDAgMjAwMDAwMAA="),
        ];
        for (bytes, text) in table {
            assert_eq!(encode(bytes), text);
            assert_eq!(decode(text.as_bytes()).as_deref(), Some(bytes), "{text}");
            assert_eq!(decode(text.trim_end_matches('=').as_bytes()).as_deref(), Some(bytes), "{text} without padding");
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(encode(&all).as_bytes()), Some(all));
        for bad in ["Z", "Zg=a", "Zm 8", "Zm8-", "=", "Zm9vYg==="] {
            assert!(bad == "=" || decode(bad.as_bytes()).is_none(), "{bad}");
        }
        assert_eq!(decode(encode(&vec![0; WRITE_BYTES_MAX + 1]).as_bytes()), None);
    }

    #[test]
    fn nothing_off_and_nonsense() {
        assert!(matches!(from_vars(|_| None), Ok(Offered::Nothing)));
        assert!(matches!(offer(OFF.as_ref(), b"some 1 2"), Ok(Offered::Off)));
        let dir = tempfile::tempdir().unwrap();
        for (watch, words) in
            [(dir.path().join("none"), "No such file"), ("x".into(), "absolute"), (dir.path().into(), "neither")]
        {
            let error = offer(&watch, b"").unwrap_err().to_string();
            assert!(error.starts_with(WATCH_VAR) && error.contains(words), "{error}");
        }
        let error = from_vars(|name| Some(if name == WATCH_VAR { "/x" } else { "?" }.into())).unwrap_err();
        assert!(error.to_string().starts_with("MEMORY_PRESSURE_WRITE=\"?\""), "{error}");
    }

    #[test]
    fn a_file_gets_the_trigger_and_is_polled_for_pri() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.pressure");
        std::fs::write(&file, "").unwrap();
        let wake = wake(offer(&file, b"some 200000 2000000\0"));
        assert_eq!(wake.kind, WakeKind::Pressure);
        assert_eq!(std::fs::metadata(&file).unwrap().len(), 20);
        // The kernel's own file takes it too, where it has one.
        let real = Path::new("/proc/pressure/memory");
        if real.exists() {
            assert_eq!(self::wake(offer(real, b"some 200000 2000000\0")).kind, WakeKind::Pressure);
        }
    }

    #[test]
    fn a_fifo_is_ready_when_it_was_written_to_and_outlives_its_writers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let wake = wake(offer(&path, b""));
        for _ in 0..2 {
            assert!(!is_ready(&wake));
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(&[1; 3000]).unwrap();
            assert!(is_ready(&wake));
            wake.clear().unwrap();
        }
        assert!(!is_ready(&wake));
    }

    #[test]
    fn a_socket_is_told_the_trigger_and_is_given_up_when_it_closes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let wake = wake(offer(&path, b"hello"));
        let (mut manager, _) = listener.accept().unwrap();
        let mut told = [0; 5];
        manager.read_exact(&mut told).unwrap();
        assert_eq!(&told, b"hello");
        assert!(!is_ready(&wake));
        manager.write_all(b"!").unwrap();
        assert!(is_ready(&wake));
        wake.clear().unwrap();
        assert!(!is_ready(&wake));
        drop(manager);
        assert!(is_ready(&wake));
        assert!(wake.clear().is_err());
    }
}
