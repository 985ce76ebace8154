//! Trap 2: whoever is orphaned in another PID namespace goes to the init of that one, and to no helper above the root.
//! nsenter(1) is how a member gets there.
#![cfg(target_os = "linux")] // only Linux has namespaces

mod common;
#[path = "common/trees.rs"]
mod trees;

use std::time::Duration;

use common::pid;
use pidigree::{Backend, ExitStatus, Pid, Process, Promise};
use pidigree_testkit::{DEADLINE, Family, is_root, require, stage};
use trees::{emptied, on, spawn, works};

use Backend::{Cgroup, Poll, ProcConnector, Subreaper};

/// Long enough for whoever polls to look more than once.
const WHILE: Duration = Duration::from_millis(50);

/// A PID namespace that is there already, with an init that is nobody's child in any tree.
struct Inside {
    _family: Family,
    init: Pid,
}

impl Inside {
    fn new() -> Inside {
        let family = Family::builder().launcher(&["in-ns", "pid,mount"]).spawn("say inside pause");
        family.fact("inside");
        let launcher = Process::open(pid(family.root_pid())).unwrap();
        let [init] = &launcher.children().unwrap()[..] else { panic!("it has one child") };
        let init = init.pid();
        Inside { _family: family, init }
    }

    /// Who is in there besides those who were from the start, by their numbers here.
    fn entered(&self) -> Vec<Pid> {
        let init = Process::open(self.init).unwrap();
        let mut entered = init.children().unwrap();
        entered.retain(has_entered);
        entered.iter().map(Process::pid).collect()
    }
}

/// By the script of which it is a part.
fn has_entered(process: &Process) -> bool {
    let command = std::fs::read(format!("/proc/{}/cmdline", process.pid())).unwrap();
    String::from_utf8_lossy(&command).contains("enter-pid")
}

/// With the events of members, nobody is lost; and the helper alone would say that all have ended.
#[test]
fn an_orphan_in_another_namespace_is_a_member() {
    require!(is_root(), "needs root, to enter PID namespaces");
    stage("an_orphan_in_another_namespace_is_a_member", &["in-ns", "mount"], || {
        let inside = Inside::new();
        for backend in [Cgroup, ProcConnector, Subreaper, Poll] {
            works(backend).unwrap();
            let script = format!(
                "say root await enter-pid {} fork [ fork [ orphaned say daemon await ] exit 0 ] reap exit 3",
                inside.init
            );
            let (family, tree, mut child) = spawn(&on(backend), script);
            let root = family.fact("root").pid;
            let helper = Process::open(pid(root)).unwrap().parent().unwrap().unwrap();
            assert_eq!(backend == Subreaper, helper.pid() != Pid::current(), "{backend}");
            family.poke(root);
            let daemon = family.fact("daemon");
            assert_eq!(child.wait().unwrap(), ExitStatus::Code(3), "{backend}");
            if backend == Subreaper {
                assert!(helper.wait(Some(DEADLINE)).unwrap().is_some(), "the trap: it has no child any more");
            }

            let coverage = tree.coverage();
            assert_eq!(coverage.emptiness == Promise::Exact, backend != Poll, "{backend}: {coverage}");
            assert_eq!(
                tree.wait_empty(Some(WHILE)).unwrap(),
                None,
                "{backend}: empty, while the daemon lives"
            );
            assert_eq!(tree.members().iter().map(|one| one.pid()).collect::<Vec<_>>(), inside.entered());
            family.poke(daemon.pid);
            let emptied = emptied(&tree, &family);
            assert_eq!(emptied.status, ExitStatus::Code(3), "{backend}");
            if coverage.members == Promise::Exact {
                assert_eq!(emptied.members, 3, "{backend}");
            }
        }
    });
}

/// Without them, a helper says what it has not; whoever was seen is held by what it is, not by whose child.
#[test]
fn a_helper_without_events_says_so_and_holds_whom_it_has_seen() {
    require!(is_root(), "needs root, to enter PID namespaces");
    let name = "a_helper_without_events_says_so_and_holds_whom_it_has_seen";
    stage(name, &["deny", "EPERM", "socket:AF_NETLINK"], || {
        let inside = Inside::new();
        let script = format!(
            "say root enter-pid {} fork [ fork [ say daemon await ] say middle await exit 0 ] reap exit 3",
            inside.init
        );
        let (family, tree, mut child) = spawn(&on(Subreaper), script);
        let (root, middle) = (family.fact("root").pid, family.fact("middle").pid);
        let daemon = family.fact("daemon").pid;
        let coverage = tree.coverage();
        assert!(coverage.reason.contains("not what enters another by nsenter"), "{coverage}");
        assert_eq!(coverage.members, Promise::BestEffort, "{coverage}");
        assert_eq!(tree.members().len(), 3, "{:?}", tree.members());
        let helper = Process::open(pid(root)).unwrap().parent().unwrap().unwrap();

        family.poke(middle);
        assert_eq!(child.wait().unwrap(), ExitStatus::Code(3));
        assert!(helper.wait(Some(DEADLINE)).unwrap().is_some(), "the trap: it has no child any more");
        assert_eq!(tree.wait_empty(Some(WHILE)).unwrap(), None, "empty, while the daemon lives");
        assert_eq!(tree.members().iter().map(|one| one.pid()).collect::<Vec<_>>(), inside.entered());
        family.poke(daemon);
        assert_eq!(emptied(&tree, &family).status, ExitStatus::Code(3));
    });
}

/// The other way round: who enters the tree's own namespace is a stranger, though it becomes the child of a member.
#[test]
fn who_enters_the_namespace_of_a_tree_is_no_member() {
    require!(is_root(), "needs root, to enter PID namespaces");
    stage("who_enters_the_namespace_of_a_tree_is_no_member", &["in-ns", "mount"], || {
        for backend in [Cgroup, ProcConnector, Subreaper] {
            let builder = on(backend);
            let (family, spawned) = Family::builder()
                .launcher(&["in-ns", "pid,mount"])
                .spawn_by("say inside await exit 3", |command| builder.spawn(command));
            let (tree, mut child) = spawned.unwrap();
            let inside = family.fact("inside").pid;
            let [init] = &child.process().children().unwrap()[..] else { panic!("{backend}: one child") };
            let script = format!(
                "say outside enter-pid {} fork [ fork [ orphaned say stranger pause ] exit 0 ] reap pause",
                init.pid()
            );
            let strangers = Family::spawn(script);
            strangers.fact("stranger");
            let adopted = init.children().unwrap();
            assert_eq!(adopted.len(), 2, "the trap: init's, and the one it has adopted: {adopted:?}");
            for one in &adopted {
                assert_eq!(tree.contains(one.pid()).unwrap(), !has_entered(one), "{backend}: {one:?}");
            }
            assert_eq!(tree.members().len(), 3, "{backend}: the launcher, the init, the root");
            // The namespace ends with its init, and whoever is in it.
            family.poke(inside);
            assert_eq!(child.wait().unwrap(), ExitStatus::Code(3), "{backend}");
            assert_eq!(emptied(&tree, &family).members, 3, "{backend}");
            assert_eq!(strangers.heard("outside").len(), 1);
            assert!(!strangers.has_ended(), "{backend}: whoever is outside lives on");
        }
    });
}
