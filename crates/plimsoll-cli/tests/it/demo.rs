//! `plimsoll demo` as a newcomer meets it: what it tells, how it ends, and what a second one says.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// A budget of 48 MiB, at 96 MiB/s reached after half a second; ports of its own.
fn demo(dir: &Path, rate: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    command.args(["demo", "--memory", "48M", "--rate", rate, "--http", "127.0.0.1:0", "--port", "0", "--dir"]);
    command.arg(dir).args(more).stdin(Stdio::null());
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
    let mut logs = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
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
