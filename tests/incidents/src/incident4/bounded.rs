//! The same through Plimsoll: a queue with a bound in bytes, a share and a counter for each producer, a batcher; optionally a spool for what
//! finds no room.

use crate::Plan;
use crate::entry::{Entry, Load, peak_bytes};
use crate::table::{Lock, Table};
use plimsoll::queue::batch::Builder;
use plimsoll::queue::{self, DropReason, Limits, Overflow, WhenFull};
use plimsoll_incidents::log_channel::{PRODUCERS, producer_name};
use plimsoll_store::spool::{self, AppendError, Options, Receipt};
use std::collections::VecDeque;
use std::error::Error;
use std::time::Duration;

/// Entries that may be queued: far more than their bytes allow.
const MAX_ITEMS: usize = 200_000;
/// How long it may take to write what was accepted, once the lock is gone.
const FINISH: Duration = Duration::from_secs(100);

pub(crate) fn run(plan: &Plan, load: &Load, max_bytes: u64) -> Result<(), Box<dyn Error>> {
    let table = Table::open(&plan.database)?;
    let lock = Lock::take(&plan.database)?;
    let when_full = match plan.spool {
        Some(budget) => WhenFull::Overflow(Box::new(Spool::open(plan, budget)?)),
        None => WhenFull::DropNewest,
    };
    let (first, receiver) =
        queue::Builder::new(Limits { max_items: MAX_ITEMS, max_bytes }, when_full).build_named(&producer_name(0));
    let senders = (0..PRODUCERS).map(|source| first.named(&producer_name(source))).collect();
    let monitor = first.monitor();
    drop(first);
    let batcher = Builder::new(receiver, table).on_notice(|notice| eprintln!("{notice}")).start()?;
    load.run(senders, |sender, entry| {
        // What does not get in is counted.
        sender.send(entry).ok();
    });
    let stalled = monitor.stats();
    drop(lock);
    let finished = batcher.finish(FINISH);
    let stats = monitor.stats();
    for (source, producer) in stats.producers.iter().enumerate() {
        let counters = producer.counters;
        let line = serde_json::json!({
            "event": "producer",
            "source": source,
            "accepted": counters.accepted.items,
            "delivered": counters.delivered.items,
            "dropped": counters.dropped_total().items,
            "full": counters.dropped_for(DropReason::Full).items,
            "overflow": counters.dropped_for(DropReason::Overflow).items,
        });
        println!("{line}");
    }
    let line = serde_json::json!({
        "event": "end",
        "offered_bytes": load.total_bytes(),
        "queued_bytes": stalled.peak_bytes,
        "overflowed": stats.overflow.taken_total.items,
        "overflowed_bytes": stats.overflow.taken_total.bytes,
        "left": finished.left.items,
        "written": finished.stats.written_total.items,
        "failures": finished.stats.failures_total,
        "peak_bytes": peak_bytes(),
    });
    println!("{line}");
    Ok(())
}

/// The store's spool as the overflow of a queue.
struct Spool {
    writer: spool::Writer,
    reader: spool::Reader,
    /// Of entries that were given out and are not settled, in their order.
    given_out: VecDeque<Receipt>,
    /// Entries that were not given out.
    kept: u64,
}

impl Spool {
    fn open(plan: &Plan, budget: u64) -> Result<Spool, Box<dyn Error>> {
        let options = Options::new(plan.database.with_extension("spool")).budget(budget);
        let (writer, reader, recovery) = spool::open(options)?;
        Ok(Spool { writer, reader, given_out: VecDeque::new(), kept: recovery.waiting_records })
    }
}

/// Source, number, text.
fn encode(entry: &Entry) -> Vec<u8> {
    [&entry.source.to_le_bytes()[..], &entry.number.to_le_bytes(), entry.text.as_bytes()].concat()
}

fn decode(record: &[u8]) -> Option<Entry> {
    let (source, rest) = record.split_first_chunk()?;
    let (number, text) = rest.split_first_chunk()?;
    let text = std::str::from_utf8(text).ok()?.into();
    Some(Entry { source: u32::from_le_bytes(*source), number: u64::from_le_bytes(*number), text })
}

impl Overflow<Entry> for Spool {
    fn keep(&mut self, entry: Entry, _producer: &str) -> Result<(), Entry> {
        match self.writer.append(&encode(&entry), plimsoll_incidents::clock::unix_ns()) {
            // It is stored; what a power cut could do to it is another matter.
            Ok(_) | Err(AppendError::NotSynced(_)) => {
                self.kept += 1;
                Ok(())
            }
            Err(_) => Err(entry),
        }
    }

    fn next(&mut self) -> Option<Entry> {
        let record = self.reader.next().inspect_err(|error| eprintln!("the spool: {error}")).ok()??;
        let entry = decode(record.data)?;
        self.given_out.push_back(record.receipt);
        self.kept -= 1;
        Some(entry)
    }

    fn settle(&mut self, count: u64) {
        let last = self.given_out.drain(..self.given_out.len().min(count as usize)).next_back();
        if let Some(receipt) = last
            && let Err(error) = self.reader.ack(receipt)
        {
            eprintln!("the spool: {error}");
        }
    }

    fn kept(&self) -> u64 {
        self.kept
    }
}
