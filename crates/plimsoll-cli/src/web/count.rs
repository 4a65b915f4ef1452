//! What the web face counts: requests, open connections, and every refusal by reason.
//!
//! Plain atomics, no history; ten reasons, so the size is fixed. Shown in `http` of the snapshot and in `/metrics`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::StatusCode;

use crate::snapshot::HttpView;

/// Why a request or a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Every slot is taken: 503.
    Busy,
    /// A method that this address does not offer: 405.
    Method,
    /// A `Host` that is not this machine's loopback (421), which is how DNS rebinding looks.
    Host,
    /// Another site's page asks: 403.
    Origin,
    /// A body of more than 4 KiB: 413.
    Body,
    /// A body or a reader that takes too long: 408, or the connection is closed.
    Slow,
    /// Not HTTP, a header of more than 16 KiB, or a value that cannot be read: 400, 431.
    Malformed,
    /// The kernel gave no connection (no descriptors left).
    Accept,
    /// Something that needs the token, without it: 401.
    Unauthorised,
    /// A wrong token: 403.
    Token,
}

impl Refusal {
    /// All reasons, in the order they are shown.
    pub(crate) const ALL: [Refusal; 10] = [
        Refusal::Busy,
        Refusal::Method,
        Refusal::Host,
        Refusal::Origin,
        Refusal::Body,
        Refusal::Slow,
        Refusal::Malformed,
        Refusal::Accept,
        Refusal::Unauthorised,
        Refusal::Token,
    ];

    /// The word in metrics and JSON.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Refusal::Busy => "busy",
            Refusal::Method => "method",
            Refusal::Host => "host",
            Refusal::Origin => "origin",
            Refusal::Body => "body",
            Refusal::Slow => "slow",
            Refusal::Malformed => "malformed",
            Refusal::Accept => "accept",
            Refusal::Unauthorised => "unauthorised",
            Refusal::Token => "token",
        }
    }

    /// The reason that an answer with this status stands for, where the guard has not said one; `None`: it refuses nothing.
    pub(crate) fn of_status(status: StatusCode) -> Option<Refusal> {
        Some(match status {
            StatusCode::METHOD_NOT_ALLOWED => Refusal::Method,
            StatusCode::MISDIRECTED_REQUEST => Refusal::Host,
            StatusCode::FORBIDDEN => Refusal::Origin,
            StatusCode::PAYLOAD_TOO_LARGE => Refusal::Body,
            StatusCode::REQUEST_TIMEOUT => Refusal::Slow,
            StatusCode::BAD_REQUEST => Refusal::Malformed,
            StatusCode::UNAUTHORIZED => Refusal::Unauthorised,
            _ => return None,
        })
    }
}

/// The counters of one server, both doors together.
#[derive(Debug)]
pub(crate) struct Counters {
    address: Option<SocketAddr>,
    requests: AtomicU64,
    connections: AtomicU64,
    idle_closed: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

/// One open connection; dropping it counts it out.
pub(crate) struct Open<'a>(&'a Counters);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counters {
    pub(crate) fn new(address: Option<SocketAddr>) -> Counters {
        Counters {
            address,
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            idle_closed: AtomicU64::new(0),
            refused: Default::default(),
        }
    }

    pub(crate) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connection(&self) -> Open<'_> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Open(self)
    }

    pub(crate) fn idle_closed(&self) {
        self.idle_closed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refuse(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The figures as shown.
    pub(crate) fn view(&self) -> HttpView {
        HttpView {
            address: self.address.map(|address| address.to_string()),
            connections: self.connections.load(Ordering::Relaxed),
            requests_total: self.requests.load(Ordering::Relaxed),
            idle_closed_total: self.idle_closed.load(Ordering::Relaxed),
            refused_total: Refusal::ALL
                .into_iter()
                .map(|r| (r.as_str().to_owned(), self.refused[r as usize].load(Ordering::Relaxed)))
                .collect(),
        }
    }
}
