//! Who gets which route: real trees, nested, orphaned, threaded.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::pid;
use pidigree::{Caller, Pid, Process, Result, Router, State, Tree};
use pidigree_testkit::{DEADLINE, Family, eventually};

/// A member that has said its name, pinned.
fn process(family: &Family, name: &str) -> Process {
    Process::open(pid(family.fact(name).pid)).unwrap()
}

fn caller(family: &Family, name: &str) -> Caller {
    Caller::Process(pid(family.fact(name).pid))
}

/// What it gets, as a plain value. Where the trees are polled, it may have to be asked again.
fn resolve<V: Copy>(router: &Router<V>, caller: Caller) -> Result<Option<V>> {
    let begun = std::time::Instant::now();
    loop {
        match router.resolve(caller) {
            Err(error) if error.is_unstable() && begun.elapsed() < DEADLINE => std::thread::yield_now(),
            answer => return Ok(answer?.map(|value| *value)),
        }
    }
}

/// Its `await` goes on, it ends, and its parent reaps it.
fn poke_and_wait_until_reaped(family: &Family, name: &str) {
    let process = process(family, name);
    family.poke(process.pid().get());
    eventually("it is reaped", || (process.state().unwrap() == State::Gone).then_some(()));
}

#[track_caller]
fn gets(router: &Router<&'static str>, family: &Family, name: &str, value: Option<&'static str>) {
    // The second time from what is remembered.
    for _ in 0..2 {
        assert_eq!(resolve(router, caller(family, name)).unwrap(), value, "{name}");
    }
}

#[test]
fn the_nearest_route_wins_whichever_came_first() {
    let script = "fork [ fork [ fork [ say leaf pause ] say inner pause ] say middle pause ] fork [ say aside pause ] \
                  say outer pause";
    let family = Family::spawn(script);
    let foreign = Family::spawn("say stranger pause");
    for name in ["leaf", "inner", "middle", "aside", "outer"] {
        family.fact(name);
    }
    for order in [["outer", "middle", "inner"], ["inner", "middle", "outer"], ["middle", "outer", "inner"]] {
        let router = Router::new();
        gets(&router, &family, "leaf", None);
        for (count, name) in order.into_iter().enumerate() {
            router.insert(&process(&family, name), name).unwrap();
            assert_eq!(router.len(), count + 1);
            // After each, what was remembered has to be found out about anew.
            let above = |names: &[&'static str]| {
                names.iter().rev().find(|name| order[..=count].contains(name)).copied()
            };
            gets(&router, &family, "outer", above(&["outer"]));
            gets(&router, &family, "aside", above(&["outer"]));
            gets(&router, &family, "middle", above(&["outer", "middle"]));
            gets(&router, &family, "inner", above(&["outer", "middle", "inner"]));
            gets(&router, &family, "leaf", above(&["outer", "middle", "inner"]));
            gets(&router, &foreign, "stranger", None);
        }
        assert_eq!(router.iter().map(|route| **route.value()).collect::<Vec<_>>(), order);
        // Taken away, the one above it is the nearest.
        let inner = *process(&family, "inner").identity();
        assert_eq!(router.remove(&inner).as_deref(), Some(&"inner"));
        assert_eq!(router.remove(&inner), None);
        gets(&router, &family, "leaf", Some("middle"));
        gets(&router, &family, "inner", Some("middle"));
        gets(&router, &family, "outer", Some("outer"));
        let middle = router.iter().find(|route| **route.value() == "middle").unwrap();
        assert!(middle.remove());
        assert!(!middle.remove());
        gets(&router, &family, "leaf", Some("outer"));
        assert!(router.next_emptied(Some(Duration::ZERO)).unwrap().is_none(), "none has ended");
    }
}

