//! Who descends from whom: traps 13, 15, the session as evidence, and what a walk cannot see.

mod common;

use common::pid;
use pidigree::{Process, ancestors_of, is_descendant, parent_of};
use pidigree_testkit::{Family, chain, stage};

#[test]
fn a_chain_is_walked_link_by_link() {
    let chain = chain(40);
    // From the leaf up, as the kernel made it.
    let expected: Vec<_> = chain.pids().iter().rev().map(|&number| pid(number)).collect();
    let (leaf, root) = (pid(chain.leaf()), pid(chain.root()));
    let found = ancestors_of(leaf).unwrap();
    assert_eq!(found[..expected.len() - 1], expected[1..]);
    assert!(found.contains(&Process::current().unwrap().pid()));

    let pinned: Vec<_> = Process::open(leaf).unwrap().ancestors().map(|step| step.unwrap().pid()).collect();
    assert_eq!(pinned, found);
    for &above in &expected[1..] {
        assert!(is_descendant(leaf, above).unwrap());
        assert!(!is_descendant(above, leaf).unwrap());
    }
    assert_eq!(parent_of(leaf).unwrap(), Some(expected[1]));

    let family: Vec<_> =
        Process::open(root).unwrap().descendants().unwrap().iter().map(Process::pid).collect();
    assert_eq!(family, expected.iter().rev().skip(1).copied().collect::<Vec<_>>(), "parents before children");
}

#[test]
fn a_process_does_not_descend_from_itself() {
    let me = Process::current().unwrap();
    assert!(!is_descendant(me.pid(), me.pid()).unwrap());
    assert!(!me.is_descendant_of(&me).unwrap());
}

#[test]
fn every_question_about_nobody_says_gone_and_whom() {
    let mut children = pidigree_testkit::idle_children(1);
    let dead = pid(children.pids()[0]);
    children.reap_one(0);
    let me = Process::current().unwrap().pid();
    for error in [
        Process::open(dead).map(drop).unwrap_err(),
        parent_of(dead).map(drop).unwrap_err(),
        ancestors_of(dead).map(drop).unwrap_err(),
        is_descendant(dead, me).map(drop).unwrap_err(),
        is_descendant(me, dead).map(drop).unwrap_err(),
        is_descendant(dead, dead).map(drop).unwrap_err(),
        Process::from_thread(dead).map(drop).unwrap_err(),
        pidigree::Identity::of(dead).map(drop).unwrap_err(),
    ] {
        assert!(error.is_gone(), "{error}");
        assert_eq!(error.pid(), Some(dead), "{error}");
        assert!(
            error.to_string().contains(&dead.to_string()) && !error.to_string().contains('\n'),
            "{error}"
        );
    }
}

#[test]
fn the_top_is_the_top_and_no_error() {
    assert_eq!(parent_of(pid(1)).unwrap(), None);
    assert_eq!(ancestors_of(pid(1)).unwrap(), []);
    assert!(Process::open(pid(1)).unwrap().parent().unwrap().is_none());
    let me = Process::current().unwrap();
    assert_eq!(me.ancestors().last().unwrap().unwrap().pid(), pid(1));
}

#[test]
fn a_kernel_thread_is_a_process_like_any_other() {
    let kthreadd = pid(2);
    let name = std::fs::read_to_string("/proc/2/comm").unwrap_or_default();
    pidigree_testkit::require!(name == "kthreadd\n", "no kernel threads are visible here");
    assert_eq!(parent_of(kthreadd).unwrap(), None);
    let process = Process::open(kthreadd).unwrap();
    assert!(process.is_kernel_thread().unwrap());
    assert!(!Process::current().unwrap().is_kernel_thread().unwrap());
    assert_eq!(process.state().unwrap(), pidigree::State::Running);
    let workers = process.children().unwrap();
    assert!(!workers.is_empty());
    assert!(is_descendant(workers[0].pid(), kthreadd).unwrap());
    assert!(!is_descendant(workers[0].pid(), pid(1)).unwrap());
}

#[test]
fn the_first_process_of_a_namespace_has_no_parent_in_it() {
    stage("the_first_process_of_a_namespace_has_no_parent_in_it", &["in-ns", "pid,mount"], || {
        assert_eq!(parent_of(pid(1)).unwrap(), None);
        assert_eq!(ancestors_of(Process::current().unwrap().pid()).unwrap().last(), Some(&pid(1)));
    });
}

#[cfg(target_os = "linux")] // macOS has no subreapers
#[test]
fn an_orphan_goes_to_the_subreaper_and_not_to_1() {
    let family = Family::spawn(
        "subreaper fork [ fork [ say orphan await orphaned say adopted pause ] say middle await exit 0 ] say root await reap say reaped pause",
    );
    let (orphan, middle, root) = (family.fact("orphan"), family.fact("middle"), family.fact("root"));
    let before = Process::open(pid(orphan.pid)).unwrap();
    assert_eq!(before.parent().unwrap().unwrap().pid(), pid(middle.pid));
    family.poke(middle.pid);
    family.poke(root.pid);
    family.fact("reaped");
    family.poke(orphan.pid);
    assert_eq!(family.fact("adopted").ppid, root.pid);
    assert_eq!(before.parent().unwrap().unwrap().pid(), pid(root.pid));
    assert!(is_descendant(pid(orphan.pid), pid(root.pid)).unwrap());
}

