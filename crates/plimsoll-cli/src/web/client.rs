//! The other end of the Unix socket: what `status`, `top` and `set` ask a supervisor, with a deadline.
//!
//! One request per connection, answers of at most [`ANSWER_BYTES_MAX`]; the whole exchange takes at most the deadline
//! ([`DEADLINE`] by default), so that a supervisor that is stopped or hung is told from one that is dead and one that
//! lives. Speaks HTTP/1.1 with `Connection: close` and reads to the end; no runtime, no thread.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use plimsoll::clock::{Clock, MonotonicClock};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::de::DeserializeOwned;

use super::{api, heap, socket};
use crate::snapshot::{DecisionView, Snapshot};

/// How long a supervisor has to answer; a live one takes about a millisecond.
pub(crate) const DEADLINE: Duration = Duration::from_secs(1);
/// The longest answer taken: a thousand decisions are below 1 MiB.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why there is no answer. The kinds matter: dead, hung and refused are shown differently.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// No socket, or nobody behind it: the supervisor is gone.
    #[error("no supervisor answers at {}", .0.display())]
    Gone(PathBuf),
    /// Somebody holds the socket and does not answer: stopped or hung.
    #[error("the supervisor does not answer: waited {:.1} s", .0.as_secs_f64())]
    Silent(Duration),
    /// The supervisor answered, and the answer is no.
    #[error("{text}")]
    Said {
        /// The HTTP status.
        status: u16,
        /// Its words.
        text: String,
    },
    /// What came back is no answer of a supervisor.
    #[error("the supervisor's answer cannot be read: {0}")]
    Garbled(String),
    /// The socket cannot be used (permissions, descriptors).
    #[error("the supervisor's socket cannot be used: {0}")]
    Io(#[from] io::Error),
}

/// Asks one supervisor.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    path: PathBuf,
    deadline: Duration,
}

impl Client {
    /// A client of the socket at `path`, with the default [`DEADLINE`].
    pub(crate) fn new(path: impl Into<PathBuf>) -> Client {
        Client { path: path.into(), deadline: DEADLINE }
    }

    /// The same with another deadline.
    pub(crate) fn deadline(mut self, deadline: Duration) -> Client {
        self.deadline = deadline;
        self
    }

    /// The state now.
    ///
    /// # Errors
    /// See [`ClientError`]; so for every method here.
    pub(crate) fn status(&self) -> Result<Snapshot, ClientError> {
        self.ask("GET", "/api/status", "")
    }

    /// The newest `max` decisions, oldest first.
    pub(crate) fn decisions(&self, max: usize) -> Result<Vec<DecisionView>, ClientError> {
        self.ask("GET", &format!("/api/decisions?max={max}"), "")
    }

    /// Changes budget and, when given, reserve. Returns the state after it.
    pub(crate) fn set_memory(&self, budget_bytes: u64, reserve_bytes: Option<u64>) -> Result<Snapshot, ClientError> {
        let body = serde_json::to_string(&api::MemoryRequest { memory: budget_bytes, reserve: reserve_bytes })
            .map_err(|error| ClientError::Garbled(error.to_string()))?;
        self.ask("PUT", "/api/memory", &body)
    }

    /// Asks for a clean stop; returns once that is accepted, not once it is done.
    pub(crate) fn stop(&self) -> Result<(), ClientError> {
        self.ask::<serde_json::Value>("POST", "/api/stop", "").map(drop)
    }

    /// Asks for a heap capture; returns its ticket.
    pub(crate) fn capture(&self) -> Result<u64, ClientError> {
        self.ask::<heap::Ticket>("POST", "/api/heap/snapshot", "").map(|ticket| ticket.ticket)
    }

