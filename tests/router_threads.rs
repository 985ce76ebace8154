//! Many threads and one router.

mod common;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use common::pid;
use pidigree::{Caller, Identity, Process, Router};
use pidigree_testkit::{DEADLINE, Family};

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
