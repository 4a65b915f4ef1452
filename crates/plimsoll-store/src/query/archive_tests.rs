//! Opening a database without leaving a trace beside it.

use super::*;
use crate::chunk::Builder;
use crate::schema::Database;
use crate::split::Resume;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn sealed(path: &Path) -> Database {
    let mut db = Database::open(path, "web", 77).unwrap();
    let mut builder = Builder::new(Stream::Stdout);
    builder.push(9, 5, Found::Line { text: b"a line", continued: false, unterminated: false });
    let row = builder.finish().unwrap().unwrap();
    db.insert(&[row], &[Resume { frame: 40, ..Resume::default() }; 3]).unwrap();
    db
}

fn lines(archive: &mut Archive) -> usize {
    let mut count = 0;
    let walked = archive.walk(&Query::default(), 0, u64::MAX, &mut |_, _| {
        count += 1;
        ControlFlow::Continue(())
    });
    assert!(matches!(walked.unwrap(), Walked::All(position) if position.resume[0].frame == 40));
    count
}

#[test]
fn without_a_log_the_file_alone_is_read_and_nothing_made() {
    let dir = tempfile::tempdir().unwrap();
    // A name that a URI must escape.
    let path = dir.path().join("a?b #%41.db");
    drop(sealed(&path));
    assert_eq!(names(dir.path()), ["a?b #%41.db"]);
    let identity = identity(&path).unwrap();
    let mut archive = Archive::check(Archive::connect_immutable(&path), &path, identity).unwrap().unwrap();
    assert_eq!(lines(&mut archive), 1);
    assert_eq!(names(dir.path()), ["a?b #%41.db"]);
}

#[test]
fn with_a_writer_its_log_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logs.db");
    let _writer = sealed(&path);
    let before = names(dir.path());
    assert_eq!(before, ["logs.db", "logs.db-shm", "logs.db-wal"]);
    assert!(has_log(&path));
    let mut archive = Archive::open(&path).unwrap().unwrap();
    assert_eq!(lines(&mut archive), 1);
    assert_eq!(archive.position().unwrap().max_line_bytes, 77);
    drop(archive);
    assert_eq!(names(dir.path()), before);
}

#[test]
fn a_database_that_its_maker_has_only_begun_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logs.db");
    assert!(Archive::open(&path).unwrap().is_none());
    std::fs::write(&path, b"").unwrap();
    assert!(Archive::open(&path).unwrap().is_none());
}

#[test]
fn another_file_under_the_name_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logs.db");
    drop(sealed(&path));
    let archive = Archive::open(&path).unwrap().unwrap();
    assert!(archive.is_still());
    std::fs::rename(&path, dir.path().join("aside.db")).unwrap();
    assert!(!archive.is_still());
}
