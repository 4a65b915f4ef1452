//! Incident 3, the dashboard: clients that read beside clients that stall, under a real kernel limit, with the bound and without.
//!
//! [`WATCHING`] clients read everything and check the numbers; [`STALLED`] shake hands and do not read on. A protected run holds when the
//! kernel killed nothing, memory stayed flat, every stalled client was removed, counted and finds close code 1013 when it reads at last,
//! and nobody who reads missed a frame. The control differs by one flag and holds when the kernel killed it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cgroup::TestGroup;
use crate::launch::{self, Running};
use crate::{clock, product};

/// The kernel kills at this, in bytes.
pub const LIMIT_BYTES: u64 = 64 << 20;
/// Clients that read.
pub const WATCHING: usize = 60;
/// Clients that stall.
pub const STALLED: usize = 40;
/// Events a second.
pub const RATE: u32 = 1_000;
/// What a client may be behind.
pub const BOUND: &str = "1M";
/// The payload of an event, in bytes.
const EVENT_BYTES: usize = 1_000;
/// What a socket's buffer takes: little, so that the service's own memory is what grows.
pub const SEND_BUFFER_BYTES: u32 = 16 << 10;
/// How long the dashboard runs.
const SECONDS: u64 = 8;

/// A text frame (RFC 6455, 5.2: final, unmasked, 16-bit length) with the event of this number.
pub fn event_frame(number: u64) -> Vec<u8> {
    let mut frame = vec![0x81, 126];
    frame.extend_from_slice(&(EVENT_BYTES as u16).to_be_bytes());
    let head = format!("{{\"type\":\"event\",\"number\":{number:012},\"text\":\"");
    frame.extend_from_slice(head.as_bytes());
    frame.resize(4 + EVENT_BYTES - 2, b'x');
    frame.extend_from_slice(b"\"}");
    frame
}

/// A close frame with this code.
pub fn close_frame(code: u16) -> [u8; 4] {
    let [high, low] = code.to_be_bytes();
    [0x88, 2, high, low]
}

/// What a client reads.
#[derive(Debug, PartialEq, Eq)]
enum Frame {
    Event(u64),
    Close(u16),
}

/// Reads one frame; `None` at the end of the stream.
fn read_frame(stream: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut head = [0; 4];
    match stream.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let [kind, length, high, low] = head;
    if kind == 0x88 {
        return Ok(Some(Frame::Close(u16::from_be_bytes([high, low]))));
    }
    let mut payload = vec![0; usize::from(u16::from_be_bytes([high, low]))];
    stream.read_exact(&mut payload)?;
    let text = String::from_utf8_lossy(&payload);
    let number = text.split("\"number\":").nth(1).and_then(|rest| rest.get(..12)?.parse().ok());
    match number {
        Some(number) if kind == 0x81 && length == 126 && payload.ends_with(b"\"}") => Ok(Some(Frame::Event(number))),
        _ => Err(io::Error::other(format!("not a frame of ours: {head:?}"))),
    }
}

fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"GET /live HTTP/1.1\r\nupgrade: websocket\r\n\r\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") && answer.len() < 1024 {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.extend_from_slice(&byte);
    }
    Ok(stream)
}

/// What a client that reads saw.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    frames: u64,
    gaps: u64,
    closed: Option<u16>,
}

fn watch(server: SocketAddr) -> io::Result<Watched> {
    let (mut stream, mut seen) = (io::BufReader::new(connect(server)?), Watched::default());
    let mut next = None;
    // The end comes with the server: a reset, or in the middle of a frame, when it is killed.
    while let Ok(Some(frame)) = read_frame(&mut stream) {
        match frame {
            Frame::Event(number) => {
                seen.gaps += u64::from(next.is_some_and(|next| next != number));
                (next, seen.frames) = (Some(number + 1), seen.frames + 1);
            }
            Frame::Close(code) => seen.closed = Some(code),
        }
    }
    Ok(seen)
}

/// Does not read until told; then everything that is there. The close code, if that is the last thing.
fn stall(server: SocketAddr, go_on: &AtomicBool) -> io::Result<Option<u16>> {
    let mut stream = connect(server)?;
    while !go_on.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut last = None;
    while let Ok(Some(frame)) = read_frame(&mut stream) {
        last = Some(frame);
    }
    Ok(match last {
        Some(Frame::Close(code)) => Some(code),
        _ => None,
    })
}

/// One run that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The exit code, if it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Kernel OOM kills in its group.
    pub oom_kills: u64,
    /// How long it ran, in seconds.
    pub seconds: f64,
    /// The most that its group was charged with, and what it was after a second, in bytes.
    pub peak_bytes: u64,
    /// See `peak_bytes`.
    pub early_bytes: u64,
    /// Stalled clients that found close code 1013 as the last thing.
    pub told_1013: usize,
    /// Clients that the dashboard counted as removed.
    pub counted: usize,
    /// The fewest frames that a client which reads got.
    pub frames: u64,
    /// Frames that those missed, all together, and closes that they got.
    pub gaps: u64,
}

