//! Runtimes get their limits from the one budget; what the operator set wins. Node, Python and Java are used where present.

use crate::support::{start, turn};
use plimsoll_incidents::protected::{Entry, Service, Setup};
use std::process::{Command, Stdio};
use std::time::Duration;

const FLAGS: [&str; 7] = ["--memory", "300M", "--reserve", "100M", "--restart", "never", "--quiet"];
const DEADLINE: Duration = Duration::from_secs(60);

fn present(program: &str, version: &str) -> bool {
    let quiet = Command::new(program).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let there = quiet.is_ok_and(|status| status.success());
    if !there {
        eprintln!("skipped: no {program} here");
    }
    there
}

fn stdout(service: &Service) -> Vec<String> {
    let mut lines = Vec::new();
    let sink = |entry: Entry<'_>| {
        if let Entry::Text { stream: "stdout", text } = entry {
            lines.push(String::from_utf8_lossy(text).into_owned());
        }
    };
    service.logs(&[], sink).unwrap_or_else(|reason| panic!("{reason}"));
    lines
}

/// The environment that a child gets when the supervisor has `set`.
fn environment(set: &[(&str, &str)]) -> Option<Vec<String>> {
    let mut setup = Setup::new("env", &FLAGS).program(&["/usr/bin/env"]);
    for (key, value) in set {
        setup = setup.environment(key, value);
    }
    let mut service = start(setup)?;
    let status = service.wait(DEADLINE).unwrap_or_else(|| panic!("still runs: {}", service.stderr()));
    assert_eq!(status.code(), Some(0), "{}", service.stderr());
    Some(stdout(&service))
}

fn value<'a>(lines: &'a [String], key: &str) -> Option<&'a str> {
    lines.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

#[test]
fn limits_are_derived_from_the_budget_and_what_is_set_wins() {
    let Some(derived) = environment(&[]) else { return };
    let budget = 300_u64 << 20;
    let hard = value(&derived, "DOTNET_GCHeapHardLimit").expect("DOTNET_GCHeapHardLimit");
    let hard = u64::from_str_radix(hard.trim_start_matches("0x"), 16).expect("hexadecimal");
    assert!(hard > budget / 4 && hard < budget, "{hard}");
    let go = value(&derived, "GOMEMLIMIT").expect("GOMEMLIMIT");
    assert!(go.ends_with("MiB") || go.ends_with('B') || go.parse::<u64>().is_ok(), "{go}");
    let node = value(&derived, "NODE_OPTIONS").expect("NODE_OPTIONS");
    let megabytes = node.rsplit_once("--max-old-space-size=").expect("the option").1.split(' ').next().expect("a word");
    let megabytes: u64 = megabytes.parse().expect("a number");
    assert!(megabytes > 75 && megabytes < 300, "{node}");
    assert!(value(&derived, "JAVA_TOOL_OPTIONS").expect("JAVA_TOOL_OPTIONS").contains("-X"));
    assert!(value(&derived, "MALLOC_ARENA_MAX").expect("MALLOC_ARENA_MAX").parse::<u32>().is_ok());
    assert_eq!(value(&derived, "PYTHONUNBUFFERED"), Some("1"));

    let set = [("GOMEMLIMIT", "100MiB"), ("NODE_OPTIONS", "--no-warnings"), ("MALLOC_ARENA_MAX", "")];
    let Some(kept) = environment(&set) else { return };
    assert_eq!(value(&kept, "GOMEMLIMIT"), Some("100MiB"), "what is set wins");
    let node = value(&kept, "NODE_OPTIONS").expect("NODE_OPTIONS");
    assert!(node.contains("--no-warnings") && node.contains("--max-old-space-size="), "merged: {node}");
    assert!(value(&kept, "MALLOC_ARENA_MAX").is_none_or(str::is_empty), "an empty value opts out");
    let own = [("NODE_OPTIONS", "--max-old-space-size=64")];
    let Some(own) = environment(&own) else { return };
    let node = value(&own, "NODE_OPTIONS").expect("NODE_OPTIONS");
    assert_eq!(node.matches("--max-old-space-size=").count(), 1, "the option itself was set: {node}");
    assert!(node.starts_with("--max-old-space-size=64 --heapsnapshot-signal=SIGUSR2 --diagnostic-dir="), "{node}");
}

#[test]
fn a_node_server_with_its_own_options_leaks_outside_the_heap_and_is_told() {
    let _turn = turn();
    if !present("node", "--version") {
        return;
    }
    let script = "
        console.log('limit', Math.round(require('v8').getHeapStatistics().heap_size_limit / 1048576));
        process.on('SIGTERM', () => { console.log('told'); process.exit(0); });
        require('http').createServer((q, r) => r.end('ok')).listen(0, '127.0.0.1');
        const kept = []; setInterval(() => kept.push(Buffer.alloc(2 << 20, 1)), 10);";
    let setup =
        Setup::new("node", &FLAGS).program(&["node", "-e", script]).environment("NODE_OPTIONS", "--no-warnings");
    let Some(mut service) = start(setup) else { return };
    let lines = assert_told(&mut service);
    let limit: u64 = lines[0].trim_start_matches("limit ").parse().unwrap_or_else(|_| panic!("{lines:?}"));
    assert!(limit < 320, "node's heap limit is {limit} MiB under a budget of 300M");
}

#[test]
fn a_python_server_that_leaks_is_told_and_its_last_line_is_kept() {
    let _turn = turn();
    if !present("python3", "--version") {
        return;
    }
    let script = "
import signal, sys, time
def told(*_):
    print('told'); sys.exit(0)
signal.signal(signal.SIGTERM, told)
print('up')
kept = []
while True:
    kept.append(bytearray(b'x') * (2 << 20)); time.sleep(0.01)";
    let Some(mut service) = start(Setup::new("python", &FLAGS).program(&["python3", "-c", script])) else { return };
    let lines = assert_told(&mut service);
    assert_eq!(lines, ["up", "told"]);
}

#[test]
fn a_java_program_keeps_its_heap_below_the_budget() {
    let _turn = turn();
    if !present("java", "-version") || !present("javac", "-version") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("Heap.java");
    let text = "public class Heap { public static void main(String[] a) { System.out.println(Runtime.getRuntime().maxMemory() >> 20); } }";
    std::fs::write(&source, text).unwrap();
    let source = source.display().to_string();
    let Some(mut service) = start(Setup::new("java", &FLAGS).program(&["java", &source])) else { return };
    let status = service.wait(DEADLINE).unwrap_or_else(|| panic!("still runs: {}", service.stderr()));
    assert_eq!(status.code(), Some(0), "{}", service.stderr());
    let heap: u64 = stdout(&service).last().and_then(|line| line.parse().ok()).expect("the heap's maximum in MiB");
    assert!((60..300).contains(&heap), "{heap} MiB");
}

/// Stopped for memory, after it had said that it was told; its stdout.
#[track_caller]
fn assert_told(service: &mut Service) -> Vec<String> {
    let status = service.wait(DEADLINE).unwrap_or_else(|| panic!("still runs: {}", service.stderr()));
    let (exit, lines) = (service.last_exit(), stdout(service));
    assert_eq!((status.code(), exit["reason"].as_str()), (Some(2), Some("memory")), "{exit:#}\n{}", service.stderr());
    assert_eq!(lines.last().map(String::as_str), Some("told"), "{lines:?}");
    lines
}
