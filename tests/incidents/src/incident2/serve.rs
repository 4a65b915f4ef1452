//! The service: a journal whose records are synced before they are acknowledged, two writers, and growth at a rate.
//!
//! Without `--threshold` it has no watchdog: that is the control. Growth ends when the service's own code sees the
//! cancellation token, or at 1 GiB. Events go to stdout, one JSON object a line: `crossed`, `token`, `closed`. Under `plimsoll run`
//! it reports: the account `growth`, the queue `notes` (small on purpose: it loses notes), readiness, and its last words.

use plimsoll::drain::{Cancelled, Drain};
use plimsoll::last_words::LastWords;
use plimsoll::queue::{self, Limits, Receiver, Sender, WhenFull};
use plimsoll::reclaim::ledger::{Account, Charge, Ledger};
use plimsoll::report::Report;
use plimsoll::report::notify::Notify;
use plimsoll::units::parse_size;
use plimsoll::watchdog::{Config, Soft, Started, Watchdog};
use plimsoll_incidents::embedded::LAST_RECORD;
use plimsoll_incidents::{clock, files};
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Growth ends here, so that a mistake does not take the machine with it.
const GROWTH_BYTES_MAX: u64 = 1 << 30;
/// One allocation, with the 16 bytes that the C library puts before a block of its own mapping: whole pages, counted exactly.
const CHUNK_BYTES: usize = 256 << 10;
const HEADER_BYTES: usize = 16;
/// How long the reclaimer sleeps with the lock.
const LOCK_HELD: Duration = Duration::from_secs(10);
const WRITERS: usize = 2;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// How fast it grows, in MiB a second
    #[arg(long)]
    rate: u64,
    /// Where records are written
    #[arg(long)]
    journal: PathBuf,
    /// Where they are acknowledged
    #[arg(long)]
    acks: PathBuf,
    /// Where it leaves: the one flag that the control does not have
    #[arg(long)]
    threshold: Option<String>,
    /// How long the drain may take, in milliseconds
    #[arg(long)]
    drain_ms: u64,
    /// none, runtime or lock
    #[arg(long, default_value = "none")]
    trouble: String,
    /// End by itself with this code after a second of work, whatever the memory
    #[arg(long)]
    exit: Option<u8>,
}

/// The service's state behind its one lock.
struct Journal {
    file: File,
    acks: File,
    next: u64,
}

impl Journal {
    /// Appends a record, has it on disk, acknowledges it.
    fn append(&mut self) -> io::Result<()> {
        let record = format!("{:015}\n", self.next);
        self.file.write_all(record.as_bytes())?;
        self.file.sync_data()?;
        self.next += 1;
        self.acks.write_all(record.as_bytes())
    }

    fn close(&mut self) -> io::Result<()> {
        self.file.write_all(LAST_RECORD)?;
        self.file.sync_all()
    }
}

/// What all threads of the service share.
struct Service {
    journal: Mutex<Journal>,
    drain: Drain,
    account: Account,
    notes: Sender<String>,
}

pub(crate) fn main(plan: &Plan) -> ExitCode {
    let (drain, ledger) = (Drain::new(), Ledger::new());
    let mut config = plan.threshold.as_deref().map(|text| parse_size(text).map(Config::new)).transpose().ok().flatten();
    let drain_deadline = Duration::from_millis(plan.drain_ms);
    config.iter_mut().for_each(|config| config.drain_deadline = drain_deadline);
    let is_short = Arc::new(AtomicBool::new(false));
    let soft = Arc::clone(&is_short);
    let limits = Limits { max_items: 8, max_bytes: 4096 };
    let (notes, taken) = queue::bounded(limits, WhenFull::DropNewest);
    let report = Report::from_env().ledger(&ledger).queue("notes", taken.monitor()).start().expect("a thread");
    let watchdog = Watchdog::new(config)
        .report(&report)
        .drain(&drain)
        .on_soft(move |stage| soft.store(matches!(stage, Soft::Entered(_)), Ordering::Relaxed))
        .last_words(LastWords::new().stderr().ledger(&ledger));
    match watchdog.start() {
        Ok(Started::Now(effective)) => eprintln!("memory watchdog: {effective}"),
        Ok(_) => eprintln!("memory watchdog: off"),
        Err(error) => eprintln!("memory watchdog: {error}"),
    }
    std::thread::spawn(move || take_notes(taken));
    let result = open(plan, drain, &ledger, notes).and_then(|service| serve(plan, &service, &is_short));
    if let Some(code) = plan.exit {
        return ExitCode::from(code);
    }
    let outcome = watchdog.outcome(result);
    outcome.error.iter().for_each(|error| eprintln!("error: {error}"));
    outcome.exit_code()
}

