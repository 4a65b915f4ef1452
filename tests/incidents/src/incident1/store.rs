//! The packet store of incident 1: packets and observations in the order of time, and three indexes derived from them.
//!
//! The formula of the incident counts packets and observations; the indexes are three quarters of what is held. Everything that a
//! packet brings is charged to an account, so that what is held is known; evicting a packet takes its index entries with it, and the
//! tables' room goes back shard by shard.

use plimsoll::reclaim::adapt::{Ordered, Segmented, spare};
use plimsoll::reclaim::ledger::{Account, Charge};
use std::collections::HashMap;

/// Shards of each index: a table is grown and shrunk one shard at a time.
const SHARDS: usize = 64;
/// Observations of a packet, and index entries that it brings.
const OBSERVATIONS: usize = 4;
const HOPS: usize = 6;
const SUBPATHS: usize = 10;
const PAYLOAD_BYTES: usize = 200;

/// One packet.
struct Packet {
    id: u64,
    payload: Box<[u8]>,
    observations: Box<[Observation]>,
    charge: Charge<'static>,
}

/// One station that heard it.
#[derive(Clone, Copy)]
struct Observation {
    _station: u64,
    _at: u64,
}

/// A record of the hop index.
struct Hop {
    _from: u64,
    _to: u64,
    _kilometres: f64,
}

/// The store.
pub(crate) struct PacketStore {
    packets: Segmented<Packet>,
    hops: Vec<HashMap<u64, Box<[Hop]>>>,
    paths: Vec<HashMap<u64, [u64; 4]>>,
    subpaths: Vec<HashMap<u64, [u64; 3]>>,
    next: u64,
    account: Account,
    /// What the shards' tables take, so that it is charged as it changes.
    tables: Charge<'static>,
    pub(crate) evicted_total: u64,
    pub(crate) made_room_total: u64,
}

/// The shard of a packet. The last one gets twice as many as the first: tables that double all at once would be a wave of their own.
fn shard_of(id: u64) -> usize {
    let place = (id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1_u64 << 53) as f64;
    // The inverse of the share that the shards up to x have: (2x + x²) / 3.
    (((1.0 + 3.0 * place).sqrt() - 1.0) * SHARDS as f64) as usize % SHARDS
}

/// What a packet takes without its share of the tables, with 16 bytes for each allocation's header.
const PACKET_BYTES: usize =
    size_of::<Packet>() + PAYLOAD_BYTES + OBSERVATIONS * size_of::<Observation>() + HOPS * size_of::<Hop>() + 3 * 16;

impl PacketStore {
    pub(crate) fn new(account: &Account) -> PacketStore {
        fn shards<V>() -> Vec<HashMap<u64, V>> {
            std::iter::repeat_with(HashMap::new).take(SHARDS).collect()
        }
        PacketStore {
            packets: Segmented::new(),
            hops: shards(),
            paths: shards(),
            subpaths: shards(),
            next: 0,
            tables: account.charge(0),
            account: account.clone(),
            evicted_total: 0,
            made_room_total: 0,
        }
    }

    /// Takes in one packet; if it does not fit, the oldest make room for it. At the clamp that is how a store of the newest works.
    pub(crate) fn insert(&mut self) {
        let charge = loop {
            match self.account.try_charge(PACKET_BYTES as u64) {
                Ok(charge) => break charge,
                Err(_) if self.evict_oldest().is_some() => {
                    self.made_room_total += 1;
                    // One shard in its turn: what those that went leave in the tables is room as well.
                    if self.made_room_total.is_multiple_of(64) {
                        self.compact_shard((self.made_room_total / 64) as usize % SHARDS);
                    }
                }
                Err(_) => return,
            }
        };
        let id = self.next;
        self.next += 1;
        let observation = Observation { _station: id, _at: id };
        let payload = vec![id as u8; PAYLOAD_BYTES].into_boxed_slice();
        let observations = vec![observation; OBSERVATIONS].into_boxed_slice();
        self.packets.push_back(Packet { id, payload, observations, charge });
        let hop = |n: usize| Hop { _from: id, _to: id + n as u64, _kilometres: n as f64 };
        let shard = shard_of(id);
        self.hops[shard].insert(id, (0..HOPS).map(hop).collect());
        self.paths[shard].insert(id, [id; 4]);
        for n in 0..SUBPATHS as u64 {
            self.subpaths[shard].insert(id * SUBPATHS as u64 + n, [id; 3]);
        }
        if self.next.is_multiple_of(256) {
            self.charge_tables();
        }
    }

    fn table_bytes(&self, shard: usize) -> u64 {
        spare::map_bytes(&self.hops[shard])
            + spare::map_bytes(&self.paths[shard])
            + spare::map_bytes(&self.subpaths[shard])
    }

    fn compact_shard(&mut self, shard: usize) {
        spare::map(&mut self.hops[shard]);
        spare::map(&mut self.paths[shard]);
        spare::map(&mut self.subpaths[shard]);
    }

    /// Charges what the tables take now, whatever the clamp says: they are there already.
    fn charge_tables(&mut self) {
        let bytes: u64 = (0..SHARDS).map(|shard| self.table_bytes(shard)).sum();
        self.tables = self.account.charge(0);
        self.tables = self.account.charge(bytes);
    }

    fn evict_oldest(&mut self) -> Option<u64> {
        let packet = self.packets.pop_front()?;
        let shard = shard_of(packet.id);
        self.hops[shard].remove(&packet.id);
        self.paths[shard].remove(&packet.id);
        for n in 0..SUBPATHS as u64 {
            self.subpaths[shard].remove(&(packet.id * SUBPATHS as u64 + n));
        }
        self.evicted_total += 1;
        debug_assert_eq!(packet.payload.len() + packet.observations.len(), PAYLOAD_BYTES + OBSERVATIONS);
        // With its share of the tables, which goes back when they are compacted.
        let share = self.tables.bytes() / (self.packets.len() as u64 + 1);
        Some(packet.charge.bytes() + share)
    }

    /// How many packets there are.
    pub(crate) fn len(&self) -> usize {
        self.packets.len()
    }

    /// What the incident's formula believes that they take.
    pub(crate) fn formula_bytes(&self) -> u64 {
        (self.len() * (size_of::<Packet>() + PAYLOAD_BYTES + OBSERVATIONS * size_of::<Observation>())) as u64
    }

    /// Evicts `count` of the oldest packets and gives the room of the tables back.
    pub(crate) fn evict(&mut self, count: usize) {
        for _ in 0..count {
            self.evict_oldest();
        }
        self.compact();
    }
}

impl Ordered for PacketStore {
    fn held_bytes(&self) -> u64 {
        self.account.held_bytes()
    }

    fn remove_oldest(&mut self) -> Option<u64> {
        self.evict_oldest()
    }

    fn compact(&mut self) -> u64 {
        let before = self.tables.bytes();
        (0..SHARDS).for_each(|shard| self.compact_shard(shard));
        self.packets.compact();
        self.charge_tables();
        before.saturating_sub(self.tables.bytes())
    }
}
