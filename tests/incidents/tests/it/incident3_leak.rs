//! Incident 3, the dashboard that could not tell a leak from a plateau: four real Node services, each with a day of captures. Beside
//! each verdict the control: what the published comparison, of file sizes, says of the same captures; it calls two of them growth that
//! are none, and names nothing in the other two.

use crate::support::turn;
use plimsoll_incidents::heap::{self, Day};
use serde_json::Value;
use std::process::{Command, Stdio};

/// Captures of a day, and steps (half hours) between two.
const CAPTURES: u32 = 25;
const STEPS: u32 = 2;

fn day(kind: &str) -> Option<Day> {
    let quiet = Command::new("node").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !quiet.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no node here");
        return None;
    }
    Some(heap::day(kind, CAPTURES, STEPS).unwrap_or_else(|why| panic!("{why}")))
}

/// The verdict on one key of a kind, and the whole of it.
fn verdict<'a>(trend: &'a Value, kind: &str, key: &str) -> (&'a str, &'a Value) {
    let judged = trend["judged"].as_array().expect("verdicts");
    let of_kind = judged.iter().find(|one| one["kind"] == kind).unwrap_or_else(|| panic!("no {kind} in {trend}"));
    let found = of_kind["verdicts"].as_array().expect("a list").iter().find(|one| one["key"] == key);
    let found = found.unwrap_or_else(|| panic!("no {key} in {of_kind}"));
    (found["state"].as_str().expect("a word"), found)
}

/// What the service said of itself before a capture, after a collection; bytes.
fn said(day: &Day, capture: usize, figure: &str) -> f64 {
    day.said[capture][figure].as_f64().unwrap_or_else(|| panic!("no {figure} in {}", day.said[capture]))
}

/// Growth of that from the first morning to the end of the day.
fn grew(day: &Day, figure: &str) -> f64 {
    said(day, day.said.len() - 1, figure) - said(day, day.early, figure)
}

/// The control: growth of the files from the first morning to the end of the day, in percent.
fn file_growth(day: &Day) -> f64 {
    let [before, after] = day.file_bytes;
    (after as f64 / before as f64 - 1.0) * 100.0
}

#[test]
fn a_cache_that_nobody_empties_leaks_and_is_named_with_its_path_and_size() {
    let _turn = turn();
    let Some(day) = day("leak") else { return };
    let owner = &day.diff["owners"][0];
    assert_eq!(owner["key"], "global.__app.sessionCache → Map", "{owner}");
    assert!(day.course.captures() == CAPTURES as usize);
    let trend = day.course.trend().expect("a trend");
    assert_eq!(trend["overallAssessment"], "leaking");
    let (state, found) = verdict(&trend, "owner", "global.__app.sessionCache → Map");
    assert_eq!(state, "leaking", "{found}");
    assert_eq!(verdict(&trend, "owner", "global.__app.catalog → Array").0, "stable");
    // Its size, by what V8 itself says that the heap grew by, and by all sessions that were ever made.
    let (told, true_growth) = (owner["growth_bytes"].as_f64().expect("bytes"), grew(&day, "heapUsed"));
    assert!((told / true_growth - 1.0).abs() < 0.05, "{told:.0} bytes of growth are told, {true_growth:.0} it was");
    let (held, a_session) = (found["now"].as_f64().expect("bytes"), true_growth / grew(&day, "sessions"));
    let true_size = a_session * said(&day, day.said.len() - 1, "sessions");
    assert!((held / true_size - 1.0).abs() < 0.05, "{held:.0} bytes are told, {true_size:.0} it holds");
    assert!(
        file_growth(&day) > 100.0,
        "the control sees that something grew, and not what: {:.0} %",
        file_growth(&day)
    );
}

#[test]
fn a_cache_that_filled_is_a_plateau_where_file_sizes_call_it_growth() {
    let _turn = turn();
    let Some(day) = day("plateau") else { return };
    let trend = day.course.trend().expect("a trend");
    let (state, found) = verdict(&trend, "owner", "global.__app.recentCache → Map");
    assert!(["plateau", "stable"].contains(&state), "{found}");
    assert_ne!(trend["overallAssessment"], "leaking", "{trend}");
    assert!(file_growth(&day) > 10.0, "the control calls it growth: {:.0} %", file_growth(&day));
}

#[test]
fn memory_that_the_allocator_keeps_is_named_retention() {
    let _turn = turn();
    let Some(day) = day("retention") else { return };
    // What is seen from outside is a leak of some 130 MB in a day; what lives does not grow by a hundredth of that.
    let (rss, live) = (grew(&day, "rss"), grew(&day, "heapUsed") + grew(&day, "external"));
    assert!(rss > 80e6 && live < rss / 50.0, "the process grew by {rss:.0}, what lives by {live:.0}");
    let trend = day.course.trend().expect("a trend");
    let (state, found) = verdict(&trend, "total", "rss");
    assert_eq!((state, &found["retention"]), ("growing", &Value::Bool(true)), "{found}");
    assert!(found["reasons"][0].as_str().expect("a reason").starts_with("not a leak: "), "{found}");
    let (state, found) = verdict(&trend, "total", "heap");
    assert!(["stable", "plateau"].contains(&state), "{found}");
    assert_eq!(trend["overallAssessment"], "growing", "{trend}");
}

#[test]
fn what_grows_in_place_leaks_and_is_the_first_row_with_its_owner() {
    let _turn = turn();
    let Some(day) = day("inplace") else { return };
    let owners = &day.diff["owners"].as_array().expect("owners")[..2];
    let trend = day.course.trend().expect("a trend");
    for (owner, key) in owners.iter().zip(["global.__app.index[*] → Map", "global.__app.readings → Array"]) {
        assert_eq!((owner["key"].as_str(), &owner["grew_in_place"]), (Some(key), &Value::Bool(true)), "{owner}");
        let (state, found) = verdict(&trend, "owner", key);
        assert_eq!(state, "leaking", "{found}");
    }
    assert_eq!(trend["overallAssessment"], "leaking");
}
