//! A small tmpfs, mounted for one test and unmounted when dropped: a disk that is full soon.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How often unmounting is tried, [`PAUSE`] apart: somebody may still be closing a file.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// A mounted tmpfs.
#[derive(Debug)]
pub struct Tmpfs {
    point: tempfile::TempDir,
}

impl Tmpfs {
    /// Mounts one of `bytes`.
    ///
    /// # Errors
    /// A sentence that says why that is not possible here.
    pub fn mount(bytes: u64) -> Result<Tmpfs, String> {
        let point = tempfile::tempdir().map_err(|error| error.to_string())?;
        let size = format!("size={bytes},mode=0700");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "plimsoll-test"]).arg(point.path()).output();
        match mount {
            Ok(output) if output.status.success() => Ok(Tmpfs { point }),
            Ok(output) => Err(format!("no tmpfs can be mounted: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => Err(format!("no tmpfs can be mounted: {error}")),
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.point.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        for _ in 0..TRIES {
            let done = Command::new("umount").arg(self.point.path()).stderr(Stdio::null()).status();
            if done.is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        eprintln!("{} stays mounted", self.point.path().display());
    }
}
