//! Inputs made by real tools, beside each a golden text of what is read; and the figures that the tools' own reports give.
//!
//! `PLIMSOLL_BLESS=1` writes the golden texts anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use plimsoll_heap::parse::{ReadError, Warning, heapprofile, jemalloc, jvm, pprof, smaps};
use plimsoll_heap::profile::{Profile, diff};

type Read = fn(&[u8]) -> Result<(Profile, Vec<Warning>), ReadError>;

/// File and its reader.
const FILES: [(&str, Read); 14] = [
    ("go-1.pb.gz", |bytes| pprof::read(bytes)),
    ("go-2.pb.gz", |bytes| pprof::read(bytes)),
    ("jemalloc-1.heap", |bytes| jemalloc::read(bytes)),
    ("jemalloc-2.heap", |bytes| jemalloc::read(bytes)),
    ("jemalloc-1.symbolized", |bytes| jemalloc::read(bytes)),
    ("jemalloc-2.symbolized", |bytes| jemalloc::read(bytes)),
    ("rust-1.heap", |bytes| jemalloc::read(bytes)),
    ("rust-2.heap", |bytes| jemalloc::read(bytes)),
    ("rust-2.symbolized", |bytes| jemalloc::read(bytes)),
    ("node.heapprofile", |bytes| heapprofile::read(bytes)),
    ("jvm-1.histogram", |bytes| jvm::read(bytes)),
    ("jvm-2.histogram", |bytes| jvm::read(bytes)),
    ("jvm.smaps", |bytes| smaps::read(bytes)),
    ("jvm.smaps_rollup", |bytes| smaps::read(bytes)),
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

fn read(name: &str) -> (Profile, Vec<Warning>) {
    let (_, reader) = FILES.iter().find(|(file, _)| *file == name).unwrap();
    reader(&std::fs::read(path(name)).unwrap()).unwrap()
}

fn described(profile: &Profile, warnings: &[Warning]) -> String {
    let mut text = format!("{} {:?}\n", profile.kind.word(), profile.sampling);
    writeln!(text, "total {:.0} bytes, {:.0} objects", profile.bytes(), profile.count()).unwrap();
    profile.totals.iter().for_each(|(name, bytes)| writeln!(text, "{name} {bytes}").unwrap());
    warnings.iter().for_each(|w| writeln!(text, "warning: {} ({} times)", w.what, w.times).unwrap());
    for row in profile.rows().iter().take(20) {
        writeln!(text, "{:>12} {:>8} {}", row.bytes, row.count, row.key).unwrap();
    }
    text
}

/// Cut anywhere, a file is an error, or it lost nothing of what it tells.
#[test]
fn a_torn_profile_is_never_a_smaller_one() {
    for name in ["jemalloc-1.heap", "rust-1.heap", "jemalloc-1.symbolized", "jvm.smaps_rollup"] {
        let (_, reader) = FILES.iter().find(|(file, _)| *file == name).unwrap();
        let bytes = std::fs::read(path(name)).unwrap();
        let whole = read(name).0;
        for length in 0..bytes.len() {
            if let Ok((found, _)) = reader(&bytes[..length]) {
                let figures = |profile: &Profile| (profile.bytes(), profile.count(), profile.totals.clone());
                assert_eq!(figures(&found), figures(&whole), "{name} cut at {length}");
            }
        }
    }
    // A file of another tool may end behind any of its mappings; then it is said.
    let bytes = std::fs::read(path("jvm.smaps")).unwrap();
    let whole = read("jvm.smaps").0.bytes();
    for length in (0..bytes.len()).step_by(7).chain([24_106]) {
        match smaps::read(&bytes[..length]) {
            Ok((found, warnings)) => assert!(found.bytes() == whole || !warnings.is_empty(), "cut at {length}"),
            Err(why) => assert!(why.to_string().starts_with("at byte "), "{why}"),
        }
    }
}

#[test]
fn what_is_read_of_real_files_is_as_it_was() {
    for (name, _) in FILES {
        let (profile, warnings) = read(name);
        let text = described(&profile, &warnings);
        let golden = path(&format!("{name}.txt"));
        if std::env::var_os("PLIMSOLL_BLESS").is_some() {
            std::fs::write(&golden, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&golden).unwrap_or_default(), "{name}");
    }
}

/// The figure before a word in a report of pprof or jeprof, in bytes.
fn reported(report: &str, function: &str) -> f64 {
    let text = std::fs::read_to_string(path(report)).unwrap();
    let line = text.lines().find(|line| line.ends_with(function)).unwrap();
    line.split_whitespace().next().unwrap().trim_end_matches('B').parse().unwrap()
}

/// The figure behind `Total:`.
fn reported_total(report: &str) -> f64 {
    let text = std::fs::read_to_string(path(report)).unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("Total: ")).unwrap();
    total.trim_end_matches(" B").parse().unwrap()
}

/// What a function and all that it calls hold: the fourth column of jeprof's report.
fn cumulative(report: &str, function: &str) -> f64 {
    let text = std::fs::read_to_string(path(report)).unwrap();
    let line = text.lines().find(|line| line.ends_with(&format!(" {function}"))).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap()
}

