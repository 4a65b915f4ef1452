//! Reports put together from their datagrams: per process one that is whole and one that is coming. Pure; no I/O.
//!
//! A report is shown once its last part is there; one whose next part does not come is given up and counted when another begins.
//! Lists end where the library's own do ([`ACCOUNTS_MAX`] and the like); what is beyond is counted, not kept.

use std::time::Duration;

use plimsoll::gauge::Numbers;
use plimsoll::report::wire::{Datagram, Record, key};
use plimsoll::report::{ACCOUNTS_MAX, PRODUCERS_MAX, QUEUES_MAX};

use crate::snapshot::report::{
    AccountView, GaugeView, LastWordsView, PROCESSES_MAX, ProducerView, QueueView, ReclaimView, ReportView, StoreView,
};

/// Gauges of one report that are kept.
const GAUGES_MAX: usize = 256;
/// Stores of one report that are kept.
const STORES_MAX: usize = 64;
/// Lines of last words that are kept, and bytes of each.
const WORDS_MAX: usize = 64;
const WORD_BYTES_MAX: usize = 512;
/// Reasons of one producer that are kept.
const REASONS_MAX: usize = 16;

/// Why something was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A report whose next part did not come.
    Incomplete,
    /// A line beyond what is kept.
    TooMany,
}

/// One process that reports.
#[derive(Debug, Default)]
struct Process {
    pid: i32,
    whole: ReportView,
    /// When the whole one was put together, on the monotonic clock.
    at: Duration,
    coming: Option<Coming>,
    heard: Duration,
    left: Option<Left>,
}

/// A report whose last part is not there yet.
#[derive(Debug, Default)]
struct Coming {
    number: u64,
    part: u64,
    at: Duration,
    view: ReportView,
}

/// It said that it leaves.
#[derive(Clone, Debug)]
struct Left {
    said_at: Duration,
    words: LastWordsView,
}

/// The processes of one life.
#[derive(Debug, Default)]
pub(crate) struct Keep {
    processes: Vec<Process>,
}

impl Keep {
    /// Takes one datagram of `pid`, heard at `now` (monotonic).
    pub(crate) fn take(&mut self, pid: i32, datagram: Datagram<'_>, now: Duration, refuse: &mut dyn FnMut(Refused)) {
        let process = self.process(pid, now);
        let mut records = datagram.records();
        let Some(first) = records.next() else { return };
        match first.key {
            key::LEAVE => process.leave(first, records, now, refuse),
            key::PART => process.part(first, records, datagram.has_more(), now, refuse),
            // Of a later version; nothing to be learnt from it here.
            _ => {}
        }
    }

    fn process(&mut self, pid: i32, now: Duration) -> &mut Process {
        let at = match self.processes.iter().position(|process| process.pid == pid) {
            Some(at) => at,
            None => {
                if self.processes.len() == PROCESSES_MAX {
                    let silent = self.processes.iter().enumerate().min_by_key(|(_, process)| process.heard);
                    let silent = silent.map_or(0, |(at, _)| at);
                    self.processes.remove(silent);
                }
                self.processes.push(Process { pid, ..Process::default() });
                self.processes.len() - 1
            }
        };
        self.processes[at].heard = now;
        &mut self.processes[at]
    }

    /// Whether a process reported before.
    pub(crate) fn knows(&self, pid: i32) -> bool {
        self.processes.iter().any(|process| process.pid == pid)
    }

    /// The last reports, that of `main` first.
    pub(crate) fn views(&self, main: Option<i32>, now: Duration) -> Vec<ReportView> {
        let mut processes: Vec<&Process> = self.processes.iter().collect();
        processes.sort_by_key(|process| (Some(process.pid) != main, process.pid));
        let view = |process: &Process| ReportView {
            pid: process.pid.unsigned_abs(),
            age_seconds: now.saturating_sub(process.at).as_secs_f64(),
            leaving: process.whole.leaving || process.left.is_some(),
            last_words: process.left.as_ref().map(|left| left.words.clone()),
            ..process.whole.clone()
        };
        processes.into_iter().map(view).collect()
    }

