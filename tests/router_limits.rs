//! However few descriptors there are, no answer is wrong; and those that callers are remembered by are no more than was asked.

mod common;

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use common::pid;
use pidigree::{Caller, Identity, Process, Router};
use pidigree_testkit::{DEADLINE, Family, idle_children, stage};

/// Descriptors of this process.
fn open_files() -> usize {
    std::fs::read_dir("/dev/fd").unwrap().count()
}

#[cfg(target_os = "linux")] // elsewhere whoever is remembered takes no descriptor
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

#[cfg(target_os = "linux")] // as above
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

#[cfg(target_os = "linux")] // as above
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

/// Threads ask about everybody all the time, while routes come, go and are taken away, and members are started and end. A
/// caller that lives, and whose route stands, always gets it; nobody ever gets another's.
#[test]
fn many_threads_ask_while_routes_come_and_go() {
    const STANDING: usize = 4;
    let router: Router<usize> = Router::with_capacity(16);
    let stranger = Family::spawn("say stranger pause");
    let stranger = pid(stranger.fact("stranger").pid);
    let standing: Vec<Family> =
        (0..STANDING).map(|_| Family::spawn("fork [ say kid pause ] say root pause")).collect();
    for (number, family) in standing.iter().enumerate() {
        router.insert(&Process::open(pid(family.fact("root").pid)).unwrap(), number).unwrap();
    }
    let over = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (router, standing, over, asked) = (router.clone(), &standing, &over, &asked);
            scope.spawn(move || {
                let kids: Vec<_> = standing.iter().map(|family| pid(family.fact("kid").pid)).collect();
                let mut turn = thread;
                while !over.load(Ordering::Relaxed) {
                    turn += 1;
                    let number = turn % STANDING;
                    let unstable = |error: &pidigree::Error| error.is_unstable();
                    match router.resolve(Caller::Process(kids[number])) {
                        Ok(value) => assert_eq!(value.as_deref(), Some(&number)),
                        Err(error) => assert!(unstable(&error), "{error}"),
                    }
                    match router.resolve(Caller::Process(stranger)) {
                        Ok(value) => assert!(value.is_none(), "{value:?}"),
                        Err(error) => assert!(unstable(&error), "{error}"),
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Each with a value of its own, some taken away, others left to leave.
        let mut left = BTreeSet::new();
        let mut said = BTreeSet::new();
        for number in 100..130 {
            let family = Family::spawn("fork [ say kid pause ] say root pause");
            let root = Process::open(pid(family.fact("root").pid)).unwrap();
            let kid = pid(family.fact("kid").pid);
            let begun = Instant::now();
            let again = |error: &pidigree::Error| error.is_unstable() && begun.elapsed() < DEADLINE;
            let route = loop {
                match router.insert(&root, number) {
                    Err(error) if again(&error) => {}
                    routed => break routed.unwrap(),
                }
            };
            let value = loop {
                match router.resolve(Caller::Process(kid)) {
                    Err(error) if again(&error) => {}
                    value => break value.unwrap(),
                }
            };
            assert_eq!(value.as_deref(), Some(&number));
            if number % 3 == 0 {
                assert!(route.remove());
                let value = loop {
                    match router.resolve(Caller::Process(kid)) {
                        Err(error) if again(&error) => {}
                        value => break value.unwrap(),
                    }
                };
                assert_eq!(value, None);
            } else {
                left.insert(number);
            }
            drop(family);
        }
        while said.len() < left.len() {
            let (_, value) = router.next_emptied(Some(DEADLINE)).unwrap().expect("all of them have ended");
            assert!(said.insert(*value), "{value} was said twice");
        }
        assert_eq!(said, left);
        over.store(true, Ordering::Relaxed);
    });
    assert!(asked.load(Ordering::Relaxed) > 100);
    assert_eq!(router.len(), STANDING);
    let values: Vec<(Identity, usize)> =
        router.iter().map(|route| (*route.root(), **route.value())).collect();
    assert_eq!(values.iter().map(|(_, value)| *value).collect::<Vec<_>>(), (0..STANDING).collect::<Vec<_>>());
}

/// Routes that come and go, and callers that end, leave nothing behind.
#[cfg(target_os = "linux")] // as above
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
