//! The service that `plimsoll demo` runs: an HTTP server on loopback whose session cache never forgets.
//!
//! One request at a time, at most [`REQUEST_BYTES_MAX`] read within [`PATIENCE`]. `GET /order` keeps [`Args::chunk`] bytes
//! for ever, every page written to, until [`Args::most_bytes`] are kept: a supervisor that dies leaves no leak without an
//! end. A visitor in the same process sends `GET /order` over TCP at the pace that gives the rate. SIGTERM, SIGINT and
//! SIGHUP drain it: for [`DRAIN`] `/order` and `/healthz` answer 503 and what is open is finished, then it exits with 0.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use plimsoll::clock::{Clock as _, MonotonicClock};
use plimsoll::units;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::exit::Failure;

/// How long it says "not here any more" before it goes, as a service behind a balancer does.
const DRAIN: Duration = Duration::from_millis(300);
/// How long a peer may take to send its request or take the answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// The longest request looked at.
const REQUEST_BYTES_MAX: u64 = 2048;
/// The least time between two orders, and the most.
const PACE: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(50)];
/// So much is kept for an order, unless the pace is at one of its ends.
const CHUNK_BYTES: f64 = 2.0 * 1024.0 * 1024.0;
/// A warning on stderr each time so much more is kept.
const WARN_EVERY_BYTES: u64 = 50 << 20;

/// Arguments of the hidden `plimsoll demo-service`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Bytes kept a second
    #[arg(long)]
    rate_bytes: u64,
    /// Bytes after which nothing more is kept
    #[arg(long)]
    most_bytes: u64,
    /// Port on 127.0.0.1; one that is taken is replaced by a free one
    #[arg(long)]
    port: u16,
}

impl Args {
    /// The time between two orders.
    fn pace(&self) -> Duration {
        Duration::from_secs_f64(CHUNK_BYTES / self.rate()).clamp(PACE[0], PACE[1])
    }

    /// What one order keeps.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of the rate, positive")]
    fn chunk(&self) -> usize {
        (self.rate() * self.pace().as_secs_f64()).max(1.0) as usize
    }

    #[allow(clippy::cast_precision_loss, reason = "a rate for people: 53 bits are enough")]
    fn rate(&self) -> f64 {
        self.rate_bytes.max(1) as f64
    }
}

/// Serves until a signal asks for the end.
///
/// # Errors
/// When there is no port or no signal handler to be had.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let failed = |error: io::Error| Failure::new(format!("the demo's service cannot start: {error}"));
    let (asked, asker) = UnixStream::pair().map_err(failed)?;
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let end = asker.try_clone().map_err(failed)?;
        signal_hook::low_level::pipe::register(signal, end).map_err(failed)?;
    }
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)) {
        Ok(listener) => listener,
        Err(error) => {
            err(&format!("WARN port {}: {error}; a free one is taken", args.port));
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?
        }
    };
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    out(&format!(
        "serves http://{address}/ · keeps {} for each GET /order, {} at most",
        units::size(args.chunk() as u64),
        units::size(args.most_bytes)
    ));
    let closing = Arc::new(AtomicBool::new(false));
    let visitor = visitor(address, args.pace(), Arc::clone(&closing)).map_err(failed)?;
    let mut shop = Shop { args, kept: Vec::new(), kept_bytes: 0, orders: 0, closing: false };
    serve(&listener, &asked, &mut shop, None);
    closing.store(true, Ordering::SeqCst);
    shop.closing = true;
    err("INFO asked to end: no new orders, finishing what is open");
    serve(&listener, &asked, &mut shop, Some(MonotonicClock.now() + DRAIN));
    if visitor.join().is_err() {
        err("ERROR the visitor panicked");
    }
    out(&format!("drained after {} orders; goodbye", shop.orders));
    Ok(ExitCode::SUCCESS)
}

/// Answers until a signal came or, with a time, until then.
fn serve(listener: &TcpListener, asked: &UnixStream, shop: &mut Shop<'_>, until: Option<Duration>) {
    loop {
        let left = until.map(|until| until.saturating_sub(MonotonicClock.now()));
        if left.is_some_and(|left| left.is_zero()) {
            return;
        }
        let mut fds = vec![PollFd::new(listener, PollFlags::IN)];
        if until.is_none() {
            fds.push(PollFd::new(asked, PollFlags::IN));
        }
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        // EINTR: the signal has written to the pipe.
        let ready = rustix::event::poll(&mut fds, timeout.as_ref()).unwrap_or(0);
        if ready > 0 && fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
            return;
        }
        if let Ok((stream, _)) = listener.accept() {
            // A peer that goes away or dawdles is its own affair.
            shop.answer(stream).ok();
        }
    }
}

