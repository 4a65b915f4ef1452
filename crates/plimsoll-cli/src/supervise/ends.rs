//! The end of a life: evidence, reason, what comes next; and the end of all of them: the last line and the code.

use plimsoll::clock::wall;
use plimsoll::units;

use super::facts;
use super::lives::Lives;
use super::reason::{self, Evidence, Reason, Status, signal_name};
use super::restart::{LOOP_ENDS, LOOP_WINDOW, Verdict, Why};
use super::state;
use super::table::Event;
use crate::snapshot::ExitView;
use crate::snapshot::report::LastWordsView;

/// When it said that it leaves for memory (monotonic), and its words.
type Left = (std::time::Duration, LastWordsView);

/// A life that is over, judged.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) view: ExitView,
    reason: Reason,
    verdict: Verdict,
}

/// Judges the life that just ended; the table does the rest.
pub(super) fn judge(lives: &mut Lives) -> Event {
    let facts = &lives.facts;
    let status = facts.status.unwrap_or(Status::Unknown);
    let oom_kills = match (facts.oom_kills_before, lives.shared.oom_kills()) {
        (Some(before), Some(now)) => Some(now.saturating_sub(before)),
        _ => None,
    };
    let (stopped_for_memory, killed_by_us) = (facts.stop.is_some(), facts.killed);
    // What it said last may still be in the socket.
    lives.hear_last_reports();
    let left = lives.left_for_memory(status.code());
    let left_for_memory = left.is_some();
    let evidence = Evidence { status, stopped_for_memory, left_for_memory, killed_by_us, oom_kills };
    let reason = reason::infer(&evidence);
    let facts = &lives.facts;
    let now = lives.now();
    let lived = now.saturating_sub(facts.started);
    // A `set` or a last sample may still be under way; the peak is what was seen.
    let (peak_bytes, last) = match &lives.watch {
        Some(watch) => {
            let status = watch.governor.status();
            (status.peak_bytes, status.decision)
        }
        None => (None, None),
    };
    let charged_bytes = facts.stop.map(|stop| stop.decision).or(last).and_then(|decision| decision.charged_bytes);
    let asked = lives.asked.is_some();
    let verdict = lives.restarts.decide(now, lived, reason, status.code(), asked, jitter_ratio(now));
    let code = reason::exit_code(reason, status);
    let view = ExitView {
        reason: reason.as_str().to_owned(),
        code: status.code(),
        signal: status.signal(),
        at_unix: wall().as_secs_f64(),
        uptime_seconds: lived.as_secs_f64(),
        detail: detail(lives, reason, status, oom_kills, peak_bytes, left.as_ref()),
        charged_bytes,
        peak_bytes,
        killed_after_grace: lives.facts.killed,
        plimsoll_code: i32::from(code),
        last_words: left.map(|(_, words)| words),
    };
    let event = match verdict {
        Verdict::Restart(delay) => {
            lives.next_delay = delay;
            Event::GoneRestart
        }
        Verdict::End(_) => Event::GoneEnd,
    };
    lives.exit_code = code;
    lives.ended = Some(Ended { view, reason, verdict });
    event
}

/// The clock's microseconds: enough to keep a fleet from restarting in step, and no secret.
fn jitter_ratio(now: std::time::Duration) -> f64 {
    f64::from(now.subsec_micros() % 1000) / 999.0
}

/// "exited with code 0 350 ms after SIGTERM; 301.2 MiB of 300 MiB, +200 MiB/s".
fn detail(
    lives: &Lives,
    reason: Reason,
    status: Status,
    oom_kills: Option<u64>,
    peak_bytes: Option<u64>,
    left: Option<&Left>,
) -> String {
    let how = match status {
        Status::Code(code) => format!("exited with code {code}"),
        Status::Signal(signal) => format!("ended by SIG{}", signal_name(signal)),
        Status::NotStarted(code) => format!("not started (code {code})"),
        Status::Unknown => "ended; its status could not be learnt".to_owned(),
    };
    let mut text = how;
    if let Some(stop) = lives.facts.stop {
        let after = units::duration(lives.now().saturating_sub(stop.at));
        text.push_str(&format!(" {after} after SIGTERM for memory: {}", facts::figures(&stop.decision)));
    }
    if let (Some((said_at, words)), None) = (left, lives.facts.stop) {
        let after = units::duration(lives.now().saturating_sub(*said_at));
        text.push_str(&format!(" {after} after it said that it leaves for memory: {}", words.figures()));
    }
    if lives.facts.killed {
        text.push_str(&format!("; SIGKILL was needed after {}", units::duration(lives.options.grace)));
    }
    if reason == Reason::OomKill {
        let killed = oom_kills.unwrap_or(0);
        let (budget, reserve) = lives.shared.budget();
        let limit = budget.map(|budget| budget.saturating_add(reserve));
        text.push_str(&format!("; the kernel's OOM killer took {killed} of its processes"));
        if let Some(limit) = limit.filter(|_| lives.starter.group.is_some()) {
            text.push_str(&format!(" at the limit of {}", units::size(limit)));
        }
    }
    if let Some(peak) = peak_bytes {
        text.push_str(&format!("; peak {}", units::size(peak)));
    }
    text
}

/// Whatever the policy says, there is no other life.
pub(super) fn no_other(lives: &mut Lives) {
    if let Some(ended) = &mut lives.ended {
        ended.verdict = Verdict::End(Why::Policy);
    }
}

/// Closes the books on the life that was judged.
pub(super) fn end_life(lives: &mut Lives) {
    lives.shared.child_ended();
    // The last hand on the governor: its thread is joined here.
    lives.watch = None;
    lives.reach = None;
    lives.child = None;
    lives.facts.status = None;
    lives.child_ended();
    let Some(ended) = &lives.ended else { return };
    lives.shared.set_last_exit(Some(ended.view.clone()));
    if let Err(error) = state::save_last_exit(&lives.options.layout, &ended.view) {
        lives.shared.warn(&format!("cannot write {}: {error}", lives.options.layout.last_exit().display()));
    }
    let (total, before) = (lives.restarts.total, lives.facts.oom_kills_before);
    lives.starter.save_state(None, &lives.shared, total, before);
    let reason = ended.reason.as_str();
    match &ended.verdict {
        Verdict::Restart(delay) => {
            lives.shared.restarting(reason, total);
            let text =
                format!("reason {reason}: {}; restart {total} in {}", ended.view.detail, units::duration(*delay));
            lives.shared.enter("restart", None, &text);
            lives.shared.mouth.warn(&text);
            lives.say_above(&format!("STATUS=restart {total}: reason {reason}"));
        }
        Verdict::End(why) => {
            if *why == Why::CrashLoop {
                lives.shared.set_crash_loop();
            }
            lives.end = Some(*why);
            lives.shared.enter("exit", None, &format!("reason {reason}: {}", ended.view.detail));
        }
    }
}

/// The last line: what ended, why, and with which code Plimsoll ends.
pub(super) fn last_line(lives: &Lives) -> String {
    let name = lives.options.layout.name();
    let code = lives.exit_code;
    let Some(ended) = &lives.ended else { return format!("{name}: nothing was started; exit code {code}") };
    let why = match lives.end {
        Some(Why::CrashLoop) => {
            format!("; not restarted: {LOOP_ENDS} ends within {}", units::duration(LOOP_WINDOW))
        }
        Some(Why::MaxRestarts) => format!("; not restarted: {} restarts were the most", lives.restarts.total),
        Some(Why::Policy | Why::Asked) | None => String::new(),
    };
    format!("{name}: reason {}: {}{why}; exit code {code}", ended.reason.as_str(), ended.view.detail)
}
