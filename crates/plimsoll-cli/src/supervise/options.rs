//! What `plimsoll run` was asked to do, understood and checked; plain values.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use plimsoll_store::RateLimit;

use super::restart::Policy;
use super::stage::Stage;
use crate::capture;
use crate::commands::keep::Keep;
use crate::layout::Layout;
use crate::web::token::Token;

/// Time between SIGTERM and SIGKILL when none is given.
#[cfg(test)]
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// The settings of one supervisor.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Where its files are, and its name.
    pub(crate) layout: Layout,
    /// Program and arguments; never empty.
    pub(crate) argv: Vec<OsString>,
    /// `--memory`.
    pub(crate) memory_bytes: Option<u64>,
    /// `--reserve`.
    pub(crate) reserve_bytes: Option<u64>,
    /// Time between SIGTERM and SIGKILL.
    pub(crate) grace: Duration,
    /// When to start again.
    pub(crate) restart: Policy,
    /// The greatest number of restarts.
    pub(crate) max_restarts: Option<u32>,
    /// The first back-off.
    pub(crate) backoff: Duration,
    /// `--on`.
    pub(crate) stages: Vec<Stage>,
    /// Where to serve HTTP, when asked to.
    pub(crate) http: Option<SocketAddr>,
    /// What stands for authority there.
    pub(crate) http_token: Option<Token>,
    /// A pseudo-terminal for the child.
    pub(crate) pty: bool,
    /// No echo of the child's output, no start banner.
    pub(crate) quiet: bool,
    /// Say nothing at all on stderr: whoever asked for it tells what the decision log tells.
    pub(crate) silent: bool,
    /// Make a cgroup for the child.
    pub(crate) cgroup: bool,
    /// Derive runtime limits.
    pub(crate) derive: bool,
    /// The child may use swap.
    pub(crate) swap: bool,
    /// How long the log is kept.
    pub(crate) keep: Keep,
    /// `--heap` and what belongs to it.
    pub(crate) heap: capture::Settings,
    /// Disk that its log may take in all.
    pub(crate) log_disk_bytes: u64,
    /// What each of its streams may print.
    pub(crate) log_rate: RateLimit,
}

/// A name for a command: the last part of its path, made a valid one.
pub(crate) fn default_name(program: &OsStr) -> String {
    let base = Path::new(program).file_name().unwrap_or(program).to_string_lossy();
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    let name: String = base.trim_start_matches('.').chars().map(plain).take(64).collect();
    if name.is_empty() { "program".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_name_is_always_valid() {
        let table = [
            ("/usr/bin/node", "node"),
            ("./server", "server"),
            ("my server!", "my-server-"),
            (".hidden", "hidden"),
            ("..", "program"),
            ("日本", "--"),
            ("", "program"),
        ];
        for (program, name) in table {
            assert_eq!(default_name(OsStr::new(program)), name);
            assert!(Layout::new("/d", name).is_ok());
        }
        assert!(Layout::new("/d", &default_name(OsStr::new(&"x".repeat(300)))).is_ok());
    }
}
