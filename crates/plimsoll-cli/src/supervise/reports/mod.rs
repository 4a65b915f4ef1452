//! What the program tells by itself: the socket that reports and sd_notify messages come to, and what is kept of them.
//!
//! One datagram socket `DIR/NAME/report.sock` (0600), read by the supervise loop: at most [`BATCH`] datagrams a turn and
//! [`PER_SECOND`] (256) a second, then it is left alone until the second is over, the kernel's queue is full and the sender drops. Each
//! sender's pid comes from the kernel; one that is not of the program's tree is not heard. Kept are one report and one that is
//! coming for each of 4 processes, about 60 KiB each at the very most. What is not taken is counted with its reason.
//!
//! A supervisor that dies leaves the socket behind; the next one binds the same path, and the program, which names the path with each
//! datagram, is heard again with its next report.

mod keep;
pub(crate) mod offer;
pub(crate) mod relay;
#[cfg(test)]
mod tests;

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll::clock::{Clock as _, MonotonicClock};
use plimsoll::report::wire::{self, DATAGRAM_BYTES_MAX, Malformed};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

use crate::snapshot::report::{LastWordsView, ReportsView};
use crate::web::socket;
use keep::{Keep, Refused};
use relay::Relay;

/// Datagrams that are read before the loop looks at other things.
const BATCH: u32 = 32;
/// Datagrams that are read in a second.
const PER_SECOND: u32 = 256;
/// Descriptors that come with one message (and are closed at once).
const DESCRIPTORS: usize = 16;
/// What a program that said that it leaves may take beyond its own deadline to be believed: it was told to exit at that, and reaping takes a moment.
const BELIEVED: Duration = Duration::from_secs(10);

/// Why a datagram, or a line of one, was not taken.
const REASONS: [&str; 6] = ["malformed", "too-long", "version", "foreign", "incomplete", "too-many"];

/// The receiving end.
#[derive(Debug)]
pub(crate) struct Reports {
    socket: OwnedFd,
    path: PathBuf,
    inner: Mutex<Inner>,
    received: AtomicU64,
    refused: [AtomicU64; REASONS.len()],
}

#[derive(Debug)]
struct Inner {
    keep: Keep,
    relay: Relay,
    buffer: Box<[u8; DATAGRAM_BYTES_MAX + 1]>,
    /// The second in which datagrams are counted, and how many there were.
    second: Duration,
    count: u32,
    /// Up to where it was told that a process leaves.
    told: Option<Duration>,
}

/// One datagram as it came.
struct Came {
    bytes: usize,
    cut: bool,
    pid: i32,
}

