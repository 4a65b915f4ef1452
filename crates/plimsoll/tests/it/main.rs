//! The one integration binary of this crate. Each module is one subject; what needs a real cgroup says so and is skipped,
//! with the reason printed, where none can be made.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests read files of the repository and of the kernel whole, and fail by panicking, in their helpers too"
)]

mod examples;
mod fixture;
mod limits;
mod live_group;
mod live_tree;
mod no_alloc;
mod readings;
mod stage;
mod sys;
mod watchdog;
