//! What a decision costs: `step` alone, `step` with the reclaim law, and a line of the decision log. Goal for `step`: 200 ns.
//!
//! `cargo bench -p plimsoll --bench step`.

use std::time::Duration;

use divan::{Bencher, black_box};
use plimsoll::event::Supply;
use plimsoll::gauge::Protected;
use plimsoll::governor::law::LawState;
use plimsoll::governor::log::{Line, Record};
use plimsoll::governor::{Reading, State, step, step_and_reclaim};
use plimsoll::policy::Policy;

const MIB: u64 = 1 << 20;

fn main() {
    divan::main();
}

fn policy() -> Policy {
    Policy::new(300 * MIB, 100 * MIB)
}

/// Reading number `n` of a service that goes up and down between 200 and 290 MiB, every 10 ms.
fn reading(n: u64, confirmed: bool) -> Reading {
    let program_bytes = (200 + n % 90) * MIB;
    Reading {
        at: Duration::from_millis(1_000 + 10 * n),
        fast_bytes: Some(program_bytes + 20 * MIB),
        confirmed: confirmed.then_some(Ok(Protected { program_bytes, ..Protected::default() })),
        ..Reading::default()
    }
}

/// A state that has seen a hundred readings.
fn settled() -> State {
    (0..100).fold(State::default(), |state, n| step(&policy(), state, &reading(n, true)).0)
}

#[divan::bench]
fn step_confirmed(bencher: Bencher<'_, '_>) {
    let (policy, mut state, mut n) = (policy(), settled(), 100);
    bencher.bench_local(|| {
        n += 1;
        let (next, decision) = step(black_box(&policy), state, &reading(n, true));
        state = next;
        black_box(decision)
    });
}

#[divan::bench]
fn step_fast_only(bencher: Bencher<'_, '_>) {
    let (policy, mut state, mut n) = (policy(), settled(), 100);
    bencher.bench_local(|| {
        n += 1;
        let (next, decision) = step(black_box(&policy), state, &reading(n, false));
        state = next;
        black_box(decision)
    });
}

#[divan::bench]
fn step_and_law(bencher: Bencher<'_, '_>) {
    let (policy, mut state, mut law, mut n) = (policy(), settled(), LawState::default(), 100);
    bencher.bench_local(|| {
        n += 1;
        let supply = Some(Supply { held_bytes: (100 + n % 90) * MIB, ..Supply::default() });
        let decided = step_and_reclaim(black_box(&policy), state, law, &Reading { supply, ..reading(n, true) });
        (state, law) = (decided.0, decided.1);
        black_box(decided.2)
    });
}

#[divan::bench]
fn line_of_the_log(bencher: Bencher<'_, '_>) {
    let (policy, state, mut line) = (policy(), settled(), Line::new());
    let reading = reading(101, true);
    let (_, decision) = step(&policy, state, &reading);
    let record = Record::Sample { reading, decision };
    bencher.bench_local(|| black_box(line.encode(black_box(&record)).len()));
}
