//! What a batcher has to say while it runs, as values that a service logs as it likes. The library prints nothing.
//!
//! Of losses at most one notice a flush tick, and only when drops grew; of a failing sink one when it begins and one when it is over.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Stats, Tally};
use crate::units;

/// At most so many producers are named in a notice.
pub const TOP_PRODUCERS: usize = 3;

/// Something that somebody should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Values were dropped since the last notice of losses.
    Lost {
        /// All of them.
        lost: Tally,
        /// Who lost most, most first; at most [`TOP_PRODUCERS`].
        top: Vec<(Arc<str>, Tally)>,
        /// What is queued now.
        queued: Tally,
    },
    /// The sink has begun to fail; what is queued is kept.
    Failing {
        /// What it said.
        error: String,
    },
    /// The sink takes batches again.
    Recovered {
        /// How often it had failed.
        failures: u32,
        /// For how long.
        after: Duration,
    },
    /// A value was given up because the sink took others and not this one.
    Poison {
        /// What the sink said of it.
        error: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Lost { lost, top, queued } => {
                write!(f, "{} entries lost ({})", lost.items, units::size(lost.bytes))?;
                for (i, (name, lost)) in top.iter().enumerate() {
                    write!(f, "{}{name} {}", if i == 0 { "; most by " } else { ", " }, lost.items)?;
                }
                write!(f, "; {} queued ({})", queued.items, units::size(queued.bytes))
            }
            Notice::Failing { error } => write!(f, "the sink fails, entries are kept: {error}"),
            Notice::Recovered { failures, after } => {
                write!(f, "the sink is well again after {failures} failures, {}", units::duration(*after))
            }
            Notice::Poison { error } => write!(f, "one entry given up, which the sink does not take: {error}"),
        }
    }
}

/// What was told of losses so far.
#[derive(Debug, Default)]
pub(super) struct Told {
    dropped: Vec<Tally>,
}

impl Told {
    /// What is to be told now, if anything was dropped since the last call.
    pub(super) fn losses(&mut self, stats: &Stats) -> Option<Notice> {
        self.dropped.resize(stats.producers.len().max(self.dropped.len()), Tally::default());
        let mut top: Vec<(Arc<str>, Tally)> = Vec::new();
        for (told, producer) in self.dropped.iter_mut().zip(&stats.producers) {
            let dropped = producer.counters.dropped_total();
            let lost = dropped - *told;
            *told = dropped;
            if lost.items > 0 {
                top.push((Arc::clone(&producer.name), lost));
            }
        }
        let lost = top.iter().fold(Tally::default(), |sum, (_, lost)| sum + *lost);
        top.sort_by_key(|(_, lost)| std::cmp::Reverse((lost.items, lost.bytes)));
        top.truncate(TOP_PRODUCERS);
        (lost.items > 0).then_some(Notice::Lost { lost, top, queued: stats.queued })
    }
}
