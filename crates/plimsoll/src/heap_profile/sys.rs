//! The one call into jemalloc that writes a profile.
#![allow(unsafe_code, reason = "jemalloc is controlled through C")]

use std::ffi::CStr;

/// Writes a profile to `path`. The error is the system's number.
pub(super) fn dump(path: &CStr) -> Result<(), i32> {
    let control = c"prof.dump";
    let mut name = path.as_ptr();
    let null = std::ptr::null_mut();
    let size = size_of_val(&name);
    // SAFETY: the control's name ends with a zero byte; nothing is read back; what is written is one pointer to a text
    // that ends with a zero byte, and both live until the call returns.
    match unsafe { tikv_jemalloc_sys::mallctl(control.as_ptr(), null, null.cast(), (&raw mut name).cast(), size) } {
        0 => Ok(()),
        errno => Err(errno),
    }
}
