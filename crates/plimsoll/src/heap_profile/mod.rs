//! Heap profiles of a service whose allocator is jemalloc, on request of the supervisor it runs under.
//!
//! One thread, asleep in `read` until it is asked; a profile takes jemalloc 0.2 ms and some 10 KB of disk. Without a supervisor
//! (`PLIMSOLL_HEAP_SOCKET` not set) nothing is started. A supervisor that dies is looked for again every [`RETRY`]; nothing is
//! kept meanwhile, so nothing grows.
//!
//! jemalloc has to sample since the start: `_RJEM_MALLOC_CONF=prof:true,lg_prof_sample:19`, or the program's own `malloc_conf`; it
//! costs about 2 % of an allocation-heavy program at one sample in 512 KiB. Where it does not, a request is answered with that.
//!
//! # Examples
//! ```no_run
//! // At the start of main; kept until its end.
//! let _profiles = plimsoll::heap_profile::from_env()?;
//! # Ok::<(), plimsoll::heap_profile::HeapProfileError>(())
//! ```

mod sys;

use std::ffi::CString;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// How long until a supervisor that is gone is looked for again: 5 s.
pub const RETRY: Duration = Duration::from_secs(5);
/// The variable with the path of the supervisor's socket.
pub const SOCKET_ENV: &str = "PLIMSOLL_HEAP_SOCKET";
/// The longest question that is read, in bytes.
const QUESTION_BYTES_MAX: u64 = 8192;
/// How long an answer may wait for a supervisor that does not read.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeapProfileError {
    /// jemalloc refuses; `EAGAIN` or `ENOENT` when it does not sample.
    #[error("jemalloc writes no profile to {} (error {errno}); does it sample? set _RJEM_MALLOC_CONF=prof:true", path.display())]
    Refused {
        /// Where it should have gone.
        path: PathBuf,
        /// The system's number for why.
        errno: i32,
    },
    /// A path with a zero byte.
    #[error("{} cannot be a path: it holds a zero byte", .0.display())]
    Path(PathBuf),
    /// No thread can be had.
    #[error("cannot start the thread that answers the supervisor: {0}")]
    Thread(#[source] io::Error),
}

/// Writes a profile of what lives now to `path`, in jemalloc's `heap_v2` text.
///
/// # Errors
/// [`HeapProfileError::Refused`] when jemalloc does not sample or cannot write there.
pub fn dump(path: &Path) -> Result<(), HeapProfileError> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| HeapProfileError::Path(path.to_owned()))?;
    sys::dump(&name).map_err(|errno| HeapProfileError::Refused { path: path.to_owned(), errno })
}

/// Answers the supervisor until it is dropped.
#[derive(Debug)]
pub struct HeapProfiles {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    stopped: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    stop: bool,
    /// To end a read that waits.
    stream: Option<UnixStream>,
}

/// Starts answering the supervisor that [`SOCKET_ENV`] names; `None` without one.
///
/// # Errors
/// [`HeapProfileError::Thread`].
pub fn from_env() -> Result<Option<HeapProfiles>, HeapProfileError> {
    match std::env::var_os(SOCKET_ENV).filter(|path| !path.is_empty()) {
        Some(path) => start(PathBuf::from(path)).map(Some),
        None => Ok(None),
    }
}

/// Starts answering the supervisor whose socket is at `path`.
///
/// # Errors
/// [`HeapProfileError::Thread`].
pub fn start(path: PathBuf) -> Result<HeapProfiles, HeapProfileError> {
    let shared = Arc::new(Shared::default());
    let own = Arc::clone(&shared);
    let thread = std::thread::Builder::new()
        .name("heap-profile".into())
        .spawn(move || own.serve(&path))
        .map_err(HeapProfileError::Thread)?;
    Ok(HeapProfiles { shared, thread: Some(thread) })
}

impl Drop for HeapProfiles {
    fn drop(&mut self) {
        let mut inner = self.shared.inner.lock();
        inner.stop = true;
        if let Some(stream) = &inner.stream {
            // Ended already: then nobody waits for it.
            stream.shutdown(std::net::Shutdown::Both).ok();
        }
        drop(inner);
        self.shared.stopped.notify_all();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn serve(&self, path: &Path) {
        loop {
            // Nobody there, or they left: in either case they are looked for again.
            self.converse(path).ok();
            let mut inner = self.inner.lock();
            inner.stream = None;
            if !inner.stop {
                self.stopped.wait_while_for(&mut inner, |inner| !inner.stop, RETRY);
            }
            if inner.stop {
                return;
            }
        }
    }

    fn converse(&self, path: &Path) -> io::Result<()> {
        let mut stream = UnixStream::connect(path)?;
        stream.set_write_timeout(Some(ANSWER_TIME))?;
        {
            let mut inner = self.inner.lock();
            if inner.stop {
                return Ok(());
            }
            inner.stream = Some(stream.try_clone()?);
        }
        stream.write_all(format!("plimsoll-heap/1 heap plimsoll {}\n", env!("CARGO_PKG_VERSION")).as_bytes())?;
        let mut questions = BufReader::new(stream.try_clone()?);
        let mut line = Vec::new();
        loop {
            line.clear();
            (&mut questions).take(QUESTION_BYTES_MAX).read_until(b'\n', &mut line)?;
            // The end, or a line that is longer than any question.
            let Some(question) = line.strip_suffix(b"\n") else { return Ok(()) };
            stream.write_all(answer(question).as_bytes())?;
        }
    }
}

fn answer(question: &[u8]) -> String {
    use std::ffi::OsStr;
    match question.strip_prefix(b"profile ") {
        Some(path) => match dump(Path::new(OsStr::from_bytes(path))) {
            Ok(()) => "ok\n".to_owned(),
            Err(error) => format!("err {error}\n"),
        },
        None if question == b"count" => "err jemalloc does not count objects\n".to_owned(),
        None => "err unknown question\n".to_owned(),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_supervisor_is_greeted_answered_and_left_when_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heap.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let profiles = start(path).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut answers = BufReader::new(stream.try_clone().unwrap());
        let mut next = || {
            let mut line = String::new();
            answers.read_line(&mut line).unwrap();
            line
        };
        assert!(next().starts_with("plimsoll-heap/1 heap plimsoll "));
        stream.write_all(b"count\nwhat\nprofile /nonexistent/dir/x.heap\n").unwrap();
        assert_eq!(next(), "err jemalloc does not count objects\n");
        assert_eq!(next(), "err unknown question\n");
        assert!(next().starts_with("err jemalloc writes no profile to /nonexistent/dir/x.heap"));
        drop(profiles);
        assert_eq!(next(), "", "it has left");
    }

    #[test]
    fn dropping_does_not_wait_for_a_supervisor_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        drop(start(dir.path().join("nobody")).unwrap());
        assert!(matches!(dump(Path::new("a\0b")), Err(HeapProfileError::Path(_))));
    }
}
