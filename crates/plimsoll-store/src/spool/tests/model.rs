//! Any order of calls, lives included, beside a queue in memory that does the same.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Read(usize),
    /// Acknowledges what was read, this many records behind the newest of it.
    Ack(usize),
    Rewind,
    Reopen,
    Sync,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => prop_oneof![0..400_usize, Just(5000), Just(15_000)].prop_map(Step::Append),
        4 => (1..8_usize).prop_map(Step::Read),
        3 => (0..4_usize).prop_map(Step::Ack),
        1 => Just(Step::Rewind),
        1 => Just(Step::Reopen),
        1 => Just(Step::Sync),
    ];
    proptest::collection::vec(step, 1..120)
}

/// What should be in the spool.
#[derive(Default)]
struct Model {
    next: u64,
    /// Records that wait, oldest first.
    waiting: VecDeque<(u64, usize)>,
    acked: u64,
    dropped: u64,
    /// The next to be read.
    at: u64,
    /// Receipts of what was read and is not acknowledged.
    read: Vec<Receipt>,
}

impl Model {
    /// Drops what the spool says that it dropped: only the oldest, and only at the budget.
    fn drop_as(&mut self, stats: &Stats) {
        while self.dropped < stats.dropped_records_total {
            self.waiting.pop_front().expect("no more can be dropped than waits");
            self.dropped += 1;
        }
        self.at = self.at.max(self.acked + self.dropped);
    }
}

fn run(at_budget: AtBudget, steps: &[Step]) {
    let dir = quick_dir();
    let options = Options { at_budget, max_record_bytes: 15_000, ..small(dir.path()) };
    let (mut writer, mut reader, _) = open(options.clone()).unwrap();
    let mut model = Model::default();
    for step in steps {
        match *step {
            Step::Append(len) => match writer.append(&record(model.next, len), model.next) {
                Ok(number) => {
                    assert_eq!(number, model.next);
                    model.waiting.push_back((model.next, record(model.next, len).len()));
                    model.next += 1;
                    model.drop_as(&writer.stats());
                }
                Err(e) => {
                    assert!(matches!(e, AppendError::Full { .. }) && at_budget == AtBudget::Refuse, "{e}");
                    let used = writer.stats().used_bytes;
                    assert!(used + 16_384 + 32 > MIN_BUDGET_BYTES / 2, "refused with {used} bytes in use");
                }
            },
            Step::Read(count) => {
                for _ in 0..count {
                    let Some(record) = reader.next().unwrap() else {
                        assert_eq!(model.at, model.next);
                        break;
                    };
                    assert_eq!((number(record.data), record.at_unix_ns), (model.at, model.at));
                    model.read.push(record.receipt);
                    model.at += 1;
                }
            }
            Step::Ack(behind) => {
                let Some(at) = model.read.len().checked_sub(behind + 1) else { continue };
                let receipt = model.read[at];
                reader.ack(receipt).unwrap();
                model.read.drain(..=at);
                while model.waiting.front().is_some_and(|(number, _)| *number <= receipt.number()) {
                    model.waiting.pop_front();
                    model.acked += 1;
                }
            }
            Step::Rewind => {
                reader.rewind();
                model.at = model.acked + model.dropped;
                model.read.clear();
            }
            Step::Reopen => {
                drop((writer, reader));
                let recovery;
                (writer, reader, recovery) = open(options.clone()).unwrap();
                assert_eq!(recovery.torn_bytes, 0);
                assert_eq!(recovery.waiting_records, model.waiting.len() as u64);
                model.at = model.acked + model.dropped;
                model.read.clear();
            }
            Step::Sync => writer.sync().unwrap(),
        }
        let stats = writer.stats();
        assert_eq!(stats.appended_records_total, model.next);
        assert_eq!(stats.acknowledged_records_total, model.acked);
        assert_eq!(stats.waiting_records, model.waiting.len() as u64);
        assert_eq!(stats.waiting_bytes, model.waiting.iter().map(|(_, len)| *len as u64).sum::<u64>());
        assert!(stats.used_bytes <= MIN_BUDGET_BYTES, "{stats:?}");
    }
    reader.rewind();
    assert_eq!(waiting(&mut reader), model.waiting.iter().map(|(number, _)| *number).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_spool_that_refuses_is_a_queue(steps in steps()) {
        run(AtBudget::Refuse, &steps);
    }

    #[test]
    fn a_spool_that_drops_is_a_queue_that_drops(steps in steps()) {
        run(AtBudget::DropOldest, &steps);
    }
}