fn open(plan: &Plan, drain: Drain, ledger: &Ledger, notes: Sender<String>) -> io::Result<Arc<Service>> {
    let open = |path: &PathBuf| File::options().create_new(true).append(true).open(path);
    let journal = Journal { file: open(&plan.journal)?, acks: open(&plan.acks)?, next: 0 };
    let account = ledger.account("growth").map_err(io::Error::other)?;
    Ok(Arc::new(Service { journal: Mutex::new(journal), drain, account, notes }))
}

/// Runs until it is told to stop, then finishes what is in flight and closes the journal.
fn serve(plan: &Plan, service: &Arc<Service>, is_short: &Arc<AtomicBool>) -> io::Result<()> {
    for _ in 0..WRITERS {
        let service = Arc::clone(service);
        std::thread::spawn(move || write(&service));
    }
    let grower = {
        let (service, rate) = (Arc::clone(service), plan.rate << 20);
        let threshold = plan.threshold.as_deref().and_then(|text| parse_size(text).ok()).unwrap_or(u64::MAX);
        std::thread::spawn(move || grow(&service, rate, threshold))
    };
    if plan.trouble == "lock" {
        let (service, is_short) = (Arc::clone(service), Arc::clone(is_short));
        std::thread::spawn(move || hold_the_lock(&service, &is_short));
    }
    if plan.exit.is_some() {
        let drain = service.drain.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(1));
            drain.begin();
        });
    }
    let notify = Notify::from_env();
    notify.ready();
    notify.status("appending");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let wedged = plan.trouble == "runtime";
    runtime.block_on(async {
        if wedged {
            // Blocking code on the only worker: no task is ever polled again.
            std::thread::sleep(Duration::from_secs(3600));
        }
        service.drain.begun().await;
        service.drain.finished().await;
    });
    // It keeps what it holds until the end: leaving must not need it freed.
    let held = grower.join().unwrap_or_default();
    lock(service).close()?;
    event("closed", "");
    drop(held);
    Err(io::Error::other(Cancelled))
}

fn lock(service: &Service) -> std::sync::MutexGuard<'_, Journal> {
    service.journal.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(service: &Service) {
    while let Some(_hold) = service.drain.hold() {
        if let Err(error) = lock(service).append() {
            eprintln!("error: {error}");
            return;
        }
    }
}

/// Takes notes, far too slowly for who writes them.
fn take_notes(mut notes: Receiver<String>) {
    while notes.recv().is_some() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A reclaimer as it should not be: it takes the service's lock and sleeps.
fn hold_the_lock(service: &Service, is_short: &AtomicBool) {
    while !is_short.load(Ordering::Relaxed) && !service.drain.is_begun() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let _held = lock(service);
    std::thread::sleep(LOCK_HELD);
}

/// Allocates and writes at the rate until this code sees the token.
fn grow(service: &Service, bytes_per_second: u64, threshold: u64) -> Vec<(Vec<u8>, Charge<'static>)> {
    let token = service.drain.token();
    let base = files::anonymous_bytes(std::process::id()).unwrap_or(0);
    let began = clock::monotonic_ns();
    let mut held = Vec::with_capacity((GROWTH_BYTES_MAX as usize) / CHUNK_BYTES);
    let mut crossed = false;
    while held.len() * CHUNK_BYTES < GROWTH_BYTES_MAX as usize {
        let total = base + (held.len() * CHUNK_BYTES) as u64;
        if total >= threshold && !crossed {
            crossed = true;
            event("crossed", "");
        }
        if token.is_cancelled() {
            // By the kernel's books, which count more than this, it may have crossed before.
            if !crossed {
                event("crossed", "");
            }
            event("token", &format!(",\"over_bytes\":{}", total as i64 - threshold as i64));
            return held;
        }
        let due = (clock::monotonic_ns() - began) as f64 / 1e9 * bytes_per_second as f64;
        if (held.len() * CHUNK_BYTES) as f64 > due {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        // Dropped and counted where there is no room: notes are not worth waiting for.
        service.notes.send(format!("{} chunks", held.len())).ok();
        held.push((vec![1u8; CHUNK_BYTES - HEADER_BYTES], service.account.charge(CHUNK_BYTES as u64)));
    }
    held
}

fn event(name: &str, rest: &str) {
    let line = format!("{{\"event\":\"{name}\",\"ns\":{}{rest}}}\n", clock::monotonic_ns());
    // A closed stdout is seen by the harness as missing events.
    io::stdout().write_all(line.as_bytes()).ok();
}
