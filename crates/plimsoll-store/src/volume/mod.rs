//! Who produces all this: lines reduced to **templates**, counted in bounded memory, exactly where every line is looked at and by an
//! honest sample where that would cost too much.
//!
//! | part | bounded by | beyond it |
//! |---|---|---|
//! | [`template`] | [`TEMPLATE_BYTES`] | it is cut |
//! | [`Sketch`] | its capacity, in templates | the rarest makes room; each count says by how much it may be too high |
//! | [`Meter`] | [`METER_TEMPLATES`] in each of two windows of [`WINDOW`]; [`SAMPLES_PER_SECOND`] lines looked at | the others are stood for by those that are |
//!
//! A template is a line with what differs from one to the next left out: `conn 17 from 10.0.0.8: EMFILE` and the next one are both
//! `conn # from #: EMFILE`.

mod mask;
mod meter;
mod sketch;

pub use mask::{TEMPLATE_BYTES, template};
pub use meter::{METER_TEMPLATES, Measured, Meter, SAMPLES_PER_SECOND, WINDOW};
pub use sketch::{Counted, Sketch};
