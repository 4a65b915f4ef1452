//! A [`Snapshot`] as OpenMetrics text, made afresh for each scrape from two tables, [`METRICS`] and that of what the program reports.
//!
//! Names begin with `plimsoll_` and end in their unit; every sample carries `name`, the supervised program's. What cannot
//! be read is absent, never 0. One-of-several facts (`_info`) are 1 for what holds and 0 for the others, so that an alert
//! can be written on each. Values of variables and commands never appear. `docs/metrics.md` lists every row.

mod heap;
mod report;
mod trend;

use std::collections::BTreeMap;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use plimsoll::level::Level;

use crate::snapshot::volume::StreamVolume;
use crate::snapshot::{RunState, Snapshot, StreamView};

/// The media type of [`encode`]'s text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One row: a name with its unit, what it means, and how to read its samples.
struct Metric {
    name: &'static str,
    help: &'static str,
    read: fn(&Snapshot, &mut Samples),
}

/// The samples of one metric by labels; two of the same labels are summed, as a series may occur only once.
#[derive(Default)]
struct Samples(BTreeMap<Vec<(&'static str, String)>, f64>);

impl Samples {
    /// A sample without further labels, when there is a value.
    fn one(&mut self, value: impl Number) {
        self.with(&[], value);
    }

    fn with(&mut self, labels: &[(&'static str, &str)], value: impl Number) {
        if let Some(value) = value.number() {
            let labels = labels.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
            *self.0.entry(labels).or_default() += value;
        }
    }

    /// One sample per alternative: 1 for the one that holds, 0 for the others.
    fn one_of(&mut self, key: &'static str, all: impl IntoIterator<Item = &'static str>, holds: &str) {
        for each in all {
            self.with(&[(key, each)], u64::from(each == holds));
        }
    }

    /// One sample per entry of a map of counters.
    fn each(&mut self, key: &'static str, map: &BTreeMap<String, u64>) {
        for (label, value) in map {
            self.with(&[(key, label)], *value);
        }
    }

    fn volumes(&mut self, snapshot: &Snapshot, read: fn(&StreamVolume) -> Option<f64>) {
        for (stream, volume) in &snapshot.logs.volume.streams {
            self.with(&[("stream", stream)], read(volume));
        }
    }

    fn streams(&mut self, snapshot: &Snapshot, read: fn(&StreamView) -> u64) {
        for (stream, view) in &snapshot.logs.streams {
            self.with(&[("stream", stream)], read(view));
        }
    }
}

/// What can be a sample: a number, or perhaps one.
trait Number {
    fn number(self) -> Option<f64>;
}

impl Number for f64 {
    fn number(self) -> Option<f64> {
        Some(self)
    }
}

impl Number for u64 {
    #[allow(clippy::cast_precision_loss, reason = "samples are doubles; exact up to 2^53, 8 PiB")]
    fn number(self) -> Option<f64> {
        Some(self as f64)
    }
}

impl<T: Number> Number for Option<T> {
    fn number(self) -> Option<f64> {
        self.and_then(Number::number)
    }
}

const fn metric(name: &'static str, help: &'static str, read: fn(&Snapshot, &mut Samples)) -> Metric {
    Metric { name, help, read }
}

fn ratio(part: Option<u64>, whole: Option<u64>) -> Option<f64> {
    Some(part.number()? / whole.filter(|w| *w > 0).number()?)
}

/// Every metric of what Plimsoll itself sees.
const METRICS: &[Metric] = &[
    metric("plimsoll_supervisor_info", "Which Plimsoll supervises", |s, out| {
        out.with(&[("version", &s.supervisor.version)], 1);
    }),
    metric("plimsoll_supervisor_start_time_seconds", "When the supervisor began, Unix time", |s, out| {
        out.one(s.supervisor.started_unix);
    }),
    metric("plimsoll_supervisor_resident_bytes", "Plimsoll's own resident memory", |s, out| {
        out.one(s.supervisor.rss_bytes);
    }),
    metric("plimsoll_supervisor_private_bytes", "Plimsoll's own private memory", |s, out| {
        out.one(s.supervisor.private_bytes);
    }),
    metric("plimsoll_supervisor_cpu_seconds_total", "CPU time that Plimsoll itself used", |s, out| {
        out.one(s.supervisor.cpu_seconds);
    }),
    metric("plimsoll_supervisor_open_fds_count", "Descriptors that Plimsoll itself holds", |s, out| {
        out.one(s.supervisor.open_fds);
    }),
    metric("plimsoll_supervisor_heartbeat_age_seconds", "Age of the supervise loop's last sign of life", |s, out| {
        out.one(s.supervisor.heartbeat_age_seconds);
    }),
    metric("plimsoll_state_info", "Where the life of the program stands: 1 for the state that holds", |s, out| {
        out.one_of("state", RunState::ALL.map(RunState::as_str), s.state.as_str());
    }),
    metric("plimsoll_child_start_time_seconds", "When this life of the program began, Unix time", |s, out| {
        out.one(s.child.as_ref().map(|c| c.started_unix));
    }),
    metric("plimsoll_child_processes_count", "Processes of the program", |s, out| {
        out.one(s.child.as_ref().and_then(|c| c.processes));
    }),
    metric("plimsoll_child_threads_count", "Threads of the program", |s, out| {
        out.one(s.child.as_ref().and_then(|c| c.threads));
    }),
    metric("plimsoll_child_fds_count", "Descriptors of the program by kind", |s, out| {
        if let Some(fds) = s.child.as_ref().and_then(|c| c.fds.as_ref()) {
            for (kind, count) in fds.by_kind() {
                out.with(&[("kind", kind)], count);
            }
        }
    }),
    metric("plimsoll_memory_charged_bytes", "What is compared with the budget", |s, out| {
        out.one(s.memory.charged_bytes);
    }),
    metric("plimsoll_memory_bytes", "Memory of the program by kind; file is page cache and never counts", |s, out| {
        for (kind, bytes) in s.memory.by_kind() {
            out.with(&[("kind", kind)], bytes);
        }
    }),
    metric("plimsoll_memory_budget_bytes", "The budget; absent when Plimsoll only observes", |s, out| {
        out.one(s.memory.budget_bytes);
    }),
    metric("plimsoll_memory_reserve_bytes", "Memory beyond the budget that draining may use", |s, out| {
        out.one(s.memory.reserve_bytes);
    }),
    metric("plimsoll_memory_kernel_limit_bytes", "Where the kernel kills", |s, out| {
        out.one(s.memory.kernel_limit_bytes);
    }),
    metric("plimsoll_memory_peak_bytes", "The highest charged figure of this life", |s, out| {
        out.one(s.memory.peak_bytes);
    }),
    metric("plimsoll_memory_used_ratio", "Charged over budget", |s, out| {
        out.one(ratio(s.memory.charged_bytes, s.memory.budget_bytes));
    }),
    metric("plimsoll_memory_mark_bytes", "Where a level is entered", |s, out| {
        for (level, bytes) in Level::ALL[1..].iter().zip(s.memory.marks_bytes.into_iter().flatten()) {
            out.with(&[("level", level.as_str())], bytes);
        }
    }),
    metric("plimsoll_level_info", "How urgent it is: 1 for the level that holds", |s, out| {
        out.one_of("level", Level::ALL.map(Level::as_str), &s.governor.level);
    }),
    metric("plimsoll_level_entered_total", "How often a level was entered", |s, out| {
        out.each("level", &s.governor.entered_total);
    }),
    metric("plimsoll_growth_bytes_per_second", "How fast the charged figure grows", |s, out| {
        out.one(s.governor.growth_bytes_per_second);
    }),
    metric("plimsoll_growth_confidence_ratio", "How far the growth rate can be trusted", |s, out| {
        out.one(s.governor.growth_confidence_ratio);
    }),
    metric("plimsoll_time_to_limit_seconds", "Time to the budget at this growth; absent when not growing", |s, out| {
        out.one(s.governor.time_to_limit_seconds);
    }),
    metric("plimsoll_governor_info", "Whether Plimsoll governs, observes, or is blind: 1 for what holds", |s, out| {
        out.one_of("mode", ["governs", "observes", "blind"], s.governor.mode());
    }),
    metric("plimsoll_governor_reading_age_seconds", "Age of the last reading", |s, out| {
        out.one(s.governor.reading_age_seconds);
    }),
    metric("plimsoll_governor_samples_total", "Fast readings taken", |s, out| out.one(s.governor.samples_total)),
    metric("plimsoll_governor_confirms_total", "Confirming readings taken", |s, out| {
        out.one(s.governor.confirms_total);
    }),
    metric("plimsoll_governor_missed_ticks_total", "Readings that came too late", |s, out| {
        out.one(s.governor.missed_ticks_total);
    }),
    metric("plimsoll_governor_wakes_total", "Readings that a kernel event brought forward", |s, out| {
        out.each("kind", &s.governor.wakes_total);
    }),
    metric("plimsoll_governor_sample_cost_seconds", "What the last fast reading cost", |s, out| {
        out.one(s.governor.sample_cost_seconds);
    }),
    metric("plimsoll_governor_confirm_cost_seconds", "What the last confirming reading cost", |s, out| {
        out.one(s.governor.confirm_cost_seconds);
    }),
    metric("plimsoll_limit_bytes", "A memory limit that holds, by the file that says so", |s, out| {
        for limit in &s.limits {
            out.with(&[("consequence", &limit.consequence), ("source", &limit.source)], limit.bytes);
        }
    }),
    metric("plimsoll_limit_usage_bytes", "Usage at the level of that limit", |s, out| {
        for limit in &s.limits {
            out.with(&[("consequence", &limit.consequence), ("source", &limit.source)], limit.usage_bytes);
        }
    }),
    metric("plimsoll_group_info", "How the program is held together: 1 for what holds", |s, out| {
        out.one_of("kind", ["cgroup-v1", "cgroup-v2", "tree"], &s.group.kind);
    }),
    metric("plimsoll_oom_kills_total", "Kernel OOM kills in the program's group", |s, out| out.one(s.group.oom_kills)),
    metric("plimsoll_stage_fired_total", "How often a stage acted", |s, out| {
        for stage in &s.stages {
            out.with(&[("action", &stage.action), ("level", &stage.level)], stage.fired_total);
        }
    }),
    metric("plimsoll_stage_skipped_total", "How often a stage was due and not carried out", |s, out| {
        for stage in &s.stages {
            out.with(&[("action", &stage.action), ("level", &stage.level)], stage.skipped_total);
        }
    }),
    metric("plimsoll_restarts_total", "Restarts of the program by the reason of the exit before", |s, out| {
        out.each("reason", &s.restarts.by_reason);
    }),
    metric("plimsoll_restart_next_seconds", "Time to the next start, while backing off", |s, out| {
        out.one(s.restarts.next_in_seconds);
    }),
    metric("plimsoll_crash_loop_info", "1 while the program crashes in a loop", |s, out| {
        out.one(u64::from(s.restarts.crash_loop));
    }),
    metric("plimsoll_last_exit_info", "How the last life ended: 1 for the reason observed", |s, out| {
        if let Some(exit) = &s.last_exit {
            out.one_of("reason", ["memory", "oom-kill", "signal", "exit", "usage", "unknown"], &exit.reason);
        }
    }),
    metric("plimsoll_last_exit_time_seconds", "When the last life ended, Unix time", |s, out| {
        out.one(s.last_exit.as_ref().map(|exit| exit.at_unix));
    }),
    metric("plimsoll_log_lines_total", "Lines read from the program", |s, out| out.streams(s, |v| v.lines_total)),
    metric("plimsoll_log_bytes_total", "Bytes read from the program", |s, out| out.streams(s, |v| v.bytes_total)),
    metric("plimsoll_log_dropped_lines_total", "Lines lost; each is in a gap record of the log", |s, out| {
        out.streams(s, |v| v.dropped_lines_total);
    }),
    metric("plimsoll_log_dropped_bytes_total", "Bytes lost; each is in a gap record of the log", |s, out| {
        out.streams(s, |v| v.dropped_bytes_total);
    }),
    metric("plimsoll_log_limited_lines_total", "Of the lost lines, those above the stream's rate limit", |s, out| {
        out.streams(s, |v| v.limited_lines_total);
    }),
    metric("plimsoll_log_limited_bytes_total", "Of the lost bytes, those above the stream's rate limit", |s, out| {
        out.streams(s, |v| v.limited_bytes_total);
    }),
    metric("plimsoll_log_stream_lines_per_second", "Lines a second, over the last 30 to 60 s", |s, out| {
        out.volumes(s, |v| Some(v.lines_per_second));
    }),
    metric("plimsoll_log_stream_bytes_per_second", "Bytes a second, over the last 30 to 60 s", |s, out| {
        out.volumes(s, |v| Some(v.bytes_per_second));
    }),
    metric("plimsoll_log_stream_share_ratio", "Of the program's bytes, this stream's", |s, out| {
        out.volumes(s, |v| Some(v.share_ratio));
    }),
    metric("plimsoll_log_repeated_ratio", "Lines that are the same as the one before, of the stream's", |s, out| {
        out.volumes(s, |v| Some(v.repeated_ratio));
    }),
    metric(
        "plimsoll_log_top_template_ratio",
        "Of the stream's bytes, those of its most frequent template",
        |s, out| {
            out.volumes(s, |v| v.templates.first().map(|template| template.share_ratio));
        },
    ),
    metric(
        "plimsoll_log_echo_dropped_lines_total",
        "Lines not echoed to a slow terminal; the log has them",
        |s, out| {
            out.one(s.logs.echo_dropped_lines_total);
        },
    ),
    metric("plimsoll_log_ring_used_bytes", "Bytes in the ring that are not on disk yet", |s, out| {
        out.one(s.logs.ring_used_bytes);
    }),
    metric("plimsoll_log_ring_capacity_bytes", "Size of the ring", |s, out| out.one(s.logs.ring_capacity_bytes)),
    metric("plimsoll_log_spool_bytes", "Bytes on disk that are not compressed yet", |s, out| {
        out.one(s.logs.spool_bytes);
    }),
    metric("plimsoll_log_database_bytes", "Size of the log database", |s, out| out.one(s.logs.database_bytes)),
    metric("plimsoll_log_chunks_total", "Compressed chunks written", |s, out| out.one(s.logs.chunks_total)),
    metric("plimsoll_log_merged_chunks_total", "Small chunks merged into larger ones", |s, out| {
        out.one(s.logs.merged_chunks_total);
    }),
    metric("plimsoll_log_kept_lines_count", "Lines in the log database", |s, out| out.one(s.logs.kept_lines)),
    metric("plimsoll_log_retired_lines_total", "Lines deleted by a bound of retention, by which one", |s, out| {
        out.each("reason", &s.logs.retired_lines_total);
    }),
    metric("plimsoll_log_degraded_info", "1 while the log store is degraded (disk full, locked, …)", |s, out| {
        out.one(u64::from(s.logs.degraded.is_some()));
    }),
    metric("plimsoll_pressure_some_ratio", "Time in which some task waited for memory, last 10 s", |s, out| {
        out.one(s.pressure.as_ref().map(|p| p.some_avg10 / 100.0));
    }),
    metric("plimsoll_pressure_full_ratio", "Time in which every task waited for memory, last 10 s", |s, out| {
        out.one(s.pressure.as_ref().map(|p| p.full_avg10 / 100.0));
    }),
    metric("plimsoll_host_memory_bytes", "Memory of the machine", |s, out| {
        out.one(s.host.as_ref().map(|h| h.total_bytes));
    }),
    metric("plimsoll_host_available_bytes", "Memory of the machine that is available", |s, out| {
        out.one(s.host.as_ref().map(|h| h.available_bytes));
    }),
    metric("plimsoll_http_requests_total", "Requests to socket and port", |s, out| {
        out.one(s.http.as_ref().map(|h| h.requests_total));
    }),
    metric("plimsoll_http_connections_count", "Connections open now", |s, out| {
        out.one(s.http.as_ref().map(|h| h.connections));
    }),
    metric("plimsoll_http_idle_closed_total", "Connections closed because they were idle", |s, out| {
        out.one(s.http.as_ref().map(|h| h.idle_closed_total));
    }),
    metric("plimsoll_http_refused_total", "Requests and connections refused, by reason", |s, out| {
        if let Some(http) = &s.http {
            out.each("reason", &http.refused_total);
        }
    }),
    metric("plimsoll_warnings_count", "Warnings that hold now", |s, out| {
        out.one(u64::try_from(s.warnings.len()).unwrap_or(u64::MAX));
    }),
];

/// Every metric there is, also of what the program reports and of its trend.
fn all() -> impl Iterator<Item = &'static Metric> {
    METRICS.iter().chain(report::METRICS).chain(heap::METRICS).chain(trend::METRICS)
}

/// Every metric's name, in the order of the table.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    all().map(|metric| metric.name)
}

/// The exposition of one snapshot.
///
/// # Errors
/// Only when the encoder itself fails, which a `String` does not.
pub(crate) fn encode(snapshot: Snapshot) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(snapshot.redacted())));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

