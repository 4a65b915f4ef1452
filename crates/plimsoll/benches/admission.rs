//! What the gate costs a request: nanoseconds from `admit` to the end of its permit, on one thread and on two, the median of [`ROUNDS`]
//! rounds.
//!
//! `cargo bench -p plimsoll --bench admission`. Without `--bench` (as under `cargo test --benches`) one short round, to see that it runs.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use plimsoll::admission::{Adapt, Answer, Arrival, Gate, Kind, Lane, LevelCell, Peer, Settings, Slots};
use plimsoll::clock::{Clock as _, MonotonicClock};

const ROUNDS: usize = 9;

fn settings(slots: Slots, per_peer: Option<u32>) -> Settings {
    let light = Lane { slots, waiting: 0, wait: Duration::ZERO };
    Settings { light, per_peer, ..Settings::default() }
}

/// So many requests of this kind, one after the other, on each of so many threads.
fn run(gate: &Gate, kind: Kind, with_peer: bool, threads: u32, requests: usize) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let peer = Peer::from(IpAddr::V4(Ipv4Addr::from_bits(thread + 1)));
                let arrival = Arrival { kind, peer: with_peer.then_some(&peer), ..Arrival::default() };
                for _ in 0..requests {
                    black_box(matches!(gate.admit(arrival), Answer::Now(_)));
                }
            });
        }
    });
}

fn main() {
    let measure = std::env::args().any(|arg| arg == "--bench");
    let (rounds, requests) = if measure { (ROUNDS, 300_000) } else { (1, 1_000) };
    let short = LevelCell::holding(Duration::MAX);
    short.set_used(2.0);
    let calm = LevelCell::new;
    let cases: [(&str, Gate, Kind, bool); 6] = [
        ("exempt", Gate::new(Settings::default(), calm()), Kind::EXEMPT, false),
        ("light, no limit", Gate::new(Settings::default(), calm()), Kind::LIGHT, false),
        ("light, adaptive", Gate::new(settings(Slots::Adaptive(Adapt::default()), None), calm()), Kind::LIGHT, false),
        ("light, cap by peer", Gate::new(settings(Slots::Unlimited, Some(32)), calm()), Kind::LIGHT, true),
        ("heavy", Gate::new(Settings::default(), calm()), Kind::HEAVY, false),
        ("refused by level", Gate::new(Settings::default(), short), Kind::LIGHT, false),
    ];
    for (name, gate, kind, with_peer) in &cases {
        for threads in [1, 2] {
            let mut nanos: Vec<f64> = (0..rounds)
                .map(|_| {
                    let began = MonotonicClock.now();
                    run(gate, *kind, *with_peer, threads, requests);
                    (MonotonicClock.now() - began).as_nanos() as f64 / requests as f64
                })
                .collect();
            nanos.sort_by(f64::total_cmp);
            println!("{name:<20} {threads} thread(s) {:>7.0} ns (least {:.0})", nanos[rounds / 2], nanos[0]);
        }
    }
}
