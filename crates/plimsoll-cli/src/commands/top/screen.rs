//! The terminal of `top`: raw mode and the alternate screen, taken when it opens and given back when it is dropped, also
//! on a panic or a signal.
//!
//! Waits without polling: keys, SIGWINCH and the signals that end it arrive through descriptors; the only timeout is the
//! caller's next refresh. A frame is one `write`.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::termios::{OptionalActions, Termios, Winsize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};

use crate::view::text::Line;

/// Alternate screen, no cursor, no line wrap.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J";
/// The reverse, in reverse order.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// What is drawn between these appears at once, where the terminal knows them; others ignore them.
const BEGIN: &str = "\x1b[?2026h\x1b[H";
const END: &str = "\x1b[J\x1b[?2026l";

/// What happened while waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The time is up.
    Refresh,
    /// The terminal has another size.
    Resize,
    Up,
    Down,
    Quit,
    /// A signal asked for the end: its number.
    Signal(i32),
}

/// An open screen.
pub(super) struct Screen {
    before: Termios,
    signals: Vec<(i32, UnixStream, signal_hook::SigId)>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When stdin or stdout is no terminal.
    pub(super) fn open() -> io::Result<Screen> {
        let stdin = rustix::stdio::stdin();
        let before = rustix::termios::tcgetattr(stdin)?;
        rustix::termios::tcgetwinsize(rustix::stdio::stdout())?;
        let mut signals = Vec::with_capacity(4);
        for signal in [SIGWINCH, SIGTERM, SIGINT, SIGHUP] {
            let (ours, theirs) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            theirs.set_nonblocking(true)?;
            signals.push((signal, ours, signal_hook::low_level::pipe::register(signal, theirs)?));
        }
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw)?;
        let screen = Screen { before: before.clone(), signals };
        // A panic says what happened on the screen that stays.
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore(&before);
            previous(info);
        }));
        write(ENTER)?;
        Ok(screen)
    }

    /// Columns and rows now; 80 x 24 where the terminal does not say.
    pub(super) fn size() -> (usize, usize) {
        match rustix::termios::tcgetwinsize(rustix::stdio::stdout()) {
            Ok(Winsize { ws_col, ws_row, .. }) if ws_col > 0 && ws_row > 0 => (ws_col.into(), ws_row.into()),
            _ => (80, 24),
        }
    }

    /// Shows a frame.
    pub(super) fn show(&self, lines: &[Line], colour: bool) -> io::Result<()> {
        let mut out = String::with_capacity(8 * 1024);
        out.push_str(BEGIN);
        for (i, line) in lines.iter().enumerate() {
            if i > 0 {
                out.push_str("\r\n");
            }
            line.write(&mut out, colour);
            out.push_str("\x1b[K");
        }
        out.push_str(END);
        write(&out)
    }

    /// Waits for a key, a signal or the end of `wait`.
    pub(super) fn wait(&mut self, wait: Duration) -> io::Result<Event> {
        let timeout = Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let stdin = rustix::stdio::stdin();
        let mut fds = vec![PollFd::new(&stdin, PollFlags::IN)];
        fds.extend(self.signals.iter().map(|(_, stream, _)| PollFd::new(stream, PollFlags::IN)));
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Ok(Event::Refresh),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let keys = fds[0].revents();
        for (signal, stream, _) in &mut self.signals {
            let mut piece = [0; 16];
            if matches!(stream.read(&mut piece), Ok(n) if n > 0) {
                return Ok(if *signal == SIGWINCH { Event::Resize } else { Event::Signal(*signal) });
            }
        }
        if keys.intersects(PollFlags::HUP | PollFlags::ERR) && !keys.contains(PollFlags::IN) {
            return Ok(Event::Quit);
        }
        if keys.contains(PollFlags::IN) {
            let mut piece = [0; 64];
            let n = rustix::io::read(stdin, &mut piece)?;
            return Ok(if n == 0 { Event::Quit } else { key(&piece[..n]) });
        }
        Ok(Event::Resize)
    }
}

/// What a key, or the escape sequence of one, asks for. Anything else asks for another look.
fn key(bytes: &[u8]) -> Event {
    match bytes {
        b"q" | b"Q" | b"\x1b" | b"\x03" | b"\x04" => Event::Quit,
        b"k" | b"\x1b[A" | b"\x1bOA" => Event::Up,
        b"j" | b"\t" | b"\x1b[B" | b"\x1bOB" => Event::Down,
        _ => Event::Resize,
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        for (_, _, id) in &self.signals {
            signal_hook::low_level::unregister(*id);
        }
        restore(&self.before);
    }
}

/// Gives the terminal back. What fails here has nobody left to be told.
fn restore(before: &Termios) {
    drop(write(LEAVE));
    drop(rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before));
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_their_escape_sequences() {
        for (bytes, event) in [
            (&b"q"[..], Event::Quit),
            (b"\x1b", Event::Quit),
            (b"\x03", Event::Quit),
            (b"\x1b[A", Event::Up),
            (b"\x1bOB", Event::Down),
            (b"j", Event::Down),
            (b"x", Event::Resize),
            (b"\x1b[200~", Event::Resize),
        ] {
            assert_eq!(key(bytes), event, "{bytes:?}");
        }
    }
}
