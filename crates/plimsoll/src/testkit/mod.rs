//! What tests of a memory policy need: a simulated process to govern ([`Plant`]), without a clock, a cgroup or a megabyte of memory, and
//! recordings of real ones to run against another policy ([`replay`]).
//!
//! Feature `testkit`. The manual clock is [`crate::clock::ManualClock`]; a scripted gauge is any closure (see [`crate::gauge::Gauge`]).

mod plant;
pub mod replay;

pub use plant::{Ancestor, Burst, CacheSettings, Plant, PlantSettings, STEP, Seen};
