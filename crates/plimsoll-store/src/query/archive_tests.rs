//! Opening a database without leaving a trace beside it.

use super::*;
use crate::chunk::Builder;
use crate::schema::Database;
use crate::split::{Found, Resume};

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
    let walked = archive.walk(&Query::default(), (0, u64::MAX), &mut |_| false, &mut |_, _| {
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
    let (identity, _) = look_at(&path).unwrap();
    let mut archive = Archive::check(Archive::connect_immutable(&path), &path, identity).unwrap().unwrap();
    assert_eq!(lines(&mut archive), 1);
    assert_eq!(names(dir.path()), ["a?b #%41.db"]);
}

/// Runs `read` as a user who may read everything in `dir` and write nothing; root becomes nobody for it, in a thread of its own.
fn as_a_guest(dir: &Path, read: impl FnOnce() + Send) {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    for name in names(dir) {
        mode(&dir.join(name), 0o444);
    }
    mode(dir, 0o555);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if rustix::process::geteuid().is_root() {
                let nobody = rustix::process::Uid::from_raw(65_534);
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            }
            assert!(std::fs::write(dir.join("made"), b"").is_err(), "a guest may not write");
            read();
        });
    });
    mode(dir, 0o755);
}

#[test]
fn who_may_only_read_reads_a_closed_log_and_notices_the_next_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logs.db");
    drop(sealed(&path));
    let mut kept = None;
    as_a_guest(dir.path(), || {
        let mut archive = Archive::open(&path).unwrap().unwrap();
        assert_eq!(lines(&mut archive), 1);
        assert!(archive.frozen.is_some() && archive.is_still());
        kept = Some(archive);
    });
    assert_eq!(names(dir.path()), ["logs.db"]);
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let _writer = Database::open(&path, "web", 78).unwrap();
    assert!(!kept.unwrap().is_still());
}

#[test]
fn who_may_only_read_reads_beside_a_writer_and_after_its_death() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logs.db");
    let writer = sealed(&path);
    let read = || assert_eq!(lines(&mut Archive::open(&path).unwrap().unwrap()), 1);
    as_a_guest(dir.path(), read);
    // What a SIGKILL leaves: a copy of the files as they are, with no process that has them open.
    let left = tempfile::tempdir().unwrap();
    for name in names(dir.path()) {
        std::fs::copy(dir.path().join(&name), left.path().join(&name)).unwrap();
    }
    let path = left.path().join("logs.db");
    as_a_guest(left.path(), || assert_eq!(lines(&mut Archive::open(&path).unwrap().unwrap()), 1));
    assert_eq!(names(left.path()), ["logs.db", "logs.db-shm", "logs.db-wal"]);
    drop(writer);
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
