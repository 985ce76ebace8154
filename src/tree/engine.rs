//! One thread, one lock and one set of kernel event sources for all trees of this process.

use std::collections::{BTreeSet, HashMap};
use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::pid::Pid;
use crate::state::ExitStatus;
use crate::sys::{self, Interest, Selector};
use crate::tree::follow::{Change, Follow, Remains, Source};
use crate::tree::follower::Follower;
use crate::tree::heed::Heeded;
use crate::tree::left::Left;
use crate::tree::marks::Marks;
use crate::watch::{ProcessWatcher, WatchKey};

/// All trees of this process.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) selector: Selector,
    inner: Mutex<Inner>,
}

/// What the lock is for.
#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) trees: HashMap<u64, Follow>,
    last_key: u64,
    pub(super) connector: Option<sys::Connector>,
    /// Whose notices go to which trees.
    pub(super) told: BTreeSet<(Pid, u64)>,
    /// The ends of members, where the connector does not tell them.
    pub(super) watcher: Option<ProcessWatcher>,
    pub(super) watched: HashMap<WatchKey, (u64, Pid)>,
    /// Trees of which the connector has told an end, before a look at what they go by.
    pub(super) unchecked: BTreeSet<u64>,
    /// When the last notice was of.
    pub(super) last_notice: u64,
    pub(super) marks: Marks,
    /// Of whom was told who is in no tree: with the parent, and when.
    pub(super) strays: Vec<(Pid, Pid, u64)>,
    /// To be used again.
    pub(super) changes: Vec<Change>,
    pub(super) left: HashMap<u64, Left>,
    /// Of trees that are over, to be cleared away when that has been told.
    pub(super) remains: Vec<Arc<Remains>>,
    pub(super) heeded: Heeded,
    /// Until when the thread sleeps.
    planned: Option<Instant>,
    /// Some tree has something to tell.
    bell: Arc<AtomicBool>,
    users: usize,
    closed: bool,
}

/// The lock, held.
#[derive(Debug)]
pub(super) struct Locked<'a> {
    engine: &'a Engine,
    /// There until it is given back.
    inner: Option<MutexGuard<'a, Inner>>,
}

/// Keeps the engine running.
#[derive(Debug)]
pub(super) struct Lease(Arc<Engine>);

/// The key of the connector in the selector; trees have their own.
pub(super) const CONNECTOR: u64 = 0;
/// The key of the watcher.
pub(super) const WATCHER: u64 = 1;
const FIRST_TREE: u64 = 2;

/// The engine of this process. Nothing is asked of the kernel under this lock, so that a fork meanwhile is as good as
/// impossible.
fn slot() -> MutexGuard<'static, Option<(Pid, Arc<Engine>)>> {
    static ENGINE: Mutex<Option<(Pid, Arc<Engine>)>> = Mutex::new(None);
    ENGINE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// The one of this process, which is started if it has none. A child of fork(2) gets one of its own.
    pub(super) fn lease() -> Result<Lease> {
        let me = Pid::current();
        loop {
            let running = slot().as_ref().filter(|(pid, _)| *pid == me).map(|(_, engine)| Arc::clone(engine));
            if let Some(lease) = running.as_ref().and_then(Lease::of) {
                return Ok(lease);
            }
            let fresh = Arc::new(Engine {
                selector: Selector::new()?,
                inner: Mutex::new(Inner { last_key: FIRST_TREE, ..Inner::default() }),
            });
            let lease = Lease::of(&fresh);
            let thread = Arc::clone(&fresh);
            let run = move || {
                thread.run();
                // What it holds goes with it.
                slot().take_if(|(_, engine)| Arc::ptr_eq(engine, &thread))
            };
            sys::spawn_quiet("pidigree", move || drop(run()))
                .map_err(|error| Error::os(None, "start the thread that follows process trees", error))?;
            let mut slot = slot();
            let same = |(pid, engine): &(Pid, Arc<Engine>)| {
                *pid == me && !running.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, engine))
            };
            // Another thread was faster: use its own, and let this one end.
            if !slot.as_ref().is_some_and(same) {
                *slot = Some((me, fresh));
                drop(slot);
                if let Some(lease) = lease {
                    return Ok(lease);
                }
            }
        }
    }

    /// All trees. What is done to one can be news of others: they are told when the lock is given back.
    pub(super) fn lock(&self) -> Locked<'_> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Locked { engine: self, inner: Some(inner) }
    }

    /// The thread.
    fn run(&self) {
        // What it does not take in time is lost. In a storm, its fair share is that of one process among hundreds.
        sys::go_before_others();
        let mut ready = Vec::new();
        let mut due: Option<Instant> = None;
        loop {
            let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
            let waited = self.selector.wait(&mut ready, timeout);
            if waited.is_err() {
                // epoll_wait(2) fails only by our own mistake: look at everything, and not too often.
                std::thread::sleep(Duration::from_millis(10));
            }
            let mut inner = self.lock();
            if inner.closed {
                return;
            }
            if waited.is_err() {
                ready.extend(inner.trees.keys());
                ready.extend([CONNECTOR, WATCHER]);
            }
            let unproven = inner.attend(&self.selector, &ready);
            if !unproven.is_empty() {
                drop(inner);
                self.scan(&unproven);
                inner = self.lock();
            }
            due = inner.due();
            inner.planned = due;
        }
    }
}

