//! Whether a child that is already there is ours to take over: a pure decision, made under the lock.
//!
//! Adopted is a child whose supervisor is dead, with the same name, the same pid and start time, and the same digest of
//! the command. A living supervisor is an error that names its pid; anything else that still runs is an error, too.

use super::state::{Process, State};

/// What to do at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Adoption {
    /// Nothing to take over: start a child.
    Fresh,
    /// The child of a dead supervisor is gone as well: record its end as unknown, clear up, start a child.
    Lost(Process),
    /// The child of a dead supervisor lives: take it over.
    Adopt(Process),
    /// Something lives that must not be touched.
    Refuse {
        /// What it is.
        what: String,
        /// What to do.
        hint: String,
    },
}

/// What the machine says about the processes of the state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now<'a> {
    /// The start ticks of the process that has the supervisor's pid now; `None`: no such process.
    pub(crate) supervisor_ticks: Option<u64>,
    /// The same for the child's pid. A zombie counts as gone.
    pub(crate) child_ticks: Option<u64>,
    /// This boot.
    pub(crate) boot_id: &'a str,
}

/// Decides from what the predecessor left and what the machine says now.
pub(crate) fn decide(name: &str, previous: Option<&State>, argv_digest: &str, now: Now<'_>) -> Adoption {
    let Some(state) = previous else { return Adoption::Fresh };
    let Some(child) = state.child else { return Adoption::Fresh };
    let same_boot = state.boot_id == now.boot_id;
    let alive = |process: Process, ticks: Option<u64>| same_boot && ticks == Some(process.start_ticks);
    if !alive(child, now.child_ticks) {
        return Adoption::Lost(child);
    }
    if alive(state.supervisor, now.supervisor_ticks) {
        // The lock is ours, so it closed its files: it is dying, or somebody removed the lock file under it.
        return Adoption::Refuse {
            what: format!("{name} is still supervised by pid {}", state.supervisor.pid),
            hint: format!("wait for it, or end it: kill {}", state.supervisor.pid),
        };
    }
    if state.argv_digest != argv_digest {
        return Adoption::Refuse {
            what: format!(
                "{name} still runs as pid {}, started by a supervisor that died, with another command",
                child.pid
            ),
            hint: format!(
                "run the same command to take it over, end it (kill {}), or choose another --name",
                child.pid
            ),
        };
    }
    if state.pty {
        return Adoption::Refuse {
            what: format!("{name} still runs as pid {}, but its terminal died with its supervisor", child.pid),
            hint: format!("end it: kill {}", child.pid),
        };
    }
    Adoption::Adopt(child)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            boot_id: "boot".into(),
            supervisor: Process { pid: 10, start_ticks: 100 },
            child: Some(Process { pid: 20, start_ticks: 200 }),
            argv_digest: "same".into(),
            ..State::default()
        }
    }

    fn now() -> Now<'static> {
        Now { supervisor_ticks: None, child_ticks: Some(200), boot_id: "boot" }
    }

    fn refused(adoption: &Adoption, needle: &str) -> bool {
        matches!(adoption, Adoption::Refuse { what, .. } if what.contains(needle))
    }

    #[test]
    fn only_the_same_living_child_of_a_dead_supervisor_is_adopted() {
        let child = Process { pid: 20, start_ticks: 200 };
        assert_eq!(decide("web", Some(&state()), "same", now()), Adoption::Adopt(child));
        assert_eq!(decide("web", None, "same", now()), Adoption::Fresh);
        let ended = State { child: None, ..state() };
        assert_eq!(decide("web", Some(&ended), "same", now()), Adoption::Fresh);
    }

    #[test]
    fn a_reused_pid_or_another_boot_is_not_the_child() {
        let lost = Adoption::Lost(Process { pid: 20, start_ticks: 200 });
        for child_ticks in [None, Some(201)] {
            assert_eq!(decide("web", Some(&state()), "same", Now { child_ticks, ..now() }), lost);
        }
        assert_eq!(decide("web", Some(&state()), "same", Now { boot_id: "other", ..now() }), lost);
    }

    #[test]
    fn what_lives_and_is_not_ours_is_refused_with_its_pid() {
        let living = decide("web", Some(&state()), "same", Now { supervisor_ticks: Some(100), ..now() });
        assert!(refused(&living, "pid 10"), "{living:?}");
        let reused = decide("web", Some(&state()), "same", Now { supervisor_ticks: Some(101), ..now() });
        assert!(matches!(reused, Adoption::Adopt(_)), "another process has the dead supervisor's pid: {reused:?}");
        let other = decide("web", Some(&state()), "different", now());
        assert!(refused(&other, "another command"), "{other:?}");
        let terminal = decide("web", Some(&State { pty: true, ..state() }), "same", now());
        assert!(refused(&terminal, "terminal"), "{terminal:?}");
    }
}
