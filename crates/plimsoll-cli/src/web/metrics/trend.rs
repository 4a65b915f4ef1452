//! The metrics of verdicts: whether a figure leaks, how fast it grows, when the budget is reached. Labels are the twelve figures of
//! the history, and at most 64 names of what the program reports.

use super::{Metric, metric};

const STATES: [&str; 5] = ["insufficient-data", "stable", "plateau", "growing", "leaking"];

pub(super) const METRICS: &[Metric] = &[
    metric("plimsoll_verdict_info", "What the trend of a figure says: 1 for what holds", |s, out| {
        for verdict in &s.verdicts {
            for state in STATES {
                out.with(&[("figure", &verdict.key), ("verdict", state)], u64::from(state == verdict.state));
            }
        }
    }),
    metric(
        "plimsoll_trend_bytes_per_second",
        "Growth of a figure in bytes over days; absent where it does not grow",
        |s, out| {
            for verdict in s.verdicts.iter().filter(|verdict| verdict.unit == "bytes") {
                out.with(&[("figure", &verdict.key)], verdict.per_hour.map(|rate| rate / 3_600.0));
            }
        },
    ),
    metric(
        "plimsoll_trend_count_per_second",
        "Growth of a count over days; absent where it does not grow",
        |s, out| {
            for verdict in s.verdicts.iter().filter(|verdict| verdict.unit != "bytes") {
                out.with(&[("figure", &verdict.key)], verdict.per_hour.map(|rate| rate / 3_600.0));
            }
        },
    ),
    metric(
        "plimsoll_trend_time_to_limit_seconds",
        "Time to the budget at the growth of days; absent where it does not grow",
        |s, out| {
            for verdict in &s.verdicts {
                out.with(&[("figure", &verdict.key)], verdict.time_to_limit_seconds);
            }
        },
    ),
];
