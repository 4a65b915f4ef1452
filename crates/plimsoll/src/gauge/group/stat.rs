//! `memory.stat` of both versions, as the terms of the protected number.
//!
//! program = max(anon + shmem, inactive_anon + active_anon + unevictable) + swap. The two sums count the same pages in
//! two ways: the first lags less, the second knows locked file pages. With neither: usage − inactive_file − active_file.
//! v1 figures are the `total_` ones (the group and all below it). Page cache is never part of it. Pages freed with
//! `MADV_FREE` and not yet taken back still count as anon: the kernel tells no better per group.

use crate::gauge::files::pairs;
use crate::gauge::{Protected, Unread};

use super::Version;

/// The fields that matter, in bytes. What the file does not say, or says malformed, is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) anon_bytes: Option<u64>,
    pub(super) shmem_bytes: Option<u64>,
    pub(super) swap_bytes: Option<u64>,
    pub(super) kernel_bytes: Option<u64>,
    cache_bytes: Option<u64>,
    inactive_anon: Option<u64>,
    active_anon: Option<u64>,
    unevictable: Option<u64>,
    inactive_file: Option<u64>,
    active_file: Option<u64>,
}

/// Reads the file's text; never fails, see [`Stat::protected`] for what is too little.
pub(super) fn parse(version: Version, text: &[u8]) -> Stat {
    match version {
        Version::V1 => parse_v1(text),
        Version::V2 => parse_v2(text),
    }
}

fn parse_v1(text: &[u8]) -> Stat {
    let mut stat = Stat::default();
    for (key, value) in pairs(text) {
        let Some(key) = key.strip_prefix(b"total_") else { continue };
        let field = match key {
            b"rss" => &mut stat.anon_bytes,
            b"shmem" => &mut stat.shmem_bytes,
            b"swap" => &mut stat.swap_bytes,
            b"cache" => &mut stat.cache_bytes,
            b"inactive_anon" => &mut stat.inactive_anon,
            b"active_anon" => &mut stat.active_anon,
            b"unevictable" => &mut stat.unevictable,
            b"inactive_file" => &mut stat.inactive_file,
            b"active_file" => &mut stat.active_file,
            _ => continue,
        };
        *field = value;
    }
    stat
}

fn parse_v2(text: &[u8]) -> Stat {
    let mut stat = Stat::default();
    let (mut kernel, mut sock, mut slab_reclaimable) = (None, 0, 0);
    // What `kernel` is made of, for kernels before 5.18, which do not sum it up.
    let (mut parts, mut parts_seen) = (0, false);
    for (key, value) in pairs(text) {
        let field = match key {
            b"anon" => &mut stat.anon_bytes,
            b"shmem" => &mut stat.shmem_bytes,
            b"file" => &mut stat.cache_bytes,
            b"inactive_anon" => &mut stat.inactive_anon,
            b"active_anon" => &mut stat.active_anon,
            b"unevictable" => &mut stat.unevictable,
            b"inactive_file" => &mut stat.inactive_file,
            b"active_file" => &mut stat.active_file,
            b"kernel" => &mut kernel,
            b"sock" => {
                sock = value.unwrap_or(0);
                continue;
            }
            b"slab_reclaimable" => {
                slab_reclaimable = value.unwrap_or(0);
                continue;
            }
            b"kernel_stack" | b"pagetables" | b"sec_pagetables" | b"percpu" | b"vmalloc" | b"slab_unreclaimable" => {
                parts += value.unwrap_or(0);
                parts_seen |= value.is_some();
                continue;
            }
            _ => continue,
        };
        *field = value;
    }
    let unreclaimable = kernel.map(|all: u64| all.saturating_sub(slab_reclaimable)).or(parts_seen.then_some(parts));
    stat.kernel_bytes = unreclaimable.map(|bytes| bytes.saturating_add(sock));
    stat
}

