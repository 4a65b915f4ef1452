//! What a charge costs: new and drop, uncontended and with 2 and 8 threads on one account. Goals: ≤ 15 ns and ≤ 60 ns.
//! `cargo bench -p plimsoll --bench charge`

use std::sync::LazyLock;

use divan::{Bencher, black_box};
use plimsoll::reclaim::ledger::{Account, Ledger};

static ACCOUNT: LazyLock<(Ledger, Account)> = LazyLock::new(|| {
    let ledger = Ledger::with_cap(8 << 30);
    let account = ledger.account("bench").expect("the first account");
    (ledger, account)
});

fn main() {
    divan::main();
}

#[divan::bench(threads = [1, 2, 8])]
fn scoped_new_and_drop(bencher: Bencher<'_, '_>) {
    let account = &ACCOUNT.1;
    bencher.bench(|| drop(black_box(account.charge_scoped(black_box(1_500)))));
}

#[divan::bench(threads = [1, 2, 8])]
fn owned_new_and_drop(bencher: Bencher<'_, '_>) {
    let account = &ACCOUNT.1;
    bencher.bench(|| drop(black_box(account.try_charge(black_box(1_500)))));
}

#[divan::bench(threads = [1, 2, 8])]
fn grow_and_shrink(bencher: Bencher<'_, '_>) {
    let account = &ACCOUNT.1;
    bencher.with_inputs(|| account.charge(0)).bench_local_refs(|charge| {
        black_box(charge.grow(black_box(4_096))).expect("fits");
        charge.shrink(4_096)
    });
}

#[divan::bench]
fn reading_one_account(bencher: Bencher<'_, '_>) {
    let ledger = &ACCOUNT.0;
    bencher.bench(|| black_box(ledger.held_bytes()));
}
