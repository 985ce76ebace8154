//! Whoever follows a tree can be an ancestor that is given its orphans.
#![cfg(target_os = "linux")] // nobody else can have themselves be given any

mod common;
#[expect(dead_code, reason = "each test takes its part of it")]
#[path = "common/trees.rs"]
mod trees;

use std::time::Duration;

use common::pid;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::waitpid;
use nix::unistd;
use pidigree::{Backend, Process, Tree};
use pidigree_testkit::Family;
use trees::{PATIENCE, on};

/// As a supervisor does that executes its next version.
#[test]
fn a_successor_takes_no_orphan_that_it_was_given_for_its_own() {
    set_child_subreaper(true).unwrap();
    let family = Family::spawn("fork [ say root await double-fork [ say daemon await ] ] pause");
    let root = family.fact("root").pid;
    let tree = on(Backend::Poll).attach(&Process::open(pid(root)).unwrap()).unwrap();
    let state = tree.save();
    drop(tree);
    family.poke(root);
    let daemon = family.fact("daemon").pid;
    family.wait_ended(root);

    let tree = Tree::adopt(&state).unwrap();
    assert!(!tree.coverage().reason.contains("PIDIGREE_TREE_"), "no mark: {}", tree.coverage());
    assert_eq!(tree.wait_empty(Some(Duration::from_millis(200))).unwrap(), None, "{:?}", tree.members());
    family.poke(daemon);
    waitpid(unistd::Pid::from_raw(daemon.cast_signed()), None).unwrap();
    assert!(tree.wait_empty(Some(PATIENCE)).unwrap().is_some());
}
