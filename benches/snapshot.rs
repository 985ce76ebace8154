//! B4: the process table in one pass.

#[expect(dead_code, reason = "each benchmark takes its part of it")]
mod common;

use common::judge::{Contest, Judge, each};
use common::peers;
use pidigree::Snapshot;
use sysinfo::System;

fn main() {
    let mut judge = Judge::from_env();
    for count in [200, 2_000, 10_000] {
        let already = Snapshot::capture().unwrap().len();
        let children = pidigree_testkit::idle_children(count - already.min(count));
        let mut system = System::new().unwrap();

        // Others may come and go on this machine; ours are there.
        for seen in [
            Snapshot::capture().unwrap().len(),
            #[cfg(target_os = "linux")] // as the floor is
            common::floor::table().len(),
            #[cfg(target_os = "linux")] // as procfs is
            peers::procfs_table().len(),
            peers::sysinfo_table(&mut system).len(),
        ] {
            assert!(seen >= children.pids().len(), "only {seen} processes");
        }
        drop(system);

        let mut system = System::new().unwrap();
        let contest = Contest::new(
            "B4",
            format!("Snapshot::capture, {count} processes"),
            each(|| Snapshot::capture().unwrap()),
        );
        #[cfg(target_os = "linux")] // as they are
        let contest =
            contest.against("floor", each(common::floor::table)).against("procfs", each(peers::procfs_table));
        judge.hold(
            contest
                .against("sysinfo", each(|| peers::sysinfo_table(&mut system)))
                .patience(if count > 1_000 { 2 } else { 1 }),
        );
    }
}
