//! `plimsoll logs` over a store that the real intake wrote.

use std::time::Duration;

use plimsoll_store::Stream;

use crate::shop::{Following, PATIENCE, Shop, Writer, peak_kib, put};

/// A shop whose `web` holds `lines` numbered lines, sealed.
fn sealed(lines: usize) -> Shop {
    let shop = Shop::new();
    let mut writer = shop.writer("web");
    for number in 0..lines {
        writer.out(&format!("line {number}\n"));
    }
    writer.close();
    shop
}

#[test]
fn lines_are_read_while_it_runs_and_after_it_ended() {
    let shop = Shop::new();
    let mut writer = shop.writer("web");
    writer.out("listening on :8080\n");
    writer.write(Stream::Stderr, b"WARN slow\n");
    writer.note("started");
    writer.out("no end yet");
    let check = |printed: &str| {
        let lines: Vec<(&str, &str)> = printed.lines().map(|line| line.split_at(24)).collect();
        let texts: Vec<&str> = lines.iter().map(|(_, text)| *text).collect();
        assert_eq!(texts, ["out listening on :8080", "err WARN slow", "--- started", "out no end yet"]);
        for (time, _) in lines {
            assert!(time.starts_with("20") && time.as_bytes()[10] == b' ' && time.as_bytes()[19] == b'.', "{time}");
        }
    };
    check(&shop.printed(&["web"]));
    check(&shop.printed(&[]));
    writer.close();
    check(&shop.printed(&[]));
}

#[test]
fn names_that_do_not_exist_are_told_with_those_that_do() {
    let shop = sealed(1);
    shop.writer("db").close();
    for (words, code, said) in [
        (&["wbe"][..], 64, "there are db, web"),
        (&[], 64, "whose logs? There are db, web"),
        (&["../etc"], 64, "expected 1 to 64"),
        (&["web", "--grep", "("], 64, "regex parse error"),
        (&["web", "--since", "soon"], 64, "is no point in time"),
        (&["web", "--nonsense"], 64, "--nonsense"),
    ] {
        let output = shop.logs(words);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{words:?}: {text}");
        assert!(text.contains(said), "{words:?}: {text}");
    }
}

#[test]
fn filters_choose_by_text_stream_level_time_and_number() {
    let shop = Shop::new();
    let mut writer = shop.writer("web");
    for number in 0..3000 {
        let level = if number % 1000 == 0 { "ERROR" } else { "INFO" };
        writer.out(&format!("{level} request {number}\n"));
    }
    writer.write(Stream::Stderr, b"Error without a level word\n");
    writer.close();
    let numbers = |words: &[&str]| -> Vec<String> {
        shop.printed(words).lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(numbers(&["--level", "error"]), ["0", "1000", "2000"]);
    assert_eq!(numbers(&["--grep", "request 29\\d8$"]).len(), 10);
    assert_eq!(numbers(&["--grep", "REQUEST 2999", "-i"]), ["2999"]);
    assert_eq!(numbers(&["--stream", "stderr"]), ["word"]);
    assert_eq!(numbers(&["-n", "2"]), ["2999", "word"]);
    assert_eq!(numbers(&["-n", "1500", "--stream", "stdout"])[0], "1500", "more than are kept in memory");
    assert_eq!(numbers(&["-n", "0"]), [""; 0]);
    for (words, count) in [(&[][..], "3001\n"), (&["--level", "error"], "3\n"), (&["--grep", "5$"], "300\n")] {
        assert_eq!(shop.printed(&[words, &["--count"]].concat()), count, "{words:?}");
    }
    assert_eq!(shop.json(&["-c", "--stream", "stderr"])[0]["lines"], 1);
    assert_eq!(numbers(&["--since", "1h"]).len(), 3001);
    assert_eq!(numbers(&["--until", "1h"]), [""; 0]);
}

#[test]
fn json_is_valid_for_any_bytes_and_loses_none() {
    let shop = Shop::new();
    let mut writer = shop.writer("web");
    let garbage: Vec<u8> = (0..=255_u8).filter(|byte| *byte != b'\n').collect();
    let mut all = Vec::new();
    for round in 0..300_usize {
        all.extend(garbage.iter().map(|byte| byte.rotate_left(u32::try_from(round % 8).unwrap())));
        all.push(b'\n');
    }
    writer.write(Stream::Stdout, &all);
    writer.close();
    let mut seen = Vec::new();
    for entry in shop.json(&[]) {
        let text = entry["text"].as_str().unwrap();
        match entry.get("text_base64") {
            Some(encoded) => seen.extend(base64(encoded.as_str().unwrap())),
            None => seen.extend_from_slice(text.as_bytes()),
        }
        seen.push(b'\n');
    }
    assert!(seen == all, "{} bytes instead of {}", seen.len(), all.len());
    let raw = shop.logs(&["--raw"]);
    assert!(raw.stdout == all, "--raw gives the bytes as they were");
    let shown = shop.printed(&[]);
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "a control character got through");
}

