//! Made-up snapshots for tests of the faces: every optional field filled, plausible figures, nothing read from anywhere.

mod report;

use std::collections::BTreeMap;

use super::report::ReportsView;
use super::volume::{StreamVolume, TemplateView, VolumeView};
use super::*;

const MIB: u64 = 1024 * 1024;

fn map<const N: usize>(pairs: [(&str, u64); N]) -> BTreeMap<String, u64> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// 2026-11-21 09:30:00 UTC.
pub(crate) const AT_UNIX: f64 = 1_795_253_400.0;

/// As [`leaking`], and it embeds the library: it reports, and its last life left with last words.
pub(crate) fn reporting() -> Snapshot {
    let mut snapshot = Snapshot { reports: report::reports(), verdicts: verdicts(), ..leaking() };
    if let Some(exit) = &mut snapshot.last_exit {
        exit.last_words = Some(report::last_words());
    }
    snapshot
}

/// `shop`, 258.5 of 300 MiB, growing, second mark passed, restarted twice for memory, two streams, everything read.
pub(crate) fn leaking() -> Snapshot {
    Snapshot {
        version: VERSION,
        name: "shop".into(),
        at_unix: AT_UNIX,
        state: RunState::Running,
        supervisor: SupervisorView {
            pid: 4100,
            version: "0.1.0".into(),
            started_unix: AT_UNIX - 7_980.0,
            uptime_seconds: 7_980.0,
            rss_bytes: Some(9 * MIB),
            private_bytes: Some(4 * MIB),
            cpu_seconds: Some(1.25),
            open_fds: Some(31),
            heartbeat_age_seconds: Some(0.2),
            adopted: false,
        },
        child: Some(ChildView {
            pid: 4711,
            started_unix: AT_UNIX - 552.0,
            uptime_seconds: 552.0,
            comm: "node".into(),
            processes: Some(3),
            threads: Some(24),
            fds: Some(FdsView {
                total: 182,
                file: 12,
                socket: 148,
                pipe: 8,
                anon_inode: 9,
                proc: 3,
                device: 2,
                other: 0,
                growing: Some("socket".into()),
                truncated: false,
            }),
        }),
        memory: MemoryView {
            charged_bytes: Some(271_056_896),
            anon_bytes: Some(250 * MIB),
            shmem_bytes: Some(8 * MIB),
            swap_bytes: Some(512 * 1024),
            unevictable_bytes: Some(0),
            kernel_bytes: Some(6 * MIB),
            file_bytes: Some(41 * MIB),
            unread: None,
            budget_bytes: Some(300 * MIB),
            reserve_bytes: 64 * MIB,
            kernel_limit_bytes: Some(364 * MIB),
            peak_bytes: Some(262 * MIB),
            marks_bytes: Some([225 * MIB, 264 * MIB, 300 * MIB]),
        },
        governor: GovernorView {
            level: "high".into(),
            level_since_unix: AT_UNIX - 4.0,
            governs: true,
            growth_bytes_per_second: Some(18.4 * 1_048_576.0),
            growth_confidence_ratio: Some(0.97),
            time_to_limit_seconds: Some(2.3),
            blind: false,
            reading_age_seconds: Some(0.012),
            samples_total: 41_022,
            confirms_total: 812,
            missed_ticks_total: 1,
            wakes_total: map([("threshold", 3), ("pressure", 0)]),
            sample_cost_seconds: Some(0.000_001_6),
            confirm_cost_seconds: Some(0.000_014),
            scheduling: "SCHED_FIFO 1".into(),
            entered_total: map([("elevated", 4), ("high", 3), ("critical", 2)]),
        },
        limits: vec![LimitView {
            bytes: 364 * MIB,
            usage_bytes: Some(306 * MIB),
            consequence: "kill".into(),
            source: "/sys/fs/cgroup/memory/plimsoll-shop/memory.limit_in_bytes".into(),
        }],
        binding: Some("/sys/fs/cgroup/memory/plimsoll-shop/memory.limit_in_bytes".into()),
        group: GroupView {
            kind: "cgroup-v1".into(),
            path: Some("/sys/fs/cgroup/memory/plimsoll-shop".into()),
            why_not: None,
            oom_kills: Some(0),
        },
        stages: vec![
            StageView {
                level: "high".into(),
                action: "exec:notify --token hunter2".into(),
                sustain_seconds: 0.0,
                fired_total: 3,
                skipped_total: 0,
                last_fired_unix: Some(AT_UNIX - 4.0),
                last_skip_reason: None,
            },
            StageView {
                level: "critical".into(),
                action: "stop".into(),
                sustain_seconds: 0.0,
                fired_total: 2,
                skipped_total: 0,
                last_fired_unix: Some(AT_UNIX - 553.0),
                last_skip_reason: None,
            },
        ],
        grace_seconds: Some(10.0),
        restarts: RestartView {
            policy: "on-memory,on-failure".into(),
            total: 2,
            by_reason: map([("memory", 2)]),
            next_in_seconds: Some(0.4),
            crash_loop: false,
        },
        last_exit: Some(ExitView {
            reason: "memory".into(),
            code: Some(0),
            signal: None,
            at_unix: AT_UNIX - 552.4,
            uptime_seconds: 3_710.0,
            detail: "reached 300.2 MiB of 300 MiB growing 18 MiB/s; drained in 0.4 s".into(),
            charged_bytes: Some(300 * MIB),
            peak_bytes: Some(307 * MIB),
            killed_after_grace: false,
            plimsoll_code: 2,
            last_words: None,
        }),
        logs: LogsView {
            streams: BTreeMap::from([
                (
                    "stdout".into(),
                    StreamView {
                        lines_total: 1_204_311,
                        bytes_total: 211 * MIB,
                        dropped_lines_total: 0,
                        dropped_bytes_total: 0,
                        limited_lines_total: 0,
                        limited_bytes_total: 0,
                    },
                ),
                (
                    "stderr".into(),
                    StreamView {
                        lines_total: 4_118,
                        bytes_total: MIB,
                        dropped_lines_total: 12,
                        dropped_bytes_total: 3_072,
                        limited_lines_total: 4,
                        limited_bytes_total: 1_024,
                    },
                ),
            ]),
            lines_per_second: Some(212.0),
            bytes_per_second: Some(38_912.0),
            ring_used_bytes: 96 * 1024,
            ring_capacity_bytes: 8 * MIB,
            spool_bytes: 3 * MIB,
            database_bytes: 31 * MIB,
            chunks_total: 122,
            merged_chunks_total: 16,
            kept_lines: 1_190_000,
            retired_lines_total: map([("bytes", 14_311)]),
            echo_dropped_lines_total: 0,
            volume: volume(),
            degraded: None,
        },
        heap: Some(HeapView {
            mode: "auto".into(),
            every_seconds: 1800.0,
            self_test: Some("ok".into()),
            taken_total: [("smaps".to_owned(), 3), ("v8-snapshot".to_owned(), 1)].into(),
            failed_total: [("digest".to_owned(), 1)].into(),
            refused_total: [("headroom".to_owned(), 1)].into(),
            kept: 4,
            kept_bytes: 21 << 20,
            ..HeapView::default()
        }),
        reports: ReportsView::default(),
        pressure: Some(PressureView { some_avg10: 1.25, full_avg10: 0.0, source: "/proc/pressure/memory".into() }),
        host: Some(HostView { total_bytes: 24_576 * MIB, available_bytes: 17_000 * MIB }),
        derived: vec![
            DerivedView { name: "GOMEMLIMIT".into(), value: Some("270MiB".into()), note: "90 % of the budget".into() },
            DerivedView {
                name: "NODE_OPTIONS".into(),
                value: Some("--require hunter2.js --max-old-space-size=225".into()),
                note: "merged with what was set".into(),
            },
            DerivedView { name: "JAVA_TOOL_OPTIONS".into(), value: None, note: "set already: left alone".into() },
        ],
        http: Some(HttpView {
            address: Some("127.0.0.1:7117".into()),
            connections: 1,
            requests_total: 512,
            idle_closed_total: 2,
            refused_total: map([("host", 1), ("method", 0)]),
        }),
        verdicts: Vec::new(),
        warnings: vec!["12 lines of stderr were lost: the ring was full".into()],
    }
}

