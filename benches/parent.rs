//! B1: the parent of a PID. B3 the same without pidfds, when built with `--cfg pidigree_force_procfs`.

#[expect(dead_code, reason = "each benchmark takes its part of it")]
mod common;

#[cfg(target_os = "linux")] // as the floor is
use common::floor;
use common::judge::{Contest, Judge, each};
use common::{peers, pid};
use sysinfo::System;

const TABLE: &str = if cfg!(pidigree_force_procfs) { "B3" } else { "B1" };

fn main() {
    let mut judge = Judge::from_env();
    let children = pidigree_testkit::idle_children(1);
    let child = children.pids()[0];
    let mut system = System::new().unwrap();

    let me = std::process::id();
    assert_eq!(pidigree::parent_of(pid(child)).unwrap(), Some(pid(me)));
    assert_eq!(peers::sysinfo_parent(&mut system, child), me);

    let contest = Contest::new(TABLE, "parent_of", each(|| pidigree::parent_of(pid(child)).unwrap()));
    #[cfg(target_os = "linux")] // as they are
    let contest = {
        let floor_parent =
            if cfg!(pidigree_force_procfs) { floor::parent_by_stat } else { floor::parent_by_pidfd };
        assert_eq!(floor_parent(child), Some(me));
        assert_eq!(peers::procfs_parent(child), me);
        if !cfg!(pidigree_force_procfs) {
            // What the method itself makes of two equals.
            let twin = || each(move || floor_parent(child));
            judge.hold(Contest::new("method", "the floor of B1 twice", twin()).against("floor", twin()));
        }
        contest
            .against("floor", each(move || floor_parent(child)))
            .against("procfs", each(move || peers::procfs_parent(child)))
    };
    judge.hold(contest.against("sysinfo", each(|| peers::sysinfo_parent(&mut system, child))));
}
