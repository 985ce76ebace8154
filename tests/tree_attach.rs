//! Trees of roots that run already: who counts, who does not, and why.

mod common;
#[path = "common/trees.rs"]
mod trees;

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::pid;
use pidigree::{Backend, Evidence, Identity, Pid, Process, Tree, TreeBuilder, TreeEvent};
use pidigree_testkit::{DEADLINE, Family, alone, require};
use trees::{PATIENCE, emptied, on, spawn, works};

/// Makes of each function of a backend one test for each that attaches.
macro_rules! on_attaching_backends {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            #[cfg(target_os = "linux")]
            #[test]
            fn proc_connector() {
                let backend = pidigree::Backend::ProcConnector;
                pidigree_testkit::require!(crate::works(backend), "{backend} cannot be had here");
                super::$test(backend);
            }

            #[cfg(target_os = "linux")]
            #[test]
            fn poll() {
                super::$test(pidigree::Backend::Poll);
            }

            #[cfg(target_os = "macos")]
            #[test]
            fn kqueue() {
                super::$test(pidigree::Backend::Kqueue);
            }
        }
    )+};
}

on_attaching_backends!(
    all_descendants_are_members,
    what_is_forked_later_is_a_member,
    an_excluded_daemon_holds_nothing,
    a_session_of_the_root_is_evidence_enough,
    a_session_is_evidence,
    an_environment_is_evidence,
    whoever_follows_is_no_member,
    a_child_of_an_ancestor_holds_nothing_but_a_polled_tree,
    orphans_that_an_ancestor_is_given_are_members,
    an_ended_root_is_gone,
);

#[cfg(target_os = "linux")] // a kqueue does not show all of a chain that forks and ends, as its coverage says
on_attaching_backends!(a_hopper_is_followed_from_the_middle);

#[cfg(target_os = "linux")] // only Linux has namespaces
on_attaching_backends!(a_mount_namespace_is_evidence);

/// Attaches to a member that has said its name.
fn attach(builder: &TreeBuilder, family: &Family, root: &str) -> Tree {
    let process = Process::open(pid(family.fact(root).pid)).unwrap();
    builder.attach(&process).unwrap_or_else(|error| panic!("{builder:?}: {error}"))
}

fn members(tree: &Tree) -> BTreeSet<Pid> {
    tree.members().iter().map(Identity::pid).collect()
}

fn pids<const N: usize>(family: &Family, names: [&str; N]) -> BTreeSet<Pid> {
    names.iter().map(|name| pid(family.fact(name).pid)).collect()
}

/// They end one after the other; the last one's end is the tree's.
fn end_with(tree: &Tree, family: &Family, names: &[&str]) {
    for name in names {
        assert_eq!(
            tree.wait_empty(Some(Duration::from_millis(20))).unwrap(),
            None,
            "{}: {name}",
            tree.backend()
        );
        let member = family.fact(name).pid;
        family.poke(member);
        family.wait_ended(member);
    }
    assert!(tree.wait_empty(Some(PATIENCE)).unwrap().is_some(), "{}", tree.backend());
}

fn all_descendants_are_members(backend: Backend) {
    let script = "fork [ fork [ say deep await ] thread [ fork [ say of-thread await ] say worker pause ] say middle await ] \
                  say root await";
    let family = Family::spawn(script);
    let names = ["root", "middle", "deep", "of-thread"];
    let expected = pids(&family, names);
    family.fact("worker");
    let tree = attach(&on(backend), &family, "root");
    assert_eq!(members(&tree), expected, "{backend}");
    assert_eq!(tree.root().pid(), pid(family.fact("root").pid));
    let first = tree.next_event(Some(DEADLINE)).unwrap();
    assert!(
        matches!(first, Some(TreeEvent::Joined { member, parent: None, .. }) if member == tree.root()),
        "{backend}: {first:?}"
    );
    end_with(&tree, &family, &names);
}

fn what_is_forked_later_is_a_member(backend: Backend) {
    let script = "fork [ say kid await double-fork [ say daemon await ] say forked await ] say root await";
    let family = Family::spawn(script);
    let (root, kid) = (family.fact("root").pid, family.fact("kid").pid);
    let tree = attach(&on(backend), &family, "root");
    family.poke(kid);
    let daemon = family.fact("daemon").pid;
    family.fact("forked");
    if backend == Backend::ProcConnector {
        assert!(tree.contains(pid(daemon)).unwrap(), "{backend}");
    }
    family.poke(root);
    family.wait_ended(root);
    end_with(&tree, &family, &["kid", "daemon"]);
}

#[cfg(target_os = "linux")]
fn a_hopper_is_followed_from_the_middle(backend: Backend) {
    for _ in 0..5 {
        let family = Family::spawn("fork [ hopper 3000 setsid-every 7 say last await ] say root await");
        let tree = attach(&on(backend), &family, "root");
        let last = pidigree_testkit::eventually("the last generation", || {
            assert_eq!(tree.wait_empty(Some(Duration::from_millis(5))).unwrap(), None, "{backend}");
            family.heard("last").first().map(|last| last.pid)
        });
        let root = family.fact("root").pid;
        family.poke(root);
        family.wait_ended(root);
        // The hopper's first generations may have ended before the tree was attached: then nobody can know.
        family.poke(last);
        assert!(tree.wait_empty(Some(PATIENCE)).unwrap().is_some(), "{backend}");
    }
}

