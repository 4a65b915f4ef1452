//! Incident 1, the right way: a store of packets, their observations and three indexes derived from them, that gives back.
//!
//! ```text
//! cargo run --release -p plimsoll --example packet_store -- 128M 20
//! ```
//!
//! takes in packets for 20 s and stays within 128 MiB. The published store counted packets and observations by a formula, and not the
//! indexes: 1.2 GB by its count, 5 GB in truth. Here each packet carries one [`Charge`] for all that hangs on it, and the store is told by the
//! [`Controller`] how many bytes to let go; it never asks how large the process is.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll::clock::{Clock as _, MonotonicClock};
use plimsoll::gauge::{ProcessGauge, Root};
use plimsoll::governor::{Governor, Setup};
use plimsoll::policy::Policy;
use plimsoll::reclaim::adapt::{Ordered, Segmented, TimeOrdered, spare};
use plimsoll::reclaim::ledger::{Account, Charge, Ledger};
use plimsoll::reclaim::{Controller, Settings};
use plimsoll::units::{parse_size, size};

/// A packet and its observations; the charge is for the index entries as well.
struct Packet {
    id: u64,
    _payload: Box<[u8]>,
    _observations: Vec<(u64, u64)>,
    charge: Charge<'static>,
}

struct Packets {
    packets: Segmented<Packet>,
    hops: HashMap<u64, Box<[u64]>>,
    paths: HashMap<u64, [u64; 4]>,
    subpaths: HashMap<u64, u64>,
    account: Account,
}

/// What one packet takes in all: itself, its boxes, and 40 bytes for each of 12 entries in tables that are three quarters full.
const PACKET_BYTES: u64 = size_of::<Packet>() as u64 + 200 + 64 + 48 + 12 * 40;

impl Packets {
    fn insert(&mut self, id: u64) {
        // At the bound the oldest make room: the store holds the newest that fit.
        let charge = loop {
            match self.account.try_charge(PACKET_BYTES) {
                Ok(charge) => break charge,
                Err(refused) if self.remove_oldest().is_none() => return eprintln!("{refused}"),
                Err(_) => {}
            }
        };
        self.hops.insert(id, vec![id; 6].into());
        self.paths.insert(id, [id; 4]);
        self.subpaths.extend((0..10).map(|n| (id * 10 + n, id)));
        let packet = Packet { id, _payload: vec![1; 200].into(), _observations: vec![(id, id); 4], charge };
        self.packets.push_back(packet);
    }
}

impl Ordered for Packets {
    fn held_bytes(&self) -> u64 {
        self.account.held_bytes()
    }

    /// The packet and everything that belongs to it: an index entry that stays is memory that was not given back.
    fn remove_oldest(&mut self) -> Option<u64> {
        let packet = self.packets.pop_front()?;
        self.hops.remove(&packet.id);
        self.paths.remove(&packet.id);
        for n in 0..10 {
            self.subpaths.remove(&(packet.id * 10 + n));
        }
        Some(packet.charge.bytes())
    }

    /// Removing frees no room of a table.
    fn compact(&mut self) -> u64 {
        spare::map(&mut self.hops) + spare::map(&mut self.paths) + spare::map(&mut self.subpaths)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let budget = parse_size(args.next().as_deref().unwrap_or("128M"))?;
    let seconds = args.next().map_or(Ok(10), |text| text.parse())?;

    let account = Ledger::new().account("packets")?;
    let store = Arc::new(Mutex::new(Packets {
        packets: Segmented::new(),
        hops: HashMap::new(),
        paths: HashMap::new(),
        subpaths: HashMap::new(),
        account: account.clone(),
    }));
    let controller = Controller::start(Settings::default())?;
    controller.register("packets", Arc::new(TimeOrdered::new(Arc::clone(&store))), Some(account.clone()))?;
    let setup = Setup {
        policy: Policy::new(budget, Policy::default_reserve_bytes(budget)),
        gauge: Box::new(ProcessGauge::own(&Root::default())?),
        wakes: Vec::new(),
        clock: Arc::new(MonotonicClock),
        name: "governor".into(),
    };
    let mut order = controller.order();
    let governor = Governor::start_with(setup, controller.supply(), move |decision| {
        order(decision.level, decision.want.as_ref());
    })?;

    let begun = MonotonicClock.now();
    for tick in 0..seconds * 100 {
        (0..200).for_each(|n| store.lock().insert(tick * 200 + n));
        if tick % 100 == 99 {
            let status = governor.status();
            let charged = status.decision.and_then(|decision| decision.charged_bytes).unwrap_or(0);
            let packets = store.lock().packets.len();
            println!(
                "{packets} packets, {} of them, {} in all, {}",
                size(account.held_bytes()),
                size(charged),
                status.level()
            );
        }
        let next = begun + Duration::from_millis(10) * (tick as u32 + 1);
        std::thread::sleep(next.saturating_sub(MonotonicClock.now()));
    }
    governor.stop();
    println!("{:?}", controller.figures());
    controller.stop();
    Ok(())
}