fn base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut out = Vec::new();
    for group in text.as_bytes().chunks(4) {
        let pads = group.iter().filter(|c| **c == b'=').count();
        let bits = group.iter().fold(0_u32, |bits, c| bits << 6 | if *c == b'=' { 0 } else { u32::from(value(*c)) });
        out.extend_from_slice(&bits.to_be_bytes()[1..4 - pads]);
    }
    out
}

#[test]
fn a_line_of_a_hundred_megabytes_comes_in_pieces_and_in_little_memory() {
    let shop = Shop::new();
    let mut writer = shop.writer("web");
    writer.out("before\n");
    let block = [b'x'; 1 << 20];
    for _ in 0..100 {
        // As fast as the disk takes it: what the ring drops is another test's business.
        while writer.store().stats().ring_used_bytes > 4 << 20 {
            std::thread::sleep(Duration::from_millis(1));
        }
        writer.write(Stream::Stdout, &block);
    }
    writer.out("\nafter\n");
    writer.close();
    let mut following = Following::start(shop.command(&["web", "-f", "-n", "all", "--json"]));
    following.until("\"text\":\"after\"");
    let peak = peak_kib(following.pid());
    rustix::process::kill_process(following.pid(), rustix::process::Signal::INT).unwrap();
    let entries: Vec<serde_json::Value> =
        following.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    following.ended();
    let pieces = &entries[1..entries.len() - 1];
    assert_eq!(entries[0]["text"], "before");
    assert!(pieces[..pieces.len() - 1].iter().all(|piece| piece["continued"] == true));
    assert!(pieces.last().unwrap().get("continued").is_none());
    let bytes: usize = pieces.iter().map(|piece| piece["text"].as_str().unwrap().len()).sum();
    assert_eq!(bytes, 100 << 20);
    assert!(peak < 32 << 10, "{peak} KiB");
}

#[test]
fn what_found_no_room_is_told_as_a_gap() {
    let shop = Shop::new();
    let mut settings = shop.settings("web");
    settings.ring_bytes = 256 << 10;
    // The spool has no room, so the ring fills.
    settings.spool_bytes = 4 << 20;
    settings.seal_after = Duration::from_secs(3600);
    let mut writer = Writer::open(settings);
    let mut written = 0_u64;
    let line = [[b'y'; 1023].as_slice(), b"\n"].concat();
    while writer.store().stats().stream(Stream::Stderr).dropped_lines_total == 0 {
        writer.write(Stream::Stderr, &line);
        written += 1;
        assert!(written < 4_000_000, "the ring never fills");
    }
    for _ in 0..500 {
        writer.write(Stream::Stderr, &line);
        written += 1;
    }
    let account = |entries: &[serde_json::Value]| {
        let lines = entries.iter().filter(|entry| entry.get("text").is_some()).count() as u64;
        let gaps: u64 = entries.iter().filter_map(|entry| entry["gap"]["lines"].as_u64()).sum();
        (lines + gaps, gaps)
    };
    // Also while it still grows.
    let (now, _) = account(&shop.json(&[]));
    assert_eq!(now, written);
    let said = shop.printed(&["--stream", "stderr", "--grep", "no line has this"]);
    assert!(said.contains(" of stderr missing ") && said.contains(": the ring was full --"), "{said}");
    writer.close();
    let entries = shop.json(&[]);
    let (all, gaps) = account(&entries);
    assert_eq!(all, written);
    assert!(gaps > 0);
    let gap = entries.iter().find(|entry| entry.get("gap").is_some()).unwrap();
    assert_eq!((&gap["stream"], &gap["gap"]["reason"]), (&"stderr".into(), &"ring-full".into()));
}

