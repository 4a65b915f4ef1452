//! A disk that is slow, stands still or is full, on demand: a directory mounted again through FUSE, with knobs.
//!
//! Everything passes through to the backing directory; what changes it (writes, creation, removal, sync) first passes the
//! [`Knobs`]. Reads never wait, so what is stuck is the writer alone. A stall ends after [`STALL_MAX`] by itself. Unmounted
//! when dropped; if the process dies first, the kernel answers everybody with an error instead of hanging them.
//!
//! Needs root (or the right to mount) and `/dev/fuse`; where it has neither, [`SlowDisk::mount`] says so.

mod fs;

use crate::clock;
use fuser::{BackgroundSession, Config, MountOption};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The longest that a stall holds one operation.
pub const STALL_MAX: Duration = Duration::from_secs(120);
/// How many requests are served at a time; a stuck writer occupies one.
const THREADS: usize = 12;

/// What is wrong with the disk. All may be changed at any time.
#[derive(Debug, Default)]
pub struct Knobs {
    bytes_per_second: AtomicU64,
    stalled: AtomicBool,
    full: AtomicBool,
    written_bytes: AtomicU64,
    free_from_ns: Mutex<u64>,
}

impl Knobs {
    /// Lets this many bytes a second be written; 0: as fast as they come.
    pub fn set_rate(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Holds everything that changes the disk, or lets it go on.
    pub fn set_stalled(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::Relaxed);
    }

    /// Answers every write with "no space left on device", or no longer.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Bytes written so far.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// Waits while the disk stands still.
    fn pass(&self) {
        let going = || (!self.stalled.load(Ordering::Relaxed)).then_some(());
        clock::wait_for(STALL_MAX, Duration::from_millis(5), going);
    }

    /// Waits for the turn of `bytes`, first come first served.
    ///
    /// # Errors
    /// `ENOSPC` when the disk is full.
    fn pass_bytes(&self, bytes: u64) -> Result<(), fuser::Errno> {
        self.pass();
        if self.full.load(Ordering::Relaxed) {
            return Err(fuser::Errno::ENOSPC);
        }
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        if let Some(rate) = NonZeroU64::new(rate) {
            let now = clock::monotonic_ns();
            let done_ns = {
                let mut free_from = self.free_from_ns.lock().unwrap_or_else(PoisonError::into_inner);
                *free_from = (*free_from).max(now) + bytes * 1_000_000_000 / rate;
                *free_from
            };
            std::thread::sleep(Duration::from_nanos(done_ns - now));
        }
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// The mounted disk.
#[derive(Debug)]
pub struct SlowDisk {
    knobs: Arc<Knobs>,
    point: PathBuf,
    session: Option<BackgroundSession>,
}

impl SlowDisk {
    /// Mounts `backing` again at `point`; both must exist.
    ///
    /// # Errors
    /// A sentence that says why that is not possible here.
    pub fn mount(backing: &Path, point: &Path) -> Result<SlowDisk, String> {
        let knobs = Arc::new(Knobs::default());
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("plimsoll-slow-disk".into()), MountOption::DefaultPermissions];
        config.n_threads = Some(THREADS);
        let passed = fs::Passed::new(backing.to_path_buf(), Arc::clone(&knobs));
        let session = fuser::spawn_mount(passed, point, &config)
            .map_err(|error| format!("no FUSE file system can be mounted here: {error}"))?;
        Ok(SlowDisk { knobs, point: point.to_path_buf(), session: Some(session) })
    }

    /// What is wrong with it.
    pub fn knobs(&self) -> &Knobs {
        &self.knobs
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.point
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        self.knobs.set_stalled(false);
        self.knobs.set_full(false);
        self.knobs.set_rate(0);
        // Lazily: whoever still has a file open there keeps it, and nobody waits.
        let umount = Command::new("umount").arg("-l").arg(&self.point).stderr(Stdio::null()).status();
        if !umount.is_ok_and(|status| status.success()) {
            eprintln!("{} could not be unmounted by umount", self.point.display());
        }
        drop(self.session.take());
    }
}
