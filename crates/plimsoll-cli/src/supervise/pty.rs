//! `--pty`: a terminal of its own for the program, and Plimsoll's stdin passed into it.
//!
//! The supervisor keeps the slave open, so that the master does not end between two lives. A thread `stdin` copies at most
//! [`CHUNK_BYTES`] (4 KiB) at a time and sleeps otherwise; where stdin is a terminal it is raw meanwhile, so that ^C
//! reaches the program's terminal and not us. At the end of stdin the program gets ^D.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Termios};

use super::sys;

/// What is passed on at once.
const CHUNK_BYTES: usize = 4096;
/// End of transmission, as a terminal's user types it.
const END: u8 = 4;

/// Both ends of a pseudo-terminal.
#[derive(Debug)]
pub(crate) struct Pty {
    /// The supervisor's.
    pub(crate) master: OwnedFd,
    /// The program's stdin, stdout and stderr.
    pub(crate) slave: OwnedFd,
}

impl Pty {
    /// A new one, as large as the terminal on stdin where there is one.
    pub(crate) fn open() -> io::Result<Pty> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let slave = rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::ioctl_fionbio(&master, true)?;
        let pty = Pty { master, slave };
        resize(&pty.slave);
        Ok(pty)
    }
}

/// Makes the program's terminal as large as ours; the kernel tells the program (SIGWINCH).
pub(crate) fn resize(slave: impl AsFd) {
    if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
        // A terminal that refuses its size keeps the old one.
        rustix::termios::tcsetwinsize(slave, size).ok();
    }
}

/// The copying thread. Dropping it ends it and puts the terminal's modes back.
pub(crate) struct Typing {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
    modes: Option<Termios>,
}

impl Typing {
    /// Copies stdin into `master` from now on.
    pub(crate) fn start(master: &OwnedFd) -> io::Result<Typing> {
        let modes = rustix::termios::tcgetattr(rustix::stdio::stdin()).ok();
        if let Some(modes) = &modes {
            let mut raw = modes.clone();
            raw.make_raw();
            rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw)?;
        }
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (master, stopped) = (sys::duplicate(master)?, sys::duplicate(&stop)?);
        let thread = std::thread::Builder::new()
            .name("stdin".to_owned())
            .stack_size(64 << 10)
            .spawn(move || copy(&master, &stopped))?;
        Ok(Typing { stop, thread: Some(thread), modes })
    }
}

impl Drop for Typing {
    fn drop(&mut self) {
        rustix::io::write(&self.stop, &1_u64.to_ne_bytes()).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
        if let Some(modes) = &self.modes {
            rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, modes).ok();
        }
    }
}

fn copy(master: &OwnedFd, stop: &OwnedFd) {
    let mut chunk = [0_u8; CHUNK_BYTES];
    loop {
        let stdin = rustix::stdio::stdin();
        let mut fds = [PollFd::new(stop, PollFlags::IN), PollFd::new(&stdin, PollFlags::IN)];
        if rustix::event::poll(&mut fds, None).is_err() {
            continue;
        }
        if !fds[0].revents().is_empty() {
            return;
        }
        let (bytes, ended) = match rustix::io::read(stdin, &mut chunk) {
            Ok(0) | Err(rustix::io::Errno::IO) => {
                chunk[0] = END;
                (1, true)
            }
            Ok(bytes) => (bytes, false),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => continue,
            Err(_) => return,
        };
        if !pass_on(master, stop, &chunk[..bytes]) || ended {
            return;
        }
    }
}

/// Writes all of it, however long the program takes to read, unless it is time to stop.
fn pass_on(master: &OwnedFd, stop: &OwnedFd, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(master, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(rustix::io::Errno::AGAIN) => {
                let mut fds = [PollFd::new(stop, PollFlags::IN), PollFd::new(master, PollFlags::OUT)];
                if rustix::event::poll(&mut fds, None).is_ok() && !fds[0].revents().is_empty() {
                    return false;
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}