    /// Who said that it leaves for memory: `main`, or any other when `main` is `None`; and since when.
    pub(crate) fn left(&self, main: Option<i32>) -> Option<(Duration, &LastWordsView)> {
        let asked = |process: &&Process| main.is_none_or(|main| main == process.pid);
        let left = self.processes.iter().filter(asked).filter_map(|process| process.left.as_ref());
        left.max_by_key(|left| left.said_at).map(|left| (left.said_at, &left.words))
    }

    /// Another life begins.
    pub(crate) fn clear(&mut self) {
        self.processes = Vec::new();
    }
}

fn millis(record: Record<'_>, word: &str) -> Option<Duration> {
    record.number(word).map(Duration::from_millis)
}

fn text(text: &str, bytes: usize) -> String {
    let end = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[..end].to_owned()
}

impl Process {
    fn leave<'a>(
        &mut self,
        first: Record<'a>,
        rest: impl Iterator<Item = Record<'a>>,
        now: Duration,
        refuse: &mut dyn FnMut(Refused),
    ) {
        if !first.is("leaving") {
            self.left = None;
            self.whole.leaving = false;
            return;
        }
        let mut words = LastWordsView {
            pid: self.pid.unsigned_abs(),
            at_unix: first.number("at_unix_ms").map_or(0.0, |ms| ms as f64 / 1e3),
            protected_bytes: first.number("protected_bytes"),
            threshold_bytes: first.number("threshold_bytes"),
            deadline_seconds: millis(first, "deadline_ms").unwrap_or_default().as_secs_f64(),
            lines: Vec::new(),
        };
        for record in rest.filter(|record| record.key == key::WORDS) {
            if words.lines.len() == WORDS_MAX {
                refuse(Refused::TooMany);
                continue;
            }
            words.lines.push(text(record.text(), WORD_BYTES_MAX));
        }
        self.left = Some(Left { said_at: now, words });
    }

    fn part<'a>(
        &mut self,
        first: Record<'a>,
        rest: impl Iterator<Item = Record<'a>>,
        more: bool,
        now: Duration,
        refuse: &mut dyn FnMut(Refused),
    ) {
        let (number, part) = (first.number("report").unwrap_or(0), first.number("part").unwrap_or(1));
        let mut coming = match self.coming.take() {
            Some(coming) if coming.number == number && coming.part + 1 == part => Coming { part, ..coming },
            other => {
                if other.is_some() || part != 1 {
                    refuse(Refused::Incomplete);
                }
                if part != 1 {
                    return;
                }
                // Put together on this machine, by the same clock; never later than now.
                let at = millis(first, "at_ms").map_or(now, |at| at.min(now));
                Coming { number, part, at, view: ReportView::default() }
            }
        };
        for record in rest {
            if !take(&mut coming.view, record) {
                refuse(Refused::TooMany);
            }
        }
        if more {
            self.coming = Some(coming);
        } else {
            finish(&mut coming.view);
            (self.whole, self.at) = (coming.view, coming.at);
        }
    }
}

/// The two gaps; both are the library's own arithmetic.
fn finish(view: &mut ReportView) {
    let numbers = Numbers {
        protected_bytes: view.protected_bytes,
        live_bytes: view.live_bytes,
        accounted_bytes: view.accounted_bytes,
    };
    view.retained_bytes = numbers.retained_bytes();
    view.unaccounted_bytes = numbers.unaccounted_bytes();
}

