//! Signals to Plimsoll itself: one bit each and one eventfd, so that a handler is an atomic or and a write.
//!
//! Bounded by construction: a signal that comes twice before the loop looks is one signal, as the kernel has it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::EventfdFlags;
use signal_hook::SigId;

use super::sys;

/// Wakes the supervise loop from any thread, and from a signal handler.
#[derive(Clone, Debug)]
pub(crate) struct Waker(Arc<OwnedFd>);

impl Waker {
    /// A new eventfd.
    pub(crate) fn new() -> io::Result<Waker> {
        let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Waker(Arc::new(fd)))
    }

    /// Makes the descriptor ready. Never blocks; async-signal-safe.
    pub(crate) fn wake(&self) {
        // The only failure is a counter that is full, and then it is ready already.
        rustix::io::write(&*self.0, &1_u64.to_ne_bytes()).ok();
    }

    /// Makes it unready again.
    pub(crate) fn clear(&self) {
        let mut count = [0_u8; 8];
        rustix::io::read(&*self.0, &mut count).ok();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The signals that are taken: asked to end, passed on, children, job control.
const TAKEN: [i32; 9] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGWINCH,
    libc::SIGCHLD,
    libc::SIGCONT,
];

/// The handlers; removed when dropped.
#[derive(Debug)]
pub(crate) struct Signals {
    pending: Arc<AtomicU64>,
    ids: Vec<SigId>,
}

impl Signals {
    /// Installs the handlers. A SIGHUP, SIGINT or SIGQUIT that is ignored when Plimsoll starts stays ignored, for it and for the
    /// child (`nohup plimsoll run …`, or a job that a shell started with `&`).
    pub(crate) fn install(waker: &Waker) -> io::Result<Signals> {
        let ignored = ignored_signals();
        let pending = Arc::new(AtomicU64::new(0));
        let mut ids = Vec::with_capacity(TAKEN.len());
        for signal in TAKEN {
            let may_stay = matches!(signal, libc::SIGHUP | libc::SIGINT | libc::SIGQUIT);
            if may_stay && ignored & (1 << (signal - 1)) != 0 {
                continue;
            }
            let (pending, waker) = (Arc::clone(&pending), waker.clone());
            ids.push(sys::on_signal(signal, move || {
                pending.fetch_or(1 << signal, Ordering::SeqCst);
                waker.wake();
            })?);
        }
        // Plimsoll may write to its terminal from the background, where the child is in the foreground.
        sys::ignore(libc::SIGTTOU);
        sys::ignore(libc::SIGTTIN);
        Ok(Signals { pending, ids })
    }

    /// Takes the signals that came since the last call.
    pub(crate) fn take(&self) -> impl Iterator<Item = i32> {
        let pending = self.pending.swap(0, Ordering::SeqCst);
        TAKEN.into_iter().filter(move |signal| pending & (1 << signal) != 0)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

/// The `SigIgn` mask of this process: bit n − 1 for signal n.
fn ignored_signals() -> u64 {
    let mut buffer = [0_u8; 4096];
    let text = super::files::read_small("/proc/self/status", &mut buffer).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_seen_once_and_wakes() {
        let waker = Waker::new().unwrap();
        let signals = Signals::install(&waker).unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::USR2).unwrap();
        let mut fds = [rustix::event::PollFd::new(&waker, rustix::event::PollFlags::IN)];
        let patience = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut fds, Some(&patience)).unwrap(), 1);
        waker.clear();
        assert!(signals.take().any(|signal| signal == libc::SIGUSR2));
        assert!(signals.take().all(|signal| signal != libc::SIGUSR2));
    }
}
