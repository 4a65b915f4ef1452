//! `plimsoll-incident-1`: the packet store under one of three laws, in one process. What it did is on stdout, one JSON object a line:
//! `order` (each eviction: bytes asked, bytes held), `stuck`, `end` (packets, bytes, evictions).
//!
//! `--law formula` trusts the formula of the incident, `--law heap` cuts by the process's memory ((1/N)·0.9), `--law plimsoll` has a governor
//! and a controller. Ends by itself after `--seconds`; with 2 when stuck called for the next stage. At most 2 GiB.

mod laws;
mod store;

use clap::Parser;
use plimsoll::units::parse_size;
use std::process::ExitCode;
use std::time::Duration;

/// A packet store and its law.
#[derive(Clone, Debug, Parser)]
#[command(name = "plimsoll-incident-1", max_term_width = 100)]
pub(crate) struct Plan {
    /// formula, heap or plimsoll
    #[arg(long)]
    law: String,
    /// The cap: what the process may hold
    #[arg(long, value_parser = parse_size)]
    cap: u64,
    /// Memory that cannot be evicted
    #[arg(long, value_parser = parse_size)]
    base: u64,
    /// When that comes, in milliseconds after the start
    #[arg(long, default_value_t = 0)]
    base_at_ms: u64,
    /// Packets a second
    #[arg(long)]
    rate: u64,
    /// Packets in sum
    #[arg(long, default_value_t = u64::MAX)]
    packets: u64,
    /// For a second, so much is used in sum
    #[arg(long, value_parser = parse_size)]
    spike_to: Option<u64>,
    /// When that spike comes, in milliseconds
    #[arg(long, default_value_t = 0)]
    spike_at_ms: u64,
    /// How long it lasts
    #[arg(long)]
    seconds: u64,
}

impl Plan {
    fn lasts(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

fn main() -> ExitCode {
    let plan = match Plan::try_parse() {
        Ok(plan) => plan,
        Err(error) => {
            // Nothing more can be said when stderr is closed.
            error.print().ok();
            return ExitCode::from(64);
        }
    };
    match laws::run(&plan) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("plimsoll-incident-1: {error}");
            ExitCode::from(70)
        }
    }
}