fn an_excluded_daemon_holds_nothing(backend: Backend) {
    let script = "fork [ say daemon fork [ say hers pause ] await fork [ say later pause ] pause ] \
                  fork [ say kid await ] say root await";
    let family = Family::spawn(script);
    let daemon = Process::open(pid(family.fact("daemon").pid)).unwrap();
    family.fact("hers");
    let tree = attach(&on(backend).exclude(&daemon), &family, "root");
    assert_eq!(members(&tree), pids(&family, ["root", "kid"]), "{backend}");
    family.poke(daemon.pid().get());
    let later = family.fact("later").pid;
    for other in [daemon.pid(), pid(later), pid(family.fact("hers").pid)] {
        assert!(!tree.contains(other).unwrap(), "{backend}");
    }
    end_with(&tree, &family, &["kid", "root"]);
    assert!(!family.has_ended(), "{backend}: the daemon runs on");
}

const ORPHAN: &str = "fork [ fork [ say orphan await ] ] reap say root await";

fn a_session_of_the_root_is_evidence_enough(backend: Backend) {
    let family = Family::spawn(format!("setsid {ORPHAN}"));
    let expected = pids(&family, ["root", "orphan"]);
    let tree = attach(&on(backend), &family, "root");
    assert_eq!(members(&tree), expected, "{backend}: whoever is in it was forked below its leader");
    end_with(&tree, &family, &["root", "orphan"]);
}

/// With the evidence the orphan is a member, and without it is none.
fn evident(backend: Backend, family: &Family, evidence: Evidence) {
    let with_orphan = pids(family, ["root", "orphan"]);
    if backend == Backend::ProcConnector {
        let plain = attach(&on(backend), family, "root");
        assert_eq!(members(&plain), pids(family, ["root"]), "{backend}: without evidence");
    }
    let tree = attach(&on(backend).evidence(evidence), family, "root");
    assert!(members(&tree).is_superset(&with_orphan), "{backend}: {:?}", members(&tree));
    end_with(&tree, family, &["root", "orphan"]);
}

fn a_session_is_evidence(backend: Backend) {
    // The leader itself has ended: it would be in its session, and a member as well.
    let family = Family::spawn(format!("setsid fork [ {ORPHAN} ] exit 0"));
    evident(backend, &family, Evidence::Session);
}

fn an_environment_is_evidence(backend: Backend) {
    let value = format!("{backend} of {}", std::process::id());
    let (family, mut root) = Family::builder()
        .spawn_by(ORPHAN, |command| command.env("PIDIGREE_RUNTIME", &value).spawn().unwrap());
    let other = Family::builder()
        .spawn_by("say other pause", |command| command.env("PIDIGREE_RUNTIME", "another").spawn().unwrap());
    let stranger = other.0.fact("other").pid;
    let evidence = Evidence::Environment("PIDIGREE_RUNTIME".to_owned(), value);
    let wider = attach(&on(backend).evidence(evidence.clone()), &family, "root");
    assert!(!wider.contains(pid(stranger)).unwrap(), "{backend}: the value counts");
    evident(backend, &family, evidence);
    root.wait().unwrap();
    drop(other.0);
    let (_, mut other) = other;
    other.wait().unwrap();
}

#[cfg(target_os = "linux")]
fn a_mount_namespace_is_evidence(backend: Backend) {
    require!(pidigree_testkit::is_root(), "needs root, to have mount namespaces");
    let family = Family::spawn(format!("unshare-mount {ORPHAN}"));
    evident(backend, &family, Evidence::MountNamespace);
}

