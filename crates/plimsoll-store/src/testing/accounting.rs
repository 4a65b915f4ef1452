//! The accounting invariant in quiet, in floods, with a full ring, over reopening at random moments, and at closing.

use std::time::Duration;

use super::{Entry, Place, Program, account, everything};
use crate::{Stream, open};

const BOTH: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

#[test]
fn what_is_printed_is_sealed_at_close_and_leaves_nothing_else() {
    let place = Place::new();
    let (mut intake, store, recovery) = open(place.settings()).unwrap();
    assert_eq!(recovery.notes(), Vec::<String>::new());
    let mut program = Program::new(1);
    for _ in 0..50 {
        for stream in BOTH {
            program.print(stream, 1000);
            program.deliver(&mut intake, stream, 5);
        }
    }
    for stream in BOTH {
        program.finish_lines(stream);
        program.deliver(&mut intake, stream, 5);
    }
    intake.note("a note", 6);
    let closed = store.close(Duration::from_secs(20));
    assert!(closed.complete, "{closed:?}");
    assert_eq!(closed.stats.degraded, None);
    let all = everything(&place.path(), &place.ring());
    for stream in BOTH {
        assert_eq!(account(&all[&stream], program.lines(stream)), 0);
        assert_eq!(closed.stats.stream(stream).lines_in_total, program.lines(stream));
    }
    let note = Entry::Line { text: b"a note".to_vec(), continued: false };
    assert_eq!(all[&Stream::Plimsoll].iter().map(|e| &e.1).collect::<Vec<_>>(), [&note]);
    let mut left: Vec<String> = names(&place.path());
    left.extend(names(place.dir.path()));
    left.extend(names(&place.path().join("spool")));
    left.sort();
    assert_eq!(left, ["lock", "logs.db", "spool", "web"]);
}

fn names(dir: &std::path::Path) -> Vec<String> {
    std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}
