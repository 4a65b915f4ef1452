//! The only unsafe code of this crate: system calls that no safe wrapper offers.
