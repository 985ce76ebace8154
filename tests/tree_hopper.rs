//! Trap 1: a tree that forks and ends for ever has no member that any list would show for long, and is never empty.
#![cfg(target_os = "linux")] // a kqueue and the process table do not show all of it, as their coverage says

mod common;
#[macro_use]
#[path = "common/every.rs"]
mod every;
#[path = "common/hopper.rs"]
mod hopper;
#[path = "common/trees.rs"]
mod trees;

use std::time::Duration;

use common::pid;
use hopper::last_of;
use pidigree::{Backend, ExitStatus, Promise, TreeEvent};
use pidigree_testkit::{Family, eventually, is_root, rounds, stage};
use trees::{emptied, on, spawn};

on_every_backend!(a_hopper_is_followed_to_its_end, a_hopper_is_never_empty_before_its_lifeline_ends);

const GENERATIONS: u64 = 20_000;

/// A hundred thousand generations in all.
const ROUNDS: usize = 5;

fn a_hopper_is_followed_to_its_end(backend: Backend) {
    apart("a_hopper_is_followed_to_its_end", backend, || follow_to_its_end(backend));
}

/// Whoever polls waits until nobody forks: in a PID namespace of its own, that is until its own hopper is at its end, and not
/// those of the tests beside it.
fn apart(test: &str, backend: Backend, body: impl FnOnce()) {
    if backend == Backend::Poll && is_root() {
        stage(&format!("{test}::poll"), &["in-ns", "pid,mount"], body);
    } else {
        body();
    }
}

fn follow_to_its_end(backend: Backend) {
    for round in 0..rounds(ROUNDS) {
        // Seven and eleven times as old as some have a session, or a middle process, of their own.
        let script = format!("hopper {GENERATIONS} setsid-every 7 double-every 11 say last await exit 3");
        let (family, tree, mut child) = spawn(&on(backend), script);
        let last = last_of(&tree, &family, Duration::from_millis(5));
        assert!(tree.contains(pid(last)).unwrap(), "{backend}, round {round}: the last generation is lost");
        assert!(!tree.is_empty());
        let members: Vec<_> = tree.members().iter().map(|member| member.pid()).collect();
        assert_eq!(members, [pid(last)], "{backend}, round {round}");
        assert_eq!(
            child.try_wait().unwrap(),
            Some(ExitStatus::Code(0)),
            "the first generation ended long ago"
        );

        family.poke(last);
        let emptied = emptied(&tree, &family);
        assert_eq!(emptied.status, ExitStatus::Code(0), "{backend}, round {round}: how the root ended");
        assert!(tree.is_empty());
        let events: Vec<_> = std::iter::from_fn(|| tree.next_event(Some(Duration::ZERO)).unwrap()).collect();
        assert_eq!(events.last(), Some(&TreeEvent::Empty(emptied)), "{backend}: the last event of all");
        let all = 1 + GENERATIONS + GENERATIONS / 11;
        // Not on a machine that was held up for seconds: more happens then than the buffer holds.
        let lost = events.iter().any(|event| matches!(event, TreeEvent::Resynced { .. }));
        assert!(!lost || tree.coverage().members == Promise::BestEffort, "{}", tree.coverage());
        if tree.coverage().members == Promise::Exact {
            assert_eq!(emptied.members, all, "{backend}, round {round}: all were seen");
        }
        assert!(emptied.members <= all, "{backend}, round {round}: {} members of {all}", emptied.members);
        assert_eq!(tree.next_event(None).unwrap(), None, "nothing comes after it");
    }
}

/// Ended by its lifeline in whichever generation, which no test could foresee.
fn a_hopper_is_never_empty_before_its_lifeline_ends(backend: Backend) {
    apart("a_hopper_is_never_empty_before_its_lifeline_ends", backend, || end_by_its_lifeline(backend));
}

fn end_by_its_lifeline(backend: Backend) {
    for round in 0..20 {
        let (family, tree, _child) = spawn(&on(backend), "say first hopper 0 setsid-every 5");
        family.fact("first");
        for _ in 0..10 {
            let empty = tree.wait_empty(Some(Duration::from_millis(1))).unwrap();
            assert_eq!(empty, None, "{backend}, round {round}");
        }
        family.end();
        emptied(&tree, &family);
    }
}

/// The negative control: whoever scans finds nobody, now and then.
#[test]
fn a_scan_does_not_see_a_hopper_that_lives() {
    let family = Family::spawn("setsid say first hopper 0");
    let session = family.fact("first").sid.to_string();
    eventually("a scan that finds no member", || {
        let seen = std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // After the name: the state, the parent, the group, the session.
            let fields: Vec<&str> =
                stat.rsplit_once(')').map_or(vec![], |(_, rest)| rest.split_whitespace().collect());
            fields.len() > 3 && fields[3] == session && fields[0] != "Z" && fields[0] != "X"
        });
        (!seen).then_some(())
    });
    assert!(!family.has_ended(), "it has never been empty");
}