/// A stream that floods, looked at by a sample, beside one that does not.
fn volume() -> VolumeView {
    let template = |text: &str, lines_per_second: f64, share_ratio: f64, margin_ratio: f64| TemplateView {
        text: Some(text.into()),
        lines_per_second,
        share_ratio,
        margin_ratio,
    };
    let stderr = StreamVolume {
        lines_per_second: 3100.0,
        bytes_per_second: 620.0 * 1024.0,
        share_ratio: 0.981,
        repeated_ratio: 0.95,
        lines: 139_500,
        looked_at_lines: 90_000,
        templates: vec![
            template("ERROR accept: EMFILE, fd #", 2976.0, 0.96, 0.006),
            template("WARN retry # in # ms", 124.0, 0.04, 0.001),
        ],
        more_templates: false,
    };
    let stdout = StreamVolume {
        lines_per_second: 4.2,
        bytes_per_second: 12.0 * 1024.0,
        share_ratio: 0.019,
        repeated_ratio: 0.0,
        lines: 189,
        looked_at_lines: 189,
        templates: vec![template("GET #", 4.2, 1.0, 0.0)],
        more_templates: false,
    };
    let streams = BTreeMap::from([("stderr".into(), stderr), ("stdout".into(), stdout)]);
    VolumeView { span_seconds: 45.0, streams, limit: Some("1.0 MiB/s".into()) }
}

