//! B9: from a caller to its route, as a file system asks at every look-up.

#[expect(dead_code, reason = "each benchmark takes its part of it")]
mod common;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
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
        insert(&router, root, value);
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

    // One that shares nothing with the first.
    let elsewhere = Router::new();
    insert(&elsewhere, pid(families[1].fact("root").pid), ROUTES);
    assert_eq!(ask(&elsewhere, leaves[1]).as_deref(), Some(&ROUTES));

    let first = || drop(black_box(ask(&router, leaves[0])));
    let second = || drop(black_box(ask(&router, leaves[1])));
    let apart = || drop(black_box(ask(&elsewhere, leaves[1])));
    #[cfg(target_os = "linux")] // as the floor is
    let polls = pins.each_ref().map(|pin| {
        move || {
            black_box(by_hand::is_alive(pin));
        }
    });
    let threads = Threads::new();
    std::thread::scope(|scope| {
        scope.spawn(|| threads.serve());
        let contest = Contest::new("B9", "resolve, two threads", threads.both(&first, &second))
            .against("one thread", threads.beside(&first, &apart))
            .against("one thread alone", each(first));
        judge.hold(contest);
        // What the machine gives.
        #[cfg(target_os = "linux")] // as the floor is
        {
            let [first, second] = &polls;
            let contest = Contest::new("B9", "one poll, two threads", threads.both(first, second));
            judge.hold(contest.against("one thread alone", each(first)));
        }
        threads.call(None);
    });
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

fn insert(router: &Router<usize>, root: Pid, value: usize) {
    let process = Process::open(root).expect("a root that runs");
    while let Err(error) = router.insert(&process, value) {
        assert!(error.is_unstable(), "{error}");
    }
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

/// This thread and a second one, which works as long as this one does.
struct Threads<'a> {
    /// The second one's; none ends it.
    work: Mutex<Option<&'a (dyn Fn() + Sync)>>,
    /// Asleep, until there is something to do.
    called: Barrier,
    /// Awake, so that nobody's time has the other's waking in it.
    ready: AtomicU64,
    over: AtomicBool,
    /// How often the second one did its work.
    times: AtomicU64,
    done: Barrier,
}

impl<'a> Threads<'a> {
    fn new() -> Threads<'a> {
        Threads {
            work: Mutex::default(),
            called: Barrier::new(2),
            ready: AtomicU64::new(0),
            over: AtomicBool::new(false),
            times: AtomicU64::new(0),
            done: Barrier::new(2),
        }
    }

    fn serve(&self) {
        while let Some(work) = self.next() {
            let mut times = 0;
            while !self.over.load(Ordering::Relaxed) {
                work();
                times += 1;
            }
            self.times.store(times, Ordering::SeqCst);
            self.done.wait();
        }
    }

    fn next(&self) -> Option<&'a (dyn Fn() + Sync)> {
        self.called.wait();
        let work = *self.work.lock().expect("no panic");
        self.meet();
        work
    }

    /// Gives the second one its work, or ends it.
    fn call(&self, work: Option<&'a (dyn Fn() + Sync)>) {
        *self.work.lock().expect("no panic") = work;
        self.over.store(false, Ordering::SeqCst);
        self.called.wait();
        self.meet();
    }

    fn meet(&self) {
        let both = (self.ready.fetch_add(1, Ordering::SeqCst) / 2 + 1) * 2;
        while self.ready.load(Ordering::SeqCst) < both {
            std::thread::yield_now();
        }
    }

    /// The work of both, so many times in all.
    fn both(&'a self, first: &'a (dyn Fn() + Sync), second: &'a (dyn Fn() + Sync)) -> Work<'a> {
        Box::new(move |times| {
            let (took, others) = self.repeat(times, first, second);
            took.mul_f64(times as f64 / (times + others) as f64)
        })
    }

    /// That of the first, with the other processor in the same use: two may share a core, and then each is faster while the
    /// other one sleeps, whatever it runs.
    fn beside(&'a self, first: &'a (dyn Fn() + Sync), second: &'a (dyn Fn() + Sync)) -> Work<'a> {
        Box::new(move |times| self.repeat(times, first, second).0)
    }

    /// How long the first one took for so many times, and how often the second one did its work meanwhile.
    fn repeat(&self, times: u64, first: &dyn Fn(), second: &'a (dyn Fn() + Sync)) -> (Duration, u64) {
        self.call(Some(second));
        let start = Instant::now();
        (0..times).for_each(|_| first());
        let took = start.elapsed();
        self.over.store(true, Ordering::SeqCst);
        self.done.wait();
        (took, self.times.load(Ordering::SeqCst))
    }
}
