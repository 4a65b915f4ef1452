//! A load generator for HTTP/1.1 on loopback: closed loops (a client asks again when it was answered) and an open one (requests come at a
//! rate, whoever is answered or not, as from many clients). Each connection has a source address of its own where asked for.
//!
//! Bounded: an open loop keeps at most [`OPEN_MAX`] requests in flight and counts what it could not send; every request has a deadline.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// Requests in flight at one time, of one open loop.
pub const OPEN_MAX: usize = 4_000;
/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// One request that was sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// When, since the load began.
    pub at: Duration,
    /// How long the answer took.
    pub took: Duration,
    /// Its status; `None`: no answer before the deadline, or none at all.
    pub status: Option<u16>,
}

/// The address of client number `n`: 127.64.0.0 and up.
pub fn client(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from_be_bytes([127, 64, 0, 0]) + n % (1 << 21) + 1)
}

/// A connection that asks one thing after the other.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects from this address.
    ///
    /// # Errors
    /// What connecting says.
    pub async fn open(server: SocketAddr, from: Ipv4Addr) -> io::Result<Connection> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: Vec::new() })
    }

    /// Asks, and reads the whole answer; its status and body.
    ///
    /// # Errors
    /// What reading or writing says, and an answer that is not one.
    pub async fn get(&mut self, path: &str) -> io::Result<(u16, String)> {
        self.stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await?;
        self.buffer.clear();
        let head = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            self.read().await?;
        };
        let text = String::from_utf8_lossy(&self.buffer[..head]).to_ascii_lowercase();
        let nonsense = || io::Error::other(format!("not an answer: {text}"));
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(nonsense)?;
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.and_then(|length| length.trim().parse().ok()).ok_or_else(nonsense)?;
        while self.buffer.len() < head + 4 + length {
            self.read().await?;
        }
        Ok((status, String::from_utf8_lossy(&self.buffer[head + 4..]).into_owned()))
    }

    async fn read(&mut self) -> io::Result<()> {
        if self.buffer.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::other("the answer is too long"));
        }
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// A client that asks again when it was answered, not before `pace` after it asked last; from one address, for so long. Whoever gets no
/// answer in time hangs up and connects again.
pub async fn closed_loop(
    server: SocketAddr,
    from: Ipv4Addr,
    path: &str,
    (pace, patience): (Duration, Duration),
    lasts: Duration,
) -> Vec<Sample> {
    let (began, mut samples, mut kept) = (Instant::now(), Vec::new(), None);
    while began.elapsed() < lasts {
        let asked = Instant::now();
        let status = timeout(patience, ask(server, from, path, &mut kept)).await;
        let status = status.ok().and_then(Result::ok);
        if status.is_none() {
            kept = None;
        }
        samples.push(Sample { at: asked - began, took: asked.elapsed(), status });
        sleep_until(asked + pace).await;
    }
    samples
}

async fn ask(server: SocketAddr, from: Ipv4Addr, path: &str, kept: &mut Option<Connection>) -> io::Result<u16> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(server, from).await?,
    };
    let (status, _) = connection.get(path).await?;
    *kept = Some(connection);
    Ok(status)
}

/// Requests at a rate, with the gaps of a Poisson process (a fixed seed), each from another client; answers later than `patience` do not
/// count, as their asker has gone.
pub async fn open_loop(
    server: SocketAddr,
    path: &'static str,
    per_second: f64,
    patience: Duration,
    lasts: Duration,
) -> Vec<Sample> {
    let (began, samples) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
    let idle: Arc<Mutex<Vec<(Ipv4Addr, Connection)>>> = Arc::default();
    let (mut due, mut seed, mut clients) = (began, 1u64, 0u32);
    let mut sent = JoinSet::new();
    while began.elapsed() < lasts {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let uniform = ((seed >> 11) as f64 + 1.0) / ((1u64 << 53) as f64 + 1.0);
        due += Duration::from_secs_f64(-uniform.ln() / per_second);
        sleep_until(due).await;
        while sent.try_join_next().is_some() {}
        if sent.len() >= OPEN_MAX {
            samples.lock().push(Sample { at: began.elapsed(), took: patience, status: None });
            continue;
        }
        let kept = idle.lock().pop();
        let (from, mut kept) = match kept {
            Some((from, connection)) => (from, Some(connection)),
            None => {
                clients += 1;
                (client(clients), None)
            }
        };
        let (samples, idle) = (Arc::clone(&samples), Arc::clone(&idle));
        sent.spawn(async move {
            let asked = Instant::now();
            let status = timeout(patience, ask(server, from, path, &mut kept)).await;
            let status = status.ok().and_then(Result::ok);
            samples.lock().push(Sample { at: asked - began, took: asked.elapsed(), status });
            if let Some(connection) = kept.filter(|_| status.is_some()) {
                idle.lock().push((from, connection));
            }
        });
    }
    while sent.join_next().await.is_some() {}
    std::mem::take(&mut *samples.lock())
}

/// What a load saw.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// Requests sent.
    pub sent: usize,
    /// Answered 200 in time.
    pub good: usize,
    /// Refused: 429 or 503.
    pub refused: usize,
    /// Not answered in time.
    pub lost: usize,
    /// Answered 200 in time, per second of the load.
    pub good_per_second: f64,
    /// Median, 99th percentile and longest of the good ones, in milliseconds.
    pub ms: [f64; 3],
}

/// Reckons up what was sent from `after` on, until `lasts`.
pub fn seen<'a>(samples: impl IntoIterator<Item = &'a Sample>, after: Duration, lasts: Duration) -> Seen {
    let counted: Vec<&Sample> = samples.into_iter().filter(|sample| sample.at >= after).collect();
    let of = |wanted: fn(Option<u16>) -> bool| counted.iter().filter(|sample| wanted(sample.status)).count();
    let good = |sample: &&&Sample| sample.status == Some(200);
    let mut took: Vec<f64> = counted.iter().filter(good).map(|sample| sample.took.as_secs_f64() * 1e3).collect();
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took.get(((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1)));
    Seen {
        sent: counted.len(),
        good: took.len(),
        refused: of(|status| matches!(status, Some(429 | 503))),
        lost: of(|status| status.is_none()),
        good_per_second: took.len() as f64 / (lasts - after).as_secs_f64(),
        ms: [0.5, 0.99, 1.0].map(|share| at(share).copied().unwrap_or(f64::INFINITY)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_reckoned_up() {
        let ms = Duration::from_millis;
        let sample = |at, took, status| Sample { at: ms(at), took: ms(took), status };
        let mut samples: Vec<_> = (1..=100).map(|n| sample(1_000 + n, n, Some(200))).collect();
        samples.extend([sample(0, 9_000, Some(200)), sample(1_500, 1, Some(503)), sample(1_600, 1, Some(429))]);
        samples.push(sample(1_700, 500, None));
        let seen = seen(&samples, ms(1_000), ms(3_000));
        assert_eq!((seen.sent, seen.good, seen.refused, seen.lost), (103, 100, 2, 1));
        assert_eq!((seen.good_per_second, seen.ms), (50.0, [51.0, 100.0, 100.0]));
        assert_eq!(super::seen(&[], Duration::ZERO, ms(1)).ms[1], f64::INFINITY);
        assert_eq!((client(0), client(300)), (Ipv4Addr::new(127, 64, 0, 1), Ipv4Addr::new(127, 64, 1, 45)));
    }
}