impl Locked<'_> {
    fn tell(&mut self) {
        let Some(inner) = &mut self.inner else { return };
        if !inner.bell.swap(false, Ordering::Relaxed) {
            return;
        }
        inner.trees.values_mut().for_each(Follow::ring);
        let planned = inner.planned;
        if inner.due().is_some_and(|due| planned.is_none_or(|planned| due < planned)) {
            self.engine.selector.wake();
        }
    }
}

impl Deref for Locked<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        self.inner.as_ref().expect("it is there until it is given back")
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        self.inner.as_mut().expect("it is there until it is given back")
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.tell();
        let remains = self.inner.take().map(|mut inner| std::mem::take(&mut inner.remains));
        // The lock is given back by now.
        remains.into_iter().flatten().for_each(|remains| remains.clear_away());
    }
}

impl Inner {
    pub(super) fn new_key(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }

    /// Takes in what these sources have to tell. Returns which trees are to be scanned.
    fn attend(&mut self, selector: &Selector, ready: &[u64]) -> Vec<u64> {
        self.hear_connector();
        if ready.contains(&WATCHER) {
            self.hear_watcher();
        }
        let now = Instant::now();
        let mut unproven = Vec::new();
        for (key, follow) in
            self.trees.iter_mut().filter(|(_, follow)| follow.due().is_some_and(|due| due <= now))
        {
            follow.set_due(None);
            if follow.needs_scan() {
                unproven.push(*key);
            } else {
                self.unchecked.insert(*key);
            }
        }
        self.unchecked.extend(ready.iter().filter(|key| self.trees.contains_key(key)));
        self.check_sources();
        if !unproven.is_empty() {
            // One reading is as good for all of them.
            let polled =
                self.trees.iter().filter(|(key, follow)| follow.is_polled() && !unproven.contains(key));
            let polled: Vec<u64> = polled.map(|(key, _)| *key).collect();
            unproven.extend(polled);
        }
        for key in ready {
            if self.left.get_mut(key).is_some_and(Left::is_over) {
                if let Some(left) = self.left.remove(key) {
                    selector.remove(left.source().0);
                }
            }
        }
        self.close_if_unused(selector);
        unproven
    }

    pub(super) fn tree(&mut self, key: u64) -> &mut Follow {
        self.trees.get_mut(&key).expect("a tree is there as long as its follower")
    }

    /// Takes in everything that the kernel has told so far and that this tree's owners could know of.
    pub(super) fn catch_up(&mut self, key: u64) {
        self.hear_connector();
        self.hear_watcher();
        self.look(key);
        self.check_sources();
    }

    /// When to look at a tree though nothing woke us.
    fn due(&self) -> Option<Instant> {
        self.trees.values().filter_map(Follow::due).min()
    }

    fn close_if_unused(&mut self, selector: &Selector) {
        if self.users == 0 && self.left.is_empty() && !self.closed {
            self.closed = true;
            selector.wake();
        }
    }

    /// Has the connector opened; returns whether the kernel filters it for us. `buffer`: how much may wait for us, if
    /// it is not open yet.
    pub(super) fn connect(&mut self, selector: &Selector, buffer: Option<usize>) -> Result<bool> {
        if let Some(connector) = &self.connector {
            return Ok(connector.is_filtered());
        }
        let connector = sys::Connector::open(buffer)?;
        selector.add(connector.as_fd(), CONNECTOR, Interest::Readable)?;
        let filtered = connector.is_filtered();
        self.last_notice = sys::monotonic();
        self.connector = Some(connector);
        Ok(filtered)
    }

