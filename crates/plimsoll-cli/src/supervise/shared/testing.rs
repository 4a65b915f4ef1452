//! The shared part of a supervisor that is none: for tests of what works with it.

use std::path::Path;

use super::{Arc, Budget, Duration, Fixed, Journal, Mailbox, Mouth, Past, Shared, Waker};

impl Shared {
    /// Silent, without a group of its own, its files in `dir`, with a budget of 1 GiB and a reserve of 256 MiB.
    pub(crate) fn of_test(dir: &Path) -> Shared {
        let fixed = Fixed {
            name: "shop".into(),
            pid: 0,
            started_unix: 0.0,
            started: Duration::ZERO,
            stages: Arc::new([]),
            group: None,
            oom_counter: None,
            why_not: None,
            reserve_asked: None,
            policy_name: "always".into(),
            grace: Duration::ZERO,
        };
        let budget =
            Budget { budget_bytes: Some(1 << 30), reserve_bytes: 256 << 20, notes: Vec::new(), warnings: Vec::new() };
        let waker = Waker::new().expect("a pipe");
        let (mouth, journal) = (Mouth::new(true, true), Journal::open(dir.join("decisions")));
        let mailbox = Arc::new(Mailbox::new(waker.clone()));
        Shared::new(fixed, &budget, mouth, journal, mailbox, Past::new(dir.join("history")), waker)
    }
}
