//! Why a life ended: inferred from what was done and counted, never from the exit code alone.
//!
//! Order of proof: a kernel OOM kill (its counter grew and a SIGKILL came that was not ours) · our own stop for memory, or the
//! program's word that it leaves for memory · a signal · an exit code · unknown. Exit code of `plimsoll run`: 2 after a stop for memory, else the child's own,
//! 128 + signal.

use crate::exit;

/// The reason word, the same in status, JSON, metrics and the last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Plimsoll stopped it because it reached its budget (or an operator's own stop mark), or it said that it leaves for memory.
    Memory,
    /// The kernel killed it (or one of its descendants, and it fell with it).
    OomKill,
    /// A signal ended it.
    Signal,
    /// It exited by itself.
    Exit,
    /// It could not be started.
    Usage,
    /// Its status could not be learnt (an adopted child on a kernel without `PIDFD_GET_INFO`).
    Unknown,
}

impl Reason {
    /// The word.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Reason::Memory => "memory",
            Reason::OomKill => "oom-kill",
            Reason::Signal => "signal",
            Reason::Exit => "exit",
            Reason::Usage => "usage",
            Reason::Unknown => "unknown",
        }
    }
}

/// How the main process ended, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It could not be started; the code is the shell's (126 or 127).
    NotStarted(i32),
    /// Nobody could tell.
    Unknown,
}

impl Status {
    /// From the raw value that `waitpid` and `PIDFD_GET_INFO` use.
    pub(crate) fn from_raw(raw: i32) -> Status {
        let signal = raw & 0x7f;
        if signal == 0 { Status::Code((raw >> 8) & 0xff) } else { Status::Signal(signal) }
    }

    /// The exit code, when it exited.
    pub(crate) fn code(self) -> Option<i32> {
        match self {
            Status::Code(code) | Status::NotStarted(code) => Some(code),
            Status::Signal(_) | Status::Unknown => None,
        }
    }

    /// The signal, when one ended it.
    pub(crate) fn signal(self) -> Option<i32> {
        match self {
            Status::Signal(signal) => Some(signal),
            Status::Code(_) | Status::NotStarted(_) | Status::Unknown => None,
        }
    }
}

/// What is known at the end of a life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence {
    /// How the main process ended.
    pub(crate) status: Status,
    /// Plimsoll sent SIGTERM for memory.
    pub(crate) stopped_for_memory: bool,
    /// It said itself, over the report socket, that it leaves for memory, and then exited.
    pub(crate) left_for_memory: bool,
    /// Plimsoll sent SIGKILL.
    pub(crate) killed_by_us: bool,
    /// By how much the group's `oom_kill` counter grew; `None` when it cannot be read.
    pub(crate) oom_kills: Option<u64>,
}

/// The reason that the evidence proves.
pub(crate) fn infer(evidence: &Evidence) -> Reason {
    let sigkilled = evidence.status.signal() == Some(9);
    if evidence.oom_kills.is_some_and(|n| n > 0) && sigkilled && !evidence.killed_by_us {
        return Reason::OomKill;
    }
    if evidence.stopped_for_memory || (evidence.left_for_memory && evidence.status.code().is_some()) {
        return Reason::Memory;
    }
    match evidence.status {
        Status::Code(_) => Reason::Exit,
        Status::Signal(_) => Reason::Signal,
        Status::NotStarted(_) => Reason::Usage,
        Status::Unknown => Reason::Unknown,
    }
}

/// The code that `plimsoll run` ends with when there is no other life.
pub(crate) fn exit_code(reason: Reason, status: Status) -> u8 {
    let own = match status {
        Status::Code(code) | Status::NotStarted(code) => code & 0xff,
        Status::Signal(signal) => 128 + (signal & 0x7f),
        Status::Unknown => i32::from(exit::FAILURE),
    };
    match reason {
        Reason::Memory => exit::MEMORY,
        Reason::OomKill | Reason::Signal | Reason::Exit | Reason::Usage | Reason::Unknown => {
            u8::try_from(own).unwrap_or(exit::FAILURE)
        }
    }
}

