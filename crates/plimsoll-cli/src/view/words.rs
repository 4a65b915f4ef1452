//! A snapshot's facts in words: state, level, growth, exit, descriptors, logs. What is unknown is said to be unknown.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use plimsoll::units;

use super::text::{Line, Tone};
use crate::snapshot::{DecisionView, ExitView, GovernorView, LogsView, MemoryView, RestartView, RunState, Snapshot};

/// Growth that is slower than this, or less sure than [`SURE_RATIO`], reads "steady".
const STEADY_BYTES_PER_SECOND: f64 = 16.0 * 1024.0;
/// From which confidence on a growth rate is shown.
const SURE_RATIO: f64 = 0.5;

/// Bytes in words.
pub(crate) fn size(bytes: u64) -> String {
    units::size(bytes).to_string()
}

/// Seconds in words; negative and unreadable ones are 0.
pub(crate) fn seconds(seconds: f64) -> String {
    units::duration(Duration::try_from_secs_f64(seconds).unwrap_or_default()).to_string()
}

/// A count with its thousands set apart: `1,204,311`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `1 restart`, `2 restarts`.
pub(crate) fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// A wall-clock time of day; the date in front when it is not today.
pub(crate) fn time_of_day(at_unix: f64, now_unix: f64, zone: &TimeZone) -> String {
    let zoned = |unix: f64| {
        #[allow(clippy::cast_possible_truncation, reason = "milliseconds of a date; out of range is refused below")]
        let millis = (unix * 1e3) as i64;
        Timestamp::from_millisecond(millis).ok().map(|t| t.to_zoned(zone.clone()))
    };
    match (zoned(at_unix), zoned(now_unix)) {
        (Some(at), Some(now)) if at.date() == now.date() => at.strftime("%H:%M:%S").to_string(),
        (Some(at), _) => at.strftime("%m-%d %H:%M").to_string(),
        (None, _) => "?".to_owned(),
    }
}

/// The tone of a level by its name.
pub(crate) fn level_tone(level: &str) -> Tone {
    match level {
        "normal" => Tone::Good,
        "elevated" => Tone::Warn,
        "high" => Tone::Alarm,
        "critical" => Tone::Critical,
        _ => Tone::Dim,
    }
}

/// Where the life of the program stands.
pub(crate) fn state(snapshot: &Snapshot) -> (Tone, String) {
    let plain = snapshot.state.as_str().to_owned();
    match snapshot.state {
        RunState::Starting => (Tone::Note, plain),
        RunState::Running => (Tone::Good, plain),
        RunState::Stopping => (Tone::Warn, plain),
        RunState::Killing => (Tone::Alarm, plain),
        RunState::BackingOff => (Tone::Warn, "backing off".to_owned()),
        RunState::Exited => match &snapshot.last_exit {
            Some(exit) if exit.is_success() => (Tone::Plain, "exited".to_owned()),
            Some(exit) => (Tone::Alarm, format!("exited: {}", exit.reason)),
            None => (Tone::Alarm, "exited: unknown".to_owned()),
        },
        RunState::Stale => match snapshot.supervisor.heartbeat_age_seconds {
            Some(age) => (Tone::Critical, format!("stale, {}", seconds(age))),
            None => (Tone::Critical, "stale".to_owned()),
        },
    }
}

/// Growth and the time to the limit: `+18 MiB/s, limit in 2.3 s`.
pub(crate) fn growth(governor: &GovernorView) -> Line {
    let sure = governor.growth_confidence_ratio.is_none_or(|ratio| ratio >= SURE_RATIO);
    let line = match governor.growth_bytes_per_second {
        Some(rate) if sure && rate.abs() >= STEADY_BYTES_PER_SECOND => {
            Line::new().add(if rate > 0.0 { Tone::Strong } else { Tone::Good }, units::rate(rate).to_string())
        }
        Some(_) => Line::new().add(Tone::Dim, "steady"),
        None => Line::new().add(Tone::Dim, "growth unknown"),
    };
    match governor.time_to_limit_seconds {
        Some(left) if sure => {
            let tone = if left < 10.0 { Tone::Alarm } else { Tone::Plain };
            line.plain("  ").add(tone, format!("limit in {}", seconds(left)))
        }
        _ => line,
    }
}

/// `258.5 MiB of 300.0 MiB  86 %`, or why there is no figure.
pub(crate) fn charged(memory: &MemoryView) -> Line {
    match (memory.charged_bytes, memory.budget_bytes) {
        (Some(charged), Some(budget)) => {
            let percent = u128::from(charged) * 100 / u128::from(budget.max(1));
            let line = Line::new().add(Tone::Strong, size(charged));
            line.plain(format!(" of {}", size(budget))).plain(format!("  {percent} %"))
        }
        (Some(charged), None) => {
            Line::new().add(Tone::Strong, size(charged)).add(Tone::Dim, "  no budget: observes only")
        }
        (None, _) => {
            let why = memory.unread.as_deref().unwrap_or("no reading yet");
            Line::new().add(Tone::Warn, "memory unknown").add(Tone::Dim, format!("  {why}"))
        }
    }
}

