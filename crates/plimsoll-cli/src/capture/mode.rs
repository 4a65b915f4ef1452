//! What `--heap` asks for, and what is therefore tried, in which order. Pure.
//!
//! | `--heap` | on schedule | at a level | asked for |
//! |---|---|---|---|
//! | `auto` (default) | figures (`smaps`), or a profile where the program offers one | the same, and a full one where it is safe | a full one where it is safe |
//! | `profile` | a profile | a profile | a full one where it is safe; of a JVM a profile |
//! | `full` | a full one where it is safe | the same | the same |
//! | `pprof=URL`, `jemalloc` | that profile | the same | the same |
//! | `off` | nothing | nothing | nothing |
//!
//! A full one stalls the program (V8: 2 to 6 µs an object), so nobody gets it on schedule who did not ask for it. What cannot be had
//! falls through to the next cheaper kind; `smaps` always can.

use std::fmt;

use super::due::Trigger;

/// What `--heap` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Cheap on schedule, full on demand.
    #[default]
    Auto,
    /// Nothing at all.
    Off,
    /// Sampling profiles: Node loads our agent.
    Profile,
    /// Full snapshots on schedule: Node loads our agent, so that it is known whether they are safe.
    Full,
    /// A pprof profile from this URL (`http://…`).
    Pprof(String),
    /// jemalloc's own profiles, asked for by `MALLOC_CONF`.
    Jemalloc,
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Mode, String> {
        match text.split_once('=') {
            Some(("pprof", url)) if super::pprof::parse(url).is_ok() => Ok(Mode::Pprof(url.to_owned())),
            Some(("pprof", url)) => super::pprof::parse(url).map(|_| Mode::Off),
            None if text == "auto" => Ok(Mode::Auto),
            None if text == "off" => Ok(Mode::Off),
            None if text == "profile" => Ok(Mode::Profile),
            None if text == "full" => Ok(Mode::Full),
            None if text == "jemalloc" => Ok(Mode::Jemalloc),
            _ => Err(format!(
                "{text:?}: expected auto, off, profile, full, jemalloc, or pprof=http://HOST:PORT/debug/pprof/heap"
            )),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::Auto => f.write_str("auto"),
            Mode::Off => f.write_str("off"),
            Mode::Profile => f.write_str("profile"),
            Mode::Full => f.write_str("full"),
            Mode::Pprof(_) => f.write_str("pprof"),
            Mode::Jemalloc => f.write_str("jemalloc"),
        }
    }
}

impl Mode {
    /// Whether Node is to load our agent.
    pub(crate) fn loads_agent(&self) -> bool {
        matches!(self, Mode::Profile | Mode::Full)
    }
}

/// What the program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Runtime {
    /// Node, or what calls itself so.
    Node,
    /// A Java virtual machine.
    Jvm,
    /// Anything else.
    Other,
}

/// One way to capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Method {
    /// A V8 heap snapshot, by signal; only where [`super::preflight`] clears it.
    V8Snapshot,
    /// A profile that the program itself writes when it is asked over the socket.
    Agent,
    /// `jcmd PID GC.class_histogram`: collects garbage first, so it shows what lives.
    JvmLive,
    /// The same with `-all`: no garbage collection, so it also shows what is dead.
    JvmAll,
    /// A pprof profile over HTTP.
    Pprof,
    /// The newest profile that jemalloc wrote.
    Jemalloc,
    /// `/proc/PID/smaps`.
    Smaps,
}

impl Method {
    /// The word in metrics and output.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Method::V8Snapshot => "v8-snapshot",
            Method::Agent => "profile",
            Method::JvmLive => "jvm-live",
            Method::JvmAll => "jvm-all",
            Method::Pprof => "pprof",
            Method::Jemalloc => "jemalloc",
            Method::Smaps => "smaps",
        }
    }
}

