//! The examples do what their first lines promise. They are built with the tests; run alone, a test that finds none is skipped.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use plimsoll::watchdog::THRESHOLD_VAR;

/// `target/…/examples/NAME`, beside the directory that this binary is in.
fn example(name: &str) -> Option<Command> {
    let own = std::env::current_exe().expect("the test binary's own path");
    let path: PathBuf = own.parent()?.parent()?.join("examples").join(name);
    if !path.exists() {
        println!("skipped: {} was not built (it is by `cargo test -p plimsoll --features tokio`)", path.display());
        return None;
    }
    let mut command = Command::new(path);
    command.env_remove(THRESHOLD_VAR).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command)
}

#[test]
fn embed_leaves_with_code_2_and_says_what_held_the_memory() {
    let Some(mut command) = example("embed") else { return };
    let output = command.env(THRESHOLD_VAR, "64M").output().unwrap();
    let (said, out) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with("memory watchdog: threshold 64.0 MiB (soft 56.3 MiB) on "), "{said}");
    assert!(said.contains("plimsoll: memory pressure: ") && !said.contains("error:"), "{said}");
    assert!(out.starts_with("drained after "), "{out}");
}

#[test]
fn embed_without_the_variable_has_no_watchdog_and_with_nonsense_says_so() {
    let Some(mut command) = example("embed") else { return };
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "memory watchdog: off\n");
    let output = example("embed").unwrap().env(THRESHOLD_VAR, "plenty").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("PLIMSOLL_SHUTDOWN_THRESHOLD=\"plenty\"") && said.contains("the memory watchdog is off"),
        "{said}"
    );
}

/// One request on a connection of its own; the status, or `None` when nobody answers any more.
fn request(address: &str, head: &str, body: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let length = body.len();
    write!(stream, "{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n").ok()?;
    // The server may answer, and close, before it has read everything.
    stream.write_all(body).ok();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok();
    text.split(' ').nth(1)?.parse().ok()
}

#[test]
fn http_refuses_then_drains_and_every_acknowledged_item_is_on_disk() {
    let Some(mut command) = example("http") else { return };
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("items.log");
    let mut child = command.args(["127.0.0.1:0".as_ref(), log.as_os_str()]).env(THRESHOLD_VAR, "64M").spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let address = first.trim().strip_prefix("listening on ").expect("it listens").to_owned();
    assert_eq!(request(&address, "GET /health", b""), Some(200));
    let item = vec![b'x'; 1 << 20];
    let (mut kept, mut refused) = (0, 0);
    for _ in 0..200 {
        match request(&address, "POST /items", &item) {
            Some(201) => kept += 1,
            Some(503) => refused += 1,
            _ => break,
        }
        if refused > 5 {
            break;
        }
    }
    assert!(kept > 30, "{kept} kept, {refused} refused");
    // Refusing keeps it below the threshold; then it is told to stop, as an operator does.
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
    let status = child.wait().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(if refused > 0 { 0 } else { 2 }), "{said}");
    let lines = std::fs::read_to_string(&log).unwrap();
    assert_eq!(lines.lines().count(), kept, "every item that was acknowledged, and no other: {said}");
}

#[test]
fn admission_answers_before_it_reads_and_probes_while_it_is_busy() {
    let Some(mut command) = example("admission") else { return };
    let mut child = command.arg("127.0.0.1:0").spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let address = first.trim().strip_prefix("listening on ").expect("it listens").to_owned();
    std::thread::scope(|scope| {
        let reports: Vec<_> = (0..6).map(|_| scope.spawn(|| request(&address, "GET /report", b""))).collect();
        let counters = |stream: &mut TcpStream| {
            write!(stream, "GET /admission HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        // Until two work, for two seconds, and two wait, for half a second, and the others are refused.
        let full = |_: &i32| {
            let text = counters(&mut TcpStream::connect(&address).unwrap());
            text.contains("heavy 2 of 2") && text.contains("refused busy 2")
        };
        assert!((0..1_000).any(|n| full(&n)), "never full");
        // A hundred megabytes are announced and not one is sent: the answer is there all the same, now or when it has waited.
        let mut upload = TcpStream::connect(&address).unwrap();
        upload.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(upload, "POST /report HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n").unwrap();
        let mut head = [0; 200];
        let length = upload.read(&mut head).unwrap();
        let head = String::from_utf8_lossy(&head[..length]).into_owned();
        assert!(head.starts_with("HTTP/1.1 503") && head.contains("plimsoll-refused: "), "{head}");
        assert!(head.contains("retry-after: "), "{head}");
        assert_eq!(request(&address, "GET /health", b""), Some(200));
        let answers: Vec<_> = reports.into_iter().map(|report| report.join().unwrap()).collect();
        let of = |status| answers.iter().filter(|answer| **answer == Some(status)).count();
        assert_eq!((of(200), of(503)), (2, 4), "{answers:?}");
    });
    child.kill().unwrap();
    child.wait().unwrap();
}
