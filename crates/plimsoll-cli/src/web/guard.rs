//! Who may ask on the TCP port, decided from the header alone, before anything is read or made.
//!
//! The port is for reading on this machine: GET and HEAD only (405), and POST for who brings the token, where one was set (401
//! without, 403 with a wrong one); `Host` must be a loopback name or address (421), so
//! that a page whose name was re-pointed at 127.0.0.1 learns nothing; `Origin`, when present, must be the page's own
//! (403), and a browser that says another site asks is refused too. There is no CORS header. A pure function.

use std::net::{IpAddr, SocketAddr};

use axum::http::Method;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::count::Refusal;
use super::token::Token;

/// The rules of one TCP port.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    bound: SocketAddr,
    token: Option<Token>,
}

/// With what authority a request is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Any program on this machine.
    Anybody,
    /// Who brought the token, or came by the Unix socket.
    Authorised,
}

impl Guard {
    /// The rules for a port bound to `bound`.
    pub(crate) fn new(bound: SocketAddr, token: Option<Token>) -> Guard {
        Guard { bound, token }
    }

    /// Whether a request may be answered, and with what authority it is made.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub(crate) fn check(&self, method: &Method, headers: &HeaderMap) -> Result<Asker, Refusal> {
        let reads = *method == Method::GET || *method == Method::HEAD;
        if !reads && (*method != Method::POST || self.token.is_none()) {
            return Err(Refusal::Method);
        }
        let host = only(headers, &header::HOST).ok_or(Refusal::Host)?;
        if !self.is_here(host) {
            return Err(Refusal::Host);
        }
        if headers.contains_key(header::ORIGIN) {
            let origin = only(headers, &header::ORIGIN).and_then(|origin| origin.strip_prefix("http://"));
            if !origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host)) {
                return Err(Refusal::Origin);
            }
        }
        // Browsers say who asks even where they send no Origin (an image, a script). Following a link is a person's act.
        let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
        let navigates = headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
        if matches!(site, Some(b"cross-site" | b"same-site")) && !navigates {
            return Err(Refusal::Origin);
        }
        let given = only(headers, &header::AUTHORIZATION);
        match (&self.token, given) {
            (Some(token), Some(given)) if token.is_in(given) => Ok(Asker::Authorised),
            (Some(_), Some(_)) => Err(Refusal::Token),
            (Some(_), None) if !reads => Err(Refusal::Unauthorised),
            (_, _) => Ok(Asker::Anybody),
        }
    }

    /// Whether a `Host` names this machine. Any port: a forwarded one is still a loopback name.
    fn is_here(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((address, port)) if port.is_empty() || is_port(port) => address,
                _ => return false,
            },
            None => match host.rsplit_once(':') {
                Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
                Some(_) => return false,
                None => host,
            },
        };
        name.eq_ignore_ascii_case("localhost")
            || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip == self.bound.ip())
    }
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
}

