//! How a request says what it is, and how its protocol says no: HTTP, [gRPC](super::Grpc), or a plain error.
//!
//! | protocol | a peer's cap | everything else | when to try again |
//! |---|---|---|---|
//! | [`Http`] | 429 | 503 | `Retry-After` in whole seconds, rounded up or down by chance (RFC 9110, 10.2.3) |
//! | [`Grpc`](super::Grpc) | `RESOURCE_EXHAUSTED` (8) | the same | `google.rpc.RetryInfo`, and `grpc-retry-pushback-ms`, in a trailers-only response |
//! | [`HttpOrGrpc`](super::HttpOrGrpc) | by the request's `content-type` | the same | the same |
//! | [`Plain`] | an error | the same | [`Refused::retry_after`] |
//!
//! A body is neither read nor asked for: the answer is made from the head alone.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue, PROXY_AUTHORIZATION, RETRY_AFTER};
use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode, Uri};

use super::class::Kind;
use super::error::{Reason, Refused};
use super::peer::Peer;
use super::permit::Permit;

/// The header that names the reason of a refusal.
pub const REASON_HEADER: HeaderName = HeaderName::from_static("plimsoll-refused");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What a request says of itself, and what it takes along.
pub trait Protocol<Request> {
    /// What it is.
    fn kind(&self, request: &Request) -> Kind;

    /// Who asks; `None`: no cap by peer applies.
    fn peer(&self, request: &Request) -> Option<Peer>;

    /// How much time the asker gives it.
    fn time(&self, request: &Request) -> Option<Duration> {
        let _none = request;
        None
    }

    /// The permit that it already has, when it is part of another request.
    fn held<'r>(&self, request: &'r Request) -> Option<&'r Permit> {
        let _none = request;
        None
    }

    /// Takes the permit along.
    fn admitted(&self, request: &mut Request, permit: &Permit) {
        let _none = (request, permit);
    }

    /// This protocol as it answers this request, for one that speaks several. Asked only when the request waits or is refused.
    #[must_use]
    fn answering(&self, request: &Request) -> Self
    where
        Self: Sized + Clone,
    {
        let _none = request;
        self.clone()
    }
}

/// How a protocol says no.
pub trait Refuse<Response, Error> {
    /// The answer to a request that was refused.
    ///
    /// # Errors
    /// Where a protocol has no answer for it: the refusal as an error.
    fn refuse(&self, refused: Refused) -> Result<Response, Error>;
}

/// The peer's address, in a request's extensions: put there by whoever accepted the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// A request without its body.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Head<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its target.
    pub uri: &'a Uri,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// What came with it: [`PeerAddr`], axum's `ConnectInfo`, a user that was authenticated before.
    pub extensions: &'a Extensions,
}

