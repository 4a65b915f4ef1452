//! The machine's memory, from `/proc/meminfo` (1.5–7 µs kept open). Information: a host's RAM governs only when asked to.

use super::files::{self, KeptFile};
use super::{Root, Unread};

const MEMINFO: &str = "/proc/meminfo";

/// The machine's memory at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// RAM.
    pub total_bytes: u64,
    /// What could be used without swapping, the kernel's estimate.
    pub available_bytes: u64,
    /// RAM that nothing uses, not even as cache.
    pub free_bytes: u64,
    /// Swap space, 0 where there is none.
    pub swap_total_bytes: u64,
    /// Swap space that is free.
    pub swap_free_bytes: u64,
}

/// Reads the machine's memory again and again; one descriptor.
#[derive(Debug)]
pub struct HostGauge(KeptFile);

impl HostGauge {
    /// Opens `meminfo`.
    ///
    /// # Errors
    /// `Missing` or `Denied`.
    pub fn open(root: &Root) -> Result<HostGauge, Unread> {
        KeptFile::open(&root.proc, "meminfo", MEMINFO).map(HostGauge)
    }

    /// One reading; allocates nothing.
    ///
    /// # Errors
    /// `Malformed` when one of the five figures is not told.
    pub fn read(&self) -> Result<Host, Unread> {
        let mut buffer = [0; 4096];
        parse(self.0.read(&mut buffer)?).ok_or(Unread::Malformed(MEMINFO))
    }
}

/// One reading, with the file opened and closed.
///
/// # Errors
/// `Missing`, `Denied` or `Malformed`.
pub fn read(root: &Root) -> Result<Host, Unread> {
    HostGauge::open(root)?.read()
}

fn parse(text: &[u8]) -> Option<Host> {
    let (mut total, mut available, mut free, mut swap_total, mut swap_free) = (None, None, None, None, None);
    for (key, bytes) in files::kilobytes(text) {
        match key {
            b"MemTotal" => total = bytes,
            b"MemAvailable" => available = bytes,
            b"MemFree" => free = bytes,
            b"SwapTotal" => swap_total = bytes,
            b"SwapFree" => swap_free = bytes,
            _ => {}
        }
    }
    Some(Host {
        total_bytes: total?,
        available_bytes: available?,
        free_bytes: free?,
        swap_total_bytes: swap_total?,
        swap_free_bytes: swap_free?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_five_figures_or_none() {
        let text = "MemTotal:       100 kB\nMemFree:         10 kB\nMemAvailable:    60 kB\nSwapTotal:        0 kB\nSwapFree:         0 kB\n";
        let host = parse(text.as_bytes()).unwrap();
        assert_eq!((host.total_bytes, host.available_bytes, host.free_bytes), (102_400, 61_440, 10_240));
        assert_eq!((host.swap_total_bytes, host.swap_free_bytes), (0, 0));
        for gone in ["MemTotal", "MemAvailable", "SwapFree"] {
            assert_eq!(parse(text.replace(gone, "Gone").as_bytes()), None, "{gone}");
        }
    }
}
