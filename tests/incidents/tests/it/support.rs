//! Skipping with a reason, and turns: loads that measure time do not run beside each other.

use plimsoll_incidents::protected::{Service, Setup};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// 300M: the budget of the reaction tests, in bytes.
pub(crate) const BUDGET: u64 = 300 << 20;
/// 400M: where the kernel kills when the reserve is 100M, in bytes.
pub(crate) const KERNEL: u64 = 400 << 20;

/// The value, or `None` after saying why this test is skipped.
pub(crate) fn or_skip<T>(result: Result<T, String>) -> Option<T> {
    result.map_err(|reason| eprintln!("skipped: {reason}")).ok()
}

/// Starts a service, or says why not and answers `None`.
///
/// # Panics
/// When the reason is a missing product: that is a failure and not a machine's limit.
pub(crate) fn start(setup: Setup) -> Option<Service> {
    plimsoll_incidents::product::plimsoll().unwrap_or_else(|reason| panic!("{reason}"));
    or_skip(setup.start())
}

/// Held by tests that measure time or need most of the machine.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A tmpfs of a few MiB, mounted for one test and unmounted when dropped.
pub(crate) struct SmallDisk {
    point: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one of `bytes`.
    ///
    /// # Errors
    /// A sentence that says why that is not possible here.
    pub(crate) fn new(bytes: u64) -> Result<SmallDisk, String> {
        let point = tempfile::tempdir().map_err(|error| error.to_string())?;
        let size = format!("size={bytes},mode=0700");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "plimsoll-test"]).arg(point.path()).output();
        match mount {
            Ok(output) if output.status.success() => Ok(SmallDisk { point }),
            Ok(output) => Err(format!("no tmpfs can be mounted: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => Err(format!("no tmpfs can be mounted: {error}")),
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        self.point.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        for _ in 0..100 {
            let done = Command::new("umount").arg(self.point.path()).stderr(Stdio::null()).status();
            if done.is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} stays mounted", self.point.path().display());
    }
}
