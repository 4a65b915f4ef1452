//! The loads that incident tests and benches put on a machine.
fn main() {}
