//! What counts as saved and what as left alone: one judgement, for the tests and for the benches.

use crate::cgroup::TestGroup;
use crate::evidence::Evidence;
use crate::files;
use crate::protected::Service;
use serde_json::Value;

/// How far the kernel's books may be ahead of the load's own count, in bytes: pages are charged in batches of 32.
pub const BOOKS_BYTES: u64 = 32 * 4096;

/// A run that was told in time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Caught {
    /// From the crossing of the mark to the first handler that ran, in milliseconds; never negative.
    pub lag_ms: f64,
    /// What the tree had beyond the mark when that handler ran, in bytes.
    pub overshoot_bytes: i64,
}

/// Caught for memory: told after the crossing of `mark_bytes` (or [`BOOKS_BYTES`] below it, where the kernel's books were ahead:
/// that is a lag of 0), everybody ended by himself, the recorded reason is `memory`
/// and the kernel killed nobody.
///
/// # Errors
/// The first of these that does not hold, as a sentence with the figures.
pub fn caught(evidence: &Evidence, exit: &Value, oom_kills: u64, mark_bytes: u64) -> Result<Caught, String> {
    if oom_kills > 0 {
        return Err(format!("the kernel killed {oom_kills} of its processes"));
    }
    let told = evidence.all("signal").min_by_key(|event| event.ns).ok_or("nobody was signalled")?;
    let lag_ms = match evidence.lag_ms() {
        Some(lag_ms) if lag_ms >= 0.0 => lag_ms,
        // By the kernel's books it had crossed.
        _ if told.total_bytes + BOOKS_BYTES >= mark_bytes => 0.0,
        _ => return Err(format!("it was signalled {} bytes below the mark", mark_bytes - told.total_bytes)),
    };
    if !evidence.all_done() {
        return Err(format!("not everybody ended by himself: {:?}", evidence.events));
    }
    if exit["reason"] != "memory" {
        return Err(format!("the recorded reason is {}", exit["reason"]));
    }
    Ok(Caught { lag_ms, overshoot_bytes: evidence.overshoot_bytes(mark_bytes).unwrap_or(0) })
}

/// The same of a service that was started with `--restart never` and has ended.
///
/// # Errors
/// As [`caught`], and when a process of the load is still there.
pub fn caught_whole(service: &Service, mark_bytes: u64) -> Result<Caught, String> {
    let evidence = service.evidence();
    let oom_kills = service.group().map_or(0, TestGroup::oom_kills_below);
    let caught = caught(&evidence, &service.last_exit(), oom_kills, mark_bytes)?;
    match left(&evidence)[..] {
        [] => Ok(caught),
        ref pids => Err(format!("left running: {pids:?}")),
    }
}

/// Left alone: not one signal, and everybody ended by himself.
///
/// # Errors
/// What happened instead.
pub fn undisturbed(evidence: &Evidence) -> Result<(), String> {
    match evidence.all("signal").count() {
        0 if evidence.all_done() => Ok(()),
        0 => Err("killed".into()),
        count => Err(format!("signalled {count} times")),
    }
}

/// Processes of the load that still live.
pub fn left(evidence: &Evidence) -> Vec<u32> {
    evidence.all("start").map(|start| start.pid).filter(|&pid| files::lives(pid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Event;
    use serde_json::json;

    fn event(kind: &str, ns: u64, total_bytes: u64) -> Event {
        // A pid that no process can have.
        Event { event: kind.into(), pid: u32::MAX / 2, ns, total_bytes, ..Event::default() }
    }

    fn run(events: &[Event]) -> Evidence {
        Evidence { events: events.to_vec() }
    }

    #[test]
    fn saved_is_after_the_mark_before_the_kernel_and_for_memory() {
        let memory = json!({ "reason": "memory" });
        let start = event("start", 0, 0);
        const MARK: u64 = 300 << 20;
        let (crossed, signal) = (event("crossed", 2_000_000, MARK), event("signal", 3_000_000, MARK + 30));
        let done = event("done", 4_000_000, 0);
        let whole = run(&[start.clone(), crossed.clone(), signal.clone(), done.clone()]);
        assert_eq!(caught(&whole, &memory, 0, MARK), Ok(Caught { lag_ms: 1.0, overshoot_bytes: 30 }));
        let wrong = |events: &[Event], exit: &Value, kills: u64| caught(&run(events), exit, kills, MARK).unwrap_err();
        assert!(wrong(&whole.events, &memory, 1).contains("kernel"));
        assert!(wrong(&whole.events, &json!({ "reason": "exit" }), 0).contains("exit"));
        assert!(wrong(&[start.clone(), crossed.clone(), done.clone()], &memory, 0).contains("nobody was signalled"));
        assert!(wrong(&[start.clone(), crossed.clone(), signal.clone()], &memory, 0).contains("by himself"));
        let early = |below| event("signal", 1_000_000, MARK - below);
        let told = |below| [start.clone(), early(below), crossed.clone(), done.clone()];
        assert!(wrong(&told(BOOKS_BYTES + 1), &memory, 0).contains("131073 bytes below the mark"));
        assert_eq!(caught(&run(&told(BOOKS_BYTES)), &memory, 0, MARK).map(|caught| caught.lag_ms), Ok(0.0));
        assert_eq!(undisturbed(&run(&[start.clone(), done])), Ok(()));
        assert!(undisturbed(&whole).is_err() && undisturbed(&run(&[start])).is_err());
        assert!(left(&whole).is_empty());
    }
}
