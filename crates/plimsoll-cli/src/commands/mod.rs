//! One file per command: its arguments and what it does.

pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod heap;
pub(crate) mod keep;
pub(crate) mod logs;
pub(crate) mod metrics_names;
pub(crate) mod rate;
pub(crate) mod replay;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod set;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod top;
