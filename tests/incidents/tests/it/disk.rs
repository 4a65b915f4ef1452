//! The state directory on a disk that is slow, stands still or is full: the child is not held back, memory stays bounded, and
//! what was lost is counted. The disk is `plimsoll_incidents::slow_disk`; where FUSE cannot be mounted, this is skipped.

use crate::logs::{assert_accounted, peak_rss_kib};
use crate::support::{or_skip, start, turn};
use plimsoll_incidents::clock;
use plimsoll_incidents::protected::{Service, Setup};
use plimsoll_incidents::slow_disk::SlowDisk;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;
use tempfile::TempDir;

const FLAGS: [&str; 5] = ["--memory", "300M", "--restart", "never", "--quiet"];
const DEADLINE: Duration = Duration::from_secs(90);
const RSS_MAX_KIB: u64 = 32 << 10;
/// What the bare child needs for its flood in the slowest runs seen, and half again; a child that a 5 MB/s disk held back
/// would need twelve seconds.
const FLOOD_MAX: Duration = Duration::from_secs(6);

/// A mounted disk; the directories go after it.
struct Disk {
    disk: SlowDisk,
    _backing: TempDir,
    _point: TempDir,
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn disk() -> Option<Disk> {
    let (backing, point) = (directory(), directory());
    let disk = or_skip(SlowDisk::mount(backing.path(), point.path()))?;
    Some(Disk { disk, _backing: backing, _point: point })
}

#[test]
fn the_slow_disk_is_a_disk() {
    let Some(disk) = disk() else { return };
    let at = |name: &str| disk.disk.path().join(name);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/one"), b"first").unwrap();
    fs::set_permissions(at("d/one"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(at("d/one"), at("d/two")).unwrap();
    assert_eq!(plimsoll_incidents::files::text(&at("d/two")).unwrap(), "first");
    assert_eq!(fs::metadata(at("d/two")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!at("d/one").exists());
    rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(fs::metadata(at("fifo")).unwrap().file_type().is_fifo());
    let listener = UnixListener::bind(at("socket")).unwrap();
    UnixStream::connect(at("socket")).unwrap();
    listener.accept().unwrap();
    let names: Vec<_> = fs::read_dir(disk.disk.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["d", "fifo", "socket"]);

    disk.disk.knobs().set_full(true);
    assert_eq!(fs::write(at("full"), b"x").unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    disk.disk.knobs().set_full(false);
    disk.disk.knobs().set_rate(1 << 20);
    let before = clock::monotonic_ns();
    fs::write(at("slow"), vec![0; 512 << 10]).unwrap();
    assert!(clock::monotonic_ns() - before > 450_000_000, "512 KiB at 1 MiB/s");
    disk.disk.knobs().set_rate(0);
    disk.disk.knobs().set_stalled(true);
    let path = at("stalled");
    let writer = std::thread::spawn(move || fs::write(path, b"x"));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!writer.is_finished());
    assert_eq!(plimsoll_incidents::files::text(&at("d/two")).unwrap(), "first", "reads do not wait");
    disk.disk.knobs().set_stalled(false);
    writer.join().unwrap().unwrap();
}

/// Waits for the flood's end and answers how long the load took.
fn flood_took(service: &Service) -> Duration {
    let done = clock::wait_for(DEADLINE, Duration::from_millis(10), || service.evidence().first("done").cloned());
    let done = done.unwrap_or_else(|| panic!("the flood does not end: {}", service.stderr()));
    eprintln!("flood {} ms, longest write {} ms", done.load_ns / 1_000_000, done.longest_write_ns / 1_000_000);
    Duration::from_nanos(done.load_ns)
}

#[test]
fn a_disk_of_5_mb_a_second_neither_holds_the_child_back_nor_grows_the_supervisor() {
    let _turn = turn();
    let Some(disk) = disk() else { return };
    let load = ["lines", "--count", "300000", "--time-writes", "--hold-ms", "500"];
    let setup = Setup::new("slow", &FLAGS).dir(disk.disk.path()).load(&load);
    let Some(mut service) = start(setup) else { return };
    service.child();
    disk.disk.knobs().set_rate(5_000_000);
    let took = flood_took(&service);
    let peak = peak_rss_kib(service.pid());
    disk.disk.knobs().set_rate(0);
    assert!(took < FLOOD_MAX, "held back: {took:?}");
    assert!(peak <= RSS_MAX_KIB, "peak RSS {peak} KiB");
    service.wait(DEADLINE).unwrap_or_else(|| panic!("still runs: {}", service.stderr()));
    let summary = assert_accounted(&service, 300_000, "5 MB/s");
    assert!(summary.whole_lines > 0);
}

#[test]
fn a_disk_that_stands_still_costs_counted_lines_and_heals() {
    let _turn = turn();
    let Some(disk) = disk() else { return };
    let load = ["lines", "--count", "400000", "--rate", "50000", "--time-writes", "--hold-ms", "1000"];
    let setup = Setup::new("stall", &FLAGS).dir(disk.disk.path()).load(&load);
    let Some(mut service) = start(setup) else { return };
    service.child();
    std::thread::sleep(Duration::from_millis(500));
    disk.disk.knobs().set_stalled(true);
    std::thread::sleep(Duration::from_secs(5));
    let status = service.status().expect("the supervisor answers while its disk stands still");
    assert_eq!(status["state"], "running", "{status:#}");
    let peak = peak_rss_kib(service.pid());
    disk.disk.knobs().set_stalled(false);
    let took = flood_took(&service);
    assert!(took < Duration::from_secs(8) + FLOOD_MAX, "held back: {took:?}");
    assert!(peak <= RSS_MAX_KIB, "peak RSS {peak} KiB");
    service.wait(DEADLINE).unwrap_or_else(|| panic!("still runs: {}", service.stderr()));
    let summary = assert_accounted(&service, 400_000, "5 s stall");
    assert!(summary.gaps > 0 && summary.whole_lines > 100_000, "{summary:#?}");
}
