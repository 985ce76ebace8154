//! Trap 6, for routes: with its PID forced, a newcomer has the number of a caller or of a root that was known. It gets nothing
//! of theirs; and what is said of it is not said of the one before.
//!
//! Where forks are told, and in a PID namespace, where nobody tells and trees are polled.
#![cfg(target_os = "linux")] // only Linux gives a chosen PID

mod common;
#[path = "common/hopper.rs"]
#[expect(dead_code, reason = "each test takes its part of it")]
mod hopper;
#[path = "common/trees.rs"]
#[expect(dead_code, reason = "each test takes its part of it")]
mod trees;

use std::io;

use common::pid;
use pidigree::{Backend, Caller, Identity, Pid, Process, Result, Router};
use pidigree_testkit::{DEADLINE, Family, ForcedChild, eventually, fork_with_pid, require, rounds, stage};
use trees::works;

/// Makes of each function two tests.
macro_rules! with_and_without_events {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            #[test]
            fn with_events() {
                let backend = pidigree::Backend::ProcConnector;
                pidigree_testkit::require!(crate::works(backend), "{backend} cannot be had here");
                super::$test();
            }

            #[test]
            fn without_events() {
                crate::stage(concat!(stringify!($test), "::without_events"), &["in-ns", "pid,mount"], super::$test);
            }
        }
    )+};
}

with_and_without_events!(
    a_newcomer_has_not_the_route_of_a_root_that_has_ended,
    a_newcomer_has_not_the_route_of_a_root_whose_tree_lives,
    a_newcomer_has_not_what_was_found_out_about_a_caller,
    a_newcomer_has_not_what_was_found_out_about_a_thread,
);

/// A number that nobody has.
fn unused() -> u32 {
    let most: u32 = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap().trim().parse().unwrap();
    (2..most).rev().find(|number| Process::open(pid(*number)).is_err()).unwrap()
}

/// Forced, unless others have the number for the moment: a process group or session, or somebody whom the kernel gave it.
fn force(number: u32) -> ForcedChild {
    eventually("the number is free", || match fork_with_pid(number) {
        Ok(child) => Some(child),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
        Err(error) => panic!("{number}: {error}"),
    })
}