#[test]
fn a_follower_sees_each_line_within_half_a_second_and_costs_next_to_nothing() {
    let shop = sealed(50);
    let mut writer = shop.writer("web");
    writer.beat(Duration::ZERO);
    let mut following = Following::start(shop.command(&["web", "-f"]));
    following.until("line 49");
    assert!(!following.text().contains("line 39"), "it begins with the newest 10");
    let mut slowest = Duration::ZERO;
    for number in 0..20 {
        writer.out(&format!("fresh {number}.\n"));
        slowest = slowest.max(following.until(&format!("fresh {number}.\n")));
    }
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    let before = following.cpu();
    std::thread::sleep(Duration::from_secs(2));
    let idle = following.cpu() - before;
    assert!(idle <= Duration::from_millis(60), "{idle:?} of CPU in 2 s of nothing");
    let fresh = following.text().matches("fresh ").count();
    assert_eq!(fresh, 20, "each line once");
    rustix::process::kill_process(following.pid(), rustix::process::Signal::INT).unwrap();
    let (status, said) = following.ended();
    use std::os::unix::process::ExitStatusExt as _;
    assert_eq!(status.signal(), Some(2), "{status}");
    assert_eq!(said, "");
    writer.close();
}

#[test]
fn a_follower_goes_on_through_a_new_run_and_a_seal() {
    let shop = Shop::new();
    let mut writer = shop.writer("web");
    writer.out("first run\n");
    let mut following = Following::start(shop.command(&["web", "-f"]));
    following.until("first run");
    writer.out("last words\n");
    writer.close();
    following.until("last words");
    let mut writer = shop.writer("web");
    writer.out("second run\n");
    following.until("second run");
    for word in ["first run", "last words", "second run"] {
        assert_eq!(following.text().matches(word).count(), 1, "{:?}", following.text());
    }
    following.close_stdout();
    assert!(following.ended().0.success());
    writer.close();
}

#[test]
fn a_reader_that_goes_away_ends_it_with_success() {
    let shop = sealed(20_000);
    let script = format!(
        "{} logs web --dir {} | head -n 1; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_plimsoll"),
        shop.path().display()
    );
    let output = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!((text.lines().nth(1), output.stderr.as_slice()), (Some("0"), &b""[..]));
    // A follower with nothing to say notices as well.
    let mut following = Following::start(shop.command(&["web", "-f"]));
    following.until("line 19999");
    following.close_stdout();
    let begin = std::time::Instant::now();
    assert!(following.ended().0.success());
    assert!(begin.elapsed() < PATIENCE / 4);
}

#[test]
fn after_a_kill_everything_is_there_and_it_says_stale() {
    let shop = Shop::new();
    let mut writer = shop.writer("web");
    writer.out("last words\nunfinished");
    writer.beat(Duration::from_secs(12));
    writer.abandon();
    // The pid of a process that is no more.
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    put(&shop.home("web").join("lock"), &format!("{}\n", gone.id()));
    let output = shop.logs(&["web"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("out last words\n") && text.contains("out unfinished\n"), "{text}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("plimsoll: web is stale, 1") && said.ends_with(" s: its supervisor died\n"), "{said}");
}

#[test]
fn a_hung_supervisor_is_stale_as_well() {
    let shop = Shop::new();
    let mut writer = shop.writer("web");
    writer.out("working\n");
    put(&shop.home("web").join("lock"), &format!("{}\n", std::process::id()));
    writer.beat(Duration::from_secs(1));
    assert!(shop.printed(&["web"]).contains("working"), "a supervisor that lives is not mentioned");
    writer.beat(Duration::from_secs(42));
    let said = String::from_utf8(shop.logs(&["web"]).stderr).unwrap();
    assert!(said.contains("web is stale, 42 s: its supervisor gives no sign of life"), "{said}");
    writer.close();
}

#[test]
fn what_cannot_be_read_says_what_to_do() {
    let shop = sealed(1);
    put(&shop.home("web").join("logs.db"), &"no database at all ".repeat(100));
    let said = String::from_utf8(shop.logs(&["web"]).stderr).unwrap();
    assert!(said.contains("logs.db") && said.contains("\n  hint: "), "{said}");
}

#[test]
fn what_a_program_printed_under_run_is_there_afterwards() {
    let shop = Shop::new();
    let script = "echo to stdout; echo to stderr >&2; printf 'no line end'; exit 3";
    let status = crate::plimsoll()
        .args(["run", "--quiet", "--no-cgroup", "--restart", "never", "--name", "web", "--dir"])
        .arg(shop.path())
        .args(["--", "sh", "-c", script])
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(3));
    let entries = shop.json(&["web"]);
    let of = |stream: &str| -> Vec<&str> {
        entries.iter().filter(|entry| entry["stream"] == stream).map(|entry| entry["text"].as_str().unwrap()).collect()
    };
    assert_eq!(of("stdout"), ["to stdout", "no line end"]);
    assert_eq!(of("stderr"), ["to stderr"]);
    let last = of("plimsoll").last().copied().unwrap_or_default();
    assert!(last.contains("reason exit"), "the reason of the end is the last note: {last:?}");
}
