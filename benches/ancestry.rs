//! B2: descent, every link verified. B3 the same without pidfds, when built with `--cfg pidigree_force_procfs`.

#[expect(dead_code, reason = "each benchmark takes its part of it")]
mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

#[cfg(target_os = "linux")] // as the floor is
use common::floor;
use common::judge::{Contest, Judge, each};
use common::{peers, pid};
use sysinfo::System;

const TABLE: &str = if cfg!(pidigree_force_procfs) { "B3" } else { "B2" };
const LEAD: &str = "--lead-a-session-over-a-chain";

fn main() {
    if std::env::args().nth(1).as_deref() == Some(LEAD) {
        return lead();
    }
    let mut judge = Judge::from_env();
    for depth in [4, 16, 64] {
        // The root leads no session, so that the walk is what is measured.
        let chain = pidigree_testkit::chain(depth + 1);
        contest(&mut judge, format!("is_descendant, depth {depth}"), chain.leaf(), chain.root());
    }
    let mut leader = Leader::start();
    contest(
        &mut judge,
        "is_descendant, depth 64, root leads the session".into(),
        leader.leaf(),
        leader.process.id(),
    );
}

fn contest(judge: &mut Judge, case: String, leaf: u32, root: u32) {
    let mut system = System::new().unwrap();

    assert!(pidigree::is_descendant(pid(leaf), pid(root)).unwrap());
    assert!(!pidigree::is_descendant(pid(root), pid(leaf)).unwrap());
    assert!(peers::sysinfo_is_descendant(&mut system, leaf, root));

    let ours = each(|| pidigree::is_descendant(pid(leaf), pid(root)).unwrap());
    let contest = Contest::new(TABLE, case, ours);
    #[cfg(target_os = "linux")] // as they are
    let contest = {
        let floor = if cfg!(pidigree_force_procfs) {
            floor::is_descendant_by_stat
        } else {
            floor::is_descendant_by_pidfd
        };
        assert_eq!(floor(leaf, root), Some(true));
        assert_eq!(floor(root, leaf), Some(false));
        assert!(peers::procfs_is_descendant(leaf, root));
        contest
            .against("floor", each(move || floor(leaf, root)))
            .against("procfs", each(move || peers::procfs_is_descendant(leaf, root)))
    };
    judge.hold(contest.against("sysinfo", each(|| peers::sysinfo_is_descendant(&mut system, leaf, root))));
}

/// This program again, as the leader of a session, with a chain below it. Ends when its input does.
struct Leader {
    process: Child,
}

impl Leader {
    fn start() -> Leader {
        let this = std::env::current_exe().expect("the path of this program");
        let process = Command::new(this)
            .arg(LEAD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started again");
        Leader { process }
    }

    fn leaf(&mut self) -> u32 {
        let output = self.process.stdout.take().expect("it is a pipe");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).expect("it says one line");
        line.trim().parse().expect("the line is a PID")
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

fn lead() {
    nix::unistd::setsid().expect("a fresh child leads no process group");
    let chain = pidigree_testkit::chain(64);
    println!("{}", chain.leaf());
    let _ = std::io::stdin().read(&mut [0]);
}