impl Reports {
    /// Binds the socket; a dead predecessor's is replaced. The caller holds the name's lock, so there is no living one.
    ///
    /// # Errors
    /// What the kernel says, or that something else is at that path.
    pub(crate) fn bind(path: &Path, relay: Relay) -> io::Result<Reports> {
        Ok(Reports {
            socket: socket::bind_datagram(path)?,
            path: path.to_owned(),
            inner: Mutex::new(Inner {
                keep: Keep::default(),
                relay,
                buffer: Box::new([0; DATAGRAM_BYTES_MAX + 1]),
                second: Duration::ZERO,
                count: 0,
                told: None,
            }),
            received: AtomicU64::new(0),
            refused: Default::default(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What to poll; `None`: nothing more is read in this second, which ends at the given time.
    pub(crate) fn poll(&self) -> Result<BorrowedFd<'_>, Duration> {
        let inner = self.inner.lock();
        let over = inner.second + Duration::from_secs(1);
        if inner.count < PER_SECOND || MonotonicClock.now() >= over { Ok(self.socket.as_fd()) } else { Err(over) }
    }

    /// Reads what waits. `main` is the program's main process, `members` looks for all of them.
    pub(crate) fn hear(&self, main: Option<i32>, members: &mut dyn FnMut() -> Vec<i32>) {
        let now = MonotonicClock.now();
        let mut inner = self.inner.lock();
        let Inner { keep, relay, buffer, second, count, .. } = &mut *inner;
        if now.saturating_sub(*second) >= Duration::from_secs(1) {
            (*second, *count) = (now, 0);
        }
        for _ in 0..BATCH.min(PER_SECOND - *count) {
            let Ok(came) = receive(&self.socket, &mut buffer[..]) else { return };
            *count += 1;
            // Who reported before may have ended meanwhile: its last words count.
            let known = Some(came.pid) == main || keep.knows(came.pid);
            if main.is_none() || !(known || members().contains(&came.pid)) {
                self.refuse("foreign");
            } else if came.cut {
                self.refuse("too-long");
            } else {
                self.take(keep, relay, &buffer[..came.bytes], came.pid, now);
            }
        }
    }

    /// Reads all that waits, at the end of a life: its last words may be behind whatever came before them.
    pub(crate) fn hear_rest(&self, main: Option<i32>, members: &mut dyn FnMut() -> Vec<i32>) {
        for _ in 0..PER_SECOND / BATCH {
            self.inner.lock().count = 0;
            self.hear(main, members);
        }
    }

    fn take(&self, keep: &mut Keep, relay: &mut Relay, bytes: &[u8], pid: i32, now: Duration) {
        let taken = match wire::read(bytes) {
            Ok(datagram) => {
                let mut refuse = |why| {
                    self.refuse(match why {
                        Refused::Incomplete => "incomplete",
                        Refused::TooMany => "too-many",
                    });
                };
                keep.take(pid, datagram, now, &mut refuse);
                Ok(())
            }
            Err(Malformed::NoReport) if relay.take(bytes, std::process::id()) => Ok(()),
            Err(Malformed::TooLong) => Err("too-long"),
            Err(Malformed::Version) => Err("version"),
            Err(Malformed::NoReport | Malformed::Line(_)) => Err("malformed"),
        };
        match taken {
            Ok(()) => drop(self.received.fetch_add(1, Ordering::Relaxed)),
            Err(reason) => self.refuse(reason),
        }
    }

    fn refuse(&self, reason: &str) {
        if let Some(at) = REASONS.iter().position(|known| *known == reason) {
            self.refused[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the program that just ended with `code` had said that it leaves for memory, and its words.
    ///
    /// The main process is believed whatever its code is; another one of its tree (behind a shell) only when the code is that of
    /// a watchdog, 2. Neither is when it lived on for long after it said so.
    pub(crate) fn left_for_memory(&self, main: i32, code: Option<i32>) -> Option<(Duration, LastWordsView)> {
        let now = MonotonicClock.now();
        let inner = self.inner.lock();
        let behind = || inner.keep.left(None).filter(|_| code == Some(i32::from(plimsoll::watchdog::EXIT_MEMORY)));
        let (said_at, words) = inner.keep.left(Some(main)).filter(|_| code.is_some()).or_else(behind)?;
        let deadline = Duration::try_from_secs_f64(words.deadline_seconds).unwrap_or(Duration::MAX);
        let believed = now.saturating_sub(said_at) <= deadline.saturating_add(BELIEVED);
        believed.then(|| (said_at, words.clone()))
    }

    /// The words of a process that said that it leaves, once.
    pub(crate) fn news(&self) -> Option<LastWordsView> {
        let mut inner = self.inner.lock();
        let (said_at, words) = inner.keep.left(None)?;
        let news = (inner.told != Some(said_at)).then(|| words.clone());
        inner.told = Some(said_at);
        news
    }

    /// Another life begins: nothing of the one before is about it.
    pub(crate) fn new_life(&self) {
        let mut inner = self.inner.lock();
        inner.keep.clear();
        inner.relay.new_life();
    }

    /// Speaks to the manager above, or reads what it wants.
    pub(crate) fn relay<R>(&self, call: impl FnOnce(&Relay) -> R) -> R {
        call(&self.inner.lock().relay)
    }

    /// What is shown.
    pub(crate) fn view(&self, main: Option<i32>) -> ReportsView {
        let now = MonotonicClock.now();
        let inner = self.inner.lock();
        let refused = REASONS.iter().zip(&self.refused);
        ReportsView {
            processes: inner.keep.views(main, now),
            received_total: self.received.load(Ordering::Relaxed),
            refused_total: refused.map(|(reason, n)| ((*reason).to_owned(), n.load(Ordering::Relaxed))).collect(),
            notify: inner.relay.view(),
        }
    }
}

impl AsFd for Reports {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Takes one datagram, with its sender as the kernel names it. Descriptors that come along are closed.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Came> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let got = rustix::io::retry_on_intr(|| recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags))?;
    let mut pid = 0;
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmCredentials(sender) => pid = sender.pid.as_raw_nonzero().get(),
            RecvAncillaryMessage::ScmRights(descriptors) => drop(descriptors),
            _ => {}
        }
    }
    Ok(Came { bytes: got.bytes.min(buffer.len()), cut: got.flags.contains(ReturnFlags::TRUNC), pid })
}
