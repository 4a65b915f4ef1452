//! gRPC over HTTP/2: the time in `grpc-timeout`, and `RESOURCE_EXHAUSTED` with when to try again, in a trailers-only response.
//!
//! It is said twice: `grpc-retry-pushback-ms` (gRPC proposal A6), which a client's own retry policy obeys, at most `i32::MAX` ms; and
//! `google.rpc.RetryInfo` in `grpc-status-details-bin` (a `google.rpc.Status`, in base64 without padding), which programs read, at most
//! 10,000 years, as `google.protobuf.Duration` has it.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, Response};

use super::class::Kind;
use super::error::Refused;
use super::peer::Peer;
use super::permit::Permit;
use super::protocol::{Http, Protocol, REASON_HEADER, Refuse};

const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC: &str = "application/grpc";
const RESOURCE_EXHAUSTED: u64 = 8;
const OVERLOADED: &str = "overloaded";
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
/// The longest `google.protobuf.Duration`, in seconds.
const SECONDS_MAX: u64 = 315_576_000_000;

/// gRPC over HTTP/2: as [`Http`], with its own way of saying no, and with the time that `grpc-timeout` gives.
#[derive(Clone, Debug, Default)]
pub struct Grpc(pub Http);

impl<B> Protocol<Request<B>> for Grpc {
    fn kind(&self, request: &Request<B>) -> Kind {
        self.0.kind(request)
    }

    fn peer(&self, request: &Request<B>) -> Option<Peer> {
        self.0.peer(request)
    }

    fn time(&self, request: &Request<B>) -> Option<Duration> {
        let said = request.headers().get(TIMEOUT).and_then(|value| timeout(value.to_str().ok()?));
        said.into_iter().chain(self.0.time(request)).min()
    }

    fn held<'r>(&self, request: &'r Request<B>) -> Option<&'r Permit> {
        self.0.held(request)
    }

    fn admitted(&self, request: &mut Request<B>, permit: &Permit) {
        self.0.admitted(request, permit);
    }
}

/// A service that speaks both, as most that have gRPC do: each request is refused in the words of its own protocol. gRPC is what comes with
/// `content-type: application/grpc`, alone or with `+proto` and the like; gRPC-Web is HTTP here, since its clients take a 503 for
/// `UNAVAILABLE`.
///
/// # Examples
/// ```
/// use http::Request;
/// use plimsoll::admission::{HttpOrGrpc, Http, Kind, Protocol};
///
/// let mixed = HttpOrGrpc::new(Http::default().classify(|head| match head.uri.path() {
///     "/health" | "/grpc.health.v1.Health/Check" => Kind::EXEMPT,
///     _ => Kind::LIGHT,
/// }));
/// let probe = Request::builder().uri("/health").body(()).unwrap();
/// assert_eq!(mixed.kind(&probe), Kind::EXEMPT);
/// ```
#[derive(Clone, Debug, Default)]
pub struct HttpOrGrpc {
    grpc: Grpc,
    /// What is answered is gRPC.
    is_grpc: bool,
}

