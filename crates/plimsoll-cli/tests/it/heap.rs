//! `heap diff|top|paths|open` on the snapshots of the library's tests: exit codes, and the first row names the leak.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::faces::{Stage, printed};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plimsoll-heap/testdata/v8").join(name)
}

fn heap(words: &[&str], files: &[PathBuf]) -> Output {
    let mut command = crate::plimsoll();
    command.arg("heap").args(words).args(files).stdin(Stdio::null()).output().unwrap()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn the_first_row_of_a_diff_names_the_leak_and_growth_can_fail_a_build() {
    let leak = [data("leak-before.heapsnapshot.gz"), data("leak-after.heapsnapshot.gz")];
    let output = heap(&["diff"], &leak);
    let text = printed(&output);
    let rows: Vec<&str> = text.lines().skip_while(|line| !line.contains("HELD BY")).collect();
    assert!(rows[1].trim_start().starts_with('+') && rows[1].ends_with("global.__app.sessionCache → Map"), "{text}");
    assert!(
        text.lines().nth(1).unwrap().ends_with("global.__app.sessionCache → Map, the same object as before."),
        "{text}"
    );
    assert_eq!(code(&output), Some(0));
    for (limit, expected) in [("1M", 0), ("10K", 1)] {
        assert_eq!(code(&heap(&["diff", "--fail-on-growth", limit], &leak)), Some(expected), "{limit}");
    }
    let told = String::from_utf8(heap(&["diff", "--fail-on-growth", "10K"], &leak).stderr).unwrap();
    assert!(told.contains("global.__app.sessionCache → Map grew by") && told.contains("more than 10.0 KiB"), "{told}");
    assert_eq!(code(&heap(&["diff", "--fail-on-growth", "10"], &leak)), Some(64), "a size needs a unit");
    let json: Value = serde_json::from_slice(&heap(&["diff", "--json"], &leak).stdout).unwrap();
    assert_eq!(json["owners"][0]["key"], "global.__app.sessionCache → Map");
    assert_eq!((&json["same_life"], &json["owners"][0]["grew_in_place"]), (&Value::Bool(true), &Value::Bool(true)));
    let restarted = [data("leak-before.heapsnapshot.gz"), data("restarted-after.heapsnapshot.gz")];
    assert!(printed(&heap(&["diff"], &restarted)).contains("The program was restarted in between"));
}

#[test]
fn one_snapshot_is_summed_up_followed_and_opened() {
    let file = [data("leak-after.heapsnapshot.gz")];
    let top = heap(&["top"], &file);
    assert!(printed(&top).contains("global.__app.sessionCache → Map"), "{}", printed(&top));
    let paths = printed(&heap(&["paths", "--class", "Session"], &file));
    assert!(
        paths.starts_with("Session: 200 objects\n")
            && paths.contains("100.0 %  global.__app.sessionCache[*] → Session"),
        "{paths}"
    );
    let open = printed(&heap(&["open"], &file));
    assert!(open.lines().next().unwrap().contains("V8 heap snapshot, packed by gzip"), "{open}");
    let none = heap(&["paths", "--class", "NoSuchClass"], &file);
    assert_eq!((code(&none), none.stdout.len()), (Some(1), 0));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure_and_a_full_disk_is_one() {
    let plimsoll = |words: &[&str], stdout: Stdio, stderr: Stdio| {
        let mut command = crate::plimsoll();
        command.args(words).arg(data("leak-after.heapsnapshot.gz")).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        command.spawn().unwrap().wait_with_output().unwrap()
    };
    // A pipe whose reader is gone before anything is written.
    let closed = || Stdio::from(std::io::pipe().unwrap().1);
    for words in [&["heap", "top"][..], &["heap", "open"], &["heap", "top", "--json"]] {
        assert_eq!(code(&plimsoll(words, closed(), closed())), Some(0), "{words:?}");
    }
    let nobody = plimsoll(&["heap", "paths", "--class", "NoSuchClass"], closed(), closed());
    assert_eq!(code(&nobody), Some(1), "the answer is the exit code still");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let full = plimsoll(&["heap", "top"], full.into(), Stdio::piped());
    assert_eq!(code(&full), Some(1));
    assert!(String::from_utf8_lossy(&full.stderr).contains("cannot write to stdout: No space left"), "{full:?}");
}

#[test]
fn profiles_and_digests_are_summed_up_and_compared_and_an_id_is_enough() {
    let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plimsoll-heap/testdata");
    let dir = tempfile::tempdir().unwrap();
    let ids = ["1-asked-9", "2-asked-9"].map(|id| dir.path().join(id));
    for (id, name) in ids.iter().zip(["rust-1.heap", "rust-2.heap"]) {
        std::fs::copy(profiles.join(name), id.with_extension("heap")).unwrap();
        let digest = ["open", "--save-digest", &id.with_extension("digest").display().to_string()].map(str::to_owned);
        assert_eq!(code(&heap(&digest.each_ref().map(String::as_str), std::slice::from_ref(id))), Some(0));
    }
    let top = heap(&["top"], &ids[1..]);
    assert!(
        printed(&top).contains("19.5 MiB ± ") && printed(&top).contains(", jemalloc heap profile"),
        "{}",
        printed(&top)
    );
    // The program is not on this machine: said, with what helps, and its functions stand by their places.
    let said = String::from_utf8_lossy(&top.stderr).into_owned();
    assert!(said.contains("/opt/leaky/plimsoll-leaky: No such file") && said.contains("--binary"), "{said}");
    let files = printed(&heap(&["diff"], &ids));
    assert!(files.contains("+11.5 MiB ± 2.0 MiB") && files.contains("plimsoll-leaky+0x"), "{files}");
    // The files go, the digests stay: by the same names.
    ids.iter().for_each(|id| std::fs::remove_file(id.with_extension("heap")).unwrap());
    let digests = printed(&heap(&["diff"], &ids));
    assert_eq!(digests.lines().nth(3), files.lines().nth(3), "{digests}\n{files}");
    assert!(printed(&heap(&["top"], &ids[1..])).contains("Plimsoll digest"));
    let json: Value = serde_json::from_slice(&heap(&["diff", "--json"], &ids).stdout).unwrap();
    assert_eq!((&json["kind"], json["rows"][0]["within_noise"].as_bool()), (&Value::from("stack"), Some(false)));
    let graph = data("leak-after.heapsnapshot.gz");
    let mixed = heap(&["diff"], &[ids[0].clone(), graph]);
    let why = String::from_utf8_lossy(&mixed.stderr).into_owned();
    assert!(code(&mixed) == Some(1) && why.contains("one is by stack, the other by owner and class"), "{why}");
}

#[test]
fn a_file_that_is_not_whole_is_a_failure_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let small = std::fs::read(data("small.heapsnapshot")).unwrap();
    for (bytes, said) in [
        (&b""[..], "the file is empty: the snapshot failed"),
        (&small[..small.len() / 2], "the snapshot was not finished"),
        (b"hello", "of no format that Plimsoll reads"),
    ] {
        let path = dir.path().join("x.heapsnapshot");
        std::fs::write(&path, bytes).unwrap();
        let output = heap(&["top"], &[path]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(code(&output) == Some(1) && told.contains(said) && told.contains("hint: "), "{told}");
    }
}

#[test]
fn figures_larger_than_can_be_counted_are_shown_as_the_most() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("huge.histogram");
    let most = u64::MAX;
    let text = format!(
        " num     #instances         #bytes  class name (module)\n   1: {most} {most} [B\n   2: {most} {most} Huge\nTotal {most} {most}\n"
    );
    std::fs::write(&path, text).unwrap();
    let top = heap(&["top", "--limit", "0"], &[path]);
    assert!(top.status.success(), "{top:?}");
    assert!(printed(&top).contains("(2 more)"), "{top:?}");
}

#[test]
fn a_page_where_a_profile_was_expected_is_a_failed_capture_and_a_cheaper_one_is_taken() {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mode = format!("pprof=http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let page = "<html>It works</html>";
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{page}", page.len()).unwrap();
        }
    });
    let mut stage = Stage::new();
    stage.run("shop", &["--heap", &mode, "--no-cgroup"], &["sleep", "1000"]);
    let answer: Value = serde_json::from_slice(&stage.ask(&["heap", "snapshot", "shop", "--json"]).stdout).unwrap();
    assert_eq!((&answer["method"], &answer["failed"]), (&Value::from("smaps"), &Value::Null), "{answer:#}");
    let note = answer["notes"][0].as_str().unwrap();
    assert!(note.starts_with("pprof failed: ") && note.contains("no format that Plimsoll reads"), "{note}");
    let status = stage.until("shop", |status| status["heap"]["served_total"] == 1);
    assert_eq!(status["heap"]["taken_total"].get("pprof"), None, "{status:#}");
}
