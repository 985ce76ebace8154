//! Trap 18, at its worst: events are lost all the time, and each tree is one process that ends as soon as it has forked, and
//! three such trees take the machine's PIDs from each other. Who is found anew is of another moment than the events.

mod common;
#[path = "common/hopper.rs"]
mod hopper;
#[path = "common/trees.rs"]
mod trees;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::pid;
use hopper::last_of;
use pidigree::{Backend, ExitStatus, Process, Promise, TreeEvent};
use pidigree_testkit::{Family, require, rounds, stage};
use trees::{PATIENCE, emptied, on, spawn, works};

/// One test at a time: whoever is not counted in the kernel is found by a scan, which takes a moment in which nobody forks.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As many as there are PIDs on most machines, for all three.
const GENERATIONS: u64 = 10_000;

const ROUNDS: usize = 3;

/// Asked, a tree takes in what there is by then: more often, and nothing would be lost.
const SELDOM: Duration = Duration::from_millis(100);

/// All trees of a process share one connector: a process of its own for each test.
#[test]
fn hoppers_are_followed_through_losses() {
    let _alone = alone();
    stage("hoppers_are_followed_through_losses", &["in-ns", "mount"], || {
        hop(&[Backend::ProcConnector, Backend::Cgroup, Backend::Subreaper]);
    });
}

/// Then the kernel neither filters nor counts, and there is no cgroup.
#[test]
fn hoppers_are_followed_through_losses_without_any_privilege() {
    let _alone = alone();
    let name = "hoppers_are_followed_through_losses_without_any_privilege";
    stage(name, &["in-ns", "mount", "--uid", "65534"], || hop(&[Backend::ProcConnector, Backend::Subreaper]));
}

fn hop(backends: &[Backend]) {
    for backend in backends {
        require!(works(*backend), "{backend} cannot be had here");
    }
    let mut resynced = 0;
    for round in 0..rounds(ROUNDS) {
        let script = format!("hopper {GENERATIONS} setsid-every 7 double-every 11 say last await exit 3");
        let spawn = |backend: &Backend| spawn(&on(*backend).event_buffer(1), &*script);
        let trees: Vec<_> = backends.iter().map(spawn).collect();
        for (family, tree, _child) in &trees {
            let (backend, last) = (tree.backend(), last_of(tree, family, SELDOM));
            // Without, it may be an orphan that was forked unheard: it holds the tree's end back, and is not listed.
            if !tree.coverage().reason.contains("CAP_BPF") {
                assert!(tree.contains(pid(last)).unwrap(), "{backend}, round {round}: {last} is lost");
                let members: Vec<_> = tree.members().iter().map(|member| member.pid()).collect();
                assert_eq!(members, [pid(last)], "{backend}, round {round}");
            }
            family.poke(last);
            let emptied = emptied(tree, family);
            assert_eq!(emptied.status, ExitStatus::Code(0), "{backend}, round {round}: how the root ended");
            let most = 1 + GENERATIONS + GENERATIONS / 11;
            assert!(
                emptied.members <= most,
                "{backend}, round {round}: {} members of {most}",
                emptied.members
            );
            while let Some(event) = tree.next_event(Some(Duration::ZERO)).unwrap() {
                if matches!(event, TreeEvent::Resynced { .. }) {
                    resynced += 1;
                    assert_eq!(tree.coverage().members, Promise::BestEffort, "{}", tree.coverage());
                }
            }
        }
    }
    assert!(resynced > 0, "one byte of events does not hold a hopper");
}

/// The trees overlap: what is forked unheard is in both.
#[test]
fn a_tree_around_another_takes_nobody_from_it() {
    let _alone = alone();
    stage("a_tree_around_another_takes_nobody_from_it", &["in-ns", "mount"], around);
}

fn around() {
    require!(works(Backend::ProcConnector), "the connector cannot be had here");
    for outer_first in [true, false] {
        let builder = || on(Backend::ProcConnector).event_buffer(1);
        let script = "say root fork [ say inner await storm 300 double-fork [ say orphan pause ] storm 300 say done pause ] pause";
        let family = Family::spawn(script);
        let [root, inner] = ["root", "inner"].map(|name| Process::open(pid(family.fact(name).pid)).unwrap());
        let attach = |process: &Process| builder().attach(process);
        let first = attach(if outer_first { &root } else { &inner });
        let trees = [first.unwrap(), attach(if outer_first { &inner } else { &root }).unwrap()];
        for tree in &trees {
            // Attaching takes a scan, which takes a moment in which nobody on the machine forks.
            while !matches!(tree.next_event(Some(PATIENCE)).unwrap().unwrap(), TreeEvent::Resynced { .. }) {}
        }
        family.poke(inner.pid().get());
        family.fact("done");
        let orphan = pid(family.fact("orphan").pid);
        for tree in &trees {
            if !tree.coverage().reason.contains("CAP_BPF") {
                let contains = tree.contains(orphan).unwrap();
                assert!(contains, "outer first: {outer_first}: {orphan} is not in {:?}", tree.members());
            }
        }
        family.end();
        for tree in &trees {
            emptied(tree, &family);
        }
    }
}

/// Nothing needs to be lost for this: a look at one that ends must not take in what is told
/// of another before what is older.
#[test]
fn a_hopper_is_not_empty_because_others_end_beside_it() {
    let _alone = alone();
    stage("a_hopper_is_not_empty_because_others_end_beside_it", &["in-ns", "mount"], beside);
}

fn beside() {
    for backend in [Backend::ProcConnector, Backend::Cgroup] {
        require!(works(backend), "{backend} cannot be had here");
    }
    let (family, tree, _child) = spawn(&on(Backend::ProcConnector), "say first hopper 0 setsid-every 5");
    family.fact("first");
    for round in 0..100 * rounds(ROUNDS) {
        let beside: Vec<_> = (0..4).map(|_| spawn(&on(Backend::Cgroup), "fork [ exit 0 ] exit 0")).collect();
        for (_, other, _) in &beside {
            assert!(other.wait_empty(Some(PATIENCE)).unwrap().is_some());
        }
        assert_eq!(tree.wait_empty(Some(Duration::ZERO)).unwrap(), None, "round {round}");
    }
    family.end();
    emptied(&tree, &family);
}
