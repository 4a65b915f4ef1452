//! The socket to which programs connect that can say something of their heap: Node with our agent (`agent.cjs`), and services with
//! the library's feature `heap-profile`.
//!
//! One line each way, at most [`LINE_BYTES_MAX`]. A program greets with `plimsoll-heap/1 FORMAT WHO`; it is asked `count` or
//! `profile PATH` and answers `ok objects=N heap=BYTES` (either may be missing) or `err WHY`. Who it is, the kernel says
//! (`SO_PEERCRED`), not the program. Nothing here wakes up by itself: connections wait in the kernel's backlog until a capture
//! looks at them. At most [`PEERS_MAX`]; the oldest makes room. A program that does not answer is given up after the deadline.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use plimsoll::clock::{Clock as _, MonotonicClock};
use plimsoll_heap::format::Format;

use crate::web::socket;

/// The longest line.
const LINE_BYTES_MAX: usize = 8192;
/// The most connections kept.
pub(crate) const PEERS_MAX: usize = 64;
/// How long a greeting may take: it was sent when the program connected.
const GREETING: Duration = Duration::from_millis(200);

/// A program that answers.
#[derive(Debug)]
struct Peer {
    stream: UnixStream,
    pid: i32,
    format: Format,
    who: String,
}

/// What a program said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// At most so many objects, as far as they are sampled.
    pub(crate) objects: Option<u64>,
    /// Bytes of its heap.
    pub(crate) heap_bytes: Option<u64>,
}

/// The socket and who is connected.
#[derive(Debug)]
pub(crate) struct Agents {
    listener: UnixListener,
    peers: Vec<Peer>,
    refused_total: u64,
}

impl Agents {
    /// Listens at `path`, 0600.
    ///
    /// # Errors
    /// As [`socket::bind`].
    pub(crate) fn listen(path: &Path) -> io::Result<Agents> {
        let listener = socket::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Agents { listener, peers: Vec::new(), refused_total: 0 })
    }

    /// Takes in whoever connected, and lets go of who left.
    fn meet(&mut self) {
        self.peers.retain(|peer| is_there(&peer.stream));
        for _ in 0..PEERS_MAX {
            let Ok((stream, _)) = self.listener.accept() else { return };
            match greet(stream) {
                Some(peer) => {
                    self.peers.retain(|other| other.pid != peer.pid);
                    if self.peers.len() == PEERS_MAX {
                        self.peers.remove(0);
                    }
                    self.peers.push(peer);
                }
                None => self.refused_total += 1,
            }
        }
    }

    /// Which of `pids` are connected.
    pub(crate) fn connected(&mut self, pids: &[i32]) -> Vec<i32> {
        self.meet();
        self.peers.iter().map(|peer| peer.pid).filter(|pid| pids.contains(pid)).collect()
    }

    /// Who `pid` says it is.
    pub(crate) fn who(&self, pid: i32) -> Option<(&str, Format)> {
        self.peers.iter().find(|peer| peer.pid == pid).map(|peer| (peer.who.as_str(), peer.format))
    }

    /// Asks how many objects there are.
    ///
    /// # Errors
    /// Why there is no answer; then the connection is closed.
    pub(crate) fn count(&mut self, pid: i32, patience: Duration) -> Result<Figures, String> {
        self.ask(pid, "count", patience).map(|(figures, _)| figures)
    }

    /// Asks for a profile in the file `path`, which must not be there.
    ///
    /// # Errors
    /// Why there is no answer; then the connection is closed.
    pub(crate) fn profile(&mut self, pid: i32, path: &Path, patience: Duration) -> Result<(Figures, Format), String> {
        let path = path.to_str().filter(|path| !path.contains('\n')).ok_or("its path is no text of one line")?;
        self.ask(pid, &format!("profile {path}"), patience)
    }

    fn ask(&mut self, pid: i32, question: &str, patience: Duration) -> Result<(Figures, Format), String> {
        self.meet();
        let at = self.peers.iter().position(|peer| peer.pid == pid).ok_or_else(|| {
            format!("pid {pid} is not connected: it loads no agent, is busy starting, or may not reach the socket")
        })?;
        let peer = &mut self.peers[at];
        let answer = exchange(&mut peer.stream, question, patience);
        let format = peer.format;
        match answer {
            Ok(answer) => understood(&answer).map(|figures| (figures, format)),
            Err(error) => {
                self.peers.remove(at);
                Err(format!("pid {pid} does not answer: {error}"))
            }
        }
    }
}