fn bytes_of(profile: &Profile, function: &str) -> f64 {
    let blamed = |key: &str| key.split(" ← ").next() == Some(function);
    profile.entries.iter().filter(|entry| blamed(&profile.key(entry))).map(|entry| entry.bytes).sum()
}

#[test]
fn go_agrees_with_go_tool_pprof() {
    let (profile, _) = read("go-2.pb.gz");
    // "99.72% of 23615031B total"
    assert_eq!(profile.bytes(), 23_615_031.0);
    for function in ["main.leakSmall", "main.fillCache"] {
        assert_eq!(bytes_of(&profile, function), reported("go-2.top", function), "{function}");
    }
}

#[test]
fn jemalloc_agrees_with_jeprof_and_the_leak_is_the_first_row() {
    let (profile, _) = read("jemalloc-2.symbolized");
    // "Total: 27651466 B"; jeprof cuts each line to whole bytes.
    assert!((profile.bytes() - 27_651_466.0).abs() <= profile.entries.len() as f64, "{}", profile.bytes());
    for function in ["leak_small", "fill_cache"] {
        let (own, theirs) = (bytes_of(&profile, function), reported("je-2.top", function));
        assert!((own - theirs).abs() <= profile.entries.len() as f64, "{function}: {own} and {theirs}");
    }
    let (before, _) = read("jemalloc-1.symbolized");
    let found = diff::diff(&before, &profile).unwrap();
    let first = &found.changes[0];
    assert!(first.key.starts_with("leak_small ← main") && !first.is_noise(), "{first:?}");
    let grown: f64 =
        found.changes.iter().filter(|c| c.key.starts_with("leak_small")).map(|c| c.delta_bytes() as f64).sum();
    assert!((grown - reported("je-diff.top", "leak_small")).abs() < 10.0, "{grown}");
    assert!(found.changes.iter().filter(|c| c.key.starts_with("fill_cache")).all(|c| c.delta_bytes() == 0));
}

/// A Rust service on jemalloc (`plimsoll-leaky 24`), where jeprof gives all bytes to `prof_backtrace_impl`.
#[test]
fn a_rust_program_agrees_with_jeprof_and_its_own_functions_are_to_blame() {
    let (before, _) = read("rust-1.heap");
    let (after, _) = read("rust-2.heap");
    let (named, _) = read("rust-2.symbolized");
    // "Total: 20398012 B"; jeprof cuts each line to whole bytes.
    let total = reported_total("rust-2.top");
    for profile in [&after, &named] {
        assert!((profile.bytes() - total).abs() <= profile.entries.len() as f64, "{} and {total}", profile.bytes());
    }
    let grown = diff::diff(&before, &after).unwrap().total.delta_bytes() as f64;
    assert!((grown - reported_total("rust-diff.top")).abs() <= 20.0, "{grown}");
    for function in ["plimsoll_leaky::keep_sessions", "plimsoll_leaky::keep_pages"] {
        let held: f64 = named.rows().iter().filter(|row| row.key.contains(function)).map(|row| row.bytes as f64).sum();
        let theirs = cumulative("rust-2.top", function);
        assert!((held - theirs).abs() <= 20.0, "{function}: {held} and {theirs}");
    }
    let plumbing =
        |key: &str| ["alloc::", "core::", "std::", "_rjem", "prof_"].iter().any(|begin| key.starts_with(begin));
    assert!(named.rows().iter().all(|row| !plumbing(&row.key)), "{:?}", named.rows());
    assert_eq!(after.mapped[0].file, "/opt/leaky/plimsoll-leaky");
}

#[test]
fn every_beginning_of_a_real_file_is_read_or_refused() {
    for (name, reader) in FILES {
        let whole = std::fs::read(path(name)).unwrap();
        for length in (0..whole.len()).step_by(whole.len() / 150 + 1) {
            // A text that ends at a line may look whole; what is read of it is never more than the whole.
            if let Ok((profile, _)) = reader(&whole[..length]) {
                assert!(profile.bytes() <= read(name).0.bytes(), "{name}: {length} bytes");
            }
        }
    }
}

/// What fuzzing does for ten minutes, a little of it each time, the same each time: bytes changed, parts left out or doubled.
#[test]
fn changed_files_are_read_or_refused() {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    let mut refused = 0;
    for (name, reader) in FILES {
        let whole = std::fs::read(path(name)).unwrap();
        for _ in 0..60 {
            let mut bytes = whole[..whole.len().min(12_000)].to_vec();
            for _ in 0..=next(6) {
                let at = next(bytes.len());
                match next(4) {
                    0 => bytes[at] = next(256) as u8,
                    1 => bytes[at] ^= 1 << next(8),
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes.extend_from_within(at..(at + 40).min(bytes.len())),
                }
            }
            match reader(&bytes) {
                Ok((profile, _)) => assert!(profile.digest().rows.len() <= 300),
                Err(why) => {
                    assert!(!why.to_string().is_empty());
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 50, "{refused}");
}