#[cfg(target_os = "linux")] // only Linux can seize a process without stopping it
#[test]
fn a_tracer_is_not_a_parent() {
    let family = Family::spawn("fork [ say kid pause ] say root pause");
    let (kid, root) = (family.fact("kid"), family.fact("root"));
    let tracee = nix::unistd::Pid::from_raw(kid.pid as i32);
    nix::sys::ptrace::seize(tracee, nix::sys::ptrace::Options::empty()).unwrap();
    assert_eq!(parent_of(pid(kid.pid)).unwrap(), Some(pid(root.pid)));
    assert!(is_descendant(pid(kid.pid), pid(root.pid)).unwrap());
    nix::sys::ptrace::interrupt(tracee).unwrap();
    nix::sys::wait::waitpid(tracee, None).unwrap();
    assert_eq!(parent_of(pid(kid.pid)).unwrap(), Some(pid(root.pid)));
    nix::sys::ptrace::detach(tracee, None).unwrap();
}

#[test]
fn an_orphan_descends_by_session_from_its_leader() {
    let script = "setsid fork [ fork [ say orphan await orphaned say adopted pause ] exit 0 ] say leader await reap say reaped pause";
    let family = Family::spawn(script);
    let (orphan, leader) = (family.fact("orphan"), family.fact("leader"));
    family.poke(leader.pid);
    family.fact("reaped");
    family.poke(orphan.pid);
    assert_ne!(family.fact("adopted").ppid, leader.pid);
    // No chain of parents leads there any more.
    assert!(!ancestors_of(pid(orphan.pid)).unwrap().contains(&pid(leader.pid)));
    assert!(is_descendant(pid(orphan.pid), pid(leader.pid)).unwrap());
    let (orphan, leader) = (Process::open(pid(orphan.pid)).unwrap(), Process::open(pid(leader.pid)).unwrap());
    assert!(orphan.is_descendant_of(&leader).unwrap());
    assert!(!leader.is_descendant_of(&orphan).unwrap());
    assert!(!leader.is_descendant_of(&leader).unwrap());
}

#[test]
fn an_ancestor_in_the_session_is_evidence_too() {
    // The leaf has a session of its own; its parent, an orphan, is in the root's.
    let script = "setsid fork [ fork [ fork [ setsid say leaf pause ] say orphan await orphaned say adopted pause ] exit 0 ] say leader await reap say reaped pause";
    let family = Family::spawn(script);
    let (leaf, orphan, leader) = (family.fact("leaf"), family.fact("orphan"), family.fact("leader"));
    family.poke(leader.pid);
    family.fact("reaped");
    family.poke(orphan.pid);
    family.fact("adopted");
    assert_eq!(leaf.sid, leaf.pid);
    assert!(is_descendant(pid(leaf.pid), pid(leader.pid)).unwrap());
    assert!(!is_descendant(pid(leader.pid), pid(leaf.pid)).unwrap());
}

#[test]
fn an_orphan_of_no_session_leader_is_not_claimed() {
    let family = Family::spawn(
        "fork [ fork [ say orphan await orphaned say adopted pause ] exit 0 ] say root await reap say reaped pause",
    );
    let (orphan, root) = (family.fact("orphan"), family.fact("root"));
    family.poke(root.pid);
    family.fact("reaped");
    family.poke(orphan.pid);
    family.fact("adopted");
    assert!(!is_descendant(pid(orphan.pid), pid(root.pid)).unwrap());
}

#[cfg(target_os = "linux")] // macOS gives no process the name of its main thread
#[test]
fn any_name_is_read_past() {
    // Trap 13. The name ends with what looks like the rest of a stat line.
    let family = Family::spawn(
        &["name", r"a)\sR\s1\s(\n)", "say", "root", "fork", "[", "say", "kid", "pause", "]", "pause"][..],
    );
    let (root, kid) = (family.fact("root"), family.fact("kid"));
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", root.pid)).unwrap();
    assert!(comm.starts_with("a) R 1 (\n)"), "{comm:?}");
    for fact in [&root, &kid] {
        assert_eq!(parent_of(pid(fact.pid)).unwrap(), Some(pid(fact.ppid)));
        let table = pidigree::Snapshot::capture().unwrap();
        assert_eq!(table.get(pid(fact.pid)).unwrap().parent, Some(pid(fact.ppid)));
        let identity = *Process::open(pid(fact.pid)).unwrap().identity();
        let oracle = procfs::process::Process::new(fact.pid as i32).unwrap().stat().unwrap().starttime;
        assert!(identity.to_string().contains(&format!("{oracle}:")), "{identity} started at {oracle}");
    }
}