/// The kinds of memory that are not zero; page cache last, as it does not count.
pub(crate) fn split(memory: &MemoryView) -> Line {
    let mut line = Line::new();
    for (kind, bytes) in memory.by_kind().into_iter().filter(|(kind, _)| *kind != "file") {
        match bytes {
            Some(bytes) if bytes > 0 || kind == "anon" => {
                line = line.add(Tone::Dim, format!("{kind} ")).plain(size(bytes)).plain("  ");
            }
            None if kind == "anon" => line = line.add(Tone::Dim, "anon unknown  "),
            _ => {}
        }
    }
    match memory.file_bytes {
        Some(bytes) => line.add(Tone::Dim, format!("not counted: cache {}", size(bytes))),
        None => line,
    }
}

/// Process, threads and how they are held together.
pub(crate) fn process(snapshot: &Snapshot) -> Line {
    let Some(child) = &snapshot.child else {
        return Line::new().add(Tone::Dim, "no process now");
    };
    let mut line = Line::new().plain(format!("{} ", child.comm)).add(Tone::Dim, format!("pid {}", child.pid));
    for (n, one, many) in [(child.processes, "process", "processes"), (child.threads, "thread", "threads")] {
        if let Some(n) = n {
            line = line.add(Tone::Dim, " · ").plain(plural(n, one, many));
        }
    }
    if !snapshot.group.kind.is_empty() {
        line = line.add(Tone::Dim, " · ").plain(&snapshot.group.kind);
    }
    match snapshot.group.oom_kills {
        Some(kills) if kills > 0 => {
            line.add(Tone::Dim, " · ").add(Tone::Alarm, plural(kills, "kernel OOM kill", "kernel OOM kills"))
        }
        _ => line,
    }
}

/// Descriptors by kind, most first; the kind that grows is marked.
pub(crate) fn descriptors(snapshot: &Snapshot) -> Line {
    let Some(fds) = snapshot.child.as_ref().and_then(|child| child.fds.as_ref()) else {
        return Line::new().add(Tone::Dim, "unknown");
    };
    let more = if fds.truncated { "+" } else { "" };
    let mut line = Line::new().plain(format!("{}{more}", count(fds.total)));
    let mut kinds: Vec<_> = fds.by_kind().into_iter().filter(|(_, n)| *n > 0).collect();
    kinds.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    for (i, (kind, n)) in kinds.into_iter().enumerate() {
        line = line.add(Tone::Dim, if i == 0 { ":  " } else { "  " });
        let growing = fds.growing.as_deref() == Some(kind);
        let kind = kind.replace('_', " ");
        line = match growing {
            true => line.add(Tone::Warn, format!("{kind} {} growing", count(n))),
            false => line.add(Tone::Dim, format!("{kind} ")).plain(count(n)),
        };
    }
    line
}

/// Rate, what is kept and what was lost.
pub(crate) fn logs(logs: &LogsView) -> Line {
    let (lines, lost) = logs
        .streams
        .values()
        .fold((0, 0), |(lines, lost), stream| (lines + stream.lines_total, lost + stream.dropped_lines_total));
    let mut line = Line::new();
    if let Some(rate) = logs.lines_per_second {
        line = line.plain(format!("{rate:.0} lines/s"));
        if let Some(bytes) = logs.bytes_per_second.filter(|b| *b >= 1.0) {
            line = line.add(Tone::Dim, " · ").plain(units::rate(bytes).to_string().trim_start_matches('+'));
        }
        line = line.add(Tone::Dim, " · ");
    }
    line = line.plain(plural(lines, "line", "lines")).add(Tone::Dim, " · ");
    line = if lost == 0 {
        line.add(Tone::Dim, "none lost")
    } else {
        line.add(Tone::Alarm, format!("{} lost", count(lost)))
    };
    if logs.echo_dropped_lines_total > 0 {
        line = line.add(Tone::Dim, format!(" · {} not echoed", count(logs.echo_dropped_lines_total)));
    }
    match &logs.degraded {
        Some(why) => line.add(Tone::Dim, " · ").add(Tone::Alarm, format!("degraded: {why}")),
        None => line,
    }
}

/// How often and why it was started again.
pub(crate) fn restarts(restarts: &RestartView) -> Line {
    let mut line = Line::new().plain(count(restarts.total));
    let reasons: Vec<_> = restarts
        .by_reason
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(reason, n)| format!("{reason} {}", count(*n)))
        .collect();
    if !reasons.is_empty() {
        line = line.add(Tone::Dim, format!("  ({})", reasons.join(", ")));
    }
    if restarts.crash_loop {
        line = line.add(Tone::Dim, " · ").add(Tone::Critical, "crash loop");
    }
    match restarts.next_in_seconds {
        Some(wait) => line.add(Tone::Dim, " · ").add(Tone::Warn, format!("next start in {}", seconds(wait))),
        None => line,
    }
}