/// What is tried, the best first. `connected`: the program answers on the socket.
pub(crate) fn methods(mode: &Mode, runtime: Runtime, connected: bool, trigger: Trigger) -> Vec<Method> {
    let full = match mode {
        Mode::Full => true,
        Mode::Auto => matches!(trigger, Trigger::Level | Trigger::Asked),
        Mode::Profile => trigger == Trigger::Asked,
        Mode::Off | Mode::Pprof(_) | Mode::Jemalloc => false,
    };
    let mut methods = Vec::with_capacity(3);
    match (mode, runtime) {
        (Mode::Off, _) => return methods,
        (Mode::Pprof(_), _) => methods.push(Method::Pprof),
        (Mode::Jemalloc, _) => methods.push(Method::Jemalloc),
        // One mode, one kind, whoever asks: between one with garbage and one without, the garbage would pass for a leak.
        (Mode::Profile, Runtime::Jvm) => methods.push(Method::JvmAll),
        (_, Runtime::Node) if full => methods.push(Method::V8Snapshot),
        (_, Runtime::Jvm) if full => methods.push(Method::JvmLive),
        (Mode::Auto | Mode::Profile | Mode::Full, _) => {}
    }
    // Where an agent was loaded, its absence is worth a failure that is seen.
    if connected || mode.loads_agent() && runtime == Runtime::Node {
        methods.push(Method::Agent);
    }
    methods.push(Method::Smaps);
    methods
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_as_people_write_them() {
        for (text, mode) in [
            ("auto", Mode::Auto),
            ("off", Mode::Off),
            ("profile", Mode::Profile),
            ("full", Mode::Full),
            ("jemalloc", Mode::Jemalloc),
            (
                "pprof=http://127.0.0.1:6060/debug/pprof/heap",
                Mode::Pprof("http://127.0.0.1:6060/debug/pprof/heap".into()),
            ),
        ] {
            assert_eq!(text.parse(), Ok(mode), "{text}");
        }
        for bad in ["", "on", "Full", "pprof", "pprof=", "pprof=https://x/", "pprof=/tmp/x"] {
            assert!(bad.parse::<Mode>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_table_of_what_is_tried() {
        use Method::{Agent, Jemalloc, JvmAll, JvmLive, Pprof, Smaps, V8Snapshot};
        use Trigger::{Asked, Level, Periodic};
        let table: [(Mode, Runtime, bool, Trigger, &[Method]); 16] = [
            (Mode::Off, Runtime::Node, true, Asked, &[]),
            (Mode::Auto, Runtime::Node, false, Periodic, &[Smaps]),
            (Mode::Auto, Runtime::Node, false, Asked, &[V8Snapshot, Smaps]),
            (Mode::Auto, Runtime::Node, false, Level, &[V8Snapshot, Smaps]),
            (Mode::Auto, Runtime::Other, true, Periodic, &[Agent, Smaps]),
            (Mode::Auto, Runtime::Jvm, false, Periodic, &[Smaps]),
            (Mode::Auto, Runtime::Jvm, false, Asked, &[JvmLive, Smaps]),
            (Mode::Profile, Runtime::Node, true, Periodic, &[Agent, Smaps]),
            (Mode::Profile, Runtime::Node, false, Periodic, &[Agent, Smaps]),
            (Mode::Profile, Runtime::Node, true, Asked, &[V8Snapshot, Agent, Smaps]),
            (Mode::Profile, Runtime::Jvm, false, Periodic, &[JvmAll, Smaps]),
            (Mode::Profile, Runtime::Jvm, false, Asked, &[JvmAll, Smaps]),
            (Mode::Full, Runtime::Jvm, false, Periodic, &[JvmLive, Smaps]),
            (Mode::Full, Runtime::Node, true, Periodic, &[V8Snapshot, Agent, Smaps]),
            (Mode::Pprof("http://x/".into()), Runtime::Other, false, Periodic, &[Pprof, Smaps]),
            (Mode::Jemalloc, Runtime::Other, false, Level, &[Jemalloc, Smaps]),
        ];
        for (mode, runtime, connected, trigger, expected) in table {
            assert_eq!(methods(&mode, runtime, connected, trigger), expected, "{mode} {runtime:?} {trigger:?}");
        }
    }
}
