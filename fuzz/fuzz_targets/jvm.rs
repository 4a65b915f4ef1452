//! The reader of jvm: any bytes are read or refused, and what is read can be summed, keyed and compared with itself.
#![no_main]

use plimsoll_heap::{parse, profile};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok((read, _)) = parse::jvm::read(bytes) {
        let _digest = read.digest();
        let same = profile::diff::diff(&read, &read).expect("one kind");
        assert!(same.changes.iter().all(|change| change.delta_bytes() == 0));
    }
});
