//! Plimsoll keeps a long-running service from dying of memory.
//!
//! It **measures** what the kernel would kill for ([`gauge`], [`limit`]) and **decides** early how urgent that is
//! ([`governor`]); [`queue`] is what bounds everything between two threads.
//! A service that embeds the [`watchdog`] leaves in order before the kernel would kill it; see `examples/embed.rs`.
//!
//! | module | what |
//! |---|---|
//! | [`units`] | sizes (`300M`) and durations (`30s`) as people write them |
//! | [`level`], [`policy`], [`clock`] | values: how urgent, which marks, what time it is |
//! | [`gauge`] | readings of processes, trees, cgroups (v1 and v2), PSI, the host, descriptors, and of the allocator |
//! | [`limit`] | which limit binds, and which file says so |
//! | [`governor`] | a thread around one pure function: reading in, decision out |
//! | [`reclaim`], [`event`] | stores that give back: who holds what, who is asked for how much, and whether it helped |
//! | [`queue`], [`queue::batch`] | bounded in items and bytes, shares and drops per producer; from there into a sink in batches |
//! | `trace` | lines of `tracing` through such a queue (feature `tracing`) |
//! | [`admission`] | who is let in when there is more to do than can be done |
//! | [`broadcast`] | one message to many subscribers, who is too slow is removed |
//! | [`watchdog`] | at a threshold the service leaves, exit code 2, with a deadline |
//! | [`drain`] | leaving in order, for threads and tasks |
//! | [`reserve`], [`last_words`] | memory kept for leaving, and what held the rest |
//! | [`report`] | what a service tells `plimsoll run`, and a service manager (sd_notify) |
//!
//! | feature | adds | brings |
//! |---|---|---|
//! | `tokio` | `Drain::begun().await`, `finished().await`, `CancellationToken`s both ways; `send_timeout_async` | `tokio`, `tokio-util` |
//! | `tracing` | `trace`: a writer for `tracing_subscriber::fmt` | `tracing-core`, `tracing-subscriber` |
//! | `tower` | [`admission`] as a tower layer, for HTTP and gRPC | `tower-layer`, `tower-service`, `http`, `pin-project-lite` |
//! | `jemalloc` | [`gauge::allocator`]'s `Jemalloc` | `tikv-jemalloc-ctl`, `tikv-jemalloc-sys` |
//! | `mimalloc` | [`gauge::allocator`]'s `Mimalloc` | `libmimalloc-sys` |
//! | `glibc` | [`gauge::allocator`]'s `Glibc` | – |
//! | `heap-profile` | `heap_profile`: profiles of a jemalloc service for its supervisor | jemalloc with profiling |
//! | `testkit` | a simulated process to test a policy on | – |
//!
//! The library prints nothing; only [`last_words`] writes to stderr, and only when it is given to a watchdog. It ends no process;
//! only a watchdog does, at the drain's deadline. It reads the environment only in functions named `from_env`.

pub mod admission;
pub mod broadcast;
pub mod clock;
pub mod drain;
pub mod event;
pub mod gauge;
pub mod governor;
#[cfg(feature = "heap-profile")]
pub mod heap_profile;
pub mod last_words;
pub mod level;
pub mod limit;
pub mod policy;
pub mod queue;
pub mod reclaim;
pub mod report;
pub mod reserve;
mod sys;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
#[cfg(feature = "tracing")]
pub mod trace;
pub mod units;
pub mod watchdog;
