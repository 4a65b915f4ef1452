//! `plimsoll replay`: of a run that ended, of one whose supervisor was killed, of a trace; and what it refuses.

use std::path::Path;
use std::process::{Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::faces::{Stage, plimsoll, printed};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// 100 MiB and 4 MiB more each second, for a minute.
fn trace(dir: &Path) -> String {
    let lines: String = (0..60).map(|s| format!("{s},{}M\n", 100 + 4 * s)).collect();
    let path = dir.join("trace.csv");
    std::fs::write(&path, lines).unwrap();
    path.display().to_string()
}

#[test]
fn a_run_that_was_stopped_for_memory_is_reproduced_and_another_policy_would_have_acted_earlier() {
    let dir = tempfile::tempdir().unwrap();
    // A shell that holds more and more text.
    let grow = "x=; while :; do x=$x$(head -c 2000000 /dev/zero | tr '\\0' x); done";
    let mut run = crate::plimsoll();
    run.args(["run", "--quiet", "--no-cgroup", "--restart", "never", "--memory", "48M", "--name", "web", "--dir"]);
    run.arg(dir.path()).args(["--", "sh", "-c", grow]).stdin(Stdio::null());
    let output = run.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let log = dir.path().join("web/decisions.log");
    assert!(std::fs::metadata(&log).unwrap().len() <= 2 << 20);

    let output = plimsoll(dir.path(), &["replay", "web"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(printed(&output).ends_with(" decisions, each as it was recorded\n"), "{output:?}");

    let other = ["replay", "web", "--set", "elevated=30 %", "--set", "high = 40 %", "--json"];
    let value = json(&plimsoll(dir.path(), &other));
    assert_eq!((&value["kind"], &value["reproduced"]["differing"]), (&"log".into(), &0.into()), "{value:#}");
    let life = &value["comparison"]["lives"][0];
    let at = |which: &str| life[which]["high_at_seconds"].as_f64().unwrap();
    assert!(at("replayed") < at("recorded"), "{life:#}");
    assert_eq!(life["recorded"]["critical_at_seconds"], life["replayed"]["critical_at_seconds"], "{life:#}");
    let sentence = value["comparison"]["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("with elevated = 30 %, high = 40 % you would have acted "), "{sentence}");

    // The file by its path, and what it exports, are the same log.
    let exported = plimsoll(dir.path(), &["replay", "web", "--export"]).stdout;
    assert_eq!(exported, std::fs::read(&log).unwrap());
    let by_path = plimsoll(dir.path(), &["replay", &log.display().to_string()]);
    assert_eq!(printed(&by_path), printed(&plimsoll(dir.path(), &["replay", "web"])));
}

#[test]
fn a_killed_supervisor_leaves_its_log_and_the_next_goes_on_in_it() {
    let mut stage = Stage::new();
    let supervisor = stage.run("web", &["--memory", "64M", "--no-cgroup"], &["sleep", "600"]);
    // One life so far, and running.
    let output = stage.ask(&["replay", "web", "--set", "high = 80 %"]);
    assert!(output.status.success() && printed(&output).contains("high = 80 %"), "{output:?}");
    rustix::process::kill_process(supervisor, Signal::KILL).unwrap();
    stage.until("web", |status| status["state"] == "stale");
    let lives = |output: &Output| json(output)["comparison"]["lives"].as_array().unwrap().len();
    let ask = ["replay", "web", "--set", "high = 80 %", "--json"];
    assert_eq!(lives(&stage.ask(&ask)), 1);
    stage.run("web", &["--memory", "64M", "--no-cgroup"], &["sleep", "600"]);
    stage.until("web", |status| status["governor"]["samples_total"].as_u64().is_some_and(|samples| samples > 0));
    let output = stage.ask(&ask);
    assert_eq!((lives(&output), &json(&output)["reproduced"]["differing"]), (2, &0.into()), "{output:?}");
}

#[test]
fn a_trace_needs_a_budget_and_the_difference_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let trace = trace(dir.path());
    let output = plimsoll(dir.path(), &["replay", &trace, "--set", "high = 80 %"]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(said(&output).contains("a trace has no budget of its own"), "{output:?}");
    let policy = dir.path().join("policy");
    std::fs::write(&policy, "# what we think of\nbudget = 300M\nhigh = 80 %  # was 88\n").unwrap();
    let output = plimsoll(dir.path(), &["replay", &trace, "--policy", &policy.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = printed(&output);
    assert!(text.ends_with("with high = 80 % you would have acted 6.0 s earlier\n"), "{text}");
    // A value on the command line wins over the file's.
    let output =
        plimsoll(dir.path(), &["replay", &trace, "--policy", &policy.display().to_string(), "--set", "high = 84 %"]);
    assert!(printed(&output).contains("with high = 84 % you would have acted 3.0 s earlier"), "{output:?}");
}

#[test]
fn everything_wrong_with_a_policy_is_said_at_once_and_is_usage() {
    let dir = tempfile::tempdir().unwrap();
    let trace = trace(dir.path());
    let policy = dir.path().join("policy");
    std::fs::write(&policy, "budget = 300\nhihg = 80 %\ndwell = 48h\n").unwrap();
    let output = plimsoll(dir.path(), &["replay", &trace, "--policy", &policy.display().to_string()]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    for part in ["line 1: budget is 300: allowed is", "line 2: hihg: unknown key", "line 3: dwell is 48h: allowed is"] {
        assert!(said(&output).contains(part), "{part}: {output:?}");
    }
    let crossed = plimsoll(dir.path(), &["replay", &trace, "--set", "budget=300M", "--set", "elevated = 95 %"]);
    assert_eq!(crossed.status.code(), Some(64), "{crossed:?}");
    assert!(said(&crossed).contains("three rising numbers"), "{crossed:?}");
}

#[test]
fn what_cannot_be_read_is_named_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        std::fs::write(dir.path().join(name), bytes).unwrap();
        dir.path().join(name).display().to_string()
    };
    let cases = [
        (file("other", b"plimsoll-decisions 2\n"), 1, "byte 0, line 1: version 2"),
        (file("damaged", b"plimsoll-decisions 1\ngap samples=1\nsample at=x\n"), 1, "byte 35, line 3:"),
        (file("binary", b"\x7fELF\0\0\xff\n"), 1, "byte 0, line 1: neither a decision log nor a trace"),
        (file("empty", b""), 1, "no sample in it"),
        (dir.path().join("nowhere").display().to_string(), 1, "cannot read"),
        ("nobody".to_owned(), 64, "no program \"nobody\""),
    ];
    for (log, code, what) in cases {
        let output = plimsoll(dir.path(), &["replay", &log, "--set", "budget = 300M"]);
        assert_eq!(output.status.code(), Some(code), "{log}: {output:?}");
        assert!(said(&output).contains(what), "{what}: {output:?}");
    }
}
