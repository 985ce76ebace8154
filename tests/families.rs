//! Traps 12 and 17: children from the kernel's own lists, and tables that are read while everything changes.

mod common;

use std::collections::BTreeSet;

use common::pid;
use pidigree::{Pid, Process, Snapshot};
use pidigree_testkit::{Family, idle_children};

fn pids(processes: &[Process]) -> BTreeSet<Pid> {
    processes.iter().map(Process::pid).collect()
}

#[test]
fn children_of_every_thread_are_children() {
    let family = Family::spawn(
        "thread [ fork [ say one pause ] say first pause ] thread [ fork [ say two pause ] say second pause ] fork [ say three pause ] say main pause",
    );
    let expected: BTreeSet<_> =
        ["one", "two", "three"].iter().map(|name| pid(family.fact(name).pid)).collect();
    let (main, first) = (family.fact("main"), family.fact("first"));
    let of_main_thread = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", main.pid));
    pidigree_testkit::require!(of_main_thread, "the kernel was built without CONFIG_PROC_CHILDREN");
    assert_eq!(of_main_thread.unwrap().split_whitespace().count(), 1, "the trap: the list is of one thread");
    assert_ne!(first.tid, main.tid);
    assert_eq!(pids(&Process::open(pid(main.pid)).unwrap().children().unwrap()), expected);
}

#[test]
fn a_threads_children_stay_when_it_ends() {
    let family =
        Family::spawn("thread [ fork [ say kid pause ] say worker await thread-exit ] say main pause");
    let (kid, worker, main) = (family.fact("kid"), family.fact("worker"), family.fact("main"));
    let process = Process::open(pid(main.pid)).unwrap();
    assert_eq!(pids(&process.children().unwrap()), BTreeSet::from([pid(kid.pid)]));
    family.poke(worker.pid);
    pidigree_testkit::eventually("the thread has ended", || Process::from_thread(pid(worker.tid)).err());
    assert_eq!(pids(&process.children().unwrap()), BTreeSet::from([pid(kid.pid)]));
}

#[test]
fn a_child_that_stays_is_listed_while_others_come_and_go() {
    let family = Family::spawn(
        "fork [ say steady pause ] fork [ fork [ say deep pause ] say middle pause ] say root storm 0",
    );
    let (steady, middle, deep, root) =
        (family.fact("steady"), family.fact("middle"), family.fact("deep"), family.fact("root"));
    let process = Process::open(pid(root.pid)).unwrap();
    for _ in 0..300 {
        let children = pids(&process.children().unwrap());
        assert!(children.is_superset(&BTreeSet::from([pid(steady.pid), pid(middle.pid)])), "{children:?}");
        let family = pids(&process.descendants().unwrap());
        assert!(
            family.is_superset(&BTreeSet::from([pid(steady.pid), pid(middle.pid), pid(deep.pid)])),
            "{family:?}"
        );
    }
}

#[test]
fn a_table_read_during_a_storm_misses_nobody_who_stays() {
    let steady = idle_children(50);
    let storms: Vec<_> = (0..2).map(|_| Family::spawn("say root storm 0")).collect();
    storms.iter().for_each(|storm| drop(storm.fact("root")));
    let me = Process::current().unwrap().pid();
    let mut unproven = 0;
    for _ in 0..200 {
        let table = Snapshot::capture().expect("a process that ends under the scan does not fail it");
        for &number in steady.pids() {
            assert_eq!(table.get(pid(number)).expect("it lived throughout").parent, Some(me));
        }
        assert!(table.is_descendant(pid(steady.pids()[0]), pid(1)));
        unproven += usize::from(!table.is_proven());
    }
    assert!(unproven > 0, "processes were created all the time, and the table noticed");
}

#[test]
fn a_table_of_a_still_machine_is_proven_and_equals_the_processes_own_answers() {
    let family =
        Family::spawn("fork [ fork [ say leaf pause ] pause ] fork [ say other pause ] say root pause");
    let root = pid(family.fact("root").pid);
    family.fact("leaf");
    family.fact("other");
    // Other tests fork in other processes: take a table that was left in peace.
    let table = pidigree_testkit::eventually("nothing was created during a scan", || {
        Some(Snapshot::capture().unwrap()).filter(Snapshot::is_proven)
    });
    let below: BTreeSet<_> = table.descendants(root).iter().map(|entry| entry.pid).collect();
    assert_eq!(below, pids(&Process::open(root).unwrap().descendants().unwrap()));
    assert_eq!(below.len(), 3);
    assert!(below.iter().all(|&member| table.is_descendant(member, root)));
}
