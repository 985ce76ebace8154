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
use pidigree::{Backend, Caller, Process, Router, Tree};
use pidigree_testkit::Family;
use trees::{PATIENCE, on};

const STORY: &str = "fork [ say root await double-fork [ orphaned say daemon await ] await ] pause";

/// By the moment in which this process asks to be given orphans. One test: it asks for all of its threads.
#[test]
fn orphans_that_the_tracker_is_given_are_not_taken_for_its_own() {
    for (when, moment) in ["before", "while it is followed", "before it is adopted"].into_iter().enumerate() {
        set_child_subreaper(when == 0).unwrap();
        let family = Family::spawn(STORY);
        let root = family.fact("root").pid;
        let mut tree = on(Backend::Poll).attach(&Process::open(pid(root)).unwrap()).unwrap();
        // Until it asks, what it starts is its own for certain.
        let own = (when > 0).then(|| Family::spawn("say own pause"));
        if let Some(own) = &own {
            // Without unique ids, one that was seen in its first clock tick cannot be told from another one later.
            std::thread::sleep(Duration::from_millis(20));
            assert!(!tree.contains(pid(own.fact("own").pid)).unwrap());
        }
        let state = tree.save();
        if when != 1 {
            drop(tree);
            set_child_subreaper(true).unwrap();
            // As a supervisor does that executes its next version.
            tree = Tree::adopt(&state).unwrap();
            assert!(!tree.coverage().reason.contains("PIDIGREE_TREE_"), "no mark: {}", tree.coverage());
        }
        let router = Router::new();
        router.insert_tree(tree.clone(), ()).unwrap();
        set_child_subreaper(true).unwrap();
        family.poke(root);
        let daemon = family.fact("daemon").pid;
        // No member has ended, so nothing has been scanned since; and this asks before it scans.
        let said = router.resolve(Caller::Process(pid(daemon)));
        assert!(!matches!(said, Ok(None)), "{moment}: no route, it says");
        family.poke(root);
        family.wait_ended(root);

        let said = tree.contains(pid(daemon));
        assert!(!matches!(said, Ok(false)), "{moment}: no member, it says");
        let emptied = tree.wait_empty(Some(Duration::from_millis(200))).unwrap();
        assert_eq!(emptied, None, "{moment}: {:?}", tree.members());
        family.poke(daemon);
        waitpid(unistd::Pid::from_raw(daemon as i32), None).unwrap();
        assert!(tree.wait_empty(Some(PATIENCE)).unwrap().is_some(), "{moment}");
        drop(own);
    }
}