/// How the last life ended, in one line: reason first.
pub(crate) fn exit(exit: &ExitView, now_unix: f64) -> Line {
    let tone = if exit.is_success() { Tone::Plain } else { Tone::Alarm };
    let mut line = Line::new().add(tone, &exit.reason);
    if let Some(code) = exit.code {
        line = line.plain(format!(", code {code}"));
    }
    if let Some(signal) = exit.signal {
        line = line.plain(format!(", {}", signal_name(signal)));
    }
    if exit.killed_after_grace {
        line = line.add(Tone::Alarm, ", killed after the grace period");
    }
    line = line
        .add(Tone::Dim, format!(" · {} ago, after {}", seconds(now_unix - exit.at_unix), seconds(exit.uptime_seconds)));
    if exit.detail.is_empty() { line } else { line.add(Tone::Dim, " · ").plain(&exit.detail) }
}

/// `SIGTERM`, or the number where it has no name.
pub(crate) fn signal_name(signal: i32) -> String {
    signal_hook::low_level::signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
}

/// One entry of the decision log.
pub(crate) fn decision(decision: &DecisionView, now_unix: f64, zone: &TimeZone) -> Line {
    let what = match (&decision.previous, decision.kind.as_str()) {
        (Some(_), "level") => decision.level.clone(),
        _ => decision.kind.clone(),
    };
    let tone = match decision.kind.as_str() {
        "level" => level_tone(&decision.level),
        "signal" | "blind" => Tone::Alarm,
        "exit" => Tone::Warn,
        _ => Tone::Note,
    };
    Line::new()
        .add(Tone::Dim, time_of_day(decision.at_unix, now_unix, zone))
        .plain("  ")
        .add(tone, what)
        .pad_to(20)
        .plain(" ")
        .plain(&decision.text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::sample;
    use crate::view::text::write_lines;

    fn plain(line: Line) -> String {
        write_lines(&[line], false).trim_end().to_owned()
    }

    #[test]
    fn thousands_are_set_apart() {
        for (n, words) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_204_311, "1,204,311")] {
            assert_eq!(count(n), words);
        }
    }

    #[test]
    fn an_uncertain_growth_is_not_shown_as_one() {
        let mut governor = sample::leaking().governor;
        assert_eq!(plain(growth(&governor)), "+18 MiB/s  limit in 2.3 s");
        governor.growth_confidence_ratio = Some(0.2);
        assert_eq!(plain(growth(&governor)), "steady");
        governor.growth_bytes_per_second = None;
        governor.time_to_limit_seconds = None;
        assert_eq!(plain(growth(&governor)), "growth unknown");
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let mut memory = MemoryView::default();
        assert_eq!(plain(charged(&memory)), "memory unknown  no reading yet");
        memory.unread = Some("memory.stat: permission denied".into());
        assert_eq!(plain(charged(&memory)), "memory unknown  memory.stat: permission denied");
        memory.charged_bytes = Some(1024);
        assert_eq!(plain(charged(&memory)), "1.0 KiB  no budget: observes only");
    }

    #[test]
    fn a_dead_supervisor_is_stale_and_never_running() {
        let mut snapshot = sample::leaking();
        snapshot.supervisor.heartbeat_age_seconds = Some(12.0);
        snapshot.own_up();
        assert_eq!(state(&snapshot), (Tone::Critical, "stale, 12 s".to_owned()));
        snapshot.supervisor.heartbeat_age_seconds = None;
        assert_eq!(state(&snapshot).1, "stale");
    }

    #[test]
    fn an_exit_says_its_reason_first() {
        let mut view = sample::leaking().last_exit.unwrap();
        view.detail.clear();
        assert_eq!(plain(exit(&view, sample::AT_UNIX)), "memory, code 0 · 9 min 12 s ago, after 1 h 1 min");
        view.code = None;
        view.signal = Some(9);
        view.reason = "oom-kill".into();
        view.killed_after_grace = true;
        assert!(plain(exit(&view, sample::AT_UNIX)).starts_with("oom-kill, SIGKILL, killed after the grace period"));
    }

    #[test]
    fn times_of_other_days_carry_their_date() {
        let now = sample::AT_UNIX;
        assert_eq!(time_of_day(now - 60.0, now, &TimeZone::UTC), "09:29:00");
        assert_eq!(time_of_day(now - 86_400.0, now, &TimeZone::UTC), "11-20 09:30");
        assert_eq!(time_of_day(f64::INFINITY, now, &TimeZone::UTC), "?");
    }
}
