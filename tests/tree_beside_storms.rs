//! Trees that begin while others fork all the time, so that no scan of the process table can be proven: who is a member is
//! known at once all the same, where the kernel tells of forks; and nothing is empty too early.
#![cfg(target_os = "linux")] // on macOS nothing is scanned for

mod common;
#[path = "common/trees.rs"]
mod trees;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::pid;
use pidigree::{Backend, Identity, Pid, Process, Promise, Sameness, Tree, TreeEvent};
use pidigree_testkit::{Family, eventually, require, stage};
use trees::{emptied, on, spawn, works};

/// One storm at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where nobody else forks, nor is started: whoever polls waits for all of them.
fn apart(test: &str, body: impl FnOnce()) {
    let _alone = alone();
    stage(test, &["in-ns", "pid,mount"], body);
}

const CROWD: usize = 600;

/// Forks until it is ended, more often than the table can be read.
struct Storms(Vec<Family>);

impl Storms {
    fn begin() -> Storms {
        // So many make reading the table take long.
        let crowd = Family::spawn(format!("bomb {CROWD} say one pause"));
        crowd.facts("one", CROWD + 1);
        let storms = (0..4).map(|_| Family::spawn("say storm storm 0"));
        let storms: Vec<Family> = storms.chain([crowd]).collect();
        for storm in &storms[..4] {
            storm.fact("storm");
        }
        Storms(storms)
    }

    fn end(self) {
        self.0.iter().for_each(Family::end);
        self.0.iter().for_each(Family::wait_all);
    }
}

fn attach(backend: Backend, family: &Family, root: &str) -> Tree {
    let process = Process::open(pid(family.fact(root).pid)).unwrap();
    on(backend).attach(&process).unwrap()
}

fn members(tree: &Tree) -> BTreeSet<Pid> {
    tree.members().iter().map(Identity::pid).collect()
}

fn pids<const N: usize>(family: &Family, names: [&str; N]) -> BTreeSet<Pid> {
    names.iter().map(|name| pid(family.fact(name).pid)).collect()
}

/// Whether it is empty while the last one lives, now that scans are proven.
fn is_not_empty(tree: &Tree, because: &str) {
    for _ in 0..20 {
        assert_eq!(tree.wait_empty(Some(Duration::from_millis(10))).unwrap(), None, "{because}");
        // Each look is a scan, of one that is polled.
        tree.members();
    }
}

const SCRIPT: &str =
    "fork [ say kid await double-fork [ say orphan await ] say forked await ] say root await";

/// The one that is left when all others have ended.
fn orphan(family: &Family) -> Pid {
    let (kid, root) = (family.fact("kid").pid, family.fact("root").pid);
    family.poke(kid);
    let orphan = family.fact("orphan").pid;
    family.fact("forked");
    for member in [kid, root] {
        family.poke(member);
        family.wait_ended(member);
    }
    pid(orphan)
}

#[test]
fn what_an_attached_tree_forks_is_known_at_once() {
    require!(works(Backend::ProcConnector), "the connector cannot be had here");
    let _alone = alone();
    let storms = Storms::begin();
    let mut trees = Vec::new();
    for _ in 0..5 {
        let family = Family::spawn(SCRIPT);
        let before = pids(&family, ["root", "kid"]);
        let tree = attach(Backend::ProcConnector, &family, "root");
        assert_eq!(members(&tree), before);
        let orphan = orphan(&family);
        assert!(tree.contains(orphan).unwrap(), "{:?}", tree.members());
        assert_eq!(members(&tree), BTreeSet::from([orphan]));
        assert_eq!(tree.wait_empty(Some(Duration::ZERO)).unwrap(), None);
        family.poke(orphan.get());
        family.wait_all();
        // It is told some time after it has closed its files.
        eventually("its end is told", || members(&tree).is_empty().then_some(()));
        trees.push((family, tree));
    }
    storms.end();
    // That nobody was overlooked takes a moment without forks.
    for (family, tree) in &trees {
        emptied(tree, family);
    }
}

/// Nobody tells of its forks. Whoever it has started since cannot be told from a stranger, and may be a member.
#[test]
fn a_polled_tree_is_not_empty_before_its_orphans_have_ended() {
    apart("a_polled_tree_is_not_empty_before_its_orphans_have_ended", polled);
}

fn polled() {
    for _ in 0..5 {
        let storms = Storms::begin();
        let family = Family::spawn(SCRIPT);
        let before = pids(&family, ["root", "kid"]);
        let tree = attach(Backend::Poll, &family, "root");
        assert_eq!(members(&tree), before);
        let orphan = orphan(&family);
        storms.end();
        is_not_empty(&tree, "the orphan lives");
        family.poke(orphan.get());
        emptied(&tree, &family);
    }
}

#[test]
fn whoever_was_there_before_is_a_stranger() {
    require!(works(Backend::ProcConnector), "the connector cannot be had here");
    let _alone = alone();
    there_before(Backend::ProcConnector);
}

#[test]
fn whoever_was_there_before_is_a_stranger_to_a_polled_tree() {
    apart("whoever_was_there_before_is_a_stranger_to_a_polled_tree", || there_before(Backend::Poll));
}

