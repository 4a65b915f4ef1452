//! What the last words say, word by word, and what they say when a figure is not known.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests, and small files of their own read whole"
)]

use super::*;
use crate::gauge::Protected;
use crate::governor::{Reading, State, step};
use crate::policy::Policy;

const MIB: u64 = 1 << 20;

fn protected(program_bytes: u64) -> Protected {
    Protected {
        anon_bytes: Some(program_bytes),
        shmem_bytes: Some(0),
        kernel_bytes: None,
        program_bytes,
        ..Protected::default()
    }
}

/// Runs the real decision over readings, one a second.
fn decide(mib: &[u64]) -> Vec<Decision> {
    let policy = Policy::new(300 * MIB, 0);
    let mut state = State::default();
    let mut decisions = Vec::new();
    for (second, mib) in (1..).zip(mib) {
        let bytes = mib * MIB;
        let reading = Reading {
            at: Duration::from_secs(second),
            fast_bytes: Some(bytes),
            confirmed: Some(Ok(protected(bytes))),
            guard_bytes: None,
            supply: None,
        };
        let (next, decision) = step(&policy, state, &reading);
        state = next;
        decisions.push(decision);
    }
    decisions
}

/// The composed text without its first line's time.
fn text(words: &mut LastWords, decision: &Decision, protected: Option<&Protected>) -> String {
    let text = words.compose(&Scene::new(decision, protected, 8 * MIB, Duration::from_secs(10))).to_owned();
    let (first, rest) = text.split_once(", at unix time ").expect("the time is told");
    format!("{first}\n{}", rest.split_once('\n').expect("the first line ends").1)
}

#[test]
fn every_figure_is_told() {
    let ledger = Ledger::new();
    let (packets, index) = (ledger.account("packets").unwrap(), ledger.account("index").unwrap());
    let mut words = LastWords::new().ledger(&ledger).live(Arc::new(|| Some((250 * MIB, Duration::from_millis(400)))));
    words.pressure = None;
    let mut charges = vec![packets.charge(40 * MIB), index.charge(10 * MIB)];
    let decisions = decide(&[100, 101, 101, 180, 240, 301]);
    for decision in &decisions[..5] {
        words.see(decision);
    }
    charges.push(packets.charge(160 * MIB));
    let last = &decisions[5];
    let said = text(&mut words, last, Some(&protected(301 * MIB)));
    let growth = last.growth.expect("six readings");
    let slope = format!("{:+.1} MiB/s (confidence {:.2})", growth.bytes_per_second / MIB as f64, growth.confidence);
    assert_eq!(
        said,
        format!(
            "plimsoll: memory pressure: 301.0 MiB of 300.0 MiB, {slope}\n\
             plimsoll: parts: anon 301.0 MiB, shmem 0.0 MiB, swap unknown, kernel unknown; page cache unknown (not counted)\n\
             plimsoll: grown by +200.0 MiB since calm (3 s ago), +201.0 MiB since the start (5 s ago)\n\
             plimsoll: holders: packets 200.0 MiB (+160.0 MiB since calm), index 10.0 MiB (+0.0 MiB since calm); 2 accounts, 0 not named\n\
             plimsoll: gaps: live 250.0 MiB (400 ms ago), accounted 210.0 MiB; retained +51.0 MiB, unaccounted +40.0 MiB\n\
             plimsoll: PSI: not available here\n\
             plimsoll: draining: reserve of 8.0 MiB given back, at most 10000 ms, then exit 2\n"
        )
    );
}

#[test]
fn what_is_not_known_is_not_guessed() {
    let mut words = LastWords::new();
    words.pressure = None;
    let decisions = decide(&[400]);
    words.see(&decisions[0]);
    assert_eq!(
        text(&mut words, &decisions[0], None),
        "plimsoll: memory pressure: 400.0 MiB of 300.0 MiB\n\
         plimsoll: gaps: live unknown, accounted unknown; retained unknown, unaccounted unknown\n\
         plimsoll: PSI: not available here\n\
         plimsoll: draining: reserve of 8.0 MiB given back, at most 10000 ms, then exit 2\n",
        "it started above every mark: there was no calm to compare with"
    );
}

#[test]
fn the_largest_holders_are_named_and_the_others_counted() {
    let ledger = Ledger::new();
    let mut charges = Vec::new();
    for n in 0..20u64 {
        charges.push(ledger.account(&format!("cache-{n:02}")).unwrap().charge((n + 1) * MIB));
    }
    let mut words = LastWords::new().ledger(&ledger);
    let said = text(&mut words, &decide(&[400])[0], None);
    assert!(said.contains("holders: cache-19 20.0 MiB, cache-18 19.0 MiB,"), "{said}");
    assert!(said.contains("cache-12 13.0 MiB, … 20 accounts, 12 not named"), "{said}");
    assert!(!said.contains("cache-11"), "{said}");
}

#[test]
fn the_longest_text_is_cut_and_still_ends_its_line() {
    let ledger = Ledger::new();
    let long = "x".repeat(700);
    let mut charges = Vec::new();
    for n in 0..9 {
        charges.push(ledger.account(&format!("{long}{n}")).unwrap().charge(MIB));
    }
    let mut words = LastWords::new().ledger(&ledger);
    let decision = decide(&[400])[0];
    let text = words.compose(&Scene::new(&decision, None, 0, Duration::ZERO));
    assert!(text.len() <= TEXT_BYTES_MAX && text.ends_with("…cut\n"), "{text}");
}

#[test]
fn the_file_gets_all_of_it_and_keeps_what_was_there_up_to_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("last-words.txt");
    std::fs::write(&path, "an earlier end\n").unwrap();
    let mut words = LastWords::new().file(&path).unwrap();
    assert!(words.is_said(), "nothing yet");
    let expected = words.compose(&Scene::new(&decide(&[400])[0], None, 0, Duration::ZERO)).to_owned();
    words.say();
    words.finish();
    assert!(words.is_said());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("an earlier end\n{expected}"));

    std::fs::write(&path, vec![b'x'; 70_000]).unwrap();
    drop(LastWords::new().file(&path).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0, "it does not grow for ever");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o133, 0, "{mode:o}");
    assert!(LastWords::new().file(dir.path()).is_err(), "a directory is no file");
}
