//! B9: from a caller to its route, as a file system asks at every look-up.

#[expect(dead_code, reason = "each benchmark takes its part of it")]
mod common;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use common::judge::{Contest, Judge, Work, each};
use common::{descriptors, pid};
use dashmap::DashMap;
use pidigree::{Backend, Caller, Pid, Process, Router, Tree, TreeChild, ancestors_of};
use pidigree_testkit::Family;

const ROUTES: usize = 1_000;
const DEPTH: usize = 8;

fn main() {
    let mut judge = Judge::from_env();
    descriptors(10 * ROUTES);
    let routed: Vec<(Family, (Tree, TreeChild))> = (2..ROUTES).map(|_| spawned()).collect();
    let families = [family(), family()];
    let router = Router::new();
    // The way of SPFS: a map of roots, and a walk that looks each ancestor up.
    let map: DashMap<Pid, Arc<usize>> = DashMap::new();
    let put = |root: Pid, value: usize| {
        let process = Process::open(root).expect("a root that runs");
        while let Err(error) = router.insert(&process, value) {
            assert!(error.is_unstable(), "{error}");
        }
        map.insert(root, Arc::new(value));
    };
    for (value, (_, (tree, _))) in routed.iter().enumerate() {
        map.insert(tree.root().pid(), Arc::new(value));
        router.insert_tree(tree.clone(), value).expect("a root that runs");
    }
    for (index, family) in families.iter().enumerate() {
        put(pid(family.fact("root").pid), ROUTES - 2 + index);
    }
    let leaves = families.each_ref().map(|family| pid(family.fact("leaf").pid));
    for (index, leaf) in leaves.into_iter().enumerate() {
        assert_eq!(ask(&router, leaf).as_deref(), Some(&(ROUTES - 2 + index)));
        assert_eq!(walk(&map, leaf).as_deref(), Some(&(ROUTES - 2 + index)));
    }
    let [leaf, _] = leaves;
    #[cfg(target_os = "linux")] // as the floor is
    let pins = leaves.map(by_hand::pidfd);

    let contest = Contest::new(
        "B9",
        format!("resolve, warm, depth {DEPTH}, {ROUTES} routes"),
        each(|| ask(&router, leaf)),
    )
    .against("walking", each(|| walk(&map, leaf)));
    #[cfg(target_os = "linux")] // as it is
    let contest = contest
        .against("floor", each(|| by_hand::is_alive(&pins[0])))
        .against("walk and DashMap", each(|| by_hand::walk(&map, leaf)));
    judge.hold(contest);

    let pair = Pair::new(leaves, |leaf| drop(black_box(ask(&router, leaf))));
    std::thread::scope(|scope| {
        pair.serve(scope);
        judge.hold(Contest::new("B9", "resolve, two threads", pair.both()).against("one thread", pair.one()));
        pair.close();
    });
    // What the machine gives.
    #[cfg(target_os = "linux")] // as the floor is
    {
        let pair = Pair::new([0, 1], |index: usize| {
            black_box(by_hand::is_alive(&pins[index]));
        });
        std::thread::scope(|scope| {
            pair.serve(scope);
            judge.hold(
                Contest::new("B9", "one poll, two threads", pair.both()).against("one thread", pair.one()),
            );
            pair.close();
        });
    }
}

/// One that has a route like a thousand others. To attach that many takes a minute: each time, the process table is read.
fn spawned() -> (Family, (Tree, TreeChild)) {
    Family::builder().spawn_by("pause", |command| {
        let by_events = Tree::builder().backend(Backend::ProcConnector).spawn(command);
        by_events.or_else(|_| Tree::spawn(command)).expect("a tree")
    })
}

/// A chain of processes, of which the first has a route and the last one asks.
fn family() -> Family {
    let mut script = String::from("say leaf pause");
    for _ in 1..DEPTH {
        script = format!("fork [ {script} ] pause");
    }
    Family::spawn(format!("fork [ {script} ] say root pause").as_str())
}

fn ask(router: &Router<usize>, caller: Pid) -> Option<Arc<usize>> {
    router.resolve(Caller::Process(caller)).expect("an answer")
}

/// What a router would do that remembers nobody: the verified ancestors, each looked up.
fn walk(map: &DashMap<Pid, Arc<usize>>, caller: Pid) -> Option<Arc<usize>> {
    let above = ancestors_of(caller).expect("ancestors");
    std::iter::once(caller).chain(above).find_map(|pid| map.get(&pid).map(|found| Arc::clone(&found)))
}

#[cfg(target_os = "linux")] // as the floor is
mod by_hand {
    use std::os::fd::{AsFd, FromRawFd, OwnedFd};
    use std::sync::Arc;

    use dashmap::DashMap;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use pidigree::Pid;

    use crate::common::floor;

    pub(crate) fn pidfd(process: Pid) -> OwnedFd {
        let fd = floor::pidfd_open(process.get()).expect("a process that runs");
        // SAFETY: it was opened just now, and nobody else has it
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    pub(crate) fn is_alive(pidfd: &OwnedFd) -> bool {
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).expect("poll") == 0
    }

    /// As SPFS does it: by /proc, link by link, until one is in the map.
    pub(crate) fn walk(map: &DashMap<Pid, Arc<usize>>, caller: Pid) -> Option<Arc<usize>> {
        let mut at = caller;
        loop {
            if let Some(found) = map.get(&at) {
                return Some(Arc::clone(&found));
            }
            at = Pid::new(floor::parent_by_stat(at.get())?)?;
        }
    }
}

/// The same work on two threads at once, each with an object of its own.
struct Pair<T, F> {
    objects: [T; 2],
    work: F,
    times: AtomicU64,
    start: Barrier,
    end: Barrier,
    over: AtomicBool,
}

impl<T: Copy + Send + Sync, F: Fn(T) + Sync> Pair<T, F> {
    fn new(objects: [T; 2], work: F) -> Pair<T, F> {
        let (start, end) = (Barrier::new(2), Barrier::new(2));
        Pair { objects, work, times: AtomicU64::new(0), start, end, over: AtomicBool::new(false) }
    }

    /// The second thread, which waits until it is needed.
    fn serve<'scope>(&'scope self, scope: &'scope std::thread::Scope<'scope, '_>) {
        scope.spawn(move || {
            loop {
                self.start.wait();
                if self.over.load(Ordering::SeqCst) {
                    return;
                }
                self.repeat(1, self.times.load(Ordering::SeqCst));
                self.end.wait();
            }
        });
    }

    fn close(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.start.wait();
    }

    fn repeat(&self, which: usize, times: u64) {
        (0..times).for_each(|_| (self.work)(self.objects[which]));
    }

    /// So many times in all, half of them on each.
    fn both(&self) -> Work<'_> {
        Box::new(move |times| {
            // What it takes to wake the other one is not the work's: there is enough of it.
            let each = times.max(2) * 10 / 2;
            self.times.store(each, Ordering::SeqCst);
            self.start.wait();
            let start = Instant::now();
            self.repeat(0, each);
            self.end.wait();
            start.elapsed() / 10
        })
    }

    fn one(&self) -> Work<'_> {
        Box::new(move |times| {
            let start = Instant::now();
            self.repeat(0, times * 10);
            let took: Duration = start.elapsed();
            took / 10
        })
    }
}
