//! What it is for: a sink that is down for a while, and in the end has everything, in order, once.

use super::*;

/// A user's own table, which keeps the number of the record beside what it made of it.
struct Sink(rusqlite::Connection);

impl Sink {
    fn open(path: &Path) -> Sink {
        let db = rusqlite::Connection::open(path).unwrap();
        db.busy_timeout(Duration::ZERO).unwrap();
        db.execute_batch("CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, text TEXT NOT NULL)").unwrap();
        Sink(db)
    }

    fn take(&self, number: u64, text: &[u8]) -> rusqlite::Result<()> {
        let text = str::from_utf8(text).unwrap();
        self.0.execute("INSERT INTO orders VALUES (?1, ?2)", (number.cast_signed(), text)).map(drop)
    }

    fn all(&self) -> Vec<String> {
        let mut rows = self.0.prepare("SELECT text FROM orders ORDER BY number").unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }
}

/// Gives the sink what waits until it refuses: how many it took.
fn replay(reader: &mut Reader, sink: &Sink) -> u64 {
    let mut taken = 0;
    while let Some(record) = reader.next().unwrap() {
        if sink.take(record.receipt.number(), record.data).is_err() {
            reader.rewind();
            return taken;
        }
        let receipt = record.receipt;
        reader.ack(receipt).unwrap();
        taken += 1;
    }
    taken
}

#[test]
fn what_waits_while_the_sink_is_locked_is_replayed_into_it_in_order_afterwards() {
    let dir = quick_dir();
    let path = dir.path().join("orders.db");
    let options = Options::new(dir.path().join("spool"));
    let sink = Sink::open(&path);
    let (writer, mut reader, _) = open(options.clone()).unwrap();
    let append = |writer: &Writer, numbers: std::ops::Range<u64>| {
        for number in numbers {
            writer.append(&record(number, 200), 1).unwrap();
        }
    };
    append(&writer, 0..100);
    assert_eq!(replay(&mut reader, &sink), 100);

    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    append(&writer, 100..3000);
    assert_eq!(replay(&mut reader, &sink), 0, "the sink is down");
    assert_eq!(writer.stats().waiting_records, 2900);
    // The service dies meanwhile.
    drop((writer, reader));
    let (writer, mut reader, recovery) = open(options).unwrap();
    assert_eq!(recovery.waiting_records, 2900);
    append(&writer, 3000..3100);
    assert_eq!(replay(&mut reader, &sink), 0);
    other.execute_batch("COMMIT").unwrap();

    assert_eq!(replay(&mut reader, &sink), 3000, "the sink has recovered");
    let expected: Vec<String> = (0..3100).map(|n| String::from_utf8(record(n, 200)).unwrap()).collect();
    assert_eq!(sink.all(), expected);
    assert_eq!(writer.stats().waiting_records, 0);
}
