//! The ring beside a plain list, with producers whose values are taken out of the middle.

use proptest::prelude::*;

use super::super::core::testing::{Cursors, Ring};

#[derive(Clone, Debug)]
enum Op {
    Push(usize),
    Pop,
    Oldest(usize),
    Newest(usize),
    SwapAndPour,
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0usize..3).prop_map(Op::Push),
        2 => Just(Op::Pop),
        5 => (0usize..3).prop_map(Op::Oldest),
        3 => (0usize..3).prop_map(Op::Newest),
        1 => Just(Op::SwapAndPour),
    ]
}

proptest! {
    #[test]
    fn it_holds_what_a_list_would_hold(ops in prop::collection::vec(any_op(), 1..600)) {
        let (mut ring, mut other, mut cursors) = (Ring::new(), Ring::new(), Cursors::default());
        let mut list: Vec<(u64, usize)> = Vec::new();
        for (id, op) in ops.into_iter().enumerate() {
            let id = id as u64;
            match op {
                Op::Push(producer) => {
                    ring.push_for_test(id, producer);
                    list.push((id, producer));
                }
                Op::Pop => {
                    let expected = (!list.is_empty()).then(|| list.remove(0));
                    prop_assert_eq!(ring.pop().map(|(id, _, producer)| (id, producer)), expected);
                }
                Op::Oldest(producer) => {
                    let at = list.iter().position(|(_, whose)| *whose == producer);
                    let expected = at.map(|at| list.remove(at).0);
                    prop_assert_eq!(cursors.take_oldest(&mut ring, producer), expected);
                }
                Op::Newest(producer) => {
                    let at = list.iter().rposition(|(_, whose)| *whose == producer);
                    let expected = at.map(|at| list.remove(at).0);
                    prop_assert_eq!(cursors.take_newest(&mut ring, producer), expected);
                }
                Op::SwapAndPour => {
                    ring.swap(&mut other);
                    let mut out = Vec::new();
                    other.pour(&mut out);
                    prop_assert_eq!(out, list.drain(..).map(|(id, _)| id).collect::<Vec<_>>());
                }
            }
            prop_assert_eq!(ring.len(), list.len());
            prop_assert!(ring.places() <= 2 * list.len() + 65, "{} places for {}", ring.places(), list.len());
        }
    }
}
