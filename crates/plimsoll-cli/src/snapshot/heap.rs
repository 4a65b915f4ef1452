//! Heap captures as the faces show them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What captures did, and what they are set to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct HeapView {
    /// `auto`, `profile`, `full`, `pprof` or `jemalloc`.
    pub mode: String,
    pub every_seconds: f64,
    /// The trigger of the one that runs now.
    pub running: Option<String>,
    /// What of the program's memory is put down to it.
    pub attributed_bytes: u64,
    /// `ok`, or why captures do not work, or not as they were asked for; absent until it is known.
    pub self_test: Option<String>,
    /// By method.
    pub taken_total: BTreeMap<String, u64>,
    /// By method, and `digest`, `unfinished`, `not-begun` (no directory, or no process that can be read).
    pub failed_total: BTreeMap<String, u64>,
    /// By reason: headroom, cooldown, digest, no-program, off.
    pub refused_total: BTreeMap<String, u64>,
    /// Files removed to stay within the bounds.
    pub removed_total: u64,
    /// Files on the shelf, and their bytes.
    pub kept: u64,
    pub kept_bytes: u64,
    /// The newest one that worked.
    pub last: Option<CaptureView>,
    /// Requests by people, and up to which they are served.
    pub asked_total: u64,
    pub served_total: u64,
    /// What the newest served request led to.
    pub answer: Option<CaptureView>,
}

/// One capture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct CaptureView {
    /// By which the API and `plimsoll heap` know it.
    pub id: String,
    pub at_unix: f64,
    pub trigger: String,
    pub method: String,
    pub pid: u32,
    pub bytes: u64,
    pub seconds: f64,
    /// What was tried before, and what else is worth knowing.
    pub notes: Vec<String>,
    /// Why there is none.
    pub failed: Option<String>,
    /// What did not work before this one did: also among the notes.
    #[serde(skip)]
    pub fell_back: Option<String>,
}

impl HeapView {
    /// Without sentences: they name files and directories.
    pub(super) fn redact(&mut self) {
        for capture in [&mut self.last, &mut self.answer].into_iter().flatten() {
            capture.notes.clear();
            if capture.failed.is_some() {
                capture.failed = Some("failed".to_owned());
            }
        }
        if self.self_test.as_deref().is_some_and(|said| said != "ok") {
            self.self_test = Some("failed".to_owned());
        }
    }
}
