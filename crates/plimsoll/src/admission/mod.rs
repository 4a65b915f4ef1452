//! Who is let in when there is more to do than can be done: refuse early, a few, in words that the asker's protocol understands.
//!
//! A request passes, in this order: its **class** (the exempt lane, for probes, never waits and takes no slot) · the **level** (refused with a
//! probability that rises between marks, the least important first) · its **peer's** cap · a **slot** of its lane: light work in a lane that
//! may find its own limit from latency, heavy work in a pool of [`HEAVY_PER_CORE`] × cores.
//!
//! | | what happens |
//! |---|---|
//! | **short of memory** | [`Ramps`]: background from 75 % of the budget on, ordinary from 88 %, important from 95 % |
//! | **nobody says how short** | after [`LEVEL_HOLDS`], or at once where the governor was stopped: as if nothing were short, and said so |
//! | **a peer has too many** | refused ([`Reason::Peer`]); who a peer is, is configurable: behind a proxy all have one address; who cannot be told is counted, not capped |
//! | **no slot** | waits in a bounded line for a bounded time, first come first served, or is refused ([`Reason::Busy`]) |
//! | **waited too long** | refused ([`Reason::Expired`]), also when its own time is over, be there a slot or not: it is never begun to be thrown away |
//! | **nested** | work within an admitted request takes no second slot; heavy work within light work takes a heavy one; each gate in a stack finds its own |
//! | **the asker goes away** | its place or slot is free at once, unless work that goes on holds a clone of the permit; its time counts as latency only where it was too long already |
//! | **streaming** | the slot is held until the answer's head, or as long as somebody holds a clone of the [`Permit`] |
//! | **closed** | everybody but the exempt is refused, those who wait too; what is worked on is finished, with the slots that it needs for it |
//! | **killed** | there is no state to lose |
//!
//! Every refusal is counted by class and reason ([`Stats`]), and carries a time after which to try again, which is different for each.
//!
//! [`Gate`] is the whole of it, for any server, with threads or tasks. Feature `tower` adds `AdmissionLayer` with the protocols `Http`, `Grpc`
//! and `Plain`: 503 or 429 with `Retry-After`, `RESOURCE_EXHAUSTED` with retry info, or an error — before a byte of a body is read.
//! The level comes in as a plain value ([`LevelCell`]), from a governor in one line ([`LevelCell::driver`]). Memory: an entry for each peer that has requests here, a place for each that waits.

mod adapt;
mod class;
mod error;
#[cfg(feature = "tower")]
mod future;
mod gate;
#[cfg(feature = "tower")]
mod grpc;
mod lane;
#[cfg(feature = "tower")]
mod layer;
mod level_cell;
mod peer;
mod permit;
#[cfg(feature = "tower")]
mod protocol;
#[cfg(feature = "tower")]
mod service;
#[cfg(all(test, feature = "tower"))]
mod service_tests;
mod shed;
mod stats;
#[cfg(test)]
mod tests;

pub use adapt::{Adapt, SAMPLES_MIN};
pub use class::{Class, Kind, Work};
pub use error::{Reason, Refused};
#[cfg(feature = "tower")]
pub use future::ResponseFuture;
pub use gate::{Answer, Arrival, Gate, HEAVY_PER_CORE, HEAVY_WAIT, HEAVY_WAITING_PER_SLOT, RETRY_AFTER, Settings};
#[cfg(feature = "tower")]
pub use grpc::{Grpc, HttpOrGrpc};
pub use lane::{Lane, Slots};
#[cfg(feature = "tower")]
pub use layer::AdmissionLayer;
pub use level_cell::{LEVEL_HOLDS, LevelCell};
pub use peer::{NAME_BYTES, PEERS, Peer, PeerFigures};
pub use permit::{Permit, Ticket};
#[cfg(feature = "tower")]
pub use protocol::{Head, Http, Identity, PeerAddr, Plain, Protocol, REASON_HEADER, Refuse, Says};
#[cfg(feature = "tower")]
pub use service::Admission;
pub use shed::{Ramp, Ramps};
pub use stats::{LaneStats, Stats};
