//! The command `plimsoll`: runs any program under a memory budget, keeps its logs, shows what it does.

mod layout;
mod snapshot;

fn main() {}