fn is_there(stream: &UnixStream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready == 0)
}

fn greet(mut stream: UnixStream) -> Option<Peer> {
    let pid = rustix::net::sockopt::socket_peercred(&stream).ok()?.pid.as_raw_nonzero().get();
    let line = line(&mut stream, MonotonicClock.now() + GREETING).ok()?;
    let mut words = line.strip_prefix("plimsoll-heap/1 ")?.splitn(2, ' ');
    let format = words.next().and_then(Format::from_extension)?;
    let who = words.next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(64).collect();
    Some(Peer { stream, pid, format, who })
}

fn exchange(stream: &mut UnixStream, question: &str, patience: Duration) -> io::Result<String> {
    let until = MonotonicClock.now() + patience;
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(question.as_bytes())?;
    stream.write_all(b"\n")?;
    line(stream, until)
}

/// Reads one line, byte by byte (they are short and rare), waiting no longer than `until`.
fn line(stream: &mut UnixStream, until: Duration) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    stream.set_nonblocking(false)?;
    loop {
        let left = until.saturating_sub(MonotonicClock.now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut byte) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) if byte[0] == b'\n' => return Ok(String::from_utf8_lossy(&line).into_owned()),
            Ok(_) if line.len() == LINE_BYTES_MAX => return Err(io::ErrorKind::InvalidData.into()),
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        }
    }
}

fn understood(answer: &str) -> Result<Figures, String> {
    if let Some(why) = answer.strip_prefix("err ") {
        return Err(why.chars().filter(|c| !c.is_control()).take(200).collect());
    }
    let Some(words) = answer.strip_prefix("ok") else { return Err(format!("answered {answer:?}")) };
    let of =
        |key: &str| words.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse::<u64>().ok());
    Ok(Figures { objects: of("objects"), heap_bytes: of("heap") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_pid() -> i32 {
        rustix::process::getpid().as_raw_nonzero().get()
    }

    #[test]
    fn a_program_greets_is_asked_and_answers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heap.sock");
        let mut agents = Agents::listen(&path).unwrap();
        assert_eq!(agents.connected(&[own_pid()]), Vec::<i32>::new());
        let mut program = UnixStream::connect(&path).unwrap();
        program.write_all(b"plimsoll-heap/1 heapprofile node v20\x07.1\n").unwrap();
        assert_eq!(agents.connected(&[own_pid(), 1]), [own_pid()]);
        assert_eq!(agents.who(own_pid()), Some(("node v20.1", Format::V8Profile)));
        let answering = std::thread::spawn(move || {
            let question = line(&mut program, MonotonicClock.now() + Duration::from_secs(5)).unwrap();
            program.write_all(b"ok objects=12 heap=99 more=1\n").unwrap();
            (question, program)
        });
        let figures = agents.count(own_pid(), Duration::from_secs(5)).unwrap();
        assert_eq!(figures, Figures { objects: Some(12), heap_bytes: Some(99) });
        let (question, program) = answering.join().unwrap();
        assert_eq!(question, "count");
        drop(program);
        assert!(agents.count(own_pid(), Duration::from_secs(1)).unwrap_err().contains("not connected"));
    }

    #[test]
    fn who_does_not_answer_is_given_up_and_who_does_not_greet_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heap.sock");
        let mut agents = Agents::listen(&path).unwrap();
        let _mute = UnixStream::connect(&path).unwrap();
        let mut stranger = UnixStream::connect(&path).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\n").unwrap();
        assert_eq!(agents.connected(&[own_pid()]), Vec::<i32>::new());
        assert_eq!(agents.refused_total, 2);
        let mut hung = UnixStream::connect(&path).unwrap();
        hung.write_all(b"plimsoll-heap/1 heap x\n").unwrap();
        assert_eq!(agents.connected(&[own_pid()]), [own_pid()]);
        assert!(agents.count(own_pid(), Duration::from_millis(50)).unwrap_err().contains("does not answer"));
        assert_eq!(agents.connected(&[own_pid()]), Vec::<i32>::new());
    }

    #[test]
    fn answers_are_read_as_far_as_they_go() {
        assert_eq!(understood("ok"), Ok(Figures::default()));
        assert_eq!(understood("ok heap=5"), Ok(Figures { objects: None, heap_bytes: Some(5) }));
        assert_eq!(understood("ok objects=many"), Ok(Figures::default()));
        assert_eq!(understood("err no inspector"), Err("no inspector".to_owned()));
        assert!(understood("what").is_err());
    }
}
