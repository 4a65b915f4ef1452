//! The life of the child as a total table: 6 states × 11 events, every cell filled, no clock and no I/O.
//!
//! [`next`] is the whole decision; the loop in `mod.rs` only feeds it and does what it says. There is no `_` arm: a new
//! state or event does not compile until each of its cells is written down.

use crate::snapshot::RunState;

/// Where the life of the child stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// A child is about to be started or adopted.
    Starting,
    /// The main process lives and nobody asked for an end.
    Running,
    /// A stop signal was sent; the grace period runs.
    Stopping,
    /// SIGKILL was sent to everything that was left.
    Killing,
    /// No process is left; the next start waits for its back-off.
    BackingOff,
    /// It is over; the supervisor itself ends.
    Exited,
}

impl State {
    /// The same state as the faces name it.
    pub(crate) const fn view(self) -> RunState {
        match self {
            State::Starting => RunState::Starting,
            State::Running => RunState::Running,
            State::Stopping => RunState::Stopping,
            State::Killing => RunState::Killing,
            State::BackingOff => RunState::BackingOff,
            State::Exited => RunState::Exited,
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The child runs: started by us, or taken over from a dead predecessor.
    Started,
    /// The child could not be started; the restart policy wants another attempt.
    StartFailedRetry,
    /// The child could not be started and that is final.
    StartFailedEnd,
    /// The governor has already sent SIGTERM to everything, on its own thread.
    MemoryStop,
    /// A person, the system or the control socket asks Plimsoll to end.
    StopAsked,
    /// The main process ended but others of its group or tree live on.
    MainGone,
    /// Nothing is left and the restart policy wants another life.
    GoneRestart,
    /// Nothing is left and there will be no other life.
    GoneEnd,
    /// The grace period is over.
    GraceOver,
    /// SIGKILL was sent a while ago and something still lives.
    KillOver,
    /// The back-off is over.
    BackoffOver,
}

/// What the loop has to do, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a child.
    Start,
    /// Send the stop signal (SIGTERM, or what was asked for) to everything.
    SendStop,
    /// Pass a repeated stop request on, unless the same signal is already on its way.
    RepeatStop,
    /// Start the grace period.
    ArmGrace,
    /// Send SIGKILL to everything that is left.
    SendKill,
    /// Look again in a moment whether SIGKILL did its work.
    ArmKillCheck,
    /// Close the books on this life: status, reason, last-exit.json.
    EndLife,
    /// Start the back-off.
    ArmBackoff,
    /// Disarm every timer of this life.
    Disarm,
    /// Leave the loop.
    Finish,
}

/// What to do in `state` when `event` happens, and the state after it.
pub(crate) fn next(state: State, event: Event) -> (State, &'static [Action]) {
    use Action::{ArmBackoff, ArmGrace, ArmKillCheck, Disarm, EndLife, Finish, RepeatStop, SendKill, SendStop, Start};
    use Event::{
        BackoffOver, GoneEnd, GoneRestart, GraceOver, KillOver, MainGone, MemoryStop, StartFailedEnd, StartFailedRetry,
        Started, StopAsked,
    };
    match state {
        State::Starting => match event {
            Started => (State::Running, &[]),
            StartFailedRetry => (State::BackingOff, &[EndLife, ArmBackoff]),
            StartFailedEnd => (State::Exited, &[EndLife, Finish]),
            // Nothing has been started: there is nothing to wait for.
            StopAsked => (State::Exited, &[Disarm, Finish]),
            // These need a child; a late message of the life before is stale.
            MemoryStop | MainGone | GraceOver | KillOver | BackoffOver => (State::Starting, &[]),
            GoneRestart => (State::BackingOff, &[EndLife, ArmBackoff]),
            GoneEnd => (State::Exited, &[EndLife, Finish]),
        },
        State::Running => match event {
            // The signal is already delivered; only the clock has to start.
            MemoryStop => (State::Stopping, &[ArmGrace]),
            StopAsked => (State::Stopping, &[SendStop, ArmGrace]),
            // The rest of the group does not outlive its main process.
            MainGone => (State::Stopping, &[SendStop, ArmGrace]),
            GoneRestart => (State::BackingOff, &[Disarm, EndLife, ArmBackoff]),
            GoneEnd => (State::Exited, &[Disarm, EndLife, Finish]),
            Started | StartFailedRetry | StartFailedEnd | GraceOver | KillOver | BackoffOver => (State::Running, &[]),
        },
        State::Stopping => match event {
            StopAsked => (State::Stopping, &[RepeatStop]),
            GraceOver => (State::Killing, &[SendKill, ArmKillCheck]),
            GoneRestart => (State::BackingOff, &[Disarm, EndLife, ArmBackoff]),
            GoneEnd => (State::Exited, &[Disarm, EndLife, Finish]),
            // The others keep what is left of the same grace period.
            MainGone => (State::Stopping, &[]),
            MemoryStop | Started | StartFailedRetry | StartFailedEnd | KillOver | BackoffOver => (State::Stopping, &[]),
        },
        State::Killing => match event {
            // Something forked between two passes, or sits in an uninterruptible call.
            KillOver => (State::Killing, &[SendKill, ArmKillCheck]),
            GoneRestart => (State::BackingOff, &[Disarm, EndLife, ArmBackoff]),
            GoneEnd => (State::Exited, &[Disarm, EndLife, Finish]),
            StopAsked | MemoryStop | MainGone | GraceOver | Started | StartFailedRetry | StartFailedEnd
            | BackoffOver => (State::Killing, &[]),
        },
        State::BackingOff => match event {
            BackoffOver => (State::Starting, &[Start]),
            StopAsked => (State::Exited, &[Disarm, Finish]),
            Started | StartFailedRetry | StartFailedEnd | MemoryStop | MainGone | GoneRestart | GoneEnd | GraceOver
            | KillOver => (State::BackingOff, &[]),
        },
        State::Exited => match event {
            Started | StartFailedRetry | StartFailedEnd | MemoryStop | StopAsked | MainGone | GoneRestart | GoneEnd
            | GraceOver | KillOver | BackoffOver => (State::Exited, &[]),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 6] =
        [State::Starting, State::Running, State::Stopping, State::Killing, State::BackingOff, State::Exited];
    const EVENTS: [Event; 11] = [
        Event::Started,
        Event::StartFailedRetry,
        Event::StartFailedEnd,
        Event::MemoryStop,
        Event::StopAsked,
        Event::MainGone,
        Event::GoneRestart,
        Event::GoneEnd,
        Event::GraceOver,
        Event::KillOver,
        Event::BackoffOver,
    ];

    /// The table as a person reads it: one row per state, one column per event in the order of [`EVENTS`]:
    /// the next state, then the actions.
    const GOLDEN: &str = "\
starting: running[] | backing-off[EndLife ArmBackoff] | exited[EndLife Finish] | starting[] | exited[Disarm Finish] | starting[] | backing-off[EndLife ArmBackoff] | exited[EndLife Finish] | starting[] | starting[] | starting[]
running: running[] | running[] | running[] | stopping[ArmGrace] | stopping[SendStop ArmGrace] | stopping[SendStop ArmGrace] | backing-off[Disarm EndLife ArmBackoff] | exited[Disarm EndLife Finish] | running[] | running[] | running[]
stopping: stopping[] | stopping[] | stopping[] | stopping[] | stopping[RepeatStop] | stopping[] | backing-off[Disarm EndLife ArmBackoff] | exited[Disarm EndLife Finish] | killing[SendKill ArmKillCheck] | stopping[] | stopping[]
killing: killing[] | killing[] | killing[] | killing[] | killing[] | killing[] | backing-off[Disarm EndLife ArmBackoff] | exited[Disarm EndLife Finish] | killing[] | killing[SendKill ArmKillCheck] | killing[]
backing-off: backing-off[] | backing-off[] | backing-off[] | backing-off[] | exited[Disarm Finish] | backing-off[] | backing-off[] | backing-off[] | backing-off[] | backing-off[] | starting[Start]
exited: exited[] | exited[] | exited[] | exited[] | exited[] | exited[] | exited[] | exited[] | exited[] | exited[] | exited[]
";

    #[test]
    fn every_cell_is_what_the_table_says() {
        let mut table = String::new();
        for state in STATES {
            let cells: Vec<String> = EVENTS
                .iter()
                .map(|event| {
                    let (after, actions) = next(state, *event);
                    let actions: Vec<String> = actions.iter().map(|a| format!("{a:?}")).collect();
                    format!("{}[{}]", after.view().as_str(), actions.join(" "))
                })
                .collect();
            table.push_str(&format!("{}: {}\n", state.view().as_str(), cells.join(" | ")));
        }
        assert_eq!(table, GOLDEN);
    }

    #[test]
    fn every_way_into_a_wait_arms_its_timer() {
        for (state, event) in STATES.iter().flat_map(|s| EVENTS.iter().map(move |e| (*s, *e))) {
            let (after, actions) = next(state, event);
            let entered = after != state;
            let armed = |action: Action| actions.contains(&action);
            assert!(!entered || after != State::Stopping || armed(Action::ArmGrace), "{state:?} {event:?}");
            assert!(!entered || after != State::Killing || armed(Action::ArmKillCheck), "{state:?} {event:?}");
            assert!(!entered || after != State::BackingOff || armed(Action::ArmBackoff), "{state:?} {event:?}");
            assert!(!entered || after != State::Exited || armed(Action::Finish), "{state:?} {event:?}");
        }
    }
}