#[test]
fn orphans_and_daemons_keep_their_route() {
    let script = "fork [ subreaper fork [ await fork [ say kid await fork [ say grandchild pause ] pause ] \
                  double-fork [ say daemon pause ] say inner await ] say outer reap pause ] say root pause";
    let family = Family::spawn(script);
    let router = Router::new();
    let outer = process(&family, "outer");
    router.insert(&outer, "outer").unwrap();
    // The only child of the subreaper: it forks once it is routed.
    let inner = outer.children().unwrap().pop().unwrap();
    router.insert(&inner, "inner").unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(inner.pid().get() as i32),
        nix::sys::signal::Signal::SIGUSR1,
    )
    .unwrap();
    for name in ["kid", "daemon", "inner"] {
        gets(&router, &family, name, Some("inner"));
    }
    poke_and_wait_until_reaped(&family, "inner");
    // They are children of the outer root now, which adopts orphans, and what they start is, too.
    for name in ["kid", "daemon"] {
        assert_eq!(pidigree::parent_of(pid(family.fact(name).pid)).unwrap(), Some(outer.pid()), "{name}");
        gets(&router, &family, name, Some("inner"));
    }
    family.poke(family.fact("kid").pid);
    gets(&router, &family, "grandchild", Some("inner"));
    gets(&router, &family, "outer", Some("outer"));
    gets(&router, &family, "root", None);
    // Forgotten and found again, it is the same.
    let again = Router::with_capacity(0);
    for route in router.iter() {
        again.insert_tree(route.tree().clone(), **route.value()).unwrap();
    }
    for name in ["kid", "daemon", "grandchild"] {
        gets(&again, &family, name, Some("inner"));
    }
    gets(&again, &family, "outer", Some("outer"));
}

#[test]
fn an_outer_route_that_comes_later_is_outer_to_the_orphans_of_an_inner_one() {
    let script = "fork [ fork [ say kid pause ] say inner await ] subreaper say outer reap pause";
    let family = Family::spawn(script);
    let router = Router::new();
    family.fact("kid");
    family.fact("outer");
    router.insert(&process(&family, "inner"), "inner").unwrap();
    gets(&router, &family, "kid", Some("inner"));
    poke_and_wait_until_reaped(&family, "inner");
    // The orphan is its child by now.
    router.insert(&process(&family, "outer"), "outer").unwrap();
    gets(&router, &family, "kid", Some("inner"));
    gets(&router, &family, "outer", Some("outer"));
    let inner = router.iter().next().unwrap();
    assert!(inner.remove());
    gets(&router, &family, "kid", Some("outer"));
}

/// Its root can tell nobody any more what it was below.
#[test]
fn a_tree_that_has_outlived_its_root_and_its_tracker_is_nested_as_before() {
    let script = "fork [ fork [ say kid pause ] say inner await ] subreaper say outer reap pause";
    let family = Family::spawn(script);
    family.fact("kid");
    family.fact("outer");
    let tree = Tree::attach(&process(&family, "inner")).unwrap();
    let state = tree.save();
    drop(tree);
    poke_and_wait_until_reaped(&family, "inner");
    let router = Router::new();
    router.insert(&process(&family, "outer"), "outer").unwrap();
    router.insert_tree(Tree::adopt(&state).unwrap(), "inner").unwrap();
    gets(&router, &family, "kid", Some("inner"));
    gets(&router, &family, "outer", Some("outer"));
}

#[test]
fn what_is_forked_later_is_routed_at_once() {
    let family =
        Family::spawn("say root await fork [ say first await fork [ say second pause ] pause ] pause");
    let router = Router::new();
    router.insert(&process(&family, "root"), "value").unwrap();
    family.poke(family.fact("root").pid);
    gets(&router, &family, "first", Some("value"));
    family.poke(family.fact("first").pid);
    gets(&router, &family, "second", Some("value"));
}

#[test]
fn a_spawned_tree_can_be_routed() {
    let (family, spawned) = Family::builder()
        .spawn_by("fork [ say kid pause ] double-fork [ say daemon pause ] say root pause", Tree::spawn);
    let (tree, mut child) = spawned.unwrap();
    let router = Router::new();
    let route = router.insert_tree(tree, "value").unwrap();
    for name in ["root", "kid", "daemon"] {
        gets(&router, &family, name, Some("value"));
    }
    assert!(router.insert_tree(route.tree().clone(), "again").unwrap_err().is_already_routed());
    family.end();
    child.wait().unwrap();
    let (root, value) = router.next_emptied(Some(DEADLINE)).unwrap().expect("it has ended");
    assert_eq!((root, *value), (*route.root(), "value"));
    let error = router.insert_tree(route.tree().clone(), "again").unwrap_err();
    assert!(error.is_gone(), "{error}");
}