/// Those that were there when it was attached, as young as they may be, hold nothing.
fn there_before(backend: Backend) {
    let storms = Storms::begin();
    let family = Family::spawn(SCRIPT);
    family.fact("kid");
    let other = Family::spawn("double-fork [ say other await ] exit 0");
    let stranger = || Identity::of(pid(other.fact("other").pid)).unwrap();
    // Without ids that are unique, one that has just started is not to be told from another one.
    eventually("it can be told from others", || {
        (stranger().same_process(&stranger()) == Sameness::Same).then_some(())
    });
    let tree = attach(backend, &family, "root");
    let orphan = orphan(&family);
    family.poke(orphan.get());
    family.wait_all();
    storms.end();
    emptied(&tree, &family);
    assert!(!other.has_ended(), "{backend}");
}

#[test]
fn a_successor_goes_on_beside_storms() {
    require!(works(Backend::ProcConnector), "the connector cannot be had here");
    let _alone = alone();
    hand_on(Backend::ProcConnector);
}

#[test]
fn a_successor_of_one_that_polls_goes_on_beside_storms() {
    apart("a_successor_of_one_that_polls_goes_on_beside_storms", || hand_on(Backend::Poll));
}

/// A tracker hands a tree on before a scan has proven who is in it.
fn hand_on(backend: Backend) {
    // The orphan is there before it is saved, or after.
    for early in [true, false] {
        let storms = Storms::begin();
        let family = Family::spawn(SCRIPT);
        family.fact("kid");
        let first = attach(backend, &family, "root");
        let before = early.then(|| orphan(&family));
        let state = first.save();
        drop(first);
        let tree = Tree::adopt(&state).unwrap();
        let orphan = before.unwrap_or_else(|| orphan(&family));
        if backend == Backend::ProcConnector {
            assert_eq!(members(&tree), BTreeSet::from([orphan]), "early: {early}");
            assert!(tree.contains(orphan).unwrap());
        }
        storms.end();
        is_not_empty(&tree, "the orphan lives");
        family.poke(orphan.get());
        emptied(&tree, &family);
    }
}

/// In a process of its own, without the right to have the kernel count: then a loss takes a scan.
#[test]
fn a_tree_that_is_saved_while_events_are_missing_is_not_empty_too_early() {
    let _alone = alone();
    let name = "a_tree_that_is_saved_while_events_are_missing_is_not_empty_too_early";
    stage(name, &["in-ns", "mount", "--uid", "65534"], save_while_lost);
}

fn save_while_lost() {
    require!(works(Backend::ProcConnector), "the connector cannot be had here");
    let builder = on(Backend::ProcConnector).event_buffer(1);
    let script = "fork [ say kid await storm 2000 double-fork [ say orphan await ] storm 2000 say forked await ] say root await";
    let (family, first, _child) = spawn(&builder, script);
    family.fact("kid");
    let storms = Storms::begin();
    let orphan = orphan(&family);
    let is_resynced = |event: TreeEvent| matches!(event, TreeEvent::Resynced { .. });
    let state = eventually("events are lost, and that was not made up for", || {
        first.members();
        let is_lost = first.coverage().members == Promise::BestEffort;
        let resynced =
            std::iter::from_fn(|| first.next_event(Some(Duration::ZERO)).unwrap()).any(is_resynced);
        (is_lost && !resynced).then(|| first.save())
    });
    drop(first);
    let tree = Tree::adopt(&state).unwrap();
    storms.end();
    is_not_empty(&tree, "the orphan lives");
    family.poke(orphan.get());
    emptied(&tree, &family);
}

/// Where only the tick that they started in tells processes apart, whoever is above the root is known for certain when that
/// tick is over; and its own parent, init, could have been given it as an orphan of the tree.
#[cfg(feature = "serde")]
#[test]
fn an_ancestor_as_young_as_the_tree_is_no_suspect_to_a_successor() {
    let _alone = alone();
    let name = "an_ancestor_as_young_as_the_tree_is_no_suspect_to_a_successor";
    stage(name, &["in-ns", "pid,mount", "--", "deny", "EPERM", "pidfd_open"], || {
        let storms = [(); 2].map(|()| Family::spawn("say storm storm 0"));
        storms.iter().for_each(|storm| drop(storm.fact("storm")));
        let script = "double-fork [ say launcher fork [ say root await ] await ] pause";
        let mut rounds = 0;
        for _ in 0..2_000 {
            let family = Family::spawn(script);
            let launcher = pid(family.fact("launcher").pid);
            let tree = attach(Backend::Poll, &family, "root");
            let of_launcher = procfs::process::Process::new(launcher.get() as i32).unwrap().stat().unwrap();
            // In hundredths of a second, as ticks are.
            let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
            let now: u64 = uptime.split(' ').next().unwrap().replace('.', "").parse().unwrap();
            if now != of_launcher.starttime {
                continue;
            }
            let state = serde_json::to_value(tree.save()).unwrap();
            let strangers: Vec<Identity> =
                serde_json::from_value(state["lineage"]["strangers"].clone()).unwrap();
            // Or a scan has been proven meanwhile, and it is older than what is missing.
            if let Some(known) = strangers.iter().find(|one| one.pid() == launcher) {
                assert_eq!(known.same_process(known), Sameness::Same, "{known:?}");
                rounds += 1;
            }
            if rounds == 2 {
                return;
            }
        }
        panic!("it takes more than a tick to attach to a tree");
    });
}
