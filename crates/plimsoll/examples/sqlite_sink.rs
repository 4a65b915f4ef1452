//! A service's own rows into its own SQLite table, in batches: the table is the sink, one transaction a batch, gaps in a table beside.
//!
//! `cargo run -p plimsoll --example sqlite_sink`. Bounded at 1 MiB of rows on their way; ends by itself.

use std::time::Duration;

use plimsoll::queue::batch::{Builder, Record, Sink, SinkError};
use plimsoll::queue::{Limits, Weigh, WhenFull, bounded};
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

struct Order {
    customer: String,
    cents: i64,
}

impl Weigh for Order {
    fn weight_bytes(&self) -> u64 {
        (size_of::<Order>() + self.customer.capacity()) as u64
    }
}

struct Orders(Connection);

impl Orders {
    fn open(database: Connection) -> rusqlite::Result<Orders> {
        database.execute_batch(
            "CREATE TABLE IF NOT EXISTS orders (customer TEXT NOT NULL, cents INTEGER NOT NULL CHECK (cents >= 0));
             CREATE TABLE IF NOT EXISTS missing (producer TEXT, reason TEXT, orders INTEGER, first_ms INTEGER, last_ms INTEGER);",
        )?;
        Ok(Orders(database))
    }

    fn insert(&mut self, records: &[Record<Order>]) -> rusqlite::Result<()> {
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut order = transaction.prepare_cached("INSERT INTO orders VALUES (?1, ?2)")?;
            let mut missing = transaction.prepare_cached("INSERT INTO missing VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for record in records {
                match record {
                    Record::Value(Order { customer, cents }) => order.execute((customer, cents))?,
                    Record::Gap(gap) => missing.execute((
                        &*gap.producer,
                        gap.reason.as_str(),
                        gap.lost.items as i64,
                        gap.first.as_millis() as i64,
                        gap.last.as_millis() as i64,
                    ))?,
                };
            }
        }
        transaction.commit()
    }
}

impl Sink<Order> for Orders {
    fn write(&mut self, records: &[Record<Order>]) -> Result<(), SinkError> {
        self.insert(records).map_err(|error| match error.sqlite_error_code() {
            // No later try will take that row: the batcher looks for it, gives it up and counts it.
            Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) => SinkError::refused(error),
            // Locked, full, read-only: it may pass.
            _ => SinkError::unavailable(error),
        })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let database = std::env::temp_dir().join(format!("plimsoll-orders-{}.db", std::process::id()));
    let (shop, receiver) = bounded(Limits { max_items: 10_000, max_bytes: 1 << 20 }, WhenFull::DropNewest);
    let orders = Orders::open(Connection::open(&database)?)?;
    let batcher = Builder::new(receiver, orders).on_notice(|notice| eprintln!("orders: {notice}")).start()?;

    let phone = shop.named("phone");
    for n in 0..1_000 {
        shop.send(Order { customer: format!("customer {n}"), cents: 100 * n })?;
    }
    phone.send(Order { customer: "somebody".to_owned(), cents: -1 })?; // The table refuses it.

    let finished = batcher.finish(Duration::from_secs(10));
    let rows: i64 = Connection::open(&database)?.query_row("SELECT count(*) FROM orders", [], |row| row.get(0))?;
    println!("{rows} rows, {} given up, {} left", finished.stats.poison_total.items, finished.left.items);
    std::fs::remove_file(&database)?;
    Ok(())
}
