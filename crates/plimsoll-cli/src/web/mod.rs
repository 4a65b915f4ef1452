//! The HTTP face of one supervisor: a Unix socket for its own user, and, when asked for, a loopback TCP port for reading.
//!
//! One thread, at most [`UNIX_CONNECTIONS`] + [`TCP_CONNECTIONS`] connections, each with at most [`BUFFER_BYTES`] of
//! unread input, [`HEADER_TIME`] for a header (idle connections are closed after it), [`REQUEST_TIME`] for an answer and
//! [`CONNECTION_LIFE`] in all, so that a peer that never reads holds a slot for a bounded time. Bodies are at most
//! [`BODY_BYTES_MAX`]. Whatever is refused is counted by reason (`count.rs`). With no connection open, nothing wakes up.
//! Dropping the [`WebHandle`] stops it: open answers have [`DRAIN_TIME`] to finish, then the thread is joined.

mod api;
pub(crate) mod client;
mod count;
mod guard;
mod heap;
pub(crate) mod metrics;
pub(crate) mod socket;
pub(crate) mod token;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::say;
use crate::snapshot::Control;
use count::{Counters, Refusal};
use guard::{Asker, Guard};
use token::Token;

/// Connections of the Unix socket at one time; a flood of the TCP port does not take them.
const UNIX_CONNECTIONS: usize = 16;
/// Connections of the TCP port at one time; a further one is answered 503, closed and counted.
const TCP_CONNECTIONS: usize = 48;
/// Input held for one connection, so the longest header too; a longer one is answered 431.
const BUFFER_BYTES: usize = 16 * 1024;
/// The longest body accepted; a longer one is answered 413.
const BODY_BYTES_MAX: usize = 4 * 1024;
/// How long a header may take, and how long a connection may be idle.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// How long reading a body and making an answer may take; 408 after it.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// After this a connection gets no further request, and [`DRAIN_TIME`] to end.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);
/// What an open answer has to finish when the server stops.
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// Pause after a failed accept (no descriptors left), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// The thread serves small JSON; its own stack need not be the default 2 MiB.
const STACK_BYTES: usize = 512 * 1024;

/// The running server. Dropping it stops the server and joins its thread, in at most about [`DRAIN_TIME`].
#[derive(Debug)]
pub(crate) struct WebHandle {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    tcp: Option<std::net::SocketAddr>,
}

impl WebHandle {
    /// Where the TCP port listens, when one does.
    pub(crate) fn tcp_addr(&self) -> Option<std::net::SocketAddr> {
        self.tcp
    }
}

impl Drop for WebHandle {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            say::note("the web thread panicked; the supervised program is not affected");
        }
    }
}

/// Serves `control` on `unix` (see [`socket::bind`]) and, for reading, on `tcp` (see [`socket::bind_tcp`]); who brings `token`
/// may also ask for heap captures there, and read what they name.
///
/// # Errors
/// When the runtime or the thread cannot be made, or `tcp` is not bound to a loopback address (that needs a token).
pub(crate) fn serve(
    control: Arc<dyn Control>,
    unix: std::os::unix::net::UnixListener,
    tcp: Option<std::net::TcpListener>,
    token: Option<Token>,
) -> io::Result<WebHandle> {
    let address = tcp.as_ref().map(std::net::TcpListener::local_addr).transpose()?;
    if let Some(address) = address {
        socket::loopback_only(address)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let counters = Arc::new(Counters::new(address));
    let trends = heap::trend::Trends::default();
    let (stop, stopped) = watch::channel(false);
    let mut doors = Vec::with_capacity(2);
    {
        let _entered = runtime.enter();
        unix.set_nonblocking(true)?;
        doors.push(Door {
            listener: Listener::Unix(UnixListener::from_std(unix)?),
            slots: Arc::new(Semaphore::new(UNIX_CONNECTIONS)),
            app: App {
                router: api::private(control.clone(), counters.clone(), trends.clone()),
                guard: None,
                counters: counters.clone(),
            },
        });
        if let (Some(tcp), Some(address)) = (tcp, address) {
            tcp.set_nonblocking(true)?;
            doors.push(Door {
                listener: Listener::Tcp(TcpListener::from_std(tcp)?),
                slots: Arc::new(Semaphore::new(TCP_CONNECTIONS)),
                app: App {
                    router: api::public(control, counters.clone(), trends),
                    guard: Some(Guard::new(address, token)),
                    counters,
                },
            });
        }
    }
    let thread = std::thread::Builder::new().name("web".into()).stack_size(STACK_BYTES).spawn(move || {
        runtime.block_on(async {
            let mut open: JoinSet<()> = doors.into_iter().map(|door| door.keep(stopped.clone())).collect();
            while open.join_next().await.is_some() {}
        });
    })?;
    Ok(WebHandle { stop, thread: Some(thread), tcp: address })
}

/// One listener, what stands behind it, and how many may be inside.
struct Door {
    listener: Listener,
    slots: Arc<Semaphore>,
    app: App,
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

enum Peer {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Peer> {
        match self {
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| Peer::Unix(stream)),
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| Peer::Tcp(stream)),
        }
    }
}

