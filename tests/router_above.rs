//! Whose router is given the orphans of its routes can see that they are in a session of a tree that did not know who has
//! started them.
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
use pidigree::{Backend, Caller, Pid, Process, Router};
use pidigree_testkit::{Family, eventually};
use trees::on;

#[test]
fn a_route_that_the_outer_tree_knew_nothing_of_is_nearer_all_the_same() {
    set_child_subreaper(true).unwrap();
    assert!((0..8).any(|_| is_in_both()), "the child was never in both trees");
}

/// The daemon was orphaned before anybody followed the outer tree, which can know its child, and does not know it. Returns
/// whether it knew the child: not if it has looked while that had its parent still.
fn is_in_both() -> bool {
    let daemon = "fork [ fork [ orphaned say daemon await fork [ say child await ] await exit 0 ] exit 0 ]";
    let family = Family::spawn(format!("fork [ setsid say leader await {daemon} pause ] say root pause"));
    let router = Router::new();
    // Where trees are polled, they may have to be asked again.
    let of = |who: Pid| {
        let answer = eventually("an answer", || match router.resolve(Caller::Process(who)) {
            Err(error) if error.is_unstable() => None,
            answer => Some(answer.unwrap()),
        });
        answer.map(|value| *value)
    };
    let (root, leader) = (pid(family.fact("root").pid), pid(family.fact("leader").pid));
    // In a later clock tick: otherwise nothing would tell who is nearer.
    std::thread::sleep(Duration::from_millis(30));
    family.poke(leader.get());
    let daemon = family.fact("daemon").pid;
    assert_eq!(family.fact("leader").sid, leader.get());
    assert_eq!(family.fact("daemon").sid, leader.get());

    let insert = |who: &str, value| {
        let tree = on(Backend::Poll).attach(&Process::open(pid(family.fact(who).pid)).unwrap()).unwrap();
        eventually("its route", || router.insert_tree(tree.clone(), value).ok());
    };

    insert("root", "outer");
    assert_eq!((of(root), of(leader), of(pid(daemon))), (Some("outer"), Some("outer"), None));
    insert("daemon", "inner");
    family.poke(daemon);
    let child = family.fact("child").pid;
    let routes: Vec<_> = router.iter().collect();
    let is_in = |place: usize| eventually("an answer", || routes[place].tree().contains(pid(child)).ok());
    // Only the inner one is asked, and sees its parent.
    assert!(is_in(1));
    family.poke(daemon);
    family.wait_ended(daemon);
    waitpid(unistd::Pid::from_raw(daemon as i32), None).unwrap();

    // By its session.
    let is_in_both = is_in(0);
    assert_eq!(of(pid(child)), Some("inner"));
    family.poke(child);
    waitpid(unistd::Pid::from_raw(child as i32), None).unwrap();
    is_in_both
}