/// Four entries of the decision log of [`leaking`].
pub(crate) fn decisions() -> Vec<DecisionView> {
    let entry = |before: f64, kind: &str, level: &str, previous: Option<&str>, text: &str| DecisionView {
        at_unix: AT_UNIX - before,
        kind: kind.into(),
        level: level.into(),
        previous: previous.map(str::to_owned),
        charged_bytes: Some(271_056_896),
        budget_bytes: Some(300 * MIB),
        growth_bytes_per_second: Some(18.4 * 1_048_576.0),
        time_to_limit_seconds: Some(2.3),
        text: text.into(),
    };
    vec![
        entry(553.0, "signal", "critical", Some("high"), "SIGTERM to group 4650: 300.2 of 300 MiB, growing 18 MiB/s"),
        entry(552.4, "exit", "critical", None, "reason memory, code 0, drained in 0.4 s"),
        entry(552.0, "restart", "normal", None, "started as 4711, restart 2"),
        entry(4.0, "level", "high", Some("elevated"), "264.1 of 300 MiB, limit in 2.3 s at 18 MiB/s"),
    ]
}

/// Memory leaks, sockets grow, threads are level.
pub(crate) fn verdicts() -> Vec<VerdictView> {
    let of = |key: &str, unit: &str, state: &str, reason: &str| VerdictView {
        key: key.into(),
        unit: unit.into(),
        state: state.into(),
        confidence_ratio: 0.97,
        reasons: vec![reason.into()],
        span_seconds: 36.0 * 3_600.0,
        readings: 2_160,
        ..VerdictView::default()
    };
    let memory = VerdictView {
        now: 258.5 * MIB as f64,
        per_hour: Some(12.0 * MIB as f64),
        per_hour_low: Some(11.0 * MIB as f64),
        per_hour_high: Some(13.0 * MIB as f64),
        time_to_limit_seconds: Some(3.5 * 3_600.0),
        soonest_seconds: Some(3.0 * 3_600.0),
        latest_seconds: Some(4.0 * 3_600.0),
        ..of("memory", "bytes", "leaking", "grew steadily by 45 % in 36 h, 12.0 MiB an hour, and gave nothing back")
    };
    let sockets = VerdictView {
        now: 120.0,
        per_hour: Some(4.5),
        ..of("fds socket", "count", "growing", "grew by 12 % in 36 h, ever more slowly: as a cache does that fills")
    };
    vec![memory, sockets, of("threads", "count", "stable", "no rise beyond the noise of 1 in 36 h")]
}
