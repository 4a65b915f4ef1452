//! Ten lines around a service's work, and it leaves in order before the kernel kills it:
//!
//! ```text
//! PLIMSOLL_SHUTDOWN_THRESHOLD=64M cargo run -p plimsoll --example embed; echo $?
//! ```
//!
//! Without the variable there is no watchdog, no thread, and the leak below ends at 256 MiB with code 0. Under `plimsoll run` the
//! supervisor is told how it fares, and that it left for memory.

use std::process::ExitCode;
use std::time::Duration;

use plimsoll::drain::{Cancelled, Drain};
use plimsoll::last_words::LastWords;
use plimsoll::report::Report;
use plimsoll::watchdog::{Config, Started, Watchdog};

fn main() -> ExitCode {
    let drain = Drain::new();
    let (config, problems) = Config::from_env();
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    let report = Report::from_env().start().expect("a thread");
    let watchdog = Watchdog::new(config).drain(&drain).last_words(LastWords::new().stderr()).report(&report);
    match watchdog.start() {
        Ok(Started::Now(effective)) => eprintln!("memory watchdog: {effective}"),
        Ok(_) => eprintln!("memory watchdog: off"),
        Err(error) => eprintln!("memory watchdog: {error}"),
    }
    let outcome = watchdog.outcome(serve(&drain));
    outcome.error.iter().for_each(|error| eprintln!("error: {error}"));
    outcome.exit_code()
}

/// A service that leaks 1 MiB per request, stops when it is told to, and flushes before it leaves.
fn serve(drain: &Drain) -> Result<(), Cancelled> {
    let mut leak = Vec::new();
    while leak.len() < 256 {
        if let Err(cancelled) = drain.check() {
            println!("drained after {} requests", leak.len());
            return Err(cancelled);
        }
        leak.push(vec![1u8; 1 << 20]);
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