/// The name of a signal as `kill -l` has it, without SIG.
pub(crate) fn signal_name(signal: i32) -> String {
    match SIGNALS.iter().find(|(_, number)| *number == signal) {
        Some((name, _)) => (*name).to_owned(),
        None => signal.to_string(),
    }
}

/// The number behind `USR1`, `SIGUSR1`, `usr1` or `10`.
pub(crate) fn signal_number(name: &str) -> Option<i32> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Ok(number) = bare.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    SIGNALS.iter().find(|(known, _)| *known == bare).map(|(_, number)| *number)
}

const SIGNALS: [(&str, i32); 31] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_follows_the_evidence_not_the_code() {
        use Status::{Code, NotStarted, Signal, Unknown};
        // (status, stopped for memory, killed by us, oom kills) -> reason, exit code
        let table = [
            (Code(0), false, false, Some(0), Reason::Exit, 0),
            (Code(2), false, false, Some(0), Reason::Exit, 2), // a Go panic is not a stop for memory
            (Code(0), true, false, Some(0), Reason::Memory, 2),
            (Code(7), true, false, None, Reason::Memory, 2),
            (Signal(15), true, false, Some(0), Reason::Memory, 2),
            (Signal(9), true, true, Some(0), Reason::Memory, 2), // ignored SIGTERM, killed after the grace
            (Signal(9), true, true, Some(1), Reason::Memory, 2), // our own SIGKILL, whatever else the kernel killed
            (Signal(9), true, false, Some(1), Reason::OomKill, 137), // died of the kernel while it drained
            (Signal(9), false, false, Some(3), Reason::OomKill, 137),
            (Signal(9), false, false, Some(0), Reason::Signal, 137),
            (Signal(9), false, false, None, Reason::Signal, 137), // no counter: not guessed
            (Code(1), false, false, Some(1), Reason::Exit, 1),    // only a descendant was killed
            (Signal(11), false, false, Some(0), Reason::Signal, 139),
            (NotStarted(127), false, false, None, Reason::Usage, 127),
            (Unknown, false, false, None, Reason::Unknown, 1),
        ];
        for (status, stopped_for_memory, killed_by_us, oom_kills, reason, code) in table {
            let evidence = Evidence { status, stopped_for_memory, left_for_memory: false, killed_by_us, oom_kills };
            assert_eq!(infer(&evidence), reason, "{evidence:?}");
            assert_eq!(exit_code(reason, status), code, "{evidence:?}");
        }
        // It said so itself: then an exit is for memory, whatever its code; a signal, or the kernel's kill, is what it is.
        for (status, oom, reason) in [
            (Code(2), 0, Reason::Memory),
            (Code(0), 0, Reason::Memory),
            (Signal(9), 1, Reason::OomKill),
            (Signal(11), 0, Reason::Signal),
            (Unknown, 0, Reason::Unknown),
        ] {
            let evidence = Evidence {
                status,
                stopped_for_memory: false,
                left_for_memory: true,
                killed_by_us: false,
                oom_kills: Some(oom),
            };
            assert_eq!(infer(&evidence), reason, "{evidence:?}");
        }
    }

    #[test]
    fn raw_wait_statuses_are_read_as_the_kernel_writes_them() {
        assert_eq!(Status::from_raw(0), Status::Code(0));
        assert_eq!(Status::from_raw(3 << 8), Status::Code(3));
        assert_eq!(Status::from_raw(9), Status::Signal(9));
        assert_eq!(Status::from_raw(11 | 0x80), Status::Signal(11)); // with a core
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (name, number) in SIGNALS {
            assert_eq!(signal_number(name), Some(number));
            assert_eq!(signal_number(&format!("sig{}", name.to_lowercase())), Some(number));
            assert_eq!(signal_name(number), name);
        }
        assert_eq!(signal_number("10"), Some(10));
        for bad in ["", "0", "65", "-1", "NOPE"] {
            assert_eq!(signal_number(bad), None, "{bad}");
        }
    }
}