#[test]
fn an_excluded_daemon_has_no_route_of_the_tree() {
    let family = Family::spawn(
        "fork [ fork [ say below pause ] say service pause ] fork [ say kid pause ] say root pause",
    );
    for name in ["below", "service", "kid"] {
        family.fact(name);
    }
    let tree =
        Tree::builder().exclude(&process(&family, "service")).attach(&process(&family, "root")).unwrap();
    let router = Router::new();
    router.insert_tree(tree, "value").unwrap();
    gets(&router, &family, "kid", Some("value"));
    gets(&router, &family, "service", None);
    gets(&router, &family, "below", None);
}

#[test]
fn whoever_has_ended_is_refused() {
    let family = Family::spawn("fork [ say kid await ] say root pause");
    let router = Router::new();
    let kid = process(&family, "kid");
    router.insert(&process(&family, "root"), "value").unwrap();
    gets(&router, &family, "kid", Some("value"));
    family.poke(family.fact("kid").pid);
    family.wait_ended(family.fact("kid").pid);
    // A zombie, since its parent does not reap.
    let error = router.resolve(Caller::Process(kid.pid())).unwrap_err();
    assert!(error.is_gone() && error.pid() == Some(kid.pid()), "{error}");
    let error = router.insert(&kid, "late").unwrap_err();
    assert!(error.is_gone(), "{error}");
    let nobody = Pid::new(i32::MAX as u32).unwrap();
    for caller in [Caller::Process(nobody), Caller::Thread(nobody)] {
        let error = router.resolve(caller).unwrap_err();
        assert!(error.is_gone() && error.pid() == Some(nobody), "{error}");
    }
    assert_eq!(router.len(), 1);
}

#[test]
fn a_root_is_routed_once() {
    let family = Family::spawn("say root pause");
    let router = Router::new();
    let root = process(&family, "root");
    router.insert(&root, "first").unwrap();
    let error = router.insert(&root, "second").unwrap_err();
    assert!(error.is_already_routed() && error.pid() == Some(root.pid()), "{error}");
    assert!(router.insert_tree(Tree::attach(&root).unwrap(), "second").unwrap_err().is_already_routed());
    gets(&router, &family, "root", Some("first"));
    router.remove(root.identity()).unwrap();
    router.insert(&root, "second").unwrap();
    gets(&router, &family, "root", Some("second"));
}

#[test]
fn a_route_leaves_by_itself_and_says_so_once() {
    let router: Router<u32> = Router::new();
    let families: Vec<Family> = (0..20)
        .map(|_| Family::spawn("fork [ double-fork [ say daemon pause ] exit 0 ] say root pause"))
        .collect();
    let mut roots = Vec::new();
    for (number, family) in families.iter().enumerate() {
        family.fact("daemon");
        roots.push(*router.insert(&process(family, "root"), number as u32).unwrap().root());
    }
    assert!(router.next_emptied(Some(Duration::ZERO)).unwrap().is_none());
    let weak: Vec<_> = router.iter().map(|route| Arc::downgrade(route.value())).collect();
    std::thread::scope(|scope| {
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let router = router.clone();
                scope.spawn(move || {
                    let mut taken = Vec::new();
                    while !router.is_empty() {
                        taken.extend(router.next_emptied(Some(Duration::from_millis(50))).unwrap());
                    }
                    while let Some(more) = router.next_emptied(Some(Duration::ZERO)).unwrap() {
                        taken.push(more);
                    }
                    taken
                })
            })
            .collect();
        families.iter().for_each(Family::end);
        let mut taken: Vec<_> = takers
            .into_iter()
            .flat_map(|taker| taker.join().unwrap())
            .map(|(root, value)| (*value, root))
            .collect();
        taken.sort_unstable_by_key(|(number, _)| *number);
        assert_eq!(
            taken,
            roots.into_iter().enumerate().map(|(n, root)| (n as u32, root)).collect::<Vec<_>>()
        );
    });
    assert!(router.next_emptied(Some(Duration::ZERO)).unwrap().is_none());
    assert!(weak.iter().all(|value| value.upgrade().is_none()), "nothing of it is kept");
}

#[test]
fn a_taker_that_waits_for_ever_is_woken() {
    let family = Family::spawn("say root pause");
    let router = Router::new();
    router.insert(&process(&family, "root"), 7).unwrap();
    let taker = std::thread::spawn({
        let router = router.clone();
        move || router.next_emptied(None).unwrap().map(|(_, value)| *value)
    });
    family.end();
    assert_eq!(taker.join().unwrap(), Some(7));
}