impl Door {
    /// Accepts until told to stop, then lets what is open finish for [`DRAIN_TIME`].
    async fn keep(self, mut stop: watch::Receiver<bool>) {
        let mut inside = JoinSet::new();
        loop {
            tokio::select! {
                _ = stop.changed() => break,
                Some(_) = inside.join_next(), if !inside.is_empty() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok(peer) => self.admit(peer, &mut inside, &stop),
                    Err(_) => {
                        self.app.counters.refuse(Refusal::Accept);
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self.listener);
        let all = async { while inside.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_TIME, all).await.is_err() {
            inside.abort_all();
        }
    }

    fn admit(&self, peer: Peer, inside: &mut JoinSet<()>, stop: &watch::Receiver<bool>) {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else {
            self.app.counters.refuse(Refusal::Busy);
            turn_away(&peer);
            return;
        };
        let (app, stop) = (self.app.clone(), stop.clone());
        inside.spawn(async move {
            let open = app.counters.connection();
            match peer {
                Peer::Unix(stream) => converse(stream, app.clone(), stop).await,
                Peer::Tcp(stream) => converse(stream, app.clone(), stop).await,
            }
            drop((open, slot));
        });
    }
}

/// One answer to a peer for whom there is no slot; whether it arrives does not matter, so it never waits.
fn turn_away(peer: &Peer) {
    const ANSWER: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let sent = match peer {
        Peer::Unix(stream) => stream.try_write(ANSWER),
        Peer::Tcp(stream) => stream.try_write(ANSWER),
    };
    drop(sent);
}

/// Serves one connection to its end.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(stream: S, app: App, mut stop: watch::Receiver<bool>) {
    let counters = app.counters.clone();
    let service = service_fn(move |request| {
        let app = app.clone();
        async move { Ok::<_, Infallible>(app.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = stop.changed() => None,
        () = tokio::time::sleep(CONNECTION_LIFE) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_TIME, connection).await {
                Ok(ended) => ended,
                Err(_) => return counters.refuse(Refusal::Slow),
            }
        }
    };
    match ended {
        Err(error) if error.is_timeout() => counters.idle_closed(),
        Err(error) if error.is_parse() => counters.refuse(Refusal::Malformed),
        // A peer that goes away in the middle is its own affair.
        Ok(()) | Err(_) => {}
    }
}

/// What answers the requests of one door.
#[derive(Clone)]
struct App {
    router: Router,
    guard: Option<Guard>,
    counters: Arc<Counters>,
}

impl App {
    /// Guards, answers, counts. Always an answer, always within [`REQUEST_TIME`].
    async fn answer(&self, mut request: Request<Incoming>) -> Response<Body> {
        self.counters.request();
        let asker = match &self.guard {
            Some(guard) => guard.check(request.method(), request.headers()),
            None => Ok(Asker::Authorised),
        };
        let (mut response, refused) = match asker {
            Err(refusal) => (api::refusal(refusal), Some(refusal)),
            Ok(asker) => {
                request.extensions_mut().insert(asker);
                let answer = within(TowerToHyperService::new(self.router.clone()).call(request)).await;
                let answer = api::explained(answer);
                let refused = Refusal::of_status(answer.status());
                (answer, refused)
            }
        };
        if let Some(refusal) = refused {
            self.counters.refuse(refusal);
        }
        guard::harden(response.headers_mut());
        response
    }
}

/// The answer, or 408 when it takes too long (in practice: when the body does not come).
async fn within(answer: impl Future<Output = Result<Response<Body>, Infallible>>) -> Response<Body> {
    match tokio::time::timeout(REQUEST_TIME, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}

#[cfg(test)]
mod tests;
