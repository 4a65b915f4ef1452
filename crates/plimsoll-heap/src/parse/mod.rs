//! Readers, one folder or file a format. Input is untrusted: no panic, memory bounded by what is read, damage is an error with its offset.

pub mod v8;
