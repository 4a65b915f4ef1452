//! The server as its peers see it: both doors, the bounds, and the stop.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll::clock::{Clock, MonotonicClock};

use super::client::{Client, ClientError};
use super::token::Token;
use super::{HEADER_TIME, TCP_CONNECTIONS, WebHandle, serve, socket};
use crate::capture::due::Trigger;
use crate::capture::shelf::{Keep, Shelf};
use crate::snapshot::{Control, DecisionView, RunState, Snapshot, sample};

/// A supervisor that only remembers what it was told.
#[derive(Default)]
struct Pretend {
    memory: Mutex<Option<(u64, Option<u64>)>>,
    stopped: AtomicBool,
    heartbeat_age_seconds: Mutex<f64>,
    captures: AtomicU64,
    shelf: Mutex<Option<Shelf>>,
}

impl Control for Pretend {
    fn snapshot(&self) -> Snapshot {
        let mut snapshot = sample::leaking();
        snapshot.supervisor.heartbeat_age_seconds = Some(*self.heartbeat_age_seconds.lock());
        snapshot
    }

    fn decisions(&self, max: usize) -> Vec<DecisionView> {
        let mut all = sample::decisions();
        all[0].kind = "derived".into();
        all[0].text = "derived for the program: NODE_OPTIONS=\"--require hunter2.js\"".into();
        all[3].text = "exec:notify --token hunter2".into();
        all.split_off(all.len().saturating_sub(max))
    }

