//! What is decided here, against a scripted XNU.

mod handles;
mod polling;
mod trees;

use std::sync::Arc;

use proptest::prelude::*;

use super::fake::{Fake, Op, Phase};
use super::handle::Handle;
use super::{connector, poller, step, table};
use crate::error::Result;
use crate::pid::Pid;

/// Of each property.
const CASES: u32 = 500;

fn pid(number: i32) -> Pid {
    Pid::from_raw(number).unwrap()
}

fn open(fake: &Fake, number: i32) -> Result<Arc<Handle<Fake>>> {
    Handle::open_in(fake.clone(), pid(number), "open process").map(Arc::new)
}

/// Whoever has this PID ends, is reaped, and is gone.
fn end(fake: &Fake, number: i32, status: i32) {
    let mut xnu = fake.lock();
    let unique = xnu.bearer(number).unwrap().unique;
    while let Some(op) = xnu.next_step(unique, status) {
        xnu.act(op);
    }
}

/// What happens between two calls: mostly nothing.
fn scripts(longest: usize) -> impl Strategy<Value = Vec<Vec<Op>>> {
    let between = prop_oneof![
        3 => Just(Vec::new()),
        2 => prop::collection::vec(op(), 1..3),
        1 => prop::collection::vec(op(), 3..12),
    ];
    prop::collection::vec(between, 0..longest)
}

fn op() -> impl Strategy<Value = Op> {
    let nth = 0..64_usize;
    prop_oneof![
        6 => nth.clone().prop_map(Op::Fork),
        2 => nth.clone().prop_map(Op::ForkSlowly),
        1 => nth.clone().prop_map(Op::Exec),
        6 => (nth.clone(), prop_oneof![Just(0), Just(0x0300), Just(9)]).prop_map(|(nth, status)| Op::Exit(nth, status)),
        10 => nth.clone().prop_map(Op::GoOn),
        6 => nth.clone().prop_map(Op::Reap),
        1 => (nth.clone(), nth).prop_map(|(nth, by)| Op::Trace(nth, by)),
        1 => Just(Op::Tick),
        1 => Just(Op::SetBack),
    ]
}

/// All that is in this world when a test begins, by its script.
fn begun(before: &[Op], refuses_ids: bool) -> (Fake, i32) {
    let (fake, root) = Fake::new();
    {
        let mut xnu = fake.lock();
        // A few PIDs for all, so that they are soon another's.
        xnu.most_pids = 124;
        xnu.refuses_ids = refuses_ids;
        for op in before {
            xnu.act(*op);
        }
    }
    (fake, root)
}

fn has_ended(phase: Phase) -> bool {
    phase > Phase::Alive
}
