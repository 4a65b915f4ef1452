//! The ledger as a whole: a property model, refusals, clamps, threads.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn held(ledger: &Ledger) -> Vec<(String, u64)> {
    let mut figures = Vec::new();
    ledger.figures(&mut figures);
    figures.into_iter().map(|account| (account.name.to_string(), account.held_bytes)).collect()
}

#[test]
fn a_refusal_names_who_holds_most_and_charges_nothing() {
    let ledger = Ledger::with_cap(1_000);
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| ledger.account(name).expect("few accounts"));
    let _held = [a.try_charge(500), b.try_charge(200), c.try_charge(250)].map(|charge| charge.expect("fits"));
    let refused = d.try_charge(51).expect_err("950 of 1000 are held");
    let holders: Vec<(&str, u64)> = refused.holders.iter().map(|(name, bytes)| (&**name, *bytes)).collect();
    assert_eq!(holders, [("a", 500), ("c", 250), ("b", 200)]);
    assert_eq!((refused.bound, refused.bound_bytes, refused.held_bytes), (Bound::Ledger, 1_000, 950));
    assert!(refused.to_string().contains("largest: a 500 B, c 250 B"), "{refused}");
    assert_eq!(ledger.held_bytes(), 950);
    assert!(d.try_charge(50).is_ok(), "exactly the cap fits");
}

#[test]
fn a_transfer_within_a_full_ledger_fits_and_one_past_the_others_cap_does_not() {
    let ledger = Ledger::with_cap(1_000);
    let [from, to] = ["from", "to"].map(|name| ledger.account(name).expect("few accounts"));
    let all = from.try_charge(1_000).expect("exactly the cap");
    let mut moved = all.transfer(&to).expect("the sum stays the same");
    assert_eq!((from.held_bytes(), to.held_bytes(), ledger.held_bytes()), (0, 1_000, 1_000));
    from.set_cap(Some(300));
    let (kept, refused) = moved.split(301).transfer(&from).expect_err("one more than its cap");
    assert_eq!((refused.bound, kept.bytes(), from.figures().refused_total), (Bound::Account, 301, 1));
    assert_eq!((from.held_bytes(), to.held_bytes()), (0, 1_000));
    drop(kept);
    let back = moved.split(300).transfer(&from).expect("its cap");
    let same = back.transfer(&from).expect("to itself");
    assert_eq!((same.bytes(), from.held_bytes(), to.held_bytes()), (300, 300, 399));
    let other = Ledger::with_cap(100);
    let (_kept, refused) = same.transfer(&other.account("elsewhere").expect("the first")).expect_err("another ledger");
    assert_eq!(refused.bound, Bound::Ledger);
}

#[test]
fn credit_that_other_accounts_do_not_use_is_never_the_reason_of_a_refusal() {
    let ledger = Ledger::with_cap(3 * CHUNK_BYTES);
    let idle = ledger.account("idle").expect("few accounts");
    drop(idle.try_charge(1).expect("fits"));
    let busy = ledger.account("busy").expect("few accounts");
    let all = busy.try_charge(3 * CHUNK_BYTES).expect("idle holds nothing");
    assert_eq!(all.bytes(), ledger.held_bytes());
}

#[test]
fn a_clamped_account_does_not_refill_until_the_clamp_is_lifted() {
    let ledger = Ledger::new();
    let cache = ledger.account("cache").expect("few accounts");
    let mut charge = cache.try_charge(10_000).expect("no cap");
    cache.set_clamp(Some(4_000));
    charge.shrink(7_000);
    let refused = cache.try_charge(1_001).expect_err("3000 + 1001 > 4000");
    assert_eq!((refused.bound, refused.bound_bytes), (Bound::Clamp, 4_000));
    assert!(cache.try_charge(1_000).is_ok());
    cache.set_clamp(None);
    assert!(cache.try_charge(1 << 30).is_ok());
}

#[test]
fn a_forced_charge_passes_the_cap_counted_and_is_released_whole() {
    let ledger = Ledger::with_cap(100);
    let account = ledger.account("there already").expect("few accounts");
    let charge = account.charge(150);
    assert_eq!((ledger.held_bytes(), account.figures().forced_over_cap_bytes_total), (150, 150));
    assert!(account.try_charge(1).is_err());
    drop(charge);
    assert_eq!(ledger.held_bytes(), 0);
    assert!(account.try_charge(100).is_ok());
}

