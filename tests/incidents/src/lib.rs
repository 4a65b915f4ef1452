//! The harness that proves what `plimsoll run` promises: real cgroups, real children, real kernel OOM kills.
//!
//! | module | what |
//! |---|---|
//! | [`cgroup`] | a memory group of our own, `plimsoll-test-*`, removed when dropped |
//! | [`launch`] | starts a program (protected, or the unprotected control) and waits for it, always within a deadline |
//! | [`protected`] | the same under `plimsoll run`: its directory, its `status --json`, its `logs --json`, its last exit |
//! | [`heap`] | incident 3, its leak part: Node services, captured and judged |
//! | [`judge`] | what counts as saved, and what as left alone |
//! | [`embedded`] | incident 2: a service that embeds the watchdog, its unprotected control, and the judgement of both |
//! | [`evidence`] | what a load wrote about itself: when it crossed the mark, when SIGTERM reached its handler |
//! | [`http_load`], [`overload`] | incident 2's second half and a server under twice its load: who asks, and the judgement |
//! | [`log_channel`] | incident 4: log entries in front of a locked database, through a channel without a bound or a queue |
//! | [`packets`] | incident 1: a packet store and its laws |
//! | [`stalled`] | incident 3: a dashboard, clients that read and clients that stall, and the judgement |
//! | [`product`] | where the two binaries are |
//! | [`words`], [`lines`], [`account`] | the numbered lines of the log tests and the accounting of them |
//! | [`slow_disk`] | a disk that is slow, stands still or is full, through FUSE |
//! | [`tmpfs`] | a small disk |
//! | [`usage`] | what a process uses, what a directory takes |
//! | [`stats`] | minimum, median, p95, maximum |
//! | [`clock`], [`files`] | time and bounded reads |
//!
//! Sizes are bytes, K/M/G are 1024-based; times are nanoseconds of `CLOCK_MONOTONIC` unless a name says otherwise.
//! Nothing here waits without a deadline and nothing started here outlives its guard.

pub mod account;
pub mod cgroup;
pub mod clock;
pub mod disk_flood;
pub mod embedded;
pub mod evidence;
pub mod files;
pub mod heap;
pub mod http_load;
pub mod judge;
pub mod launch;
pub mod lines;
pub mod log_channel;
pub mod overload;
pub mod packets;
pub mod product;
pub mod protected;
pub mod slow_disk;
pub mod stalled;
pub mod stats;
pub mod tmpfs;
pub mod usage;
pub mod words;
