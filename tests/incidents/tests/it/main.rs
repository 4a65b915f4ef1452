//! The promises of `plimsoll run`, each shown against a real kernel; one module per group of promises.
//!
//! What needs a memory cgroup says so and is skipped where none can be made. Each test that claims protection stands beside
//! an unprotected control that fails: without it, a test that cannot fail would prove nothing.

mod captures;
mod controls;
mod descriptors;
mod disk;
mod disk_flood;
mod hot;
mod incident1;
mod incident2;
mod incident3;
mod incident3_leak;
mod incident4;
mod life;
mod logs;
mod reaction;
mod reports;
mod runtimes;
mod support;
mod too_much;
mod trees;
