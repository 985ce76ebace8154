//! B5: what the descendants of a root cost when the machine is full of others.

#[expect(dead_code, reason = "each benchmark takes its part of it")]
mod common;

use common::judge::{Judge, each};
use common::pid;
use pidigree::{Process, Snapshot};

fn main() {
    let mut judge = Judge::from_env();
    let chain = pidigree_testkit::chain(11);
    let root = Process::open(pid(chain.root())).unwrap();
    assert_eq!(root.descendants().unwrap().len(), 10);

    let already = Snapshot::capture().unwrap().len();
    judge.compare_states(
        ("B5", "descendants, 10 among 10,000 processes"),
        ["among 200", "among 10,000"],
        |many| pidigree_testkit::idle_children(if many { 10_000 } else { 200 } - already.min(200)),
        each(|| root.descendants().unwrap()),
    );
}