    fn ask<T: DeserializeOwned>(&self, method: &str, target: &str, body: &str) -> Result<T, ClientError> {
        let until = MonotonicClock.now() + self.deadline;
        let mut stream = socket::connect(&self.path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::Gone(self.path.clone()),
            io::ErrorKind::WouldBlock => ClientError::Silent(Duration::ZERO),
            _ => ClientError::Io(error),
        })?;
        let request = format!(
            "{method} {target} HTTP/1.1\r\nhost: plimsoll\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.exchange(&mut stream, request.as_bytes(), until)?;
        let (status, text) = parse(&answer).ok_or_else(|| ClientError::Garbled(glimpse(&answer)))?;
        if !(200..300).contains(&status) {
            return Err(ClientError::Said { status, text: complaint(text) });
        }
        serde_json::from_slice(text).map_err(|error| ClientError::Garbled(format!("{error} in {}", glimpse(text))))
    }

    /// Writes the request and reads to the end of the answer, waiting in sum no longer than the deadline.
    fn exchange(&self, stream: &mut UnixStream, request: &[u8], until: Duration) -> Result<Vec<u8>, ClientError> {
        let mut unsent = request;
        let mut answer = Vec::new();
        let mut piece = [0; 16 * 1024];
        loop {
            let progress = if unsent.is_empty() { stream.read(&mut piece) } else { stream.write(unsent) };
            match progress {
                Ok(0) => return Ok(answer),
                Ok(n) if !unsent.is_empty() => unsent = &unsent[n..],
                Ok(n) if answer.len() + n > ANSWER_BYTES_MAX => {
                    return Err(ClientError::Garbled(format!("longer than {ANSWER_BYTES_MAX} bytes")));
                }
                Ok(n) => answer.extend_from_slice(&piece[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let wanted = if unsent.is_empty() { PollFlags::IN } else { PollFlags::OUT };
                    self.wait(stream, wanted, until)?;
                }
                // It was there and went away before or while answering: a supervisor that was killed just now.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                    return Err(ClientError::Gone(self.path.clone()));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wait(&self, stream: &UnixStream, wanted: PollFlags, until: Duration) -> Result<(), ClientError> {
        let left = until.saturating_sub(MonotonicClock.now());
        let silent = || ClientError::Silent(self.deadline);
        if left.is_zero() {
            return Err(silent());
        }
        let timeout = Timespec::try_from(left).map_err(|_| silent())?;
        match rustix::event::poll(&mut [PollFd::new(stream, wanted)], Some(&timeout)) {
            Ok(0) => Err(silent()),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}

/// Status and body of an answer that was read to its end; `None` when it is cut short or no HTTP.
fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let body = &answer[end + 4..];
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok()).flatten()
    })?;
    (body.len() == length).then_some((status, body))
}

/// The words of an error answer.
fn complaint(body: &[u8]) -> String {
    let words = serde_json::from_slice::<serde_json::Value>(body).ok();
    words.and_then(|w| w["error"].as_str().map(str::to_owned)).unwrap_or_else(|| glimpse(body))
}

/// The beginning of something unreadable, for an error.
fn glimpse(bytes: &[u8]) -> String {
    format!("{:?} ({} bytes)", String::from_utf8_lossy(&bytes[..bytes.len().min(60)]), bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_never_answers_is_silent_after_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _hung = socket::bind(&path).unwrap();
        let before = MonotonicClock.now();
        let error = Client::new(&path).deadline(Duration::from_millis(150)).status().unwrap_err();
        let took = MonotonicClock.now() - before;
        assert!(matches!(error, ClientError::Silent(_)), "{error}");
        assert!(took >= Duration::from_millis(150) && took < Duration::from_secs(2), "{took:?}");
    }

    #[test]
    fn no_socket_and_a_dead_one_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        assert!(matches!(Client::new(&path).status(), Err(ClientError::Gone(_))));
        drop(socket::bind(&path).unwrap());
        assert!(matches!(Client::new(&path).status(), Err(ClientError::Gone(_))));
    }

    #[test]
    fn answers_that_are_cut_or_foreign_are_not_believed() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(parse(whole), Some((200, &b"hi"[..])));
        for bad in [
            &whole[..whole.len() - 1],
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhigh",
            b"HTTP/1.1 200 OK\r\n\r\nhi",
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"",
        ] {
            assert_eq!(parse(bad), None, "{}", glimpse(bad));
        }
    }
}