#[test]
fn split_merge_and_transfer_move_bytes_and_charge_nothing_twice() {
    let ledger = Ledger::with_cap(1 << 20);
    let [from, to] = ["from", "to"].map(|name| ledger.account(name).expect("few accounts"));
    to.set_cap(Some(50));
    let mut charge = from.try_charge(100).expect("fits");
    let part = charge.split(30);
    assert_eq!((charge.bytes(), part.bytes(), from.held_bytes()), (70, 30, 100));
    let part = part.transfer(&to).expect("30 of 50 fit");
    assert_eq!(held(&ledger), [("from".to_owned(), 70), ("to".to_owned(), 30)]);
    let (charge, refused) = charge.transfer(&to).expect_err("30 + 70 > 50");
    assert_eq!((charge.bytes(), refused.bound), (70, Bound::Account));
    let mut other = from.try_charge(5).expect("fits");
    let part = other.merge(part).expect_err("another account");
    other.merge(charge).expect("the same account");
    assert_eq!((other.bytes(), part.bytes()), (75, 30));
    drop((other, part));
    assert_eq!(ledger.held_bytes(), 0);
}

#[test]
fn accounts_are_bounded_and_the_same_name_is_the_same_account() {
    let ledger = Ledger::new();
    for i in 0..MAX_ACCOUNTS {
        ledger.account(&format!("account {i}")).expect("fits");
    }
    let error = ledger.account("one more").expect_err("full");
    assert!(error.to_string().contains("\"one more\"") && error.to_string().contains("256"), "{error}");
    let _charge = ledger.account("account 7").expect("known").charge(7);
    assert_eq!(ledger.account("account 7").expect("known").held_bytes(), 7);
}

#[test]
fn threads_that_charge_and_release_elsewhere_leave_nothing_behind() {
    const CAP: u64 = 4 << 20;
    let ledger = Ledger::with_cap(CAP);
    let account = ledger.account("shared").expect("few accounts");
    let (give, take) = std::sync::mpsc::sync_channel::<Charge<'static>>(64);
    let releaser = std::thread::spawn(move || while take.recv().is_ok() {});
    let chargers: Vec<_> = (0..4_u64)
        .map(|seed| {
            let (account, ledger, give) = (account.clone(), ledger.clone(), give.clone());
            std::thread::spawn(move || {
                for i in 0..20_000 {
                    if let Ok(charge) = account.try_charge((seed + i) * 7_919 % 100_000) {
                        give.send(charge).expect("the releaser lives");
                    }
                    assert!(ledger.total.granted() <= CAP, "more granted than the cap");
                }
            })
        })
        .collect();
    drop(give);
    for thread in chargers {
        thread.join().expect("no panic");
    }
    releaser.join().expect("no panic");
    assert_eq!(ledger.held_bytes(), 0);
}

#[test]
fn too_much_released_shows_as_unaccounted_with_the_account_named() {
    let ledger = Ledger::new();
    let [drifting, calm] = ["drifting", "calm"].map(|name| ledger.account(name).expect("few accounts"));
    let mut charge = drifting.charge(129 << 20);
    let _calm = calm.charge(40 << 20);
    let mut reconciler = Reconciler::with_tolerance(ledger, 0.10, 1 << 20);
    assert_eq!(reconciler.observe(180 << 20).divergence, None);
    charge.shrink(25 << 20);
    let Some(Divergence::Unaccounted { grown_bytes, suspects }) = reconciler.observe(180 << 20).divergence else {
        panic!("25 MiB of 180 are missing in the ledger");
    };
    assert_eq!((grown_bytes, &*suspects[0].name, suspects[0].change_bytes), (25 << 20, "drifting", -(25 << 20)));
    assert_eq!(suspects.len(), 1);
}

#[test]
fn charges_without_memory_show_as_over_accounted() {
    let ledger = Ledger::new();
    let cache = ledger.account("cache").expect("few accounts");
    let _real = cache.charge(10 << 20);
    let mut reconciler = Reconciler::with_tolerance(ledger, 0.10, 1 << 20);
    assert_eq!(reconciler.observe(12 << 20).divergence, None);
    let _forgotten = cache.charge(30 << 20);
    let Some(Divergence::OverAccounted { excess_bytes, suspects }) = reconciler.observe(12 << 20).divergence else {
        panic!("40 MiB charged, 12 there");
    };
    assert_eq!((excess_bytes, &*suspects[0].name), (28 << 20, "cache"));
}

