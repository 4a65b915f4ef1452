//! Incident 4, CI-sized: 24 producers in front of a database that is locked. Without a bound the process grows with every entry until the
//! kernel kills it; with one it stays small, what is dropped is counted by producer, and the quiet ones lose nothing.
//! `plimsoll-incident-4 campaign` offers the whole 1.8 GB.

use crate::support::{or_skip, turn};
use plimsoll_incidents::log_channel::{CONTROL_LIMIT_BYTES, QUEUE, RSS_MAX_BYTES, run};
use std::time::Duration;

const LONGEST: Duration = Duration::from_secs(150);

#[test]
fn without_a_bound_it_grows_with_every_entry_until_the_kernel_kills_it() {
    let _turn = turn();
    let Some(ended) = or_skip(run("600M", "60M", CONTROL_LIMIT_BYTES, &[], LONGEST)) else { return };
    eprintln!("{}; {:.2} resident bytes for each offered", ended.figures(), ended.growth_ratio());
    assert!(ended.oom_kills > 0 && (ended.signal == Some(9) || ended.code == Some(137)), "{ended:?}");
    assert!(ended.growth_ratio() > 0.9, "{}", ended.growth_ratio());
}

#[test]
fn with_a_bound_it_stays_small_and_what_is_missing_is_counted_by_producer() {
    let _turn = turn();
    let args = ["--bounded", QUEUE];
    let Some(ended) = or_skip(run("400M", "60M", 2 * RSS_MAX_BYTES, &args, LONGEST)) else { return };
    eprintln!("{}", ended.figures());
    ended.held().unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn with_a_spool_nothing_is_lost_until_its_budget() {
    let _turn = turn();
    let args = ["--bounded", QUEUE, "--spool", "64M"];
    let limit = 4 * RSS_MAX_BYTES; // Page cache of the spool is charged as well, and given back.
    let Some(ended) = or_skip(run("200M", "40M", limit, &args, LONGEST)) else { return };
    eprintln!("{}", ended.figures());
    ended.held_but_for_shares().unwrap_or_else(|why| panic!("{why}"));
    let kept = ended.number("end", "overflowed_bytes");
    assert!(kept > 40 << 20, "{kept}: most of the spool's budget was used before anything was dropped");
}