/// What is sold, and what is never given back.
struct Shop<'a> {
    args: &'a Args,
    kept: Vec<Vec<u8>>,
    kept_bytes: u64,
    orders: u64,
    closing: bool,
}

impl Shop<'_> {
    fn answer(&mut self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let before = MonotonicClock.now();
        let path = path(&mut stream)?;
        let (status, text) = match (path.as_str(), self.closing) {
            ("/order" | "/healthz", true) => ("503 Service Unavailable", "closing\n".to_owned()),
            ("/order", false) => ("200 OK", self.order()),
            ("/healthz", false) => ("200 OK", "ok\n".to_owned()),
            ("/", _) => {
                let kept = units::size(self.kept_bytes);
                (
                    "200 OK",
                    format!(
                        "The service of plimsoll demo: {} orders, {kept} kept. GET /order keeps more.\n",
                        self.orders
                    ),
                )
            }
            _ => ("404 Not Found", "GET / /order /healthz\n".to_owned()),
        };
        let length = text.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}"
        )?;
        let took = units::duration(MonotonicClock.now().saturating_sub(before));
        out(&format!("GET {path} {} in {took}: {}", &status[..3], text.trim_end()));
        Ok(())
    }

    /// The leak: each order puts its session into a cache that nobody empties.
    fn order(&mut self) -> String {
        self.orders += 1;
        let chunk = self.args.chunk();
        if self.kept_bytes + chunk as u64 <= self.args.most_bytes {
            let warned = self.kept_bytes / WARN_EVERY_BYTES;
            self.kept.push(vec![0xA5; chunk]);
            self.kept_bytes += chunk as u64;
            if self.kept_bytes / WARN_EVERY_BYTES > warned {
                err(&format!("WARN the session cache holds {} and forgets nothing", units::size(self.kept_bytes)));
            }
        }
        format!("order {}, {} kept\n", self.orders, units::size(self.kept_bytes))
    }
}

/// The path of a request; what is no GET has none that is known.
fn path(stream: &mut TcpStream) -> io::Result<String> {
    let mut request = Vec::new();
    let mut piece = [0; 512];
    let mut stream = stream.take(REQUEST_BYTES_MAX);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece)? {
            0 => break,
            n => request.extend_from_slice(&piece[..n]),
        }
    }
    let text = String::from_utf8_lossy(&request);
    let mut words = text.split(' ');
    let path = if words.next() == Some("GET") { words.next().unwrap_or_default() } else { "?" };
    Ok(path.chars().filter(char::is_ascii_graphic).take(80).collect())
}

/// Orders at a steady pace, over TCP like everybody else, until told to stop.
fn visitor(shop: SocketAddr, pace: Duration, closing: Arc<AtomicBool>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("visitor".into()).spawn(move || {
        let clock = MonotonicClock;
        let mut next = clock.now();
        while !closing.load(Ordering::SeqCst) {
            // An order that fails is one order less; the shop says why.
            order(shop).ok();
            // Behind time it does not run after what it missed.
            next = (next + pace).max(clock.now().saturating_sub(pace));
            std::thread::sleep(next.saturating_sub(clock.now()));
        }
    })
}

fn order(shop: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&shop, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /order HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    io::copy(&mut stream.take(REQUEST_BYTES_MAX), &mut io::sink())?;
    Ok(())
}

/// A line on stdout; that nobody reads it is no reason to fail.
fn out(line: &str) {
    writeln!(io::stdout(), "{line}").ok();
}

/// A line on stderr.
fn err(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(rate_bytes: u64) -> Args {
        Args { rate_bytes, most_bytes: 10 << 20, port: 0 }
    }

    #[test]
    fn pace_and_chunk_give_the_rate() {
        for rate in [1 << 20, 20 << 20, 200 << 20, 1 << 30] {
            let args = args(rate);
            #[allow(clippy::cast_precision_loss, reason = "small numbers")]
            let given = args.chunk() as f64 / args.pace().as_secs_f64();
            assert!((given / args.rate() - 1.0).abs() < 0.01, "{rate}: {given}");
            assert!(args.pace() >= PACE[0] && args.pace() <= PACE[1]);
        }
    }

    #[test]
    fn the_leak_ends_and_closing_takes_no_orders() {
        let args = args(40 << 20);
        let mut shop = Shop { args: &args, kept: Vec::new(), kept_bytes: 0, orders: 0, closing: false };
        for _ in 0..100 {
            shop.order();
        }
        assert_eq!((shop.kept_bytes, shop.orders), (10 << 20, 100));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        shop.closing = true;
        let asker = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"GET /order HTTP/1.1\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        shop.answer(listener.accept().unwrap().0).unwrap();
        assert!(asker.join().unwrap().starts_with("HTTP/1.1 503"));
        assert_eq!(shop.orders, 100);
    }
}
