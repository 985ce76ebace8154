//! However few descriptors there are, no answer is wrong; and those that callers are remembered by are no more than was asked.
#![cfg(target_os = "linux")] // elsewhere whoever is remembered takes no descriptor

mod common;

use std::fs::File;
use std::time::Instant;

use common::pid;
use pidigree::{Caller, Process, Router};
use pidigree_testkit::{DEADLINE, Family, idle_children, stage};

/// Descriptors of this process.
fn open_files() -> usize {
    std::fs::read_dir("/dev/fd").unwrap().count()
}

#[test]
fn thousands_of_callers_share_a_few_descriptors() {
    stage("thousands_of_callers_share_a_few_descriptors", &["nofile", "1024", "4096"], || {
        let children = idle_children(1000);
        let family = Family::spawn("fork [ fork [ say leaf pause ] say kid pause ] say root pause");
        let names = ["leaf", "kid", "root"].map(|name| pid(family.fact(name).pid));
        for capacity in [0, 1, 5, 64, 300] {
            let router = Router::with_capacity(capacity);
            router.insert(&Process::open(names[2]).unwrap(), "root").unwrap();
            router.insert(&Process::open(pid(children.pids()[7])).unwrap(), "seventh").unwrap();
            let before = open_files();
            for round in 0..2 {
                for (index, &number) in children.pids().iter().enumerate() {
                    let value = router.resolve(Caller::Process(pid(number))).unwrap();
                    assert_eq!(value.as_deref().copied(), (index == 7).then_some("seventh"), "{round}");
                    let member = names[index % names.len()];
                    assert_eq!(router.resolve(Caller::Process(member)).unwrap().as_deref(), Some(&"root"));
                }
                let held = open_files().saturating_sub(before);
                // The thread that follows the trees has some for a moment.
                assert!(held <= capacity + 16, "{held} descriptors for {capacity} callers");
                assert!(held + 16 >= capacity, "{held} descriptors for {capacity} callers");
            }
        }
        // A quarter of 1,024, if nothing else is said.
        let router: Router<()> = Router::new();
        router.insert(&Process::open(names[2]).unwrap(), ()).unwrap();
        let before = open_files();
        for &number in children.pids() {
            assert!(router.resolve(Caller::Process(pid(number))).unwrap().is_none());
        }
        let held = open_files() - before;
        assert!((128..=272).contains(&held), "{held}");
        drop(router);
        assert!(open_files() < before);
    });
}

#[test]
fn when_descriptors_run_out_callers_are_forgotten_and_nothing_is_made_up() {
    let name = "when_descriptors_run_out_callers_are_forgotten_and_nothing_is_made_up";
    stage(name, &["nofile", "256", "256"], || {
        let children = idle_children(100);
        let family = Family::spawn("fork [ say kid pause ] say root pause");
        let (root, kid) = (pid(family.fact("root").pid), pid(family.fact("kid").pid));
        let router = Router::with_capacity(64);
        router.insert(&Process::open(root).unwrap(), "root").unwrap();
        for &number in children.pids() {
            assert!(router.resolve(Caller::Process(pid(number))).unwrap().is_none());
        }
        // Somebody else takes all that are left.
        let taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        assert!(taken.len() > 50);
        for _ in 0..3 {
            assert_eq!(router.resolve(Caller::Process(kid)).unwrap().as_deref(), Some(&"root"));
            assert_eq!(router.resolve(Caller::Thread(root)).unwrap().as_deref(), Some(&"root"));
            for &number in children.pids() {
                assert!(router.resolve(Caller::Process(pid(number))).unwrap().is_none());
            }
        }
        drop(taken);
    });
}

#[test]
fn without_any_descriptor_it_is_a_limit() {
    stage("without_any_descriptor_it_is_a_limit", &["nofile", "256", "256"], || {
        let family = Family::spawn("fork [ say kid pause ] say root pause");
        let (root, kid) = (pid(family.fact("root").pid), pid(family.fact("kid").pid));
        let root = Process::open(root).unwrap();
        let (router, empty) = (Router::with_capacity(0), Router::with_capacity(8));
        router.insert(&root, "root").unwrap();
        let taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        for caller in [Caller::Process(kid), Caller::Thread(kid)] {
            let error = router.resolve(caller).unwrap_err();
            assert!(error.is_limit() && !error.is_gone(), "{error}");
            assert!(error.to_string().contains("ulimit"), "{error}");
        }
        let error = empty.insert(&root, "again").map(|_| ()).unwrap_err();
        assert!(error.is_limit(), "{error}");
        assert!(empty.is_empty(), "nothing half-done is left");
        drop(taken);
        assert_eq!(router.resolve(Caller::Process(kid)).unwrap().as_deref(), Some(&"root"));
        empty.insert(&root, "again").unwrap();
    });
}

/// Routes that come and go, and callers that end, leave nothing behind.
#[test]
fn routes_that_come_and_go_leave_nothing_behind() {
    stage("routes_that_come_and_go_leave_nothing_behind", &["nofile", "1024", "4096"], || {
        const ROUTES: usize = 20;
        let family = Family::spawn("say root pause");
        let router: Router<usize> = Router::with_capacity(32);
        router.insert(&Process::open(pid(family.fact("root").pid)).unwrap(), usize::MAX).unwrap();
        let mut open = Vec::new();
        for _ in 0..4 {
            let children = idle_children(ROUTES);
            for (index, &number) in children.pids().iter().enumerate() {
                let begun = Instant::now();
                while let Err(error) = router.insert(&Process::open(pid(number)).unwrap(), index) {
                    assert!(error.is_unstable() && begun.elapsed() < DEADLINE, "{error}");
                }
                let value = router.resolve(Caller::Process(pid(number))).unwrap();
                assert_eq!(value.as_deref(), Some(&index));
            }
            drop(children);
            for _ in 0..ROUTES {
                assert!(router.next_emptied(Some(DEADLINE)).unwrap().is_some());
            }
            assert_eq!(router.len(), 1);
            open.push(open_files());
        }
        // The thread that follows the trees has some for a moment.
        assert!(open[3] < open[0] + ROUTES, "{open:?} descriptors after each round");
    });
}