#[derive(Clone, Debug)]
enum Step {
    Charge(usize, u64),
    Force(usize, u64),
    Grow(usize, u64),
    Shrink(usize, u64),
    Split(usize, u64),
    Drop(usize),
    Transfer(usize, usize),
    Cap(Option<u64>),
    Clamp(usize, Option<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![0..200_u64, 0..300_000_u64];
    let bound = proptest::option::of(0..400_000_u64);
    prop_oneof![
        4 => (0..3_usize, bytes.clone()).prop_map(|(account, bytes)| Step::Charge(account, bytes)),
        1 => (0..3_usize, bytes.clone()).prop_map(|(account, bytes)| Step::Force(account, bytes)),
        2 => (0..8_usize, bytes.clone()).prop_map(|(charge, bytes)| Step::Grow(charge, bytes)),
        2 => (0..8_usize, bytes.clone()).prop_map(|(charge, bytes)| Step::Shrink(charge, bytes)),
        1 => (0..8_usize, bytes).prop_map(|(charge, bytes)| Step::Split(charge, bytes)),
        2 => (0..8_usize).prop_map(Step::Drop),
        1 => (0..8_usize, 0..3_usize).prop_map(|(charge, account)| Step::Transfer(charge, account)),
        1 => bound.clone().prop_map(Step::Cap),
        1 => (0..3_usize, bound).prop_map(|(account, bytes)| Step::Clamp(account, bytes)),
    ]
}

proptest! {
    /// A plain sum per account, beside the ledger: held is what the guards hold, and a charge succeeds exactly if it fits.
    #[test]
    fn the_ledger_is_the_sum_of_its_guards(steps in proptest::collection::vec(step(), 1..80)) {
        let mut cap = 500_000_u64;
        let mut clamps = [u64::MAX; 3];
        let ledger = Ledger::with_cap(cap);
        let accounts: Vec<Account> =
            (0..3).map(|i| ledger.account(&format!("{i}")).expect("few accounts")).collect();
        let mut charges: Vec<(usize, Charge<'static>)> = Vec::new();
        for step in steps {
            let sum = |of: Option<usize>, charges: &[(usize, Charge<'static>)]| -> u64 {
                charges.iter().filter(|(i, _)| of.is_none_or(|of| of == *i)).map(|(_, c)| c.bytes()).sum()
            };
            let fits = |account: usize, more: u64, charges: &[(usize, Charge<'static>)]| {
                more == 0 || (sum(None, charges) + more <= cap && sum(Some(account), charges) + more <= clamps[account])
            };
            match step {
                Step::Charge(account, bytes) => {
                    let fit = fits(account, bytes, &charges);
                    let got = accounts[account].try_charge(bytes);
                    prop_assert_eq!(got.is_ok(), fit);
                    charges.extend(got.ok().map(|charge| (account, charge)));
                }
                Step::Force(account, bytes) => charges.push((account, accounts[account].charge(bytes))),
                Step::Grow(i, bytes) if i < charges.len() => {
                    let fit = fits(charges[i].0, bytes, &charges);
                    prop_assert_eq!(charges[i].1.grow(bytes).is_ok(), fit);
                }
                Step::Shrink(i, bytes) if i < charges.len() => _ = charges[i].1.shrink(bytes),
                Step::Split(i, bytes) if i < charges.len() => {
                    let account = charges[i].0;
                    let part = charges[i].1.split(bytes);
                    charges.push((account, part));
                }
                Step::Drop(i) if i < charges.len() => drop(charges.swap_remove(i)),
                Step::Transfer(i, to) if i < charges.len() => {
                    let (from, charge) = charges.swap_remove(i);
                    match charge.transfer(&accounts[to]) {
                        Ok(moved) => charges.push((to, moved)),
                        Err((charge, _)) => charges.push((from, charge)),
                    }
                }
                Step::Cap(bytes) => {
                    cap = bytes.unwrap_or(u64::MAX);
                    ledger.set_cap(bytes);
                }
                Step::Clamp(account, bytes) => {
                    clamps[account] = bytes.unwrap_or(u64::MAX);
                    accounts[account].set_clamp(bytes);
                }
                _ => {}
            }
            for (i, account) in accounts.iter().enumerate() {
                prop_assert_eq!(account.held_bytes(), sum(Some(i), &charges));
            }
            prop_assert_eq!(ledger.held_bytes(), sum(None, &charges));
        }
        drop(charges);
        prop_assert_eq!(ledger.held_bytes(), 0);
    }
}

#[test]
fn names_are_shared_not_copied() {
    let ledger = Ledger::new();
    let account = ledger.account("one").expect("few accounts");
    let mut figures = Vec::new();
    ledger.figures(&mut figures);
    assert!(Arc::ptr_eq(&figures[0].name, account.name()));
}
