//! Incident 4, what came after: bounding memory must not move the runaway to the disk, and somebody must be able to say whose it is.

use crate::support::{or_skip, turn};
use plimsoll_incidents::disk_flood::{self, Outcome, Plan};

/// The bound of the short form.
const DISK: u64 = 32 << 20;

fn named(seen: &Outcome) {
    eprintln!("{seen:#?}");
    let (stream, share, template, part) = &seen.live;
    assert_eq!(stream, "stdout", "{seen:#?}");
    assert!(*share > 0.99 && *part > 0.95 && template.starts_with("ERROR accept on"), "{seen:#?}");
    let (name, stream, share, template) = &seen.top;
    assert_eq!((name.as_str(), stream.as_str()), ("flood", "stdout"), "{seen:#?}");
    assert!(*share > 0.99 && template.starts_with("ERROR accept on"), "{seen:#?}");
}

#[test]
fn a_flood_of_one_line_stays_within_its_disk_and_is_named() {
    let _turn = turn();
    let plan = Plan { lines: 400_000, bytes: 200, rate: 100_000, disk: "32M", format: "accept" };
    let Some(seen) = or_skip(disk_flood::protected(&plan)) else { return };
    assert!(seen.peak_disk_bytes <= DISK + DISK / 10, "{seen:#?}");
    assert_eq!(seen.counted_lines, plan.lines, "{seen:#?}");
    named(&seen);
    // The control: the same lines in a plain file are more than twice the bound already, and go on.
    let day = disk_flood::control(&plan, 100_000).unwrap() * plan.lines as f64;
    assert!(day > 2.0 * DISK as f64, "{day}");
}

#[test]
fn a_flood_that_does_not_compress_stays_within_its_disk_and_is_named() {
    let _turn = turn();
    let plan = Plan { lines: 600_000, bytes: 200, rate: 60_000, disk: "32M", format: "retry" };
    let Some(seen) = or_skip(disk_flood::protected(&plan)) else { return };
    assert!(seen.peak_disk_bytes <= DISK + DISK / 10, "{seen:#?}");
    assert!(seen.peak_disk_bytes > DISK / 2, "the bound was never met: {seen:#?}");
    assert_eq!(seen.counted_lines, plan.lines, "{seen:#?}");
    named(&seen);
}
