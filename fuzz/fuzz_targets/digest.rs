//! Digests: no panic, and what is read is written the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_heap::digest::Digest;
use plimsoll_heap::format::{Format, Packing};

fuzz_target!(|data: &[u8]| {
    let _ = (Format::sniff(data), Packing::sniff(data));
    let Ok(digest) = Digest::read(data) else { return };
    let mut file = Vec::new();
    digest.write(&mut file).expect("a vector");
    let again = Digest::read(file.as_slice()).expect("our own");
    assert_eq!((digest.rows.len(), &digest.marks), (again.rows.len(), &again.marks));
    assert_eq!(digest.same_life(&again), again.same_life(&digest));
});