/// Runs the dashboard in a group with the limit. `protected` is the one flag.
///
/// # Errors
/// A sentence that says why it cannot be run here.
pub fn run(protected: bool) -> Result<Ended, String> {
    let group = TestGroup::new("incident-3", Some(LIMIT_BYTES))?;
    let dir = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
    let seconds = SECONDS.to_string();
    let mut command =
        launch::command(&product::built("plimsoll-incident-3")?, ["dashboard", "--seconds", &seconds], Some(&group));
    if protected {
        command.args(["--bound", BOUND]);
    }
    let mut running = Running::start(command, dir.path())?;
    let began = clock::monotonic_ns();
    let listening = || running.stdout().lines().find_map(|line| line.strip_prefix("listening ")?.parse().ok());
    let server: Option<SocketAddr> = clock::wait_for(Duration::from_secs(20), Duration::from_millis(10), listening);
    let server = server.ok_or_else(|| format!("it does not listen: {}", running.stderr()))?;
    let removed = |running: &Running| {
        let said = running.stdout();
        said.lines().rev().find_map(|line| line.strip_prefix("removed ")?.parse::<usize>().ok()).unwrap_or(0)
    };
    let go_on = AtomicBool::new(false);
    let (mut peak_bytes, mut early_bytes) = (0, 0);
    let (watched, told) = std::thread::scope(|scope| {
        let watching: Vec<_> = (0..WATCHING).map(|_| scope.spawn(|| watch(server))).collect();
        let stalling: Vec<_> = (0..STALLED).map(|_| scope.spawn(|| stall(server, &go_on))).collect();
        let over = |running: &mut Running| running.wait(Duration::ZERO).is_some();
        let deadline = began + (SECONDS + 30) * 1_000_000_000;
        while !over(&mut running) && clock::monotonic_ns() < deadline {
            let used = group.usage_bytes().unwrap_or(0);
            peak_bytes = peak_bytes.max(used);
            if clock::monotonic_ns() - began < 1_000_000_000 {
                early_bytes = early_bytes.max(used);
            }
            // All were removed: now they read, and find out.
            if removed(&running) >= STALLED {
                go_on.store(true, Ordering::Release);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        go_on.store(true, Ordering::Release);
        // Only when it outlived its time: then nobody may wait for it.
        running.signal(rustix::process::Signal::KILL);
        let watched: Vec<_> = watching.into_iter().filter_map(|thread| thread.join().ok()?.ok()).collect();
        let told = stalling.into_iter().filter_map(|thread| thread.join().ok()?.ok()?).filter(|code| *code == 1013);
        (watched, told.count())
    });
    let status = running.wait(Duration::ZERO).ok_or("it still runs after its time")?;
    Ok(Ended {
        code: status.code(),
        signal: status.signal(),
        oom_kills: group.oom_kills().unwrap_or(0),
        seconds: ((clock::monotonic_ns() - began) as f64 / 1e8).round() / 10.0,
        peak_bytes,
        early_bytes,
        told_1013: told,
        counted: removed(&running),
        frames: watched.iter().map(|seen| seen.frames).min().unwrap_or(0),
        gaps: watched.iter().map(|seen| seen.gaps + u64::from(seen.closed.is_some())).sum::<u64>()
            + (WATCHING - watched.len()) as u64,
    })
}

impl Ended {
    /// Whether a protected run held.
    ///
    /// # Errors
    /// The first thing that does not hold, with its figures.
    pub fn held(&self) -> Result<(), String> {
        if self.oom_kills > 0 || self.code != Some(0) {
            return Err(format!("{} kills, exit code {:?}, signal {:?}", self.oom_kills, self.code, self.signal));
        }
        // The ring's mebibyte, sockets' buffers, and the code.
        let grown = self.peak_bytes.saturating_sub(self.early_bytes);
        if grown > 16 << 20 {
            return Err(format!("it grew by {} MiB", grown >> 20));
        }
        if self.counted != STALLED || self.told_1013 != STALLED {
            return Err(format!("{} of {STALLED} counted as removed, {} told 1013", self.counted, self.told_1013));
        }
        if self.gaps > 0 || self.frames < u64::from(RATE) {
            return Err(format!("{} frames at least, {} missed", self.frames, self.gaps));
        }
        Ok(())
    }

    /// Whether the control failed as it must: killed by the kernel.
    ///
    /// # Errors
    /// What happened instead.
    pub fn killed(&self) -> Result<(), String> {
        let killed = self.signal == Some(9) || self.code == Some(137);
        if self.oom_kills > 0 && killed { Ok(()) } else { Err(format!("not killed by the kernel: {self:?}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written() {
        let mut bytes = [event_frame(7), event_frame(123_456_789_012)].concat();
        assert_eq!(bytes.len(), 2 * (EVENT_BYTES + 4));
        bytes.extend(close_frame(1013));
        let mut stream = &bytes[..];
        let mut next = || read_frame(&mut stream).unwrap();
        assert_eq!(next(), Some(Frame::Event(7)));
        assert_eq!(next(), Some(Frame::Event(123_456_789_012)));
        assert_eq!((next(), next()), (Some(Frame::Close(1013)), None));
        assert!(read_frame(&mut &event_frame(1)[..500]).is_err(), "cut");
    }
}
