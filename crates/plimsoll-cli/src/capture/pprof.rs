//! A pprof profile over HTTP, as Go's `net/http/pprof` and its likes serve it: one GET, at most [`PATIENCE`] and [`BYTES_MAX`].

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Uri, header};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long it may take in all.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest profile taken.
const BYTES_MAX: u64 = 256 << 20;

/// What of a URL is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    host: String,
    port: u16,
    path: String,
}

/// Understands `http://HOST[:PORT]/PATH`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(url: &str) -> Result<Target, String> {
    let expected = "expected http://HOST:PORT/debug/pprof/heap";
    let uri: Uri = url.parse().map_err(|error| format!("{url:?}: {error}; {expected}"))?;
    if uri.scheme_str() != Some("http") {
        return Err(format!("{url:?}: {expected}"));
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| format!("{url:?}: no host; {expected}"))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(Target {
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: uri.port_u16().unwrap_or(80),
        path: path.to_owned(),
    })
}

/// Fetches the profile at `url` into `path`.
///
/// # Errors
/// Who did not answer, or with what instead.
pub(crate) fn fetch(url: &str, path: &Path) -> Result<(), String> {
    let target = parse(url)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| format!("no runtime for an HTTP request: {error}"))?;
    runtime
        .block_on(async {
            tokio::time::timeout(PATIENCE, get(&target, path))
                .await
                .map_err(|_| format!("not done within {} s", PATIENCE.as_secs()))?
        })
        .map_err(|why| format!("{url}: {why}"))
}

async fn get(target: &Target, path: &Path) -> Result<(), String> {
    let said = |error: hyper::Error| error.to_string();
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake::<_, Body>(TokioIo::new(stream)).await.map_err(said)?;
    let request = Request::get(&target.path)
        .header(header::HOST, format!("{}:{}", target.host, target.port))
        .header(header::CONNECTION, "close")
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    let body = async {
        let mut response = sender.send_request(request).await.map_err(said)?;
        if !response.status().is_success() {
            return Err(format!("answered {}", response.status()));
        }
        let mut file = File::create_new(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut taken = 0;
        while let Some(frame) = response.body_mut().frame().await {
            let frame = frame.map_err(said)?;
            let Some(piece) = frame.data_ref() else { continue };
            taken += piece.len() as u64;
            if taken > BYTES_MAX {
                return Err(format!("longer than {} MiB", BYTES_MAX >> 20));
            }
            file.write_all(piece).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    };
    // The connection does the work while the answer is waited for; when it ends first, the answer says so.
    let (answer, _) = tokio::join!(body, connection);
    answer
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    fn answering(answer: &'static [u8]) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/debug/pprof/heap?gc=1", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 1024];
            let read = stream.read(&mut head).unwrap();
            stream.write_all(answer).unwrap();
            String::from_utf8_lossy(&head[..read]).into_owned()
        });
        (url, server)
    }

    #[test]
    fn a_profile_is_fetched_whole_also_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        for (name, answer) in [
            ("a", &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbytes"[..]),
            ("b", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nby\r\n3\r\ntes\r\n0\r\n\r\n"),
        ] {
            let (url, server) = answering(answer);
            let path = dir.path().join(name);
            fetch(&url, &path).unwrap();
            assert_eq!(crate::supervise::files::read_bounded(&path).unwrap(), b"bytes");
            assert!(server.join().unwrap().starts_with("GET /debug/pprof/heap?gc=1 HTTP/1.1\r\n"));
        }
    }

    #[test]
    fn what_is_no_profile_is_an_error_with_the_url() {
        let dir = tempfile::tempdir().unwrap();
        let (url, server) = answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        let error = fetch(&url, &dir.path().join("x")).unwrap_err();
        assert!(error.contains(&url) && error.contains("404"), "{error}");
        server.join().unwrap();
        let (url, server) = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nbytes");
        assert!(fetch(&url, &dir.path().join("cut")).is_err(), "cut short");
        server.join().unwrap();
        assert!(fetch("http://127.0.0.1:1/heap", &dir.path().join("y")).unwrap_err().contains("127.0.0.1:1"));
    }

    #[test]
    fn urls_are_understood_or_refused_with_what_was_expected() {
        assert_eq!(
            parse("http://localhost/x?y=1"),
            Ok(Target { host: "localhost".into(), port: 80, path: "/x?y=1".into() })
        );
        assert_eq!(parse("http://[::1]:6060/").map(|t| (t.host, t.port)), Ok(("::1".into(), 6060)));
        for bad in ["", "https://x/", "/path", "http:///x", "ftp://x"] {
            assert!(parse(bad).unwrap_err().contains("expected") || bad.is_empty(), "{bad}");
        }
    }
}
