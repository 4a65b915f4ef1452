//! The store's hot window under the library's reclaim: two leaves that do not know each other, joined here as in `docs/memory.md`.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::event::{Ask, Outcome, Pass, Profile};
use plimsoll::reclaim::Reclaim;
use plimsoll_store::{DEFAULT_HOT_BYTES, EntryKind, HotWindow, Query, Reader, Settings, Stream};

struct Hot(Arc<HotWindow>);

impl Reclaim for Hot {
    fn held_bytes(&self) -> u64 {
        self.0.held_bytes()
    }

    fn profile(&self) -> Profile {
        Profile::default().only(&[Pass::Benign, Pass::Idle, Pass::Destructive])
    }

    fn reclaim(&self, ask: Ask) -> Outcome {
        let given = self.0.give_back(ask.bytes);
        Outcome::new(given, self.0.held_bytes() > 0)
    }

    fn hold(&self, bytes: Option<u64>) {
        self.0.set_limit(bytes.unwrap_or(DEFAULT_HOT_BYTES));
    }
}

fn lines(reader: &mut Reader) -> Vec<String> {
    let mut lines = Vec::new();
    let mut sink = |entry: plimsoll_store::Entry<'_>| {
        if let EntryKind::Line { text, .. } = entry.kind {
            lines.push(String::from_utf8_lossy(text).into_owned());
        }
        ControlFlow::Continue(())
    };
    reader.tail(&Query::default(), 3_000, &mut sink).expect("readable");
    lines
}

#[test]
fn the_hot_window_gives_back_and_no_line_is_lost() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let dir = place.path().join("web");
    let settings = Settings::new(&dir, place.path().join("ring"), "web");
    let (mut intake, store, _) = plimsoll_store::open(settings).expect("a store");
    let (from, mut to) = std::io::pipe().expect("a pipe");
    for number in 0..3_000 {
        writeln!(to, "{number} a line that is kept").expect("printed");
        intake.read_from(Stream::Stdout, from.as_fd(), number).expect("taken");
    }
    drop(intake);
    assert!(store.close(Duration::from_secs(20)).complete);

    let window = Arc::new(HotWindow::default());
    let mut reader = Reader::open_with(&dir, Some(Arc::clone(&window))).expect("readable");
    let all = lines(&mut reader);
    assert_eq!(all.len(), 3_000);
    let hot = Hot(Arc::clone(&window));
    let held = hot.held_bytes();
    assert!(held > 50_000, "{held} bytes are held");
    assert_eq!(hot.reclaim(Ask::new(1, Pass::Benign)), Outcome::new(held, false), "whole chunks");
    assert_eq!(hot.held_bytes(), 0);
    assert_eq!(lines(&mut reader), all);
    assert_eq!(hot.held_bytes(), held, "it fills again");
    hot.hold(Some(0));
    assert_eq!((hot.held_bytes(), lines(&mut reader)), (0, all), "held to nothing it answers from disk");
    assert_eq!(hot.held_bytes(), 0);
}
