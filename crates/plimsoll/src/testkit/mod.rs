//! What tests of a memory policy need, without a cgroup or a megabyte of memory: a fake probe ([`Probe`]) and a clock that stands still
//! ([`ManualClock`]); a simulated process to govern ([`Plant`]) and the governor's decisions on it in simulated time ([`run_policy`]);
//! recordings of real ones to run against another policy ([`replay`]).
//!
//! Feature `testkit`. No dependencies.

mod plant;
mod probe;
pub mod replay;
mod trial;

pub use crate::clock::ManualClock;
pub use plant::{Ancestor, Burst, CacheSettings, Plant, PlantSettings, STEP, Seen};
pub use probe::Probe;
pub use trial::{Trial, run_policy};
