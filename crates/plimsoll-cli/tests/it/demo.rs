//! `plimsoll demo` as a newcomer meets it: what it tells, how it ends, and what a second one says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// A budget of 48 MiB, at 96 MiB/s reached after half a second; ports of its own.
fn demo(dir: &Path, rate: &str, more: &[&str]) -> Command {
    let mut command = crate::plimsoll();
    command.args(["demo", "--memory", "48M", "--rate", rate, "--http", "127.0.0.1:0", "--port", "0", "--dir"]);
    command.arg(dir).args(more).env("DEMO_SECRET", "canary-7f3a").stdin(Stdio::null());
    command
}

fn words(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn tells_the_story(more: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let output = demo(dir.path(), "96M", &[&["--for", "4s"], more].concat()).output().unwrap();
    let (told, said) = words(&output);
    assert!(output.status.success() && said.is_empty(), "{}: {said}\n{told}", output.status);
    let mut rest = told.as_str();
    // In this order: the whole story, then the summary.
    for word in [
        "leaks 96.0 MiB/s",
        "48.0 MiB, and",
        "page        http://127.0.0.1:",
        "serves http://127.0.0.1:",
        "critical",
        "stop     SIGTERM sent to",
        "ended    reason memory: exited with code 0",
        "left by itself",
        "back-off restart 1 in",
        "That was",
        "1 time it reached its budget of 48.0 MiB",
        "reason memory: exited with code 0",
        "restarts    1",
        "lines kept, 0 lost",
        "logs demo --dir",
        "top --dir",
    ] {
        let at = rest.find(word).unwrap_or_else(|| panic!("{word:?} is missing, or too early, in:\n{told}"));
        rest = &rest[at + word.len()..];
    }
    let mut logs = crate::plimsoll();
    let logs = logs.args(["logs", "demo", "--dir"]).arg(dir.path()).stdin(Stdio::null()).output().unwrap();
    let (lines, _) = words(&logs);
    assert!(lines.contains("GET /order 200") && lines.contains("drained after"), "{lines}");
    told
}

#[test]
fn it_tells_the_whole_story_and_ends_well() {
    tells_the_story(&[]);
}

#[test]
fn it_does_so_without_a_cgroup() {
    let told = tells_the_story(&["--no-cgroup"]);
    assert!(told.contains("its process tree is summed") || told.contains("--no-cgroup"), "{told}");
}

/// Starts one and reads up to the line that says where it serves.
fn started(dir: &Path) -> (Child, BufReader<std::process::ChildStdout>, String) {
    let mut child = demo(dir, "1M", &[]).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains(" serves http://") {
        assert!(lines.read_line(&mut text).unwrap() > 0, "it ended: {text}");
    }
    (child, lines, text)
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn a_second_one_names_the_first_and_an_interrupt_ends_it_well() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, mut lines, _) = started(dir.path());
    let second = demo(dir.path(), "1M", &[]).output().unwrap();
    let (told, said) = words(&second);
    assert_eq!((second.status.code(), told.as_str()), (Some(1), ""), "{said}");
    assert!(said.contains(&format!("already supervised by pid {}", first.id())), "{said}");
    signal(&first, rustix::process::Signal::INT);
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(first.wait().unwrap().success(), "{rest}");
    assert!(rest.contains("That was") && rest.contains("did not reach its budget"), "{rest}");
}

#[test]
fn after_a_kill_the_next_one_takes_the_service_over() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, lines, told) = started(dir.path());
    let pid = told.rsplit_once("pid ").unwrap().1.split(' ').next().unwrap().to_owned();
    first.kill().unwrap();
    first.wait().unwrap();
    drop(lines);
    let next = demo(dir.path(), "1M", &["--for", "1s"]).output().unwrap();
    let (told, said) = words(&next);
    assert!(next.status.success(), "{said}\n{told}");
    assert!(told.contains(&format!("pid {pid} taken over")), "{told}");
    assert!(told.contains(&format!("pid {pid} serves http://127.0.0.1:")), "{told}");
}

/// All of the answer to a request on the port.
fn asked(address: &str, request: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "{request}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.take(4 << 20).read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn its_port_shows_figures_and_neither_command_nor_environment_nor_log() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, mut lines, told) = started(dir.path());
    let address = told.rsplit_once("page        http://").unwrap().1.split('/').next().unwrap().to_owned();
    for target in ["/", "/app.js", "/style.css", "/api/status", "/api/decisions?max=1000", "/metrics", "/healthz"] {
        let answer = asked(&address, &format!("GET {target} HTTP/1.1\r\nhost: {address}"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{target}: {answer}");
        for secret in ["demo-service", "rate-bytes", "GET /order", "serves http://", "PATH=", "canary-7f3a"] {
            assert!(!answer.contains(secret), "{target} tells {secret}");
        }
    }
    let status = asked(&address, &format!("GET /api/status HTTP/1.1\r\nhost: {address}"));
    assert!(status.contains("\"budget_bytes\":50331648"), "{status}");
    for (request, refused) in [
        ("GET /api/status HTTP/1.1\r\nhost: evil.example".to_owned(), "421"),
        (format!("GET /api/status HTTP/1.1\r\nhost: {address}\r\norigin: http://evil.example"), "403"),
        (format!("POST /api/stop HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0"), "405"),
        (format!("PUT /api/memory HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0"), "405"),
    ] {
        let answer = asked(&address, &request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {refused}")), "{request}: {answer}");
    }
    signal(&first, rustix::process::Signal::TERM);
    lines.read_to_string(&mut String::new()).unwrap();
    assert!(first.wait().unwrap().success());
}

#[test]
fn an_address_for_everyone_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = crate::plimsoll();
    let output = command.args(["demo", "--http", "0.0.0.0:7117", "--dir"]).arg(dir.path()).output().unwrap();
    let (_, said) = words(&output);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("only loopback addresses are served") && said.contains("token"), "{said}");
}