/// Where trees are polled it may have to be asked again. `None` is the answer where nothing can tell: there are no unique ids,
/// nothing tells of forks, and the test is the init that orphans are given to.
fn resolve(router: &Router<&'static str>, caller: Caller) -> Option<Option<&'static str>> {
    let begun = std::time::Instant::now();
    loop {
        match router.resolve(caller) {
            Ok(answer) => return Some(answer.map(|value| *value)),
            Err(error) if error.is_unstable() && begun.elapsed() < DEADLINE => std::thread::yield_now(),
            Err(error) => panic!("{caller:?}: {error}"),
        }
    }
}

fn identity(number: u32) -> Identity {
    Identity::of(pid(number)).unwrap()
}

fn a_newcomer_has_not_the_route_of_a_root_that_has_ended() {
    let number = unused();
    let router = Router::new();
    for _ in 0..rounds(50) {
        let old = force(number);
        let process = Process::open(pid(number)).unwrap();
        let route = router.insert(&process, "old").unwrap();
        assert_eq!(resolve(&router, Caller::Process(pid(number))), Some(Some("old")));
        old.kill_and_reap();

        let newcomer = force(number);
        assert_eq!(resolve(&router, Caller::Process(pid(number))), Some(None));
        assert_eq!(resolve(&router, Caller::Thread(pid(number))), Some(None));
        assert!(router.insert(&process, "old").unwrap_err().is_gone());
        let other = router.insert(&Process::open(pid(number)).unwrap(), "new").unwrap();
        assert_eq!(resolve(&router, Caller::Process(pid(number))), Some(Some("new")));
        assert!(other.remove());
        // The end of the old one is said, and of nobody else.
        let (root, value) = router.next_emptied(Some(DEADLINE)).unwrap().expect("it has ended");
        assert_eq!((root, *value), (*route.root(), "old"));
        newcomer.kill_and_reap();
        assert!(router.is_empty());
    }
}

fn a_newcomer_has_not_the_route_of_a_root_whose_tree_lives() {
    for _ in 0..rounds(20) {
        let mut family =
            Family::spawn("fork [ setsid fork [ say kid pause ] say daemon pause ] say root await");
        let (root, daemon) = (family.fact("root").pid, family.fact("daemon").pid);
        let kid = family.fact("kid").pid;
        let router = Router::new();
        let route = router.insert(&Process::open(pid(root)).unwrap(), "old").unwrap();
        for member in [root, daemon, kid] {
            assert_eq!(resolve(&router, Caller::Process(pid(member))), Some(Some("old")));
        }
        family.poke(root);
        family.child().wait().unwrap();

        let newcomer = force(root);
        for _ in 0..2 {
            assert_eq!(resolve(&router, Caller::Process(pid(root))), Some(None));
            assert_eq!(resolve(&router, Caller::Thread(pid(root))), Some(None));
        }
        let other = router.insert(&Process::open(pid(root)).unwrap(), "new").unwrap();
        assert_eq!(resolve(&router, Caller::Process(pid(root))), Some(Some("new")));
        for member in [daemon, kid] {
            assert_eq!(resolve(&router, Caller::Process(pid(member))), Some(Some("old")));
        }
        assert_eq!(router.len(), 2);
        assert!(other.remove());
        assert_eq!(resolve(&router, Caller::Process(pid(root))), Some(None));
        newcomer.kill_and_reap();
        assert!(route.remove());
    }
}

fn a_newcomer_has_not_what_was_found_out_about_a_caller() {
    let number = unused();
    let family = Family::spawn("say root pause");
    let router = Router::new();
    router.insert(&Process::open(pid(family.fact("root").pid)).unwrap(), "root").unwrap();
    for _ in 0..rounds(50) {
        // Routed, then a stranger; a stranger, then routed.
        let old = force(number);
        let route = router.insert(&Process::open(pid(number)).unwrap(), "its own").unwrap();
        assert_eq!(resolve(&router, Caller::Process(pid(number))), Some(Some("its own")));
        old.kill_and_reap();
        let stranger = force(number);
        assert_eq!(resolve(&router, Caller::Process(pid(number))), Some(None));
        let known = identity(number);
        stranger.kill_and_reap();
        let last = force(number);
        assert_eq!(resolve(&router, Caller::Process(pid(number))), Some(None));
        assert!(known.unique_id().is_none() || known != identity(number));
        last.kill_and_reap();
        let error = router.resolve(Caller::Process(pid(number))).unwrap_err();
        assert!(error.is_gone(), "{error}");
        route.remove();
    }
}

fn a_newcomer_has_not_what_was_found_out_about_a_thread() {
    for _ in 0..rounds(20) {
        let family = Family::spawn("thread [ say worker await ] say root pause");
        let (root, worker) = (family.fact("root").pid, family.fact("worker").tid);
        let router = Router::new();
        router.insert(&Process::open(pid(root)).unwrap(), "root").unwrap();
        for _ in 0..2 {
            assert_eq!(resolve(&router, Caller::Thread(pid(worker))), Some(Some("root")));
        }
        family.poke(root);
        let newcomer = force(worker);
        for _ in 0..2 {
            assert_eq!(resolve(&router, Caller::Thread(pid(worker))), Some(None));
            assert_eq!(resolve(&router, Caller::Process(pid(worker))), Some(None));
        }
        newcomer.kill_and_reap();
        assert_eq!(resolve(&router, Caller::Thread(pid(root))), Some(Some("root")));
    }
}

/// Asks until the member has the number that a stranger had.
#[test]
fn a_member_with_the_number_of_a_stranger_is_routed() {
    stage("a_member_with_the_number_of_a_stranger_is_routed", &["in-ns", "pid,mount"], || {
        for _ in 0..rounds(20) {
            let family = Family::spawn("say root await fork [ say kid pause ] pause");
            let root = family.fact("root").pid;
            let router = Router::new();
            router.insert(&Process::open(pid(root)).unwrap(), "root").unwrap();
            let stranger = force(7000);
            assert_eq!(resolve(&router, Caller::Process(pid(7000))), Some(None));
            stranger.kill_and_reap();
            std::fs::write("/proc/sys/kernel/ns_last_pid", "6999").unwrap();
            family.poke(root);
            let kid = family.fact("kid").pid;
            assert_eq!(resolve(&router, Caller::Process(pid(kid))), Some(Some("root")), "{kid}");
        }
    });
}

/// In another PID namespace, its number is somebody else's here.
#[test]
fn a_number_of_another_pid_namespace_says_nothing_of_that_process() {
    require!(works(Backend::Auto), "no trees can be had here");
    let family = Family::builder().launcher(&["in-ns", "pid,mount"]).spawn("say inner pause");
    let inner = family.fact("inner").pid;
    let launcher = Process::open(pid(family.root_pid())).unwrap();
    let router = Router::new();
    router.insert(&launcher, "namespace").unwrap();
    // By its number out here it is a member.
    let outer: Vec<Pid> = launcher.descendants().unwrap().iter().map(Process::pid).collect();
    assert!(!outer.is_empty());
    for member in &outer {
        assert_eq!(resolve(&router, Caller::Process(*member)), Some(Some("namespace")));
    }
    // By the one in there, it is whoever has that here, if anybody has.
    let answer: Result<_> = router.resolve(Caller::Process(pid(inner)));
    match answer {
        Ok(value) => assert!(value.is_none() || outer.contains(&pid(inner))),
        Err(error) => assert!(error.is_gone() || error.is_thread(), "{error}"),
    }
}