    fn set_memory(&self, budget_bytes: u64, reserve_bytes: Option<u64>) -> Result<(), String> {
        if budget_bytes == 0 {
            return Err("memory 0: at least 1 MiB".into());
        }
        *self.memory.lock() = Some((budget_bytes, reserve_bytes));
        Ok(())
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    fn capture(&self) -> Result<u64, String> {
        Ok(self.captures.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn shelf(&self) -> Option<Shelf> {
        self.shelf.lock().clone()
    }
}

struct Served {
    pretend: Arc<Pretend>,
    handle: WebHandle,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

const TOKEN: &str = "0123456789abcdef";

impl Served {
    fn new() -> Served {
        Served::with(None)
    }

    fn with(token: Option<Token>) -> Served {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let pretend = Arc::new(Pretend::default());
        let tcp = socket::bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let handle = serve(pretend.clone(), socket::bind(&path).unwrap(), Some(tcp), token).unwrap();
        Served { pretend, handle, path, _dir: dir }
    }

    fn client(&self) -> Client {
        Client::new(&self.path).deadline(Duration::from_secs(10))
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.handle.tcp_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// Sends text to the TCP port and returns all of the answer.
    fn raw(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.take(8 << 20).read_to_end(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    fn get(&self, target: &str) -> String {
        self.raw(&format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
    }

    fn refused(&self, reason: &str) -> u64 {
        self.client().status().unwrap().http.unwrap().refused_total[reason]
    }
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("a header").1
}

#[test]
fn the_socket_reads_changes_and_stops() {
    let served = Served::new();
    let snapshot = served.client().status().unwrap();
    assert_eq!((snapshot.name.as_str(), snapshot.state), ("shop", RunState::Running));
    assert!(snapshot.derived.iter().any(|d| d.value.is_some()), "its own user sees values");
    assert_eq!(served.client().decisions(2).unwrap().len(), 2);
    served.client().set_memory(500, Some(7)).unwrap();
    assert_eq!(*served.pretend.memory.lock(), Some((500, Some(7))));
    served.client().set_memory(600, None).unwrap();
    assert_eq!(*served.pretend.memory.lock(), Some((600, None)));
    let error = served.client().set_memory(0, None).unwrap_err();
    assert!(matches!(&error, ClientError::Said { status: 409, text } if text.contains("at least")), "{error}");
    served.client().stop().unwrap();
    assert!(served.pretend.stopped.load(Ordering::SeqCst));
}

#[test]
fn the_port_is_for_reading_and_tells_no_secrets() {
    let served = Served::new();
    for (target, kind, word) in [
        ("/", "text/html", "<title>"),
        ("/app.js", "text/javascript", "fetch("),
        ("/heap.js", "text/javascript", "export function heap"),
        ("/report.js", "text/javascript", "export function report"),
        ("/style.css", "text/css", "{"),
        ("/icon.svg", "image/svg+xml", "<svg"),
        ("/api/status", "application/json", "\"name\":\"shop\""),
        ("/api/decisions?max=1", "application/json", "\"kind\":\"level\""),
        ("/api/decisions?max=1000", "application/json", "\"kind\":\"derived\""),
        ("/metrics", "openmetrics", "plimsoll_level_info"),
        ("/healthz", "text/plain", "ok"),
    ] {
        let answer = served.get(target);
        assert!(answer.starts_with("HTTP/1.1 200"), "{target}: {answer}");
        let head = answer.split_once("\r\n\r\n").unwrap().0;
        assert!(head.contains(kind), "{target}: {head}");
        assert!(head.contains("content-security-policy: default-src 'none'; script-src 'self'"), "{target}: {head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{target}: {head}");
        assert!(!head.contains("access-control"), "{target}: {head}");
        assert!(body(&answer).contains(word), "{target}: {answer}");
        assert!(!answer.contains("hunter2"), "{target} tells a command or a variable");
    }
    let head = served.raw("HEAD /api/status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && body(&head).is_empty(), "{head}");
}

#[test]
fn what_the_guard_refuses_is_answered_and_counted() {
    let served = Served::new();
    let put = "PUT /api/memory HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let stop = "POST /api/stop HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let host = "GET /api/status HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    let origin =
        "GET /api/status HTTP/1.1\r\nhost: localhost\r\norigin: http://evil.example\r\nconnection: close\r\n\r\n";
    for (request, status, reason, count) in [
        (put, "405", "method", 1),
        (stop, "405", "method", 2),
        (host, "421", "host", 1),
        (origin, "403", "origin", 1),
        ("GET /nothing HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "404", "body", 0),
        ("GET /api/decisions?max=x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "400", "malformed", 1),
        ("no http at all\r\n\r\n", "400", "malformed", 2),
    ] {
        let answer = served.raw(request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
        assert!(!answer.contains("\"name\":\"shop\""), "{request}: {answer}");
        assert_eq!(served.refused(reason), count, "{request}");
    }
    assert!(served.pretend.memory.lock().is_none());
    assert!(!served.pretend.stopped.load(Ordering::SeqCst));
}

#[test]
fn every_error_is_a_sentence_in_json() {
    let served = Served::with(Some(Token::new(TOKEN).unwrap()));
    *served.pretend.shelf.lock() = Some(shelf(served._dir.path()));
    let ask = |method: &str, target: &str| {
        served.raw(&format!(
            "{method} {target} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        ))
    };
    for (method, target, status, word) in [
        ("GET", "/api/decisions?max=x", 400, "invalid digit"),
        ("GET", "/api/decisions?max=1&max=2", 400, "duplicate field `max`"),
        ("GET", "/api/memory/diff-analysis?from=a&from=b", 400, "duplicate field `from`"),
        ("GET", "/api/memory/snapshots/%ff", 400, "docs/api.md"),
        ("GET", "/api/memory/snapshots/x", 404, "no capture"),
        ("GET", "/nothing", 404, "no such path"),
        ("POST", "/api/status", 405, "method"),
        ("GET", "/api/heap/snapshot", 405, "method"),
    ] {
        let answer = ask(method, target);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{method} {target}: {answer}");
        let told: serde_json::Value = serde_json::from_str(body(&answer)).expect(target);
        assert!(told["error"].as_str().unwrap().contains(word), "{method} {target}: {told}");
    }
    assert!(ask("GET", "/api/heap/snapshot").contains("allow: POST"));
}

#[test]
fn where_nothing_was_captured_there_is_no_report() {
    let served = Served::with(Some(Token::new(TOKEN).unwrap()));
    let empty = Shelf::new(served._dir.path().join("heap"), Keep::default());
    empty.make().unwrap();
    *served.pretend.shelf.lock() = Some(empty);
    let post = format!(
        "POST /api/memory/trend/save HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    for answer in [served.get("/api/memory/trend.md"), served.raw(&post)] {
        assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("no captures"), "{answer}");
    }
    assert!(served.get("/api/memory/trend").contains("insufficient-data"));
}

#[test]
fn headers_and_bodies_are_bounded() {
    let served = Served::new();
    let long = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(20_000));
    let mut stream = served.connect();
    // The server may close before it has read everything.
    stream.write_all(long.as_bytes()).ok();
    let mut answer = [0; 12];
    if stream.read_exact(&mut answer).is_ok() {
        assert_eq!(&answer, b"HTTP/1.1 431");
    }
    let mut unix = std::os::unix::net::UnixStream::connect(&served.path).unwrap();
    let request = format!("PUT /api/memory HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n{}", " ".repeat(5000));
    unix.write_all(request.as_bytes()).unwrap();
    unix.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    assert_eq!(served.refused("body"), 1);
}

#[test]
fn a_flood_of_the_port_is_turned_away_counted_and_leaves_the_socket_free() {
    let served = Served::new();
    let mut held: Vec<_> = (0..TCP_CONNECTIONS).map(|_| served.connect()).collect();
    let mut further = served.connect();
    let mut answer = String::new();
    further.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let http = served.client().status().unwrap().http.unwrap();
    assert_eq!(http.refused_total["busy"], 1);
    assert!(http.connections >= u64::try_from(TCP_CONNECTIONS).unwrap(), "{http:?}");
    // A slot that is given back is used again.
    held.pop();
    let until = MonotonicClock.now() + Duration::from_secs(10);
    while !served.get("/healthz").starts_with("HTTP/1.1 200") {
        assert!(MonotonicClock.now() < until, "the slot never came back");
    }
}

#[test]
fn a_supervise_loop_without_a_heartbeat_is_stale_however_well_the_web_answers() {
    let served = Served::new();
    *served.pretend.heartbeat_age_seconds.lock() = 12.0;
    assert_eq!(served.client().status().unwrap().state, RunState::Stale);
    let answer = served.get("/healthz");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("stale, 12 s"), "{answer}");
}

#[test]
fn a_peer_that_dawdles_is_shown_out_and_leaves_its_slot() {
    let served = Served::new();
    let mut half = served.connect();
    half.write_all(b"GET / HTTP/1.1\r\nhost: local").unwrap();
    let mut silent = served.connect();
    let before = MonotonicClock.now();
    for stream in [&mut half, &mut silent] {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("closed within ten seconds");
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
    assert!(MonotonicClock.now() - before < HEADER_TIME + Duration::from_secs(4));
    // The one that asks is the only one inside.
    let until = MonotonicClock.now() + Duration::from_secs(10);
    while served.client().status().unwrap().http.unwrap().connections > 1 {
        assert!(MonotonicClock.now() < until, "a slot was not given back");
    }
}

#[test]
fn dropping_the_handle_ends_it_even_with_peers_inside() {
    let Served { handle, path, _dir, .. } = Served::new();
    let address = handle.tcp_addr().unwrap();
    let _idle = TcpStream::connect(address).unwrap();
    let mut half = TcpStream::connect(address).unwrap();
    half.write_all(b"GET / HT").unwrap();
    let before = MonotonicClock.now();
    drop(handle);
    assert!(MonotonicClock.now() - before < Duration::from_secs(4));
    assert!(TcpStream::connect(address).is_err());
    assert!(matches!(Client::new(&path).status(), Err(ClientError::Gone(_))));
}

#[test]
fn a_port_for_everyone_needs_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let unix = socket::bind(&dir.path().join("s")).unwrap();
    let tcp = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let error = serve(Arc::new(Pretend::default()), unix, Some(tcp), None).unwrap_err();
    assert!(error.to_string().contains("token"), "{error}");
}

/// A shelf with two captures: a cache has grown, and its name is a secret.
fn shelf(dir: &std::path::Path) -> Shelf {
    use plimsoll_heap::digest::{Digest, Kind, Row};
    use plimsoll_heap::format::Format;
    let shelf = Shelf::new(dir.join("heap"), Keep::default());
    shelf.make().unwrap();
    for (unix_ms, bytes) in [(1_700_000_000_000_u64, 1_000_000), (1_700_001_800_000, 9_000_000)] {
        let part = shelf.tmp().join("part");
        std::fs::write(&part, "{}").unwrap();
        let item = shelf.put(&part, Format::V8Snapshot, unix_ms, Trigger::Periodic, 7).unwrap();
        let row = Row { kind: Kind::Owner, key: "global.hunter2 → Map".into(), bytes, count: 9, variance: 0.0 };
        let digest = Digest { unix_ns: unix_ms * 1_000_000, life: 5, rows: vec![row], ..Digest::default() };
        let mut file = std::fs::File::create(shelf.digest_path(&item)).unwrap();
        digest.write(&mut file).unwrap();
    }
    shelf
}

#[test]
fn what_grew_is_told_to_anybody_and_its_name_to_who_brings_the_token() {
    let served = Served::with(Some(Token::new(TOKEN).unwrap()));
    *served.pretend.shelf.lock() = Some(shelf(served._dir.path()));
    let bearer = |target: &str| {
        served.raw(&format!(
            "GET {target} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n"
        ))
    };
    let id = "1700001800000-periodic-7";
    for target in [
        "/api/memory/diff-analysis".to_owned(),
        "/api/memory/trend".to_owned(),
        "/api/memory/trend.md".to_owned(),
        format!("/api/memory/snapshots/{id}"),
        format!("/api/memory/diff-analysis?from=1700000000000-periodic-7&to={id}"),
    ] {
        let (open, known) = (served.get(&target), bearer(&target));
        assert!(open.starts_with("HTTP/1.1 200") && known.starts_with("HTTP/1.1 200"), "{target}: {open} {known}");
        assert!(!open.contains("hunter2"), "{target}: {open}");
        assert!(known.contains("global.hunter2"), "{target}: {known}");
    }
    assert!(served.get("/api/memory/diff-analysis").contains("\"delta_bytes\":8000000"));
    let list = served.get("/api/memory/snapshots");
    assert!(list.contains(id) && list.contains("\"format\":\"heapsnapshot\"") && !list.contains("hunter2"), "{list}");
    for missing in ["/api/memory/snapshots/nothing", "/api/memory/diff-analysis?from=nothing"] {
        assert!(served.get(missing).starts_with("HTTP/1.1 404"), "{missing}");
    }
}

#[test]
fn a_post_needs_the_token_and_then_does_what_it_says() {
    let served = Served::with(Some(Token::new(TOKEN).unwrap()));
    *served.pretend.shelf.lock() = Some(shelf(served._dir.path()));
    let post = |target: &str, header: &str| {
        served.raw(&format!(
            "POST {target} HTTP/1.1\r\nhost: localhost\r\n{header}content-length: 0\r\nconnection: close\r\n\r\n"
        ))
    };
    for target in ["/api/memory/trend/save", "/api/heap/snapshot"] {
        let without = post(target, "");
        assert!(without.starts_with("HTTP/1.1 401") && without.contains("www-authenticate: Bearer"), "{without}");
        let wrong = post(target, "authorization: Bearer 0123456789abcdeX\r\n");
        assert!(wrong.starts_with("HTTP/1.1 403"), "{wrong}");
    }
    assert_eq!((served.refused("unauthorised"), served.refused("token")), (2, 2));
    let right = format!("authorization: Bearer {TOKEN}\r\n");
    let saved = post("/api/memory/trend/save", &right);
    assert!(saved.starts_with("HTTP/1.1 200"), "{saved}");
    let told: serde_json::Value = serde_json::from_str(body(&saved)).unwrap();
    assert_eq!((&told["success"], &told["filepath"]), (&serde_json::Value::Bool(true), &told["saved"]));
    assert!(told["message"].as_str().unwrap().contains("heap/reports"), "{told}");
    let reports: Vec<_> = std::fs::read_dir(served._dir.path().join("heap/reports")).unwrap().collect();
    assert_eq!(reports.len(), 1);
    let asked = post("/api/heap/snapshot", &right);
    assert!(asked.starts_with("HTTP/1.1 202") && body(&asked) == "{\"ticket\":1}", "{asked}");
    assert_eq!(served.client().capture().unwrap(), 2, "its own user needs none");
}

#[test]
fn where_captures_are_off_the_heap_says_so() {
    let served = Served::new();
    let answer = served.get("/api/memory/trend");
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("--heap"), "{answer}");
}
