//! Stages: what happens at which level, and once per rise. Parses `--on LEVEL[ for DUR]=ACTION[ for DUR]` and keeps the
//! time above each mark; pure, no clock of its own.
//!
//! A stage fires when its level (or a higher one) has held for its time, once; it is ready again after the level has been
//! left. The time is checked at each decision of the governor, so at most one second late. `critical=stop` is always
//! there, at once, unless an own stop at critical (for example `critical for 30s=stop`) replaces it.

use std::fmt;
use std::time::Duration;

use plimsoll::level::Level;
use plimsoll::units;

use super::reason::{signal_name, signal_number};

/// The longest that an `exec:` command may run before it is killed.
pub(crate) const EXEC_LIMIT: Duration = Duration::from_secs(10);
/// The most `--on` options.
pub(crate) const MAX_STAGES: usize = 16;

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Do {
    /// An entry in the decision log and the log of the program.
    Note,
    /// A signal to the main process, if it catches it (TERM and KILL: in any case).
    Signal(i32),
    /// `sh -c` with `PLIMSOLL_*` in its environment, outside the child's group, at most [`EXEC_LIMIT`] long.
    Exec(String),
    /// A heap capture, if none of this trigger was taken lately; a full one only where it is safe.
    Snapshot,
    /// SIGTERM to everything, the grace period, SIGKILL.
    Stop,
}

impl fmt::Display for Do {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Do::Note => f.write_str("note"),
            Do::Signal(signal) => write!(f, "signal:{}", signal_name(*signal)),
            Do::Exec(command) => write!(f, "exec:{command}"),
            Do::Snapshot => f.write_str("snapshot"),
            Do::Stop => f.write_str("stop"),
        }
    }
}

/// One stage as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    /// At this level or above.
    pub(crate) level: Level,
    /// For so long; zero: at once.
    pub(crate) sustain: Duration,
    /// This is done.
    pub(crate) action: Do,
}

impl std::str::FromStr for Stage {
    type Err = String;

    fn from_str(text: &str) -> Result<Stage, String> {
        let (left, right) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?}: expected LEVEL[ for DUR]=ACTION, such as high=signal:USR1"))?;
        let (level, before) = sustained(left)?;
        let (action, after) = sustained(right)?;
        let level: Level = level.trim().parse().map_err(|e| format!("{e}"))?;
        if level == Level::Normal {
            return Err("normal is where nothing has to be done: expected elevated, high or critical".to_owned());
        }
        let sustain = match (before, after) {
            (Some(_), Some(_)) => return Err(format!("{text:?}: says \"for\" twice")),
            (Some(time), None) | (None, Some(time)) => time,
            (None, None) => Duration::ZERO,
        };
        let action = action.trim();
        let action = match action.split_once(':') {
            None if action == "note" => Do::Note,
            None if action == "snapshot" => Do::Snapshot,
            None if action == "stop" => Do::Stop,
            Some(("signal", name)) => match signal_number(name.trim()) {
                Some(libc::SIGSTOP) => {
                    return Err("signal:STOP would freeze the program at its peak and never end it".to_owned());
                }
                Some(signal) => Do::Signal(signal),
                None => {
                    return Err(format!(
                        "unknown signal {name:?}: expected a name such as USR1, or a number from 1 to 64"
                    ));
                }
            },
            Some(("exec", command)) if !command.trim().is_empty() => Do::Exec(command.trim().to_owned()),
            Some(("exec", _)) => return Err("exec: needs a command".to_owned()),
            _ => {
                return Err(format!(
                    "unknown action {action:?}: expected note, snapshot, signal:NAME, exec:CMD or stop"
                ));
            }
        };
        Ok(Stage { level, sustain, action })
    }
}

/// Splits a trailing ` for DUR` off, where DUR is a duration.
fn sustained(text: &str) -> Result<(&str, Option<Duration>), String> {
    let Some((head, tail)) = text.rsplit_once(" for ") else { return Ok((text, None)) };
    match units::parse_duration(tail.trim()) {
        Ok(time) => Ok((head, Some(time))),
        // A shell command may well contain " for "; a level or another action may not.
        Err(_) if head.contains("exec:") => Ok((text, None)),
        Err(error) => Err(format!("{text:?}: {error}")),
    }
}

/// The stages in force: the configured ones and, unless replaced, `critical=stop`.
pub(crate) fn in_force(configured: &[Stage]) -> Vec<Stage> {
    let mut stages = configured.to_vec();
    if !stages.iter().any(|s| s.action == Do::Stop && s.level == Level::Critical) {
        stages.push(Stage { level: Level::Critical, sustain: Duration::ZERO, action: Do::Stop });
    }
    stages.sort_by_key(|stage| (stage.level, stage.action == Do::Stop));
    stages
}

