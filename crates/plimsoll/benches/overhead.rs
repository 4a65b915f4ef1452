//! What embedding costs a server that allocates all the time: CPU time of the whole process for the same work, with and without.
//!
//! With: a watchdog with its reserve and last words, a governor's readings, the decision log, and a charge for everything that is kept.
//! Without: none of it. [`PAIRS`] pairs of the same [`REQUESTS`] requests, after as many as [`WARM_UP`] that do not count (what starting costs
//! is paid once in a service's life), interleaved, the order of each pair turned. The ratio of the two is one sample; what is printed is their
//! median, quartiles and trimmed mean with a 95 % interval. `cargo bench -p plimsoll --bench overhead` takes about four minutes; the first
//! argument is another number of pairs. Goal: at most 1 %, interval included.

use std::collections::VecDeque;

use plimsoll::drain::Drain;
use plimsoll::last_words::LastWords;
use plimsoll::reclaim::ledger::{Account, Charge, Ledger};
use plimsoll::watchdog::{Config, Subject, Watchdog};
use rustix::time::{ClockId, clock_gettime};

/// Pairs, unless the first argument says otherwise.
const PAIRS: usize = 150;
/// Requests of one half of a pair: about 0.2 s.
const REQUESTS: u32 = 40_000;
/// Requests before them that are not timed.
const WARM_UP: u32 = 2_000;
/// Responses that are kept, the oldest dropped: about 150 MiB.
const KEPT: usize = 15_000;
/// Half of the threshold is in use.
const THRESHOLD_BYTES: u64 = 300 << 20;

struct Server {
    kept: VecDeque<(Vec<u8>, Option<Charge<'static>>)>,
    seed: u64,
}

impl Server {
    /// One request: 240 allocations of 16 to 1,000 bytes, all written to, and nothing else, 6 µs; the response of about 10 KB is kept,
    /// and charged.
    #[inline(never)]
    fn request(&mut self, account: Option<&Account>) {
        let mut response = Vec::new();
        for _ in 0..240 {
            self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let size = 16 + (self.seed >> 33) as usize % 984;
            let part = vec![self.seed as u8; size];
            response.extend_from_slice(&part[..part.len() / 12]);
        }
        let charge = account.map(|account| account.charge(response.capacity() as u64));
        self.kept.push_back((response, charge));
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
    }

    fn work(&mut self, account: Option<&Account>) -> f64 {
        for _ in 0..WARM_UP {
            self.request(account);
        }
        let before = process_cpu_ns();
        for _ in 0..REQUESTS {
            self.request(account);
        }
        (process_cpu_ns() - before) as f64
    }
}

fn main() {
    let pairs = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(PAIRS);
    let ledger = Ledger::new();
    let account = ledger.account("responses").expect("the first account");
    let mut server = Server { kept: VecDeque::with_capacity(KEPT + 1), seed: 1 };
    for _ in 0..2 * KEPT {
        server.request(None);
    }
    let each = server.work(None) / f64::from(REQUESTS) / 1e3;
    println!("{pairs} pairs of {REQUESTS} requests of {each:.2} µs; more CPU time of the process, in %:");
    println!(
        "{:24} {:>8} {:>8} {:>8} {:>8} {:>16} {:>8}",
        "with", "median", "lower", "upper", "mean", "95 % interval", "calm"
    );
    row("a watchdog", pairs, &mut server, true, None);
    row("a charge a request", pairs, &mut server, false, Some(&account));
    row("both", pairs, &mut server, true, Some(&account));
}

fn row(what: &str, pairs: usize, server: &mut Server, watched: bool, account: Option<&Account>) {
    let with = |server: &mut Server| {
        let watchdog = watched.then(embedded);
        let cost = server.work(account);
        drop(watchdog);
        cost
    };
    let mut ratios: Vec<f64> = Vec::with_capacity(pairs);
    let mut costs = [Vec::with_capacity(pairs), Vec::with_capacity(pairs)];
    for n in 0..pairs {
        let (with, without) = if n.is_multiple_of(2) {
            let first = with(server);
            (first, server.work(None))
        } else {
            let first = server.work(None);
            (with(server), first)
        };
        ratios.push((with / without - 1.0) * 100.0);
        costs[0].push(with);
        costs[1].push(without);
    }
    let (mean, half) = interval(&ratios);
    ratios.sort_by(f64::total_cmp);
    let (median, lower, upper) = (ratios[pairs / 2], ratios[pairs / 4], ratios[pairs * 3 / 4]);
    let interval = format!("{:.2} to {:.2}", mean - half, mean + half);
    // What other programs do to the caches only ever adds: the tenth percentiles are what there is without them.
    let [with, without] = costs.map(|mut costs| {
        costs.sort_by(f64::total_cmp);
        costs[costs.len() / 10]
    });
    let calm = (with / without - 1.0) * 100.0;
    println!("{what:24} {median:>8.2} {lower:>8.2} {upper:>8.2} {mean:>8.2} {interval:>16} {calm:>8.2}");
}

fn embedded() -> Watchdog {
    let mut config = Config::new(THRESHOLD_BYTES);
    config.subject = Subject::Process;
    let watchdog = Watchdog::new(config).drain(&Drain::new()).last_words(LastWords::new()).at_deadline(|| {});
    watchdog.start().expect("the watchdog starts");
    watchdog
}

/// The mean without the outer tenth on each side, which other processes make, and half of its 95 % interval.
fn interval(values: &[f64]) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let cut = sorted.len() / 10;
    let inner = &sorted[cut..sorted.len() - cut];
    let mean = inner.iter().sum::<f64>() / inner.len() as f64;
    // Of a trimmed mean: the outer values count as the last ones that are in (Tukey and McLaughlin, 1963).
    let clamped = sorted.iter().map(|value| value.clamp(inner[0], inner[inner.len() - 1]));
    let centre = clamped.clone().sum::<f64>() / sorted.len() as f64;
    let variance = clamped.map(|value| (value - centre).powi(2)).sum::<f64>() / (sorted.len() as f64 - 1.0);
    let error = variance.sqrt() / (0.8 * (sorted.len() as f64).sqrt());
    (mean, 1.96 * error)
}

/// CPU time of all threads of this process.
fn process_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
