//! Forced PIDs, idle children and chains are what they say, and leave nothing behind.

mod common;

use std::collections::HashSet;
use std::fs;
use std::process::Command;
use std::time::Instant;

use common::stat;
use pidigree_testkit::{Family, chain, eventually, fork_with_pid, idle_children, is_root, require, stage};

fn is_child(pid: u32) -> bool {
    stat(pid, 4) == Some(std::process::id().to_string())
}

#[test]
fn a_pid_is_reused_200_times() {
    require!(is_root(), "needs root");
    stage("a_pid_is_reused_200_times", &["in-ns", "pid,mount"], || {
        let start = Instant::now();
        for _ in 0..200 {
            let child = fork_with_pid(7_000).expect("the PID is free");
            assert_eq!(child.pid(), 7_000);
            assert!(is_child(7_000));
            child.kill_and_reap();
            assert!(stat(7_000, 3).is_none());
        }
        println!("200 reuses in {:?}", start.elapsed());
        let taken = fork_with_pid(7_001).expect("the PID is free");
        let error = fork_with_pid(7_001).expect_err("the PID is taken");
        assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::EEXIST as i32));
        drop(taken);
        assert!(stat(7_001, 3).is_none());
    });
}

#[test]
fn without_clone3_the_last_pid_is_written() {
    require!(is_root(), "needs root");
    let launch = ["in-ns", "pid,mount", "--", "deny", "ENOSYS", "clone3"];
    stage("without_clone3_the_last_pid_is_written", &launch, || {
        for _ in 0..10 {
            let child = fork_with_pid(9_000).expect("the PID is free");
            assert_eq!(child.pid(), 9_000);
            assert!(is_child(9_000));
        }
    });
}

#[test]
fn an_exited_child_is_a_zombie_until_reaped() {
    require!(is_root(), "needs root");
    stage("an_exited_child_is_a_zombie_until_reaped", &["in-ns", "pid,mount"], || {
        let mut child = fork_with_pid(8_000).expect("the PID is free");
        child.exit_without_reap();
        child.exit_without_reap();
        assert_eq!(stat(8_000, 3).as_deref(), Some("Z"));
        child.kill_and_reap();
        assert!(stat(8_000, 3).is_none());
    });
}

/// A user of a Mac may have few processes.
const MANY: usize = if cfg!(target_os = "linux") { 2_000 } else { 300 };

#[test]
fn idle_children_are_direct_and_end_with_their_guard() {
    let start = Instant::now();
    let mut children = idle_children(MANY);
    println!("{MANY} idle children in {:?}", start.elapsed());
    assert_eq!(children.pids().iter().collect::<HashSet<_>>().len(), MANY);
    assert!(children.pids().iter().all(|pid| is_child(*pid)));
    children.kill_one(3);
    assert_eq!(stat(children.pids()[3], 3).as_deref(), Some("Z"));
    children.reap_one(3);
    children.reap_one(4);
    assert!(!is_child(children.pids()[3]) && !is_child(children.pids()[4]));
    children.signal_one(5, 0);
    let pids = children.pids().to_vec();
    let start = Instant::now();
    drop(children);
    println!("and gone in {:?}", start.elapsed());
    assert!(!pids.into_iter().any(is_child));
}

#[test]
fn each_link_of_a_chain_is_the_parent_of_the_next() {
    let chain = chain(200);
    assert_eq!(chain.pids().len(), 200);
    assert_eq!((chain.pids()[0], chain.pids()[199]), (chain.root(), chain.leaf()));
    assert!(is_child(chain.root()));
    for pair in chain.pids().windows(2) {
        assert_eq!(stat(pair[1], 4), Some(pair[0].to_string()));
    }
    let (root, leaf) = (chain.root(), chain.leaf());
    let start = stat(leaf, 22);
    drop(chain);
    assert!(!is_child(root));
    assert_ne!(stat(leaf, 22), start);
}

#[test]
fn copies_hold_no_lifeline_open() {
    let family = Family::spawn("say root pause");
    let _ = family.fact("root");
    // Forked while the lifeline is open here
    let _children = idle_children(3);
    let _chain = chain(3);
    family.end();
    family.wait_all();
}

#[test]
fn copies_end_with_the_process_that_forked_them() {
    const ABANDON: &str = "PIDIGREE_TESTKIT_ABANDON";
    let name = "copies_end_with_the_process_that_forked_them";
    require!(is_root(), "needs root");
    stage(name, &["in-ns", "pid,mount"], || {
        if std::env::var_os(ABANDON).is_some() {
            let forgotten = (idle_children(5), chain(5));
            assert_eq!(others(), 10 + 1, "and the process that is about to watch them");
            std::mem::forget(forgotten);
            // Neither guard runs
            std::process::exit(5);
        }
        let exe = std::env::current_exe().expect("a test knows its own executable");
        let status = Command::new(exe).args(["--exact", name, "--nocapture"]).env(ABANDON, "1").status();
        assert_eq!(status.expect("it runs").code(), Some(5));
        eventually("the copies end, and init reaps them", || (others() == 0).then_some(()));
    });
}

/// How many processes there are but this one and init.
fn others() -> usize {
    let entries = fs::read_dir("/proc").expect("/proc can be read");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    names.filter(|pid| *pid != 1 && *pid != std::process::id()).count()
}