/// The memory of one life: since when each stage's level holds, and whether it fired in this rise.
#[derive(Clone, Debug)]
pub(crate) struct Rise {
    held: Vec<Held>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    since: Option<Duration>,
    fired: bool,
}

impl Rise {
    /// For `stages.len()` stages; allocates here and never again.
    pub(crate) fn new(stages: &[Stage]) -> Rise {
        Rise { held: vec![Held::default(); stages.len()] }
    }

    /// Tells of the level at `at` and returns the stages that fire now, as a bit set by index. Allocates nothing.
    pub(crate) fn observe(&mut self, stages: &[Stage], at: Duration, level: Level) -> u32 {
        let mut due = 0;
        for (index, (stage, held)) in stages.iter().zip(&mut self.held).enumerate() {
            if level < stage.level {
                *held = Held::default();
                continue;
            }
            let since = *held.since.get_or_insert(at);
            if !held.fired && at.saturating_sub(since) >= stage.sustain {
                held.fired = true;
                due |= 1_u32.checked_shl(u32::try_from(index).unwrap_or(u32::MAX)).unwrap_or(0);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_read_as_people_write_them() {
        let s = Duration::from_secs;
        let table = [
            ("high=signal:USR1", Level::High, s(0), Do::Signal(libc::SIGUSR1)),
            ("high for 30s=stop", Level::High, s(30), Do::Stop),
            ("high=stop for 30s", Level::High, s(30), Do::Stop),
            ("elevated=note", Level::Elevated, s(0), Do::Note),
            ("high for 1m=snapshot", Level::High, s(60), Do::Snapshot),
            ("critical=exec:curl -s http://x/?a=b", Level::Critical, s(0), Do::Exec("curl -s http://x/?a=b".into())),
            (
                "high=exec:for i in 1 2; do echo $i for fun; done",
                Level::High,
                s(0),
                Do::Exec("for i in 1 2; do echo $i for fun; done".into()),
            ),
            ("high=exec:dump for 5s", Level::High, s(5), Do::Exec("dump".into())),
            ("high=signal:sigterm", Level::High, s(0), Do::Signal(libc::SIGTERM)),
        ];
        for (text, level, sustain, action) in table {
            assert_eq!(text.parse::<Stage>(), Ok(Stage { level, sustain, action }), "{text}");
        }
        for bad in [
            "",
            "high",
            "normal=note",
            "loud=note",
            "high=",
            "high=dance",
            "high=signal:",
            "high=signal:NOPE",
            "high=exec:",
            "high for=note",
            "high for 3=note",
            "high for 1s=stop for 2s",
            "high=signal:STOP",
            "high=note for ever",
        ] {
            assert!(bad.parse::<Stage>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn critical_stops_unless_an_own_stop_at_critical_replaces_it() {
        let parse = |texts: &[&str]| in_force(&texts.iter().map(|t| t.parse().expect("stage")).collect::<Vec<_>>());
        let stops = |stages: &[Stage]| {
            stages.iter().filter(|s| s.action == Do::Stop).map(|s| (s.level, s.sustain.as_secs())).collect::<Vec<_>>()
        };
        assert_eq!(stops(&parse(&[])), [(Level::Critical, 0)]);
        assert_eq!(stops(&parse(&["critical=note"])), [(Level::Critical, 0)]);
        assert_eq!(stops(&parse(&["high for 30s=stop"])), [(Level::High, 30), (Level::Critical, 0)]);
        assert_eq!(stops(&parse(&["critical for 30s=stop"])), [(Level::Critical, 30)]);
    }

    #[test]
    fn a_stage_fires_once_per_rise_and_only_after_its_time() {
        let stages: Vec<Stage> =
            ["elevated=note", "high for 3s=stop"].iter().map(|t| t.parse().expect("stage")).collect();
        let mut rise = Rise::new(&stages);
        let steps = [
            (0, Level::Normal, 0b00),
            (1, Level::Elevated, 0b01),
            (2, Level::High, 0b00),
            (4, Level::High, 0b00),
            (5, Level::Critical, 0b10), // above high for 3 s
            (6, Level::Critical, 0b00),
            (7, Level::Elevated, 0b00), // high is left, elevated still holds
            (8, Level::High, 0b00),
            (10, Level::Normal, 0b00), // left before its time: starts over
            (11, Level::High, 0b01),
            (14, Level::High, 0b10),
        ];
        for (at, level, due) in steps {
            assert_eq!(rise.observe(&stages, Duration::from_secs(at), level), due, "at {at} {level}");
        }
    }
}