#[derive(Debug)]
struct Scrape(Snapshot);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for metric in all() {
            let mut samples = Samples::default();
            (metric.read)(&self.0, &mut samples);
            if samples.0.is_empty() {
                continue;
            }
            // The encoder writes the `_total` of a counter itself.
            let (name, kind) = match metric.name.strip_suffix("_total") {
                Some(name) => (name, MetricType::Counter),
                None => (metric.name, MetricType::Gauge),
            };
            let mut family = encoder.encode_descriptor(name, metric.help, None, kind)?;
            for (mut labels, value) in samples.0 {
                labels.insert(0, ("name", self.0.name.clone()));
                let mut sample = family.encode_family(&labels)?;
                match kind {
                    MetricType::Counter => sample.encode_counter::<NoLabelSet, f64, u64>(&value, None)?,
                    _ => sample.encode_gauge(&value)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::snapshot::sample;

    /// Metric names, label text and value of each sample line.
    fn parse(text: &str) -> Vec<(String, String, f64)> {
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                let (name, labels) = series.split_once('{').expect("labels");
                (name.to_owned(), labels.trim_end_matches('}').to_owned(), value.parse().expect("a number"))
            })
            .collect()
    }

    #[test]
    fn the_text_parses_and_every_row_of_the_table_is_in_it() {
        let text = encode(sample::reporting()).unwrap();
        assert!(text.ends_with("# EOF\n"), "{text}");
        let samples = parse(&text);
        let seen: BTreeSet<_> = samples.iter().map(|(name, ..)| name.as_str()).collect();
        let table: BTreeSet<_> = names().collect();
        assert_eq!(seen, table);
        assert_eq!(table.len(), all().count(), "a name occurs once");
        let mut series = BTreeSet::new();
        for (name, labels, _) in &samples {
            assert!(labels.starts_with("name=\"shop\""), "{name}{{{labels}}}");
            assert!(series.insert((name, labels)), "{name}{{{labels}}} occurs twice");
        }
        let value = |name: &str, label: &str| {
            samples.iter().find(|(n, l, _)| n == name && l.contains(label)).map(|(.., value)| *value)
        };
        assert_eq!(value("plimsoll_memory_charged_bytes", ""), Some(271_056_896.0));
        assert_eq!(value("plimsoll_level_info", "level=\"high\""), Some(1.0));
        assert_eq!(value("plimsoll_level_info", "level=\"normal\""), Some(0.0));
        assert_eq!(value("plimsoll_child_fds_count", "kind=\"proc\""), Some(3.0));
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        let text = encode(Snapshot { name: "x".into(), ..Snapshot::default() }).unwrap();
        for absent in ["charged", "time_to_limit", "oom_kills", "host", "pressure", "account", "queue", "notify"] {
            assert!(!text.contains(absent), "{absent}");
        }
    }

    #[test]
    fn commands_and_values_of_variables_stay_inside() {
        let text = encode(sample::reporting()).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("exec:…"), "{text}");
    }

    #[test]
    fn a_label_with_quotes_and_line_ends_is_escaped() {
        let mut snapshot = sample::leaking();
        snapshot.supervisor.version = "a\"b\\c\nd".into();
        let text = encode(snapshot).unwrap();
        assert!(text.contains(r#"version="a\"b\\c\nd""#), "{text}");
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "reads the repository's own page, whole")]
    fn every_metric_is_documented() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        let page = std::fs::read_to_string(page).unwrap();
        let missing: Vec<_> = names().filter(|name| !page.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "add to docs/metrics.md: {missing:?}");
    }
}
