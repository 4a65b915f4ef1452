//! What is remembered of the program for verdicts: a line each minute, handed to the history's thread by the supervise loop after its
//! scan of descriptors; and the verdicts, as that thread makes them when somebody asks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll::clock::{Clock as _, wall};

use super::Shared;
use crate::history::keeper::Keeper;
use crate::history::named::{Named, follow, present};
use crate::history::{EVERY, FIGURES, Record};
use crate::snapshot::VerdictView;
use crate::snapshot::report::{ReportView, ReportsView};
use crate::supervise::facts;

/// A line is due a little early rather than a whole scan late.
const EARLY: Duration = Duration::from_secs(5);

/// The history of one supervisor's program.
pub(crate) struct Past {
    keeper: Keeper,
    /// When a line was last handed over.
    last: Mutex<Option<Duration>>,
    /// What the program names that is followed, and how many of its names are not.
    followed: Mutex<(Vec<Arc<str>>, usize)>,
}

impl Past {
    /// Continues the file at `path`.
    pub(crate) fn new(path: PathBuf) -> Past {
        Past { keeper: Keeper::start(path), last: Mutex::default(), followed: Mutex::default() }
    }

    /// Lines that the disk refused.
    pub(super) fn unwritten_total(&self) -> u64 {
        self.keeper.unwritten_total()
    }

    /// Accounts, queues and stores of the last line that had no room in it.
    pub(super) fn unfollowed(&self) -> usize {
        self.followed.lock().1
    }

    /// What the program said lately of what it holds by name.
    fn named(&self, reports: &ReportsView) -> Named {
        let mut followed = self.followed.lock();
        let (named, unfollowed) = follow(&followed.0, present(lately(reports)));
        *followed = (named.iter().map(|(name, _)| Arc::clone(name)).collect(), unfollowed);
        named
    }
}

fn lately(reports: &ReportsView) -> impl Iterator<Item = &ReportView> {
    reports.processes.iter().filter(|process| process.age_seconds < 2.0 * EVERY.as_secs_f64())
}

/// Live bytes of the whole program: only where each of its processes told, lately.
fn live(reports: &ReportsView, members: usize) -> Option<u64> {
    let told: Vec<u64> = lately(reports).filter_map(|process| process.live_bytes).collect();
    (told.len() == members && members > 0).then(|| told.iter().sum())
}

impl Shared {
    /// Adds a line to the history, when one is due. After [`Shared::scan_descriptors`], whose counts it takes.
    pub(crate) fn remember(&self) {
        let now = self.clock.now();
        let due = |last: Option<Duration>| last.is_none_or(|last| now.saturating_sub(last) + EARLY >= EVERY);
        if !due(*self.past.last.lock()) {
            return;
        }
        let inner = self.inner.lock();
        let status = inner.watch.as_ref().map(|seen| seen.governor.status());
        let life = inner.child.map_or(0, |child| child.started_unix as u64);
        drop(inner);
        let counts = self.descriptors.lock().newest;
        let mut figures = [None; FIGURES];
        figures[0] = status.and_then(|status| status.decision).and_then(|decision| decision.charged_bytes);
        figures[1] = status.and_then(|status| status.protected).and_then(|parts| parts.anon_bytes);
        if let Some(counts) = counts {
            figures[2] = Some(counts.total());
            for (figure, (_, count)) in figures[3..10].iter_mut().zip(counts.by_kind()) {
                *figure = Some(count);
            }
        }
        let members = self.members();
        figures[10] = Some(facts::threads(&members));
        let reports = self.reports().map(|reports| reports.view(None));
        figures[11] = reports.as_ref().and_then(|reports| live(reports, members.len()));
        let named = reports.as_ref().map(|reports| self.past.named(reports)).unwrap_or_default();
        let record = Record { unix_seconds: wall().as_secs(), life, figures, named };
        self.past.keeper.add(record);
        *self.past.last.lock() = Some(now);
    }

    /// The verdicts on the program's figures; those of a minute ago at most, unless the disk stands still.
    pub(super) fn verdicts(&self) -> Vec<VerdictView> {
        self.past.keeper.verdicts(self.budget().0)
    }
}