/// Adds one line; false: there is no room for it.
fn take(view: &mut ReportView, record: Record<'_>) -> bool {
    let count = |word: &str| record.number(word).unwrap_or(0);
    let name = || record.name().to_owned();
    match record.key {
        key::LIBRARY => view.library = name(),
        key::MEMORY => {
            view.protected_bytes = record.number("protected_bytes");
            view.live_bytes = record.number("live_bytes");
            view.accounted_bytes = record.number("accounted_bytes");
            view.threshold_bytes = record.number("threshold_bytes");
        }
        key::LEVEL => {
            view.level = record.word("level").map(|level| text(level, 16));
            (view.blind, view.soft, view.leaving) = (record.is("blind"), record.is("soft"), record.is("leaving"));
            view.growth_bytes_per_second = record.real("growth_bytes_per_second");
            view.time_to_limit_seconds = millis(record, "time_to_limit_ms").map(|time| time.as_secs_f64());
        }
        key::ACCOUNTS => view.accounts_count = count("count"),
        key::ACCOUNT if view.accounts.len() < ACCOUNTS_MAX => view.accounts.push(AccountView {
            name: name(),
            held_bytes: count("held_bytes"),
            cap_bytes: record.number("cap_bytes"),
            clamp_bytes: record.number("clamp_bytes"),
            refused_total: count("refused_total"),
            forced_bytes_total: count("forced_bytes_total"),
        }),
        key::QUEUE if view.queues.len() < QUEUES_MAX => view.queues.push(QueueView {
            name: name(),
            items: count("items"),
            bytes: count("bytes"),
            oldest_seconds: millis(record, "oldest_ms").map(|time| time.as_secs_f64()),
            max_items: record.number("max_items"),
            max_bytes: record.number("max_bytes"),
            peak_items: count("peak_items"),
            peak_bytes: count("peak_bytes"),
            closed: record.is("closed"),
            producers_count: count("producers"),
            producers: Vec::new(),
        }),
        key::PRODUCER | key::DROPPED | key::REFUSED => {
            // They belong to the queue, and to the producer, before them.
            let Some(queue) = view.queues.last_mut() else { return false };
            return of_queue(queue, record);
        }
        key::RECLAIM => {
            view.reclaim = Some(ReclaimView {
                ordered_bytes_total: count("ordered_bytes_total"),
                claimed_bytes_total: count("claimed_bytes_total"),
                withdrawn_bytes_total: count("withdrawn_bytes_total"),
                in_flight_bytes: count("in_flight_bytes"),
                hold_bytes: record.number("hold_bytes"),
                stuck: record.is("stuck"),
                stuck_total: count("stuck_total"),
                purges_total: count("purges_total"),
                stores: Vec::new(),
            });
        }
        key::STORE => {
            let Some(reclaim) = view.reclaim.as_mut().filter(|reclaim| reclaim.stores.len() < STORES_MAX) else {
                return false;
            };
            reclaim.stores.push(StoreView {
                name: name(),
                held_bytes: count("held_bytes"),
                asked_bytes_total: count("asked_bytes_total"),
                claimed_bytes_total: count("claimed_bytes_total"),
                late_total: count("late_total"),
                late_seconds: millis(record, "late_ms").map(|time| time.as_secs_f64()),
                panics_total: count("panics_total"),
            });
        }
        key::GAUGE if view.gauges.len() < GAUGES_MAX => {
            let Some(value) = record.real("value") else { return false };
            view.gauges.push(GaugeView { name: name(), value });
        }
        key::SENDER => {
            for reason in ["sent", "full", "gone", "denied", "failed", "cut_lines", "panics"] {
                view.sender_total.insert(reason.replace('_', "-"), count(&format!("{reason}_total")));
            }
        }
        key::ACCOUNT | key::QUEUE | key::GAUGE => return false,
        // A later version knows more.
        _ => {}
    }
    true
}

fn of_queue(queue: &mut QueueView, record: Record<'_>) -> bool {
    let count = |word: &str| record.number(word).unwrap_or(0);
    if record.key == key::PRODUCER {
        if queue.producers.len() == PRODUCERS_MAX {
            return false;
        }
        queue.producers.push(ProducerView {
            name: record.name().to_owned(),
            accepted_items_total: count("accepted_items_total"),
            accepted_bytes_total: count("accepted_bytes_total"),
            delivered_items_total: count("delivered_items_total"),
            ..ProducerView::default()
        });
        return true;
    }
    let Some(producer) = queue.producers.last_mut() else { return false };
    let reasons = match record.key {
        key::DROPPED => &mut producer.dropped_items_total,
        _ => &mut producer.refused_items_total,
    };
    let has_room = reasons.len() < REASONS_MAX;
    if has_room {
        reasons.insert(record.name().to_owned(), count("items_total"));
    }
    has_room
}
