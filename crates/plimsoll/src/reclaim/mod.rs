//! Giving memory back: who holds how much ([`ledger`]).

pub mod ledger;