impl Stat {
    /// The protected number with its parts; `usage` is only looked at where anon and shmem are not told.
    pub(super) fn protected(&self, usage: Result<u64, Unread>) -> Result<Protected, Unread> {
        let told = self.anon_bytes.zip(self.shmem_bytes).map(|(anon, shmem)| anon.saturating_add(shmem));
        let listed = self
            .inactive_anon
            .zip(self.active_anon)
            .map(|(inactive, active)| inactive.saturating_add(active).saturating_add(self.unevictable.unwrap_or(0)));
        let memory = match (told, listed) {
            (Some(told), Some(listed)) => told.max(listed),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => {
                let (inactive, active) =
                    self.inactive_file.zip(self.active_file).ok_or(Unread::Malformed("memory.stat"))?;
                usage?.saturating_sub(inactive).saturating_sub(active)
            }
        };
        Ok(Protected {
            anon_bytes: self.anon_bytes,
            shmem_bytes: self.shmem_bytes,
            swap_bytes: self.swap_bytes,
            unevictable_bytes: told.zip(listed).map(|(told, listed)| listed.saturating_sub(told)),
            kernel_bytes: self.kernel_bytes,
            file_bytes: self.cache_bytes.map(|cache| cache.saturating_sub(self.shmem_bytes.unwrap_or(0))),
            program_bytes: memory.saturating_add(self.swap_bytes.unwrap_or(0)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISSING: Result<u64, Unread> = Err(Unread::Missing("usage"));

    #[test]
    fn v1_takes_the_totals_and_the_larger_of_the_two_sums() {
        let text =
            b"cache 1\nrss 1\ntotal_cache 500\ntotal_rss 100\ntotal_shmem 20\ntotal_swap 7\ntotal_inactive_anon 90\n\
            total_active_anon 25\ntotal_inactive_file 300\ntotal_active_file 180\ntotal_unevictable 15\n";
        let read = parse(Version::V1, text).protected(MISSING).unwrap();
        assert_eq!(read.program_bytes, 90 + 25 + 15 + 7);
        assert_eq!(read.unevictable_bytes, Some(10));
        assert_eq!(read.file_bytes, Some(480));
        assert_eq!(read.kernel_bytes, None, "v1 tells kernel memory in a file of its own");
        let sum = |p: Protected| p.anon_bytes.unwrap() + p.shmem_bytes.unwrap() + p.swap_bytes.unwrap();
        assert_eq!(sum(read) + read.unevictable_bytes.unwrap(), read.program_bytes, "the parts add up");
    }

    #[test]
    fn v2_kernel_memory_leaves_out_what_can_be_reclaimed() {
        let new = b"anon 10\nfile 9\nkernel 100\nkernel_stack 5\nsock 3\nshmem 2\nslab_reclaimable 60\nslab_unreclaimable 30\n";
        assert_eq!(parse(Version::V2, new).kernel_bytes, Some(43));
        let old =
            b"anon 10\nfile 9\nkernel_stack 5\npercpu 1\nsock 3\nshmem 2\nslab_reclaimable 60\nslab_unreclaimable 30\n";
        assert_eq!(parse(Version::V2, old).kernel_bytes, Some(39));
        assert_eq!(parse(Version::V2, b"anon 10\nshmem 2\n").kernel_bytes, None, "not told is not zero");
    }

    #[test]
    fn missing_fields_fall_back_and_too_few_are_an_error() {
        let lru_only = b"inactive_anon 4\nactive_anon 5\nunevictable 1\n";
        assert_eq!(parse(Version::V2, lru_only).protected(MISSING).unwrap().program_bytes, 10);
        let cache_only = b"inactive_file 30\nactive_file 20\n";
        let stat = parse(Version::V2, cache_only);
        assert_eq!(stat.protected(Ok(60)).unwrap().program_bytes, 10);
        assert_eq!(stat.protected(Ok(10)).unwrap().program_bytes, 0, "files not read at one moment do not wrap");
        assert_eq!(stat.protected(MISSING), Err(Unread::Missing("usage")));
        let broken = b"anon x\nshmem\nnonsense\n\0\0";
        assert_eq!(parse(Version::V2, broken).protected(Ok(60)), Err(Unread::Malformed("memory.stat")));
        let huge = b"anon 18446744073709551615\nshmem 18446744073709551615\n";
        assert_eq!(parse(Version::V2, huge).protected(MISSING).unwrap().program_bytes, u64::MAX);
    }
}