impl<'a> Head<'a> {
    fn of<B>(request: &'a Request<B>) -> Head<'a> {
        Head {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

type PeerOf = Arc<dyn Fn(&Head<'_>) -> Option<Peer> + Send + Sync>;
type TimeOf = Arc<dyn Fn(&Head<'_>) -> Option<Duration> + Send + Sync>;
type KindOf = Arc<dyn Fn(&Head<'_>) -> Kind + Send + Sync>;

/// Who a peer is. Who cannot be told is [`Peer::Unknown`]: not capped, but counted
/// ([`Stats::unknown_peers_total`](super::Stats::unknown_peers_total)).
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Identity {
    /// Nobody: no cap by peer.
    #[default]
    Nobody,
    /// The connection's address, from [`PeerAddr`], which who accepts the connection must put there: for axum's `ConnectInfo` take
    /// [`Identity::by`]. Behind a proxy it is the proxy's.
    Address,
    /// The value of this header. Only where a proxy in front sets or checks it: a client could name itself anew for each request. What
    /// is a secret (`authorization`, `proxy-authorization`, `cookie`, a value marked as sensitive) is kept and shown as a hash only
    /// ([`Peer::secret`]); for a secret in another header take [`Identity::by`].
    Header(HeaderName),
    /// `X-Forwarded-For`, which so many proxies of one's own append to: the address that the outermost of them saw. 1: one proxy.
    ForwardedFor {
        /// Proxies of one's own in front.
        trusted_hops: usize,
    },
    /// Whatever this says.
    By(PeerOf),
}

impl Identity {
    /// Whatever this says.
    pub fn by(peer: impl Fn(&Head<'_>) -> Option<Peer> + Send + Sync + 'static) -> Identity {
        Identity::By(Arc::new(peer))
    }

    fn peer(&self, head: &Head<'_>) -> Option<Peer> {
        let found = match self {
            Identity::Nobody => return None,
            Identity::Address => head.extensions.get().map(|PeerAddr(address)| Peer::from(*address)),
            Identity::Header(name) => head.headers.get(name).map(|value| named(name, value)),
            Identity::ForwardedFor { trusted_hops } => forwarded(head.headers, *trusted_hops),
            Identity::By(peer) => peer(head),
        };
        Some(found.unwrap_or(Peer::Unknown))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Nobody => f.write_str("Nobody"),
            Identity::Address => f.write_str("Address"),
            Identity::Header(name) => f.debug_tuple("Header").field(name).finish(),
            Identity::ForwardedFor { trusted_hops } => write!(f, "ForwardedFor({trusted_hops})"),
            Identity::By(_) => f.write_str("By(..)"),
        }
    }
}

fn named(header: &HeaderName, value: &HeaderValue) -> Peer {
    if value.is_sensitive() || [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE].contains(header) {
        return Peer::secret(value.as_bytes());
    }
    Peer::name(&String::from_utf8_lossy(value.as_bytes()))
}

/// The address before the last `hops - 1` ones. What lies further left was written by the client, and may be anything; what one's own
/// proxies wrote must be text.
fn forwarded(headers: &HeaderMap, hops: usize) -> Option<Peer> {
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let mut parts = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    let mut address = None;
    for _ in 0..hops {
        address = Some(std::str::from_utf8(parts.next()?).ok().filter(|part| part.is_ascii())?.trim());
    }
    let address = address?;
    let address = address.parse::<IpAddr>().or_else(|_| address.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(Peer::from)
}

/// HTTP: which requests are what, and who asks. By default everything is ordinary and light, and nobody is told from another.
#[derive(Clone)]
pub struct Http {
    kind: KindOf,
    identity: Identity,
    time: Option<TimeOf>,
}

impl Default for Http {
    fn default() -> Http {
        Http { kind: Arc::new(|_| Kind::LIGHT), identity: Identity::Nobody, time: None }
    }
}

impl Http {
    /// Says what a request is.
    #[must_use]
    pub fn classify(mut self, kind: impl Fn(&Head<'_>) -> Kind + Send + Sync + 'static) -> Http {
        self.kind = Arc::new(kind);
        self
    }

    /// Says who asks.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Http {
        self.identity = identity;
        self
    }

    /// Says how much time the asker gives a request, the wait included; `None`: he does not say. For example from a header that a proxy sets:
    ///
    /// ```
    /// # use plimsoll::admission::Http;
    /// # use std::time::Duration;
    /// let http = Http::default().timed(|head| {
    ///     let millis = head.headers.get("x-envoy-expected-rq-timeout-ms")?.to_str().ok()?.parse().ok()?;
    ///     Some(Duration::from_millis(millis))
    /// });
    /// # let _ = http;
    /// ```
    #[must_use]
    pub fn timed(mut self, time: impl Fn(&Head<'_>) -> Option<Duration> + Send + Sync + 'static) -> Http {
        self.time = Some(Arc::new(time));
        self
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl<B> Protocol<Request<B>> for Http {
    fn kind(&self, request: &Request<B>) -> Kind {
        (self.kind)(&Head::of(request))
    }

    fn peer(&self, request: &Request<B>) -> Option<Peer> {
        self.identity.peer(&Head::of(request))
    }

    fn time(&self, request: &Request<B>) -> Option<Duration> {
        self.time.as_ref().and_then(|time| time(&Head::of(request)))
    }

    fn held<'r>(&self, request: &'r Request<B>) -> Option<&'r Permit> {
        request.extensions().get()
    }

    fn admitted(&self, request: &mut Request<B>, permit: &Permit) {
        request.extensions_mut().insert(permit.clone());
    }
}

impl<B: Default, E> Refuse<Response<B>, E> for Http {
    fn refuse(&self, refused: Refused) -> Result<Response<B>, E> {
        let mut response = Response::new(B::default());
        *response.status_mut() = match refused.reason {
            Reason::Peer => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(refused.retry_after_seconds()));
        response.headers_mut().insert(REASON_HEADER, HeaderValue::from_static(refused.reason.as_str()));
        Ok(response)
    }
}

/// What a [`Plain`] says of a request: made of its kind and its peer, and, where the asker says it, of its time.
#[derive(Clone, Debug, Default)]
pub struct Says {
    /// What it is.
    pub kind: Kind,
    /// Who asks.
    pub peer: Option<Peer>,
    /// How much time he gives it.
    pub time: Option<Duration>,
}

impl From<(Kind, Option<Peer>)> for Says {
    fn from((kind, peer): (Kind, Option<Peer>)) -> Says {
        Says { kind, peer, time: None }
    }
}

impl From<(Kind, Option<Peer>, Option<Duration>)> for Says {
    fn from((kind, peer, time): (Kind, Option<Peer>, Option<Duration>)) -> Says {
        Says { kind, peer, time }
    }
}

/// Any other protocol: a refusal is an error that can be made from a [`Refused`]. The function says of a request its kind and its peer, and
/// may say its time ([`Says`]); it is called once for each of them.
#[derive(Clone)]
pub struct Plain<K>(pub K);

impl<K> fmt::Debug for Plain<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Plain").finish_non_exhaustive()
    }
}

impl<K: Fn(&Request) -> S, S: Into<Says>, Request> Protocol<Request> for Plain<K> {
    fn kind(&self, request: &Request) -> Kind {
        (self.0)(request).into().kind
    }

    fn peer(&self, request: &Request) -> Option<Peer> {
        (self.0)(request).into().peer
    }

    fn time(&self, request: &Request) -> Option<Duration> {
        (self.0)(request).into().time
    }
}

impl<K, Response, E: From<Refused>> Refuse<Response, E> for Plain<K> {
    fn refuse(&self, refused: Refused) -> Result<Response, E> {
        Err(refused.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Grpc;

    fn refused(reason: Reason) -> Refused {
        Refused::new(reason, Kind::HEAVY, Duration::from_millis(1_000), [0.2, 0.1])
    }

    fn said<B>(response: &Response<B>, names: &[&str]) -> Vec<String> {
        let text = |name: &&str| response.headers().get(*name).map_or("-", |value| value.to_str().unwrap()).to_owned();
        std::iter::once(response.status().as_str().to_owned()).chain(names.iter().map(text)).collect()
    }

    #[test]
    fn each_protocol_says_no_in_its_own_words() {
        let http = |reason| {
            let response: Result<Response<()>, ()> = Http::default().refuse(refused(reason));
            said(&response.unwrap(), &["retry-after", "plimsoll-refused"])
        };
        assert_eq!(http(Reason::Level), ["503", "2", "level"]);
        assert_eq!(http(Reason::Busy), ["503", "2", "busy"]);
        assert_eq!(http(Reason::Peer), ["429", "2", "peer"]);
        let plain: Result<(), Refused> = Plain(|_: &()| (Kind::LIGHT, None::<Peer>)).refuse(refused(Reason::Closed));
        assert_eq!(plain.unwrap_err().to_string(), "overloaded (closed): try again in 1200 ms");
    }

    #[test]
    fn a_request_says_how_much_time_it_has() {
        let http = Http::default()
            .timed(|head| head.headers.get("x-timeout-ms")?.to_str().ok()?.parse().ok().map(Duration::from_millis));
        let request = Request::builder().header("x-timeout-ms", "250").header("grpc-timeout", "1S").body(()).unwrap();
        let quarter = Some(Duration::from_millis(250));
        assert_eq!((http.time(&request), http.time(&Request::new(()))), (quarter, None));
        assert_eq!(Grpc(http).time(&request), quarter, "the shorter one");
        let plain = Plain(|millis: &u64| (Kind::LIGHT, None, Some(Duration::from_millis(*millis))));
        assert_eq!(plain.time(&250), quarter);
        assert_eq!(Plain(|_: &u64| (Kind::LIGHT, None)).time(&250), None);
    }

    #[test]
    fn a_peer_is_who_the_trusted_hops_say() {
        let table = [
            (1, &["198.51.100.9"][..], "198.51.100.9"),
            (1, &["6.6.6.6, 198.51.100.9"], "198.51.100.9"),
            (2, &["6.6.6.6, 198.51.100.9, 10.0.0.1"], "198.51.100.9"),
            (2, &["6.6.6.6, 198.51.100.9", "10.0.0.1"], "198.51.100.9"),
            (3, &["198.51.100.9, 10.0.0.1"], "unknown"),
            (1, &["[2001:db8::1]:443"], "2001:db8::/64"),
            (1, &["nonsense"], "unknown"),
            (0, &["198.51.100.9"], "unknown"),
            (1, &[], "unknown"),
            // What is no text is one hop more, not a line that is not there: the client wrote the other.
            (1, &["6.6.6.6", "\u{e9}"], "unknown"),
            (2, &["6.6.6.6", "198.51.100.9, \u{e9}"], "unknown"),
            (1, &["6.6.6.6", "\u{e9}, 198.51.100.9"], "198.51.100.9"),
        ];
        for (trusted_hops, lines, expected) in table {
            let mut request = Request::builder();
            for line in lines {
                request = request.header("x-forwarded-for", line.as_bytes());
            }
            let http = Http::default().identity(Identity::ForwardedFor { trusted_hops });
            let peer = http.peer(&request.body(()).unwrap()).expect("some peer");
            assert_eq!(peer.to_string(), expected, "{trusted_hops} of {lines:?}");
        }
        let mut request = Request::builder().header("x-tenant", "blue").body(()).unwrap();
        request.extensions_mut().insert(PeerAddr("192.0.2.1:99".parse().unwrap()));
        let who = |identity| Http::default().identity(identity).peer(&request).map(|peer| peer.to_string());
        assert_eq!(who(Identity::Nobody), None);
        assert_eq!(who(Identity::Address).as_deref(), Some("192.0.2.1"));
        assert_eq!(who(Identity::Header(HeaderName::from_static("x-tenant"))).as_deref(), Some("blue"));
        assert_eq!(who(Identity::Header(AUTHORIZATION)).as_deref(), Some("unknown"));
        let with = |name: HeaderName, value: &str| {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            let request = Request::builder().header(&name, value).body(()).unwrap();
            Http::default().identity(Identity::Header(name)).peer(&request).expect("some peer")
        };
        assert_eq!(with(HeaderName::from_static("x-tenant"), "bl\u{e5}").to_string(), "bl\u{e5}");
        for name in [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE] {
            assert_eq!(with(name.clone(), "Basic c2VjcmV0"), Peer::secret(b"Basic c2VjcmV0"), "{name}");
        }
        assert_eq!(who(Identity::by(|head| Some(Peer::name(head.uri.path())))).as_deref(), Some("/"));
    }
}
