//! `plimsoll-leaky MEGABYTES`: a Rust service on jemalloc that keeps so much in two functions, a third of it in one and the rest in the
//! other, and offers its supervisor heap profiles. Ends after 10 min at the latest; SIGTERM ends it before.

use std::process::ExitCode;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What it keeps at most, in MB.
const MEGABYTES_MAX: usize = 1000;
/// How long it lives at most.
const LIFE: Duration = Duration::from_secs(600);

#[inline(never)]
fn keep_sessions(megabytes: usize) -> Vec<Vec<u8>> {
    (0..megabytes * 1000).map(|n| vec![n as u8; 1000]).collect()
}

#[inline(never)]
fn keep_pages(megabytes: usize) -> Vec<Vec<u8>> {
    (0..megabytes * 100).map(|n| vec![n as u8; 10_000]).collect()
}

fn main() -> ExitCode {
    let Some(megabytes) =
        std::env::args().nth(1).and_then(|word| word.parse::<usize>().ok()).filter(|mb| *mb <= MEGABYTES_MAX)
    else {
        eprintln!("plimsoll-leaky: how many megabytes? at most {MEGABYTES_MAX}");
        return ExitCode::from(64);
    };
    let profiles = match plimsoll::heap_profile::from_env() {
        Ok(profiles) => profiles,
        Err(error) => {
            eprintln!("plimsoll-leaky: {error}");
            return ExitCode::FAILURE;
        }
    };
    let sessions = keep_sessions(megabytes / 3);
    let pages = keep_pages(megabytes - megabytes / 3);
    println!("kept {} and {}", sessions.len(), pages.len());
    std::thread::sleep(LIFE);
    drop((profiles, sessions, pages));
    ExitCode::SUCCESS
}
