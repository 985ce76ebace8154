//! Trap 18: more events than fit. What was lost is found out anew, and said; nothing ends early because of it, or late.

mod common;
#[path = "common/trees.rs"]
mod trees;

use std::time::{Duration, Instant};

use common::pid;
use pidigree::{Backend, Promise, TreeEvent};
use pidigree_testkit::{require, stage};
use trees::{PATIENCE, emptied, on, spawn, works};

const PARENTS: usize = 50;
/// By each of them; 100,000 in all.
const FORKS: usize = 2000;

/// All trees of a process share one connector, whose buffer the first of them sets: a process of its own for each.
fn storm() {
    // The connector that this opens is closed with it.
    require!(works(Backend::ProcConnector), "the connector cannot be had here");
    let plain = format!("fork [ storm {FORKS} say done await ] ");
    let half = FORKS / 2;
    let orphaning =
        format!("fork [ storm {half} double-fork [ say daemon await exit 3 ] storm {half} say done await ] ");
    let script = plain.repeat(PARENTS - 1) + &orphaning + "say root exit 5";
    let builder = on(Backend::ProcConnector).event_buffer(1);
    let (family, tree, mut child) = spawn(&builder, script);
    assert_eq!(child.wait().unwrap(), pidigree::ExitStatus::Code(5));

    let mut resynced = 0;
    let mut ended = false;
    let mut events_for = |time: Duration| {
        let until = Instant::now() + time;
        while Instant::now() < until {
            match tree.next_event(Some(Duration::from_millis(1))).unwrap() {
                Some(TreeEvent::Resynced { .. }) => resynced += 1,
                Some(TreeEvent::Empty(_)) => ended = true,
                _ => {}
            }
        }
        assert!(!ended, "empty, while {PARENTS} parents and a daemon live");
    };
    let begun = Instant::now();
    while family.heard("done").len() < PARENTS {
        events_for(Duration::from_millis(20));
        assert!(begun.elapsed() < PATIENCE, "the storm does not calm down");
    }
    events_for(Duration::from_millis(50));
    let done = family.facts("done", PARENTS);
    done.iter().for_each(|parent| family.poke(parent.pid));
    done.iter().for_each(|parent| family.wait_ended(parent.pid));
    // Its parent ended among events that were lost.
    let daemon = family.fact("daemon").pid;
    events_for(Duration::from_millis(200));
    assert!(!tree.is_empty());
    if tree.coverage().emptiness == Promise::Exact {
        let contains = tree.contains(pid(daemon)).unwrap();
        let counted = !tree.coverage().reason.contains("CAP_BPF");
        assert!(contains || !counted, "who is counted in the kernel is not lost: {}", tree.coverage());
    }

    family.poke(daemon);
    let empty = emptied(&tree, &family);
    assert_eq!(empty.status, pidigree::ExitStatus::Code(5));
    while let Some(event) = tree.next_event(Some(Duration::ZERO)).unwrap() {
        resynced += usize::from(matches!(event, TreeEvent::Resynced { .. }));
    }
    assert!(resynced > 0, "one byte of events does not hold a storm");
}

#[test]
fn a_storm_ends_when_its_last_process_does() {
    stage("a_storm_ends_when_its_last_process_does", &["in-ns", "mount"], storm);
}

/// Then the kernel neither filters nor counts.
#[test]
fn a_storm_ends_when_its_last_process_does_without_any_privilege() {
    let name = "a_storm_ends_when_its_last_process_does_without_any_privilege";
    stage(name, &["in-ns", "mount", "--uid", "65534"], storm);
}
