//! `page-cache`: fills the group with page cache that the kernel keeps (a file read twice is *active*), then leaks.
//!
//! The cache is no program memory: up to the leak nothing may be signalled. The file is made here when it is not there, and
//! read in blocks of 1 MiB, so the load's own memory stays small.

use crate::evidence::Evidence;
use crate::parse::Size;
use crate::ramp::{self, Ramp};
use crate::sys;
use plimsoll_incidents::clock;
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;

/// Hot page cache first, then a ramp.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PageCache {
    /// The file to read twice; made when missing
    #[arg(long)]
    file: PathBuf,
    /// How large it is
    #[arg(long)]
    size: Size,
    /// Stay this long with the cache hot before the ramp, in milliseconds
    #[arg(long, default_value_t = 1000)]
    settle_ms: u64,
    #[command(flatten)]
    ramp: Ramp,
}

/// Runs the load. Code 4: it was signalled while all it had was cache.
pub(crate) fn run(plan: &PageCache, evidence: &Evidence) -> io::Result<i32> {
    sys::catch(libc::SIGTERM)?;
    let mut block = vec![b'c'; 1 << 20];
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&plan.file)?;
    let have = file.metadata()?.len();
    if have < plan.size.0 {
        for _ in 0..plan.size.0.div_ceil(block.len() as u64) {
            file.write_all(&block)?;
        }
        file.sync_all()?;
        // Written pages may be charged to whom they please; drop them, so that it is the reads that charge us.
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    for _ in 0..2 {
        file.rewind()?;
        while file.read(&mut block)? > 0 {}
    }
    evidence.write("cached", clock::monotonic_ns(), &format!("\"total_bytes\":{}", plan.size.0));
    ramp::hold(std::time::Duration::from_millis(plan.settle_ms));
    if sys::signal_ns() != 0 {
        evidence.start("main");
        evidence.done(4, 0, "");
        return Ok(4);
    }
    ramp::run(&plan.ramp, "main", evidence)
}
