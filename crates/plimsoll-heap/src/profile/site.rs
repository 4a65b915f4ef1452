//! Which frame of a stack is to blame: the first that is neither of an allocator nor of a standard library. A Rust profile of
//! jemalloc would otherwise show `prof_backtrace_impl` with all bytes.

use super::Frame;

/// How the names of frames that are skipped begin. Generic arguments and hashes are cut off before.
pub const SKIPPED: [&str; 42] = [
    // Allocators.
    "prof_",
    "_rjem_",
    "rallocx",
    "je_",
    "jemalloc",
    "tikv_jemalloc",
    "mi_",
    "mimalloc",
    "do_rallocx",
    "do_mallocx",
    "imalloc",
    "irealloc",
    "ialloc",
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
    "operator new",
    "tc_",
    "tcmalloc::",
    // Rust.
    "__rust",
    "__rdl_",
    "__rg_",
    "alloc::",
    "core::",
    "std::",
    "hashbrown::",
    "<alloc::",
    "<core::",
    "<std::",
    "<hashbrown::",
    "<T as ",
    // Go: what allocates for the program.
    "runtime.malloc",
    "runtime.new",
    "runtime.grow",
    "runtime.make",
    // C++, as it is mangled, too.
    "__gnu_cxx::",
    "_Znw",
    "_Zna",
    "_rust_",
    // What calls main.
    "__libc_start",
];

/// How the files begin whose frames are skipped where they have no symbol.
const SKIPPED_FILES: [&str; 8] =
    ["libjemalloc", "libmimalloc", "libtcmalloc", "libc.so", "libc-", "libstdc++", "libgcc_s", "ld-linux"];

/// This frame belongs to an allocator or a standard library.
#[must_use]
pub fn is_plumbing(name: &str) -> bool {
    if name == "_start" || is_std_impl(name) {
        return true;
    }
    let name = name.trim_start_matches('<').trim_start_matches('&');
    SKIPPED.iter().any(|begin| name.starts_with(begin.trim_start_matches('<')))
}

/// Rust's `<u8 as alloc::vec::spec_from_elem::SpecFromElem>::from_elem`: a trait of the standard library for one of the language's own
/// types, which only the standard library may implement. A type of a program has a path, and its code is the program's.
fn is_std_impl(name: &str) -> bool {
    let Some((own, of)) = name.strip_prefix('<').and_then(|inner| inner.split_once(" as ")) else { return false };
    let of_std = ["alloc::", "core::", "std::", "hashbrown::"].iter().any(|begin| of.starts_with(begin));
    of_std && (own.starts_with(['[', '(', '*']) || !own.contains("::"))
}

/// The frames that a key is made of: the one to blame, then its callers but for those that are skipped.
pub(super) fn told<'a, F>(frames: &'a [&'a F], is_skipped: impl Fn(&F) -> bool) -> impl Iterator<Item = &'a F> {
    let blamed = frames.iter().position(|frame| !is_skipped(frame)).unwrap_or(0);
    let rest = frames.iter().copied().enumerate().skip(blamed);
    rest.filter(move |(at, frame)| *at == blamed || !is_skipped(frame)).map(|(_, frame)| frame)
}

/// The index of the frame to blame; 0 where all are plumbing.
pub(super) fn blamed(frames: &[&Frame]) -> usize {
    frames.iter().position(|frame| !is_skipped(frame)).unwrap_or(0)
}

/// This file, by its name or path, is an allocator's or a standard library.
#[must_use]
pub fn is_plumbing_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    SKIPPED_FILES.iter().any(|begin| name.starts_with(begin))
}

/// This frame is of an allocator or a standard library, by its name or, where it has none, by its file.
pub(super) fn is_skipped(frame: &Frame) -> bool {
    match frame.offset {
        0 => is_plumbing(&frame.name),
        _ => is_plumbing_file(&frame.name),
    }
}

/// A Rust name without its hash: `app::leak::h0123456789abcdef` becomes `app::leak`.
pub(super) fn short(name: &str) -> &str {
    let is_hash =
        |end: &str| end.len() == 17 && end.starts_with('h') && end[1..].bytes().all(|b| b.is_ascii_hexdigit());
    match name.rsplit_once("::") {
        Some((before, end)) if is_hash(end) => before,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leaking_function_is_blamed_not_its_allocator() {
        let stack = [
            "prof_backtrace_impl",
            "_rjem_je_prof_backtrace",
            "imalloc",
            "_rjem_malloc",
            "__rustc::__rust_alloc",
            "alloc::raw_vec::RawVecInner<A>::try_allocate_in",
            "<alloc::vec::Vec<T> as core::clone::Clone>::clone",
            "app::leak_small::h0123456789abcdef",
            "app::main",
        ];
        let frames = stack.map(|name| Frame { name: name.into(), ..Frame::default() });
        let frames: Vec<&Frame> = frames.iter().collect();
        assert_eq!(blamed(&frames), 7);
        assert_eq!(short(&frames[7].name), "app::leak_small");
        assert_eq!(blamed(&frames[..3]), 0);
        assert_eq!(blamed(&[]), 0);
    }

    #[test]
    fn names_of_a_program_are_not_plumbing() {
        for name in
            ["main.leakSmall", "allocate_session", "app::alloc::pool", "coreScope", "std_deviation", "Runtime.run"]
        {
            assert!(!is_plumbing(name), "{name}");
        }
        for name in
            ["<app::Pool as core::iter::Iterator>::next", "_start_server", "<&app::Map as core::fmt::Debug>::fmt"]
        {
            assert!(!is_plumbing(name), "{name}");
        }
        for name in [
            "runtime.mallocgc",
            "malloc",
            "<&alloc::string::String as X>::f",
            "core::ops::function::FnOnce",
            "<u8 as alloc::vec::spec_from_elem::SpecFromElem>::from_elem",
            "<[app::Row] as alloc::slice::hack::ConvertVec>::to_vec",
            "_start",
        ] {
            assert!(is_plumbing(name), "{name}");
        }
    }
}