fn whoever_follows_is_no_member(backend: Backend) {
    let me = Process::current().unwrap();
    let parent = me.parent().unwrap();
    require!(parent, "this process has no parent to be seen");
    let parent = parent.unwrap();
    let mut child = {
        let _alone = alone();
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    };
    let tree = on(backend).attach(&parent).unwrap();
    assert!(tree.contains(parent.pid()).unwrap(), "{backend}");
    for mine in [me.pid(), pid(child.id())] {
        assert!(!tree.contains(mine).unwrap(), "{backend}");
        assert!(!members(&tree).contains(&mine), "{backend}");
    }
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// To polling it could be an orphan of the tree, as the coverage says.
fn a_child_of_an_ancestor_holds_nothing_but_a_polled_tree(backend: Backend) {
    let script = "fork [ say root await ] say above await fork [ say sibling await ] pause";
    let family = Family::spawn(script);
    let tree = attach(&on(backend), &family, "root");
    pass_scans(&tree);
    family.poke(family.fact("above").pid);
    let (root, sibling) = (family.fact("root").pid, family.fact("sibling").pid);
    assert_contains(&tree, sibling, false);
    family.poke(root);
    family.wait_ended(root);
    if backend == Backend::Poll {
        let coverage = tree.coverage();
        assert!(coverage.reason.contains("any other child of process 1 or of an ancestor"), "{coverage}");
        assert_eq!(tree.wait_empty(Some(Duration::from_millis(200))).unwrap(), None);
        family.poke(sibling);
    }
    assert!(tree.wait_empty(Some(PATIENCE)).unwrap().is_some(), "{backend}");
}

/// Whoever follows the tree has started that ancestor, and is given none.
fn orphans_that_an_ancestor_is_given_are_members(backend: Backend) {
    let script = "subreaper fork [ say root await double-fork [ say daemon await ] ] say above pause";
    let family = Family::spawn(script);
    family.fact("above");
    let tree = attach(&on(backend), &family, "root");
    pass_scans(&tree);
    let root = family.fact("root").pid;
    family.poke(root);
    let daemon = family.fact("daemon").pid;
    assert_contains(&tree, daemon, true);
    family.wait_ended(root);
    assert_eq!(tree.wait_empty(Some(Duration::from_millis(200))).unwrap(), None, "{backend}");
    family.poke(daemon);
    assert!(tree.wait_empty(Some(PATIENCE)).unwrap().is_some(), "{backend}");
}

/// Polling cannot tell, unless it has looked at the right moment, and says so.
fn assert_contains(tree: &Tree, process: u32, expected: bool) {
    match tree.contains(pid(process)) {
        Ok(contains) => assert_eq!(contains, expected, "{}", tree.backend()),
        Err(error) => {
            assert!(error.is_unstable() && tree.backend() == Backend::Poll, "{error}");
            assert!(error.to_string().contains("may be an orphan"), "{error}");
        }
    }
}

/// To a polled tree, each fork is a reason to scan again.
fn pass_scans(tree: &Tree) {
    for _ in 0..5 {
        Family::spawn("exit 0");
        assert_eq!(tree.wait_empty(Some(Duration::from_millis(50))).unwrap(), None);
    }
}

fn an_ended_root_is_gone(backend: Backend) {
    let mut family = Family::spawn("say root exit 0");
    let root = Process::open(pid(family.fact("root").pid)).unwrap();
    family.wait_ended(root.pid().get());
    let error = on(backend).attach(&root).expect_err("a zombie has ended");
    assert!(error.is_gone(), "{backend}: {error}");
    family.child().wait().unwrap();
    let error = on(backend).attach(&root).expect_err("it is reaped");
    assert!(error.is_gone(), "{backend}: {error}");
}

/// A member of one tree is the root of another, and both are told.
#[test]
fn a_tree_inside_a_tree_ends_first() {
    for outer in [Backend::ProcConnector, Backend::Cgroup, Backend::Subreaper] {
        require!(works(outer), "{outer} cannot be had here");
        let script = "fork [ say inner await double-fork [ say both await ] exit 0 ] say root await";
        let (family, tree, _child) = spawn(&on(outer), script);
        let inner_root = family.fact("inner").pid;
        let inner = attach(&Tree::builder(), &family, "inner");
        family.poke(inner_root);
        let both = family.fact("both").pid;
        family.wait_ended(inner_root);
        for tree in [&tree, &inner] {
            assert_eq!(tree.wait_empty(Some(Duration::from_millis(20))).unwrap(), None, "{outer}");
            if tree.backend() != Backend::Poll {
                assert!(tree.contains(pid(both)).unwrap(), "{outer}: {}", tree.backend());
            }
        }
        let root = family.fact("root").pid;
        assert!(tree.contains(pid(root)).unwrap() && !inner.contains(pid(root)).unwrap(), "{outer}");
        family.poke(both);
        assert!(inner.wait_empty(Some(PATIENCE)).unwrap().is_some(), "{outer}");
        assert_eq!(
            tree.wait_empty(Some(Duration::from_millis(20))).unwrap(),
            None,
            "{outer}: its root lives"
        );
        family.poke(root);
        emptied(&tree, &family);
    }
}

/// The same root twice: two trees, each with its own events.
#[test]
fn one_root_of_two_trees() {
    let (family, spawned, _child) = spawn(&Tree::builder(), "fork [ say kid await ] say root await");
    family.fact("kid");
    let attached = attach(&Tree::builder(), &family, "root");
    assert_eq!(members(&spawned), members(&attached));
    for name in ["root", "kid"] {
        assert!(!spawned.is_empty() && !attached.is_empty());
        let member = family.fact(name).pid;
        family.poke(member);
        family.wait_ended(member);
    }
    emptied(&spawned, &family);
    emptied(&attached, &family);
    let last = std::iter::from_fn(|| attached.next_event(Some(Duration::ZERO)).unwrap()).last();
    assert!(matches!(last, Some(TreeEvent::Empty(_))), "{last:?}");
}