    pub(super) fn disconnect_if_unused(&mut self, selector: &Selector) {
        if self.trees.values().any(|follow| follow.fed) {
            return;
        }
        if let Some(connector) = self.connector.take() {
            selector.remove(connector.as_fd());
            self.marks = Marks::default();
        }
    }

    /// Puts a tree in.
    pub(super) fn put(&mut self, follower: &Follower, follow: Follow, buffer: Option<usize>) -> Result<()> {
        let (selector, key) = (&follower.engine.selector, follower.key);
        if follow.fed {
            // The last tree that used it may have gone since it was found to work.
            self.connect(selector, buffer)?;
        }
        match &follow.source {
            Source::Cgroup(cgroup) => selector.add(cgroup.events(), key, Interest::Changed)?,
            Source::Subreaper { helper: Some(helper), .. } => {
                selector.add(helper.as_fd(), key, Interest::Readable)?;
            }
            _ => {}
        }
        if !follow.fed && self.watcher.is_none() {
            let watcher = ProcessWatcher::new()?;
            selector.add(watcher.as_fd(), WATCHER, Interest::Readable)?;
            self.watcher = Some(watcher);
        }
        self.trees.insert(key, follow.told_by(&self.bell, &follower.queue));
        Ok(())
    }

    /// Has the connector tell of a member. `threads`: how many it has, where that is known. Returns whether it has not ended.
    pub(super) fn track(&mut self, key: u64, pid: Pid, threads: Option<u32>) -> Result<bool> {
        let Some(connector) = &mut self.connector else { return Ok(true) };
        let mark = self.marks.with(key, connector.mark_of(pid)?, |tree| self.trees.contains_key(&tree));
        connector.mark(pid, mark)?;
        connector.track(pid, threads)
    }

    /// Has the connector tell whom a member had started that has ended, and then of its end. Returns whether it can.
    pub(super) fn track_ended(&mut self, key: u64, ended: &Identity, status: ExitStatus) -> bool {
        let tells = self.connector.as_mut().is_some_and(|connector| connector.track_ended(ended, status));
        if tells {
            self.told.insert((ended.pid(), key));
        }
        tells
    }

    /// Takes a tree out.
    pub(super) fn remove(&mut self, selector: &Selector, key: u64) -> Option<Follow> {
        // Whoever has ended by now is not to be forgotten by a PID that another one has.
        self.hear_connector();
        let mut follow = self.trees.remove(&key)?;
        self.heeded.remove(&key);
        self.marks.retain(|tree| self.trees.contains_key(&tree));
        follow.unregister(selector);
        for pin in follow.pins.values() {
            self.watched.remove(&pin.key);
            if let Some(watcher) = &self.watcher {
                watcher.unwatch(pin.key);
            }
        }
        let told: Vec<Pid> = self.told.iter().filter(|(_, tree)| *tree == key).map(|(pid, _)| *pid).collect();
        for pid in told {
            self.told.remove(&(pid, key));
            self.forget_if_untold(pid);
        }
        if let Some(left) = Left::of(&mut follow) {
            // As long as we are there ourselves.
            let (source, interest) = left.source();
            if selector.add(source, key, interest).is_ok() {
                self.left.insert(key, left);
            }
        }
        Some(follow)
    }

    /// Lets the kernel drop the notices of a process that is in no tree.
    pub(super) fn forget_if_untold(&mut self, pid: Pid) {
        if self.told.range((pid, 0)..=(pid, u64::MAX)).next().is_none() {
            if let Some(connector) = &mut self.connector {
                connector.forget(pid);
            }
        }
    }
}

impl Lease {
    /// None if it is about to end.
    fn of(engine: &Arc<Engine>) -> Option<Lease> {
        let mut inner = engine.lock();
        if inner.closed {
            return None;
        }
        inner.users += 1;
        drop(inner);
        Some(Lease(Arc::clone(engine)))
    }
}

impl Deref for Lease {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.users -= 1;
        inner.close_if_unused(&self.0.selector);
    }
}
