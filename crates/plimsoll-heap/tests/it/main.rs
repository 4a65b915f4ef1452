//! The public API on files of real programs: what DevTools' own engine says of them, and the leaks that they hold.
//!
//! `testdata/v8` has snapshots of Node 20, cut to some thousands of nodes by `bench/heap/prune`, and beside each what DevTools says of
//! it (`bench/heap/devtools.mjs`). `bench/heap/truth` compares whole ones.

mod v8;