#[test]
fn after_the_end_of_a_nested_route_its_parent_gets_the_outer_one() {
    let family = Family::spawn("fork [ say inner await ] say outer pause");
    let router = Router::new();
    router.insert(&process(&family, "outer"), "outer").unwrap();
    router.insert(&process(&family, "inner"), "inner").unwrap();
    gets(&router, &family, "inner", Some("inner"));
    family.poke(family.fact("inner").pid);
    family.wait_ended(family.fact("inner").pid);
    let (_, value) = router.next_emptied(Some(DEADLINE)).unwrap().expect("its tree is empty");
    assert_eq!(*value, "inner");
    gets(&router, &family, "outer", Some("outer"));
    assert_eq!(router.len(), 1);
}

#[test]
fn a_removed_route_is_not_said_to_be_empty() {
    let family = Family::spawn("say root pause");
    let router = Router::new();
    let route = router.insert(&process(&family, "root"), 1).unwrap();
    assert!(route.remove());
    family.end();
    assert!(route.tree().wait_empty(Some(DEADLINE)).unwrap().is_some());
    assert!(router.next_emptied(Some(Duration::ZERO)).unwrap().is_none());
    // A route outlives its router, and then there is nothing to remove it from.
    drop(router);
    assert!(!route.remove());
}

#[test]
fn the_kernel_has_no_route() {
    let family = Family::spawn("say root pause");
    let router = Router::new();
    router.insert(&process(&family, "root"), 1).unwrap();
    assert_eq!(router.resolve(Caller::Kernel).unwrap(), None);
}

#[cfg(target_os = "linux")] // threads have no numbers elsewhere
#[test]
fn a_thread_has_the_route_of_its_process() {
    let script = "fork [ thread [ say worker await say over ] thread [ fork [ say of-worker pause ] say other pause ] \
                  say kid pause ] say root pause";
    let family = Family::spawn(script);
    let router = Router::new();
    router.insert(&process(&family, "root"), "root").unwrap();
    let worker = family.fact("worker");
    let caller = Caller::Thread(pid(worker.tid));
    assert_ne!(worker.tid, worker.pid);
    for _ in 0..2 {
        assert_eq!(resolve(&router, caller).unwrap(), Some("root"));
        assert_eq!(resolve(&router, Caller::Thread(pid(worker.pid))).unwrap(), Some("root"));
    }
    // A thread is no process, known or not.
    let error = router.resolve(Caller::Process(pid(worker.tid))).unwrap_err();
    assert!(error.is_thread(), "{error}");
    // A new route is its thread's, too.
    router.insert(&process(&family, "kid"), "kid").unwrap();
    for _ in 0..2 {
        assert_eq!(resolve(&router, caller).unwrap(), Some("kid"));
    }
    family.poke(worker.pid);
    family.fact("over");
    eventually("the thread has ended", || router.resolve(caller).is_err().then_some(()));
    assert!(router.resolve(caller).unwrap_err().is_gone());
    gets(&router, &family, "of-worker", Some("kid"));
}

#[cfg(target_os = "linux")] // as above
#[test]
fn a_process_whose_first_thread_has_ended_keeps_its_route() {
    let family = Family::spawn("say root fork [ thread [ say worker pause ] say kid thread-exit ] pause");
    let router = Router::new();
    router.insert(&process(&family, "root"), "root").unwrap();
    let worker = family.fact("worker");
    family.fact("kid");
    for _ in 0..2 {
        assert_eq!(resolve(&router, Caller::Thread(pid(worker.tid))).unwrap(), Some("root"));
        assert_eq!(resolve(&router, Caller::Process(pid(worker.pid))).unwrap(), Some("root"));
    }
}

#[cfg(target_os = "linux")] // elsewhere its threads are not to be seen
#[test]
fn a_kernel_thread_has_no_route() {
    let family = Family::spawn("say root pause");
    let router = Router::new();
    router.insert(&process(&family, "root"), 1).unwrap();
    // kthreadd, where the first PID namespace is seen.
    let Ok(kernel) = Process::open(pid(2)) else { return };
    if kernel.parent().unwrap().is_none() {
        assert_eq!(resolve(&router, Caller::Process(pid(2))).unwrap(), None);
        assert_eq!(resolve(&router, Caller::Thread(pid(2))).unwrap(), None);
    }
}
