//! The binary as its users meet it.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests read whole small files, wait on the real clock, and fail by panicking"
)]

mod demo;
mod faces;
mod heap;
mod logs;
mod replay;
mod shop;

/// The binary, with SIGINT as a terminal leaves it. What a shell starts in the background ignores it, and so would, by the law of signals,
/// what such tests start and interrupt.
fn plimsoll() -> std::process::Command {
    let binary = env!("CARGO_BIN_EXE_plimsoll");
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    let interrupt = 1 << (rustix::process::Signal::INT.as_raw() - 1);
    if u64::from_str_radix(ignored, 16).unwrap() & interrupt == 0 {
        return std::process::Command::new(binary);
    }
    let mut command = std::process::Command::new("env");
    command.args(["--default-signal=INT", binary]);
    command
}
