//! What a program that embeds the library said of itself: its last report, its last words, and what sd_notify brought.
//!
//! At most [`PROCESSES_MAX`] processes, each with the bounded lists of one report (`docs/report.md`). Ages are of the moment of the
//! snapshot; a figure that was not reported is `null`. Names are the program's own, without control characters.

use std::collections::BTreeMap;

use plimsoll::units;
use serde::{Deserialize, Serialize};

/// Processes of one program whose reports are kept; a further one takes the place of the one silent for longest.
pub(crate) const PROCESSES_MAX: usize = 4;

/// All that the program said, and what was not taken.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ReportsView {
    /// One for each process that reports, the main one first.
    pub processes: Vec<ReportView>,
    /// Datagrams taken.
    pub received_total: u64,
    /// Datagrams, or lines of them, not taken, by reason.
    pub refused_total: BTreeMap<String, u64>,
    /// What the program said by sd_notify, once it did.
    pub notify: Option<NotifyView>,
}

/// The last report of one process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ReportView {
    pub pid: u32,
    /// Since it was put together.
    pub age_seconds: f64,
    /// Version of the library inside.
    pub library: String,
    pub level: Option<String>,
    /// The watchdog's soft stage.
    pub soft: bool,
    /// It said that it leaves for memory.
    pub leaving: bool,
    pub blind: bool,
    pub protected_bytes: Option<u64>,
    pub live_bytes: Option<u64>,
    pub accounted_bytes: Option<u64>,
    /// Protected less live.
    pub retained_bytes: Option<i64>,
    /// Live less accounted.
    pub unaccounted_bytes: Option<i64>,
    pub threshold_bytes: Option<u64>,
    pub growth_bytes_per_second: Option<f64>,
    pub time_to_limit_seconds: Option<f64>,
    /// The largest, largest first.
    pub accounts: Vec<AccountView>,
    /// All of them, named or not.
    pub accounts_count: u64,
    pub queues: Vec<QueueView>,
    pub reclaim: Option<ReclaimView>,
    pub gauges: Vec<GaugeView>,
    /// What became of its datagrams, by `sent`, `full`, `gone`, `denied`, `failed`; and `cut-lines`, `panics`.
    pub sender_total: BTreeMap<String, u64>,
    /// What it said before it left.
    pub last_words: Option<LastWordsView>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct AccountView {
    pub name: String,
    pub held_bytes: u64,
    pub cap_bytes: Option<u64>,
    pub clamp_bytes: Option<u64>,
    pub refused_total: u64,
    pub forced_bytes_total: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct QueueView {
    pub name: String,
    pub items: u64,
    pub bytes: u64,
    /// How long the oldest has waited.
    pub oldest_seconds: Option<f64>,
    pub max_items: Option<u64>,
    pub max_bytes: Option<u64>,
    pub peak_items: u64,
    pub peak_bytes: u64,
    pub closed: bool,
    /// All of them, named or not.
    pub producers_count: u64,
    pub producers: Vec<ProducerView>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ProducerView {
    pub name: String,
    pub accepted_items_total: u64,
    pub accepted_bytes_total: u64,
    pub delivered_items_total: u64,
    /// Items by reason.
    pub dropped_items_total: BTreeMap<String, u64>,
    /// Items given back, by reason.
    pub refused_items_total: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ReclaimView {
    pub ordered_bytes_total: u64,
    pub claimed_bytes_total: u64,
    pub withdrawn_bytes_total: u64,
    pub in_flight_bytes: u64,
    pub hold_bytes: Option<u64>,
    pub stuck: bool,
    pub stuck_total: u64,
    pub purges_total: u64,
    pub stores: Vec<StoreView>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StoreView {
    pub name: String,
    pub held_bytes: u64,
    pub asked_bytes_total: u64,
    pub claimed_bytes_total: u64,
    pub late_total: u64,
    /// For how long it has been late.
    pub late_seconds: Option<f64>,
    pub panics_total: u64,
}

/// Any other figure; its name ends in its unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct GaugeView {
    pub name: String,
    pub value: f64,
}

/// Figures written before it left.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LastWordsView {
    pub pid: u32,
    pub at_unix: f64,
    pub protected_bytes: Option<u64>,
    pub threshold_bytes: Option<u64>,
    /// How long its drain may take.
    pub deadline_seconds: f64,
    /// One line each, at most 64 of at most 512 bytes.
    pub lines: Vec<String>,
}

/// What sd_notify brought.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NotifyView {
    pub ready: bool,
    pub stopping: bool,
    /// `STATUS=`, at most 256 bytes.
    pub status: Option<String>,
    pub messages_total: u64,
    /// Passed on to the service manager above.
    pub forwarded_total: u64,
    /// Not taken there, or not meant for it.
    pub withheld_total: u64,
}

impl ReportView {
    /// The named accounts' bytes; the rest of what is accounted belongs to accounts that are not named.
    pub(crate) fn unnamed_bytes(&self) -> u64 {
        let named: u64 = self.accounts.iter().map(|account| account.held_bytes).sum();
        self.accounted_bytes.unwrap_or(0).saturating_sub(named)
    }
}

impl ProducerView {
    /// Items that were sent and not taken, whoever has them now.
    pub(crate) fn lost_items(&self) -> u64 {
        self.dropped_items_total.values().chain(self.refused_items_total.values()).sum()
    }
}

impl ReportsView {
    /// Without what only the supervisor's own user may read: free text of the program. The library's own lines stay.
    pub(crate) fn redact(&mut self) {
        if let Some(notify) = &mut self.notify {
            notify.status = None;
        }
        for words in self.processes.iter_mut().filter_map(|process| process.last_words.as_mut()) {
            words.redact();
        }
    }
}

impl LastWordsView {
    /// "301.2 MiB of 300.0 MiB".
    pub(crate) fn figures(&self) -> String {
        let shown =
            |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), |bytes| units::size(bytes).to_string());
        format!("{} of {}", shown(self.protected_bytes), shown(self.threshold_bytes))
    }

    /// Only lines as the library writes them.
    pub(crate) fn redact(&mut self) {
        self.lines.retain(|line| line.starts_with("plimsoll: "));
    }
}