/// The value of a header that occurs exactly once and is text.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// The headers that every answer carries: nothing loads from elsewhere, nobody frames or embeds it, nothing is guessed.
pub(crate) fn harden(headers: &mut HeaderMap) {
    const FIXED: [(&str, &str); 5] = [
        (
            "content-security-policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
             frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'",
        ),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("x-frame-options", "DENY"),
    ];
    for (name, value) in FIXED {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn a_table_of_who_may_ask() {
        let guard = Guard::new("127.0.0.1:7117".parse().unwrap(), None);
        let get = Method::GET;
        type Case<'a> = (Method, &'a [(&'static str, &'static str)], Result<(), Refusal>);
        let table: &[Case<'_>] = &[
            (get.clone(), &[("host", "127.0.0.1:7117")], Ok(())),
            (get.clone(), &[("host", "localhost:7117")], Ok(())),
            (get.clone(), &[("host", "LocalHost")], Ok(())),
            (get.clone(), &[("host", "[::1]:7117")], Ok(())),
            (get.clone(), &[("host", "127.8.9.1:80")], Ok(())),
            (Method::HEAD, &[("host", "localhost:9")], Ok(())),
            (Method::PUT, &[("host", "localhost")], Err(Refusal::Method)),
            (Method::POST, &[("host", "localhost")], Err(Refusal::Method)),
            (Method::DELETE, &[("host", "localhost")], Err(Refusal::Method)),
            (Method::OPTIONS, &[("host", "localhost")], Err(Refusal::Method)),
            (get.clone(), &[], Err(Refusal::Host)),
            (get.clone(), &[("host", "evil.example:7117")], Err(Refusal::Host)),
            (get.clone(), &[("host", "127.0.0.1.evil.example")], Err(Refusal::Host)),
            (get.clone(), &[("host", "localhost.evil.example")], Err(Refusal::Host)),
            (get.clone(), &[("host", "10.0.0.7:7117")], Err(Refusal::Host)),
            (get.clone(), &[("host", "localhost:x")], Err(Refusal::Host)),
            (get.clone(), &[("host", "[::1]evil")], Err(Refusal::Host)),
            (get.clone(), &[("host", "")], Err(Refusal::Host)),
            (get.clone(), &[("host", "localhost"), ("host", "evil.example")], Err(Refusal::Host)),
            (get.clone(), &[("host", "localhost:7117"), ("origin", "http://localhost:7117")], Ok(())),
            (get.clone(), &[("host", "localhost:7117"), ("origin", "http://localhost:80")], Err(Refusal::Origin)),
            (get.clone(), &[("host", "localhost:7117"), ("origin", "https://localhost:7117")], Err(Refusal::Origin)),
            (get.clone(), &[("host", "localhost:7117"), ("origin", "http://evil.example")], Err(Refusal::Origin)),
            (get.clone(), &[("host", "localhost:7117"), ("origin", "null")], Err(Refusal::Origin)),
            (get.clone(), &[("host", "localhost"), ("sec-fetch-site", "same-origin")], Ok(())),
            (get.clone(), &[("host", "localhost"), ("sec-fetch-site", "none")], Ok(())),
            (get.clone(), &[("host", "localhost"), ("sec-fetch-site", "cross-site")], Err(Refusal::Origin)),
            (
                get.clone(),
                &[("host", "localhost"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")],
                Ok(()),
            ),
        ];
        for (method, pairs, expected) in table {
            let expected = (*expected).map(|()| Asker::Anybody);
            assert_eq!(guard.check(method, &headers(pairs)), expected, "{method} {pairs:?}");
        }
    }

    #[test]
    fn a_token_lets_post_through_and_a_wrong_one_nothing() {
        let token = Token::new("0123456789abcdef").unwrap();
        let guard = Guard::new("127.0.0.1:7117".parse().unwrap(), Some(token));
        let right = ("authorization", "Bearer 0123456789abcdef");
        let wrong = ("authorization", "Bearer 0123456789abcdeg");
        let host = ("host", "localhost");
        let evil = ("origin", "http://evil.example");
        type Case<'a> = (Method, &'a [(&'static str, &'static str)], Result<Asker, Refusal>);
        let table: &[Case<'_>] = &[
            (Method::GET, &[host], Ok(Asker::Anybody)),
            (Method::GET, &[host, right], Ok(Asker::Authorised)),
            (Method::GET, &[host, wrong], Err(Refusal::Token)),
            (Method::POST, &[host], Err(Refusal::Unauthorised)),
            (Method::POST, &[host, wrong], Err(Refusal::Token)),
            (Method::POST, &[host, right], Ok(Asker::Authorised)),
            (Method::POST, &[host, right, right], Err(Refusal::Unauthorised)),
            (Method::POST, &[host, right, evil], Err(Refusal::Origin)),
            (Method::PUT, &[host, right], Err(Refusal::Method)),
        ];
        for (method, pairs, expected) in table {
            assert_eq!(guard.check(method, &headers(pairs)), *expected, "{method} {pairs:?}");
        }
    }

    #[test]
    fn every_answer_is_hardened_and_offers_no_cors() {
        let mut map = HeaderMap::new();
        harden(&mut map);
        assert!(map["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'; script-src 'self';"));
        assert_eq!(map["x-content-type-options"], "nosniff");
        assert_eq!(map["cache-control"], "no-store");
        assert!(!map.keys().any(|name| name.as_str().starts_with("access-control")));
    }
}
