//! Incident 3, the dashboard that could not tell a leak from a plateau: four real Node services, each with a day of captures. Beside
//! each verdict the control: what the published comparison, of file sizes, says of the same captures.

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
    // Its size: 300 sessions a step, all alike, so each step retains as much as any other.
    let sessions = day.said["sessions"].as_f64().expect("sessions");
    let (held, all) = (found["now"].as_f64().unwrap(), owner["growth_bytes"].as_f64().unwrap());
    let grown_sessions = f64::from((CAPTURES - 3) * STEPS * 300);
    let (by_whole, by_growth) = (held / sessions, all / grown_sessions);
    assert!((by_whole / by_growth - 1.0).abs() < 0.05, "{by_whole:.0} and {by_growth:.0} bytes a session");
    assert!(file_growth(&day) > 0.0, "the control sees that something grew, and not what");
}

#[test]
fn a_cache_that_filled_is_a_plateau_where_file_sizes_call_it_growth() {
    let _turn = turn();
    let Some(day) = day("plateau") else { return };
    let trend = day.course.trend().expect("a trend");
    let (state, found) = verdict(&trend, "owner", "global.__app.recentCache → Map");
    assert!(["plateau", "stable"].contains(&state), "{found}");
    assert_ne!(trend["overallAssessment"], "leaking", "{trend}");
    assert!(file_growth(&day) > 0.0, "the control calls it growth: {:.0} %", file_growth(&day));
}

#[test]
fn memory_that_the_runtime_keeps_is_no_leak_of_the_heap() {
    let _turn = turn();
    let Some(day) = day("retention") else { return };
    let trend = day.course.trend().expect("a trend");
    let (_, rss) = verdict(&trend, "total", "rss");
    let (_, heap) = verdict(&trend, "total", "heap");
    assert_ne!(heap["state"], "leaking", "{heap}");
    assert_ne!(rss["state"], "leaking", "{rss}");
}

#[test]
fn what_grows_in_place_is_the_first_row_with_its_owner() {
    let _turn = turn();
    let Some(day) = day("inplace") else { return };
    let first: Vec<&str> =
        day.diff["owners"].as_array().expect("owners")[..2].iter().filter_map(|one| one["key"].as_str()).collect();
    for key in ["global.__app.index → Map", "global.__app.readings → Array"] {
        assert!(first.contains(&key), "{first:?}");
    }
    assert!(day.diff["owners"][0]["grew_in_place"] == true, "{}", day.diff["owners"][0]);
}
