//! The running test binary is the program: its own mappings, its own functions.

use std::fmt::Write as _;
use std::time::Duration;

use plimsoll_heap::parse::jemalloc;

use super::*;

#[inline(never)]
fn leak_of_a_test(n: u64) -> u64 {
    std::hint::black_box(n) + 1
}

/// A `heap_v2` of this process with one stack: an address inside [`leak_of_a_test`].
fn own_profile(change: impl Fn(String) -> String) -> Profile {
    let mut text = "heap_v2/1024\n  t*: 1: 200 [0: 0]\n".to_owned();
    let function: fn(u64) -> u64 = leak_of_a_test;
    assert_eq!(function(1), 2);
    let address = function as usize + 1;
    writeln!(text, "@ {address:#x}\n  t*: 1: 200 [0: 0]\n\nMAPPED_LIBRARIES:").unwrap();
    let mut room = vec![0; 1 << 20];
    text += &change(crate::supervise::files::read_small("/proc/self/maps", &mut room).unwrap().to_owned());
    jemalloc::read(text.as_bytes()).unwrap().0
}

fn now_ns() -> u64 {
    u64::try_from(plimsoll::clock::wall().as_nanos()).unwrap()
}

fn key(profile: &Profile) -> String {
    profile.key(&profile.entries[0])
}

#[test]
fn a_function_of_this_very_program_is_named() {
    let mut profile = own_profile(|maps| maps);
    assert!(key(&profile).contains("+0x"), "{}", key(&profile));
    let naming = Symbols::default().name(&mut profile, now_ns());
    assert!(key(&profile).ends_with("symbols::tests::leak_of_a_test"), "{}: {naming:?}", key(&profile));
    assert_eq!((naming.named, naming.notes.len()), (1, 0), "{naming:?}");
}

#[test]
fn a_file_that_is_not_the_one_names_nothing_and_that_is_said() {
    let own = std::env::current_exe().unwrap().display().to_string();
    type Change = fn(&str, String) -> String;
    let cases: [(Change, u64, &str); 4] = [
        (|own, maps| maps.replace(own, "/nowhere/program"), now_ns(), "No such file or directory"),
        (|own, maps| maps.replace(own, &format!("{own} (deleted)")), now_ns(), "was replaced while the program ran"),
        (|_, maps| maps, 1, "was changed after the profile was taken"),
        (|own, maps| maps.replace(own, "/proc/self/maps"), now_ns(), "no ELF file"),
    ];
    for (change, taken_ns, why) in cases {
        let mut profile = own_profile(|maps| change(&own, maps));
        let naming = Symbols::default().name(&mut profile, taken_ns);
        assert_eq!(naming.named, 0, "{why}");
        assert!(naming.notes.iter().any(|note| note.contains(why)), "{why}: {naming:?}");
        assert!(key(&profile).contains("+0x"), "{}", key(&profile));
    }
}

#[test]
fn a_copy_that_is_named_is_taken_and_one_of_another_name_is_said() {
    let own = std::env::current_exe().unwrap();
    let moved = |maps: String| maps.replace(&own.display().to_string(), "/nowhere/program");
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("program");
    std::os::unix::fs::symlink(&own, &copy).unwrap();
    let mut profile = own_profile(moved);
    let symbols = Symbols { binaries: vec![copy], root: None };
    assert_eq!(symbols.name(&mut profile, 1).named, 1);
    assert!(key(&profile).ends_with("leak_of_a_test"));
    let mut profile = own_profile(moved);
    let naming = Symbols { binaries: vec!["/bin/sh".into()], root: None }.name(&mut profile, 1);
    assert!(naming.notes.iter().any(|note| note.contains("has the name of no file")), "{naming:?}");
    // Below another root, as a running program's files are seen in /proc/PID/root.
    let mut profile = own_profile(|maps| maps);
    let symbols = Symbols { binaries: Vec::new(), root: Some("/proc/self/root".into()) };
    assert_eq!(symbols.name(&mut profile, now_ns()).named, 1);
}

#[test]
fn a_file_is_told_by_inode_and_times() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    std::fs::write(&path, "x").unwrap();
    let facts = path.metadata().unwrap();
    let later = now_ns() + u64::try_from(Duration::from_secs(60).as_nanos()).unwrap();
    let mapped = |inode| Mapped { inode, ..Mapped::default() };
    assert_eq!(same_file(&mapped(facts.ino()), &facts, later), Ok(None));
    assert_eq!(same_file(&mapped(0), &facts, 0), Ok(None));
    assert!(same_file(&mapped(facts.ino() + 1), &facts, later).unwrap().unwrap().contains("inode"));
    assert!(same_file(&mapped(facts.ino() + 1), &facts, 0).unwrap_err().contains("another file"));
}
