//! The three laws over one store, and the workload, which is the same for all.

use crate::Plan;
use crate::store::PacketStore;
use parking_lot::Mutex;
use plimsoll::clock::{Clock as _, MonotonicClock};
use plimsoll::gauge::allocator::{Allocator as _, glibc::Glibc};
use plimsoll::gauge::{Gauge as _, ProcessGauge, Root};
use plimsoll::governor::{Governor, Setup};
use plimsoll::policy::Policy;
use plimsoll::reclaim::adapt::TimeOrdered;
use plimsoll::reclaim::ledger::Ledger;
use plimsoll::reclaim::{Controller, Settings};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time between two ticks of the incident's laws: a minute there, so much shorter here as the store is smaller.
const TICK: Duration = Duration::from_millis(500);
/// Time between two batches of packets.
const BATCH: Duration = Duration::from_millis(5);

type Store = Arc<Mutex<PacketStore>>;

/// What carries out a law between two batches.
enum Law {
    Formula,
    Heap,
    Plimsoll { governor: Governor, controller: Controller, is_stuck: Arc<AtomicBool> },
}

pub(crate) fn run(plan: &Plan) -> Result<u8, Box<dyn Error>> {
    let ledger = Ledger::new();
    let account = ledger.account("packets and all that hangs on them")?;
    let store: Store = Arc::new(Mutex::new(PacketStore::new(&account)));
    let mut own = ProcessGauge::own(&Root::default())?;
    let law = match plan.law.as_str() {
        "formula" => Law::Formula,
        "heap" => Law::Heap,
        "plimsoll" => govern(plan, &store, &account)?,
        other => return Err(format!("no such law: {other:?}").into()),
    };
    let clock = MonotonicClock;
    let begun = clock.now();
    let (mut base, mut spike, mut spiked) = (Vec::new(), Vec::new(), false);
    let (mut inserted, mut ticked, mut most) = (0, Duration::ZERO, 0);
    let mut drained = false;
    while clock.now() - begun < plan.lasts() {
        let at = clock.now() - begun;
        if base.is_empty() && at >= Duration::from_millis(plan.base_at_ms) {
            base = vec![1_u8; plan.base as usize];
        }
        let spike_at = Duration::from_millis(plan.spike_at_ms);
        if let Some(target) = plan.spike_to.filter(|_| at >= spike_at && !spiked) {
            spiked = true;
            let used = own.confirm()?.program_bytes;
            spike = vec![1_u8; target.saturating_sub(used) as usize];
            println!("{{\"event\":\"spike\",\"used\":{used},\"bytes\":{}}}", spike.len());
        } else if !spike.is_empty() && at >= spike_at + Duration::from_secs(1) {
            spike = Vec::new();
        }
        let due = ((at.as_secs_f64() * plan.rate as f64) as u64).min(plan.packets);
        for _ in inserted..due {
            store.lock().insert();
        }
        inserted = due;
        let program = own.confirm()?.program_bytes;
        most = most.max(program);
        if at - ticked >= TICK {
            ticked = at;
            tick(plan, &law, &store, program)?;
        }
        if let Law::Plimsoll { is_stuck, .. } = &law
            && is_stuck.load(Ordering::Acquire)
        {
            drained = true;
            break;
        }
        std::thread::sleep(BATCH);
    }
    drop(spike);
    let used = own.confirm()?.program_bytes;
    let store = store.lock();
    println!(
        "{{\"event\":\"end\",\"packets\":{},\"held\":{},\"formula\":{},\"used\":{used},\"most\":{most},\"inserted\":{inserted},\"evicted\":{},\"made_room\":{},\"base\":{}}}",
        store.len(),
        account.held_bytes(),
        store.formula_bytes(),
        store.evicted_total,
        store.made_room_total,
        base.len(),
    );
    drop(store);
    if let Law::Plimsoll { governor, controller, .. } = law {
        governor.stop();
        controller.stop();
    }
    Ok(if drained { 2 } else { 0 })
}

/// One tick of the incident's laws; Plimsoll has threads of its own.
fn tick(plan: &Plan, law: &Law, store: &Store, program: u64) -> Result<(), Box<dyn Error>> {
    let mut store = store.lock();
    let count = match law {
        Law::Formula => {
            let (estimate, each) = (store.formula_bytes(), store.formula_bytes() / (store.len() as u64).max(1));
            estimate.saturating_sub(plan.cap) / each.max(1)
        }
        Law::Heap => {
            let n = program as f64 / plan.cap as f64;
            if n > 1.0 { (store.len() as f64 * (1.0 - 0.9 / n)) as u64 } else { 0 }
        }
        Law::Plimsoll { .. } => return Ok(()),
    };
    if count > 0 {
        let before = store.len();
        store.evict(count as usize);
        // As their runtime's collector would.
        Glibc.purge()?;
        println!("{{\"event\":\"cut\",\"packets\":{count},\"of\":{before}}}");
    }
    Ok(())
}

/// The governor and the controller over the store.
fn govern(plan: &Plan, store: &Store, account: &plimsoll::reclaim::ledger::Account) -> Result<Law, Box<dyn Error>> {
    let is_stuck = Arc::new(AtomicBool::new(false));
    let drain = Arc::clone(&is_stuck);
    let controller = Controller::start(Settings {
        purge: Some(Box::new(|| {
            Glibc.purge().ok();
        })),
        on_stuck: Some(Box::new(move || drain.store(true, Ordering::Release))),
        stuck_dwell: Duration::from_secs(2),
        ..Settings::default()
    })?;
    controller.register("packets", Arc::new(TimeOrdered::new(Arc::clone(store))), Some(account.clone()))?;
    let setup = Setup {
        policy: Policy::new(plan.cap, plan.cap / 4),
        gauge: Box::new(ProcessGauge::own(&Root::default())?),
        wakes: Vec::new(),
        clock: Arc::new(MonotonicClock),
        name: "governor".into(),
    };
    let (mut order, mut supply) = (controller.order(), controller.supply());
    let (mut was_stuck, mut second) = (false, 0);
    let governor = Governor::start_with(setup, controller.supply(), move |decision| {
        order(decision.level, decision.want.as_ref());
        let Some(want) = decision.want else { return };
        if want.evict_bytes > 0 {
            let held = supply().held_bytes;
            println!("{{\"event\":\"order\",\"bytes\":{},\"held\":{held}}}", want.evict_bytes);
        }
        if decision.at.as_secs() != second {
            second = decision.at.as_secs();
            let (charged, held) = (decision.charged_bytes.unwrap_or(0), supply().held_bytes);
            println!(
                "{{\"event\":\"want\",\"charged\":{charged},\"held\":{held},\"hold\":{},\"base\":{},\"spread\":{},\"delay_ms\":{}}}",
                want.hold_bytes,
                want.base_bytes,
                want.spread_bytes,
                want.delay.as_millis()
            );
        }
        if want.stuck && !was_stuck {
            println!("{{\"event\":\"stuck\",\"base\":{}}}", want.base_bytes);
        }
        was_stuck = want.stuck;
    })?;
    Ok(Law::Plimsoll { governor, controller, is_stuck })
}
