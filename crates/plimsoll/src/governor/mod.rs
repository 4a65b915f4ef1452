//! The governor.

mod growth;
mod step;

pub use growth::{Growth, SAMPLES, SPACING};
pub use step::{
    BLIND_INTERVAL, CRITICAL_INTERVAL, Cause, Decision, Reading, State, TIME_TO_LIMIT_CONFIDENCE, confirm_pause, step,
    wants_confirm,
};