impl HttpOrGrpc {
    /// With one classification for both.
    pub fn new(http: Http) -> HttpOrGrpc {
        HttpOrGrpc { grpc: Grpc(http), is_grpc: false }
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let said = request.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let rest = said.split_at_checked(GRPC.len()).filter(|(begin, _)| begin.eq_ignore_ascii_case(GRPC.as_bytes()));
    rest.is_some_and(|(_, rest)| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

impl<B> Protocol<Request<B>> for HttpOrGrpc {
    fn kind(&self, request: &Request<B>) -> Kind {
        self.grpc.kind(request)
    }

    fn peer(&self, request: &Request<B>) -> Option<Peer> {
        self.grpc.peer(request)
    }

    fn time(&self, request: &Request<B>) -> Option<Duration> {
        if is_grpc(request) { self.grpc.time(request) } else { self.grpc.0.time(request) }
    }

    fn held<'r>(&self, request: &'r Request<B>) -> Option<&'r Permit> {
        self.grpc.held(request)
    }

    fn admitted(&self, request: &mut Request<B>, permit: &Permit) {
        self.grpc.admitted(request, permit);
    }

    fn answering(&self, request: &Request<B>) -> HttpOrGrpc {
        HttpOrGrpc { grpc: self.grpc.clone(), is_grpc: is_grpc(request) }
    }
}

impl<B: Default, E> Refuse<Response<B>, E> for HttpOrGrpc {
    fn refuse(&self, refused: Refused) -> Result<Response<B>, E> {
        if self.is_grpc { self.grpc.refuse(refused) } else { self.grpc.0.refuse(refused) }
    }
}

/// At most eight digits and a unit, as the gRPC protocol over HTTP/2 has it.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

impl<B: Default, E> Refuse<Response<B>, E> for Grpc {
    fn refuse(&self, refused: Refused) -> Result<Response<B>, E> {
        let mut response = Response::new(B::default());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
        headers.insert(STATUS, HeaderValue::from(RESOURCE_EXHAUSTED));
        headers.insert(MESSAGE, HeaderValue::from_static(OVERLOADED));
        // Clients read an `int32`, and do not try again where it is none.
        headers.insert(PUSHBACK, HeaderValue::from(i32::try_from(refused.retry_after.as_millis()).unwrap_or(i32::MAX)));
        if let Ok(details) = HeaderValue::from_str(&base64(&status(refused.retry_after))) {
            headers.insert(DETAILS, details);
        }
        headers.insert(REASON_HEADER, HeaderValue::from_static(refused.reason.as_str()));
        Ok(response)
    }
}

/// A `google.rpc.Status { code, message, details: [RetryInfo { retry_delay }] }` in protobuf's encoding.
fn status(retry_delay: Duration) -> Vec<u8> {
    let (mut duration, mut info, mut any, mut status) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    number(&mut duration, 1, retry_delay.as_secs().min(SECONDS_MAX));
    if retry_delay.as_secs() < SECONDS_MAX {
        number(&mut duration, 2, u64::from(retry_delay.subsec_nanos()));
    }
    bytes(&mut info, 1, &duration);
    bytes(&mut any, 1, RETRY_INFO.as_bytes());
    bytes(&mut any, 2, &info);
    number(&mut status, 1, RESOURCE_EXHAUSTED);
    bytes(&mut status, 2, OVERLOADED.as_bytes());
    bytes(&mut status, 3, &any);
    status
}

/// A field of wire type 0; 0 is left out, as in proto3.
fn number(out: &mut Vec<u8>, field: u8, value: u64) {
    if value > 0 {
        out.push(field << 3);
        varint(out, value);
    }
}

/// A field of wire type 2.
fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Without padding (RFC 4648, section 4; gRPC over HTTP/2, "Binary-Header").
fn base64(data: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(data.len().div_ceil(3) * 4);
    for chunk in data.chunks(3) {
        let bits = chunk.iter().chain(&[0, 0]).take(3).fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        // One byte is two digits, two are three, three are four.
        text.extend((0..=chunk.len()).map(|at| char::from(DIGITS[bits >> (18 - 6 * at) & 63])));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::error::Reason;

    fn said<B>(response: &Response<B>, names: &[&str]) -> Vec<String> {
        let text = |name: &&str| response.headers().get(*name).map_or("-", |value| value.to_str().unwrap()).to_owned();
        std::iter::once(response.status().as_str().to_owned()).chain(names.iter().map(text)).collect()
    }

    const NAMES: [&str; 5] =
        ["content-type", "grpc-status", "grpc-retry-pushback-ms", "grpc-status-details-bin", "plimsoll-refused"];

    /// Encoded by Google's own protobuf library and `googleapis-common-protos`.
    #[test]
    fn a_refusal_says_when_to_try_again_in_both_of_grpcs_ways() {
        for (retry_after, pushback, details) in [
            (
                Duration::from_millis(1_200),
                "1200",
                "CAgSCm92ZXJsb2FkZWQaNQoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIJCgcIARCAhK9f",
            ),
            (
                Duration::from_secs(2),
                "2000",
                "CAgSCm92ZXJsb2FkZWQaMAoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIECgIIAg",
            ),
            (
                Duration::from_millis(250),
                "250",
                "CAgSCm92ZXJsb2FkZWQaMwoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIHCgUQgOWadw",
            ),
            (
                Duration::MAX,
                "2147483647",
                "CAgSCm92ZXJsb2FkZWQaNQoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIJCgcIgLyuzpcJ",
            ),
        ] {
            let refused = Refused::new(Reason::Expired, Kind::HEAVY, retry_after, [0.0, 0.0]);
            let response: Result<Response<()>, ()> = Grpc::default().refuse(refused);
            assert_eq!(
                said(&response.unwrap(), &NAMES),
                ["200", "application/grpc", "8", pushback, details, "expired"],
                "{retry_after:?}"
            );
        }
    }

    #[test]
    fn a_mixed_service_refuses_each_in_its_own_words() {
        let mixed = HttpOrGrpc::default();
        for (content_type, expected) in [
            (None, ["503", "-", "-"]),
            (Some("application/json"), ["503", "-", "-"]),
            (Some("application/grpc"), ["200", "application/grpc", "8"]),
            (Some("application/grpc+proto"), ["200", "application/grpc", "8"]),
            (Some("Application/GRPC; charset=utf-8"), ["200", "application/grpc", "8"]),
            (Some("application/grpc-web+proto"), ["503", "-", "-"]),
            (Some("application/grpcish"), ["503", "-", "-"]),
        ] {
            let request = Request::builder().header(TIMEOUT, "5S");
            let request = content_type.into_iter().fold(request, |request, said| request.header(CONTENT_TYPE, said));
            let request = request.body(()).unwrap();
            let refused = Refused::new(Reason::Busy, Kind::HEAVY, Duration::from_secs(1), [0.0, 0.0]);
            let response: Result<Response<()>, ()> = mixed.answering(&request).refuse(refused);
            assert_eq!(said(&response.unwrap(), &NAMES[..2]), expected, "{content_type:?}");
            let expected = (expected[2] == "8").then_some(Duration::from_secs(5));
            assert_eq!(mixed.time(&request), expected, "grpc-timeout is gRPC's");
        }
    }

    #[test]
    fn base64_is_that_of_rfc_4648_without_padding() {
        for (text, expected) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8");
    }

    #[test]
    fn a_grpc_timeout_is_read_as_the_protocol_has_it() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("250m", Some(Duration::from_millis(250))),
            ("0m", Some(Duration::ZERO)),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("999999999n", None),
            ("5", None),
            ("m", None),
            ("+5m", None),
            ("5é", None),
            ("", None),
        ] {
            assert_eq!(timeout(text), expected, "{text:?}");
        }
    }
}
