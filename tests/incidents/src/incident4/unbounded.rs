//! The control: a channel without a bound and a batcher as in the incident, 100 ms or 10,000 entries in one transaction.

#![allow(clippy::disallowed_methods, reason = "the unbounded channel is what this shows")]

use crate::Plan;
use crate::entry::{Entry, Load, peak_bytes};
use crate::table::{Lock, Table};
use plimsoll::queue::batch::Record;
use plimsoll_incidents::log_channel::PRODUCERS;
use std::error::Error;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

pub(crate) fn run(plan: &Plan, load: &Load) -> Result<(), Box<dyn Error>> {
    let table = Table::open(&plan.database)?;
    let lock = Lock::take(&plan.database)?;
    let (sender, receiver) = channel();
    let batcher = std::thread::spawn(move || batch(&receiver, table));
    load.run(vec![sender; PRODUCERS], |sender, entry| {
        // The batcher outlives the senders.
        sender.send(entry).ok();
    });
    drop(lock);
    let written = batcher.join().map_err(|_| "the batcher panicked")?;
    println!("{}", serde_json::json!({ "event": "end", "written": written, "peak_bytes": peak_bytes() }));
    Ok(())
}

fn batch(entries: &Receiver<Entry>, mut table: Table) -> u64 {
    let mut written = 0;
    while let Ok(first) = entries.recv() {
        std::thread::sleep(Duration::from_millis(100));
        let batch: Vec<_> = std::iter::once(first).chain(entries.try_iter()).take(10_000).map(Record::Value).collect();
        while table.insert(batch.iter()).is_err() {
            std::thread::sleep(Duration::from_millis(50));
        }
        written += batch.len() as u64;
    }
    written
}
