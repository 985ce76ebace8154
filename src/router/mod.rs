//! From a caller to the value of the nearest process above it that has a route.

mod cache;
mod rank;
mod table;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::pid::Pid;
use crate::process::Process;
use crate::state::State;
use crate::sys;
use crate::tree::Tree;
use crate::tree::ask::which_contain;
use crate::tree::heed::{Ear, hear_now, heed};

use cache::{As, Cache, Pin};
pub(crate) use rank::Rank;
use table::{Slot, Table};

/// Says which process tree a caller belongs to: each route is a root with a value, and a caller gets the value of the
/// nearest root that it descends from. For file systems, proxies and brokers that show each tree a world of its own.
///
/// A route belongs to its root's [`Tree`]: to the root and everything that it started, daemons and orphans included, each
/// until its own end, whoever its parent becomes. Routes may be nested, and put in in any order. When the last member has
/// ended the route leaves by itself, which [`next_emptied`](Router::next_emptied) says exactly once. What a tree can
/// promise on this machine a route can, too: see [`Tree::coverage`], by way of [`Route::tree`].
///
/// `Send` and `Sync`, and cheap to clone: clones are the same router. A child of fork(2) must not use its parent's.
///
/// # Who is told apart
///
/// No answer rests on a PID alone. What was found out about a caller is kept together with a handle of it, and is good only
/// while that says that the process lives: so it is never said of another one that got its PID. The roots are known by
/// their trees, so one that gets the PID of a root that has ended has no part in its route.
///
/// # Cost
///
/// For a caller that was seen before and lives, one poll(2): a read lock on one of 64 shards, and no other lock. For one
/// that is seen for the first time, or for the first time after a route was put in or [removed](Router::remove), a handle is
/// opened and all trees are asked at once, under one lock; where the kernel tells nothing of them
/// ([`Backend::Poll`](crate::Backend::Poll)), that takes a scan of the process table. (Where there are no pidfds, a poll is
/// the reading of `/proc/PID/stat`.)
///
/// Each caller that is remembered costs a descriptor. No more are held than a share of what this process may have open,
/// a quarter unless [chosen otherwise](Router::with_share); beyond it, and when descriptors run out, those who were not
/// asked for of late are forgotten, and found out about anew when they ask again.
///
/// # Example: two views, one within the other
///
/// ```
/// use std::process::{Command, Stdio};
/// use pidigree::{Caller, Pid, Process, Router};
///
/// let spawn = || Command::new("cat").stdin(Stdio::piped()).spawn();
/// let (mut alice, mut bob) = (spawn().unwrap(), spawn().unwrap());
///
/// let router = Router::new();
/// router.insert(&Process::from_child(&alice)?, "the view of Alice")?;
///
/// let caller = |child: &std::process::Child| Pid::try_from(child.id()).map(Caller::Process);
/// assert_eq!(router.resolve(caller(&alice)?)?.as_deref(), Some(&"the view of Alice"));
/// assert_eq!(router.resolve(caller(&bob)?)?, None);
///
/// // With its last process the route leaves by itself.
/// alice.kill().unwrap();
/// alice.wait().unwrap();
/// let (root, view) = router.next_emptied(None)?.expect("no timeout was set");
/// assert_eq!((root.pid().get(), *view), (alice.id(), "the view of Alice"));
/// assert!(router.is_empty());
/// # bob.kill().unwrap();
/// # bob.wait().unwrap();
/// # Ok::<(), pidigree::Error>(())
/// ```
pub struct Router<V> {
    shared: Arc<Shared<V>>,
}

/// Who asks, as the interface through which it asked names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Caller {
    /// A process.
    Process(Pid),
    /// A thread, by its id: the process that owns it. So FUSE names its callers on Linux. A process's PID is the id of its
    /// first thread.
    Thread(Pid),
    /// The kernel itself, or somebody in a PID namespace that cannot be seen from here: FUSE says 0. Has no route.
    Kernel,
}

/// One route of a [`Router`]. Dropping it does nothing to the route.
pub struct Route<V> {
    slot: Arc<Slot<V>>,
    router: Weak<Shared<V>>,
}

/// The routes of a [`Router`] at one moment; see [`Router::iter`].
pub struct Routes<V> {
    table: Arc<Table<V>>,
    next: usize,
    router: Weak<Shared<V>>,
}

struct Shared<V> {
    /// Who changes the routes holds `changes`; nobody asks a tree anything while holding this.
    table: RwLock<Arc<Table<V>>>,
    /// The number of the last route.
    changes: Mutex<u64>,
    cache: Cache<V>,
    ear: Arc<Ear>,
    /// Those that have left by themselves and were not taken.
    emptied: Mutex<VecDeque<(Identity, Arc<V>)>>,
}

/// What share of the descriptors that may be open is for handles of callers.
const SHARE: f64 = 0.25;
/// Beyond it, it is memory that is used up.
const MOST: usize = 1 << 16;
/// How often something is tried again for which no descriptor was free.
const SHEDS: usize = 8;

const RESOLVE: &str = "find the route of process";
const INSERT: &str = "route process";
const ORDER: &str = "it is in the trees of two routes whose roots started within one clock tick, and nothing tells which \
                     of them is below the other";

impl<V> Router<V> {
    /// Creates a router without routes.
    pub fn new() -> Router<V> {
        Router::with_share(SHARE)
    }

    /// Creates one that holds at most this share of the descriptors that this process may have open now (the soft
    /// RLIMIT_NOFILE), from 0 to 1, and 65,536 at most. With 0 nothing is remembered.
    pub fn with_share(share: f64) -> Router<V> {
        // A float becomes the nearest number that there is.
        Router::with_capacity((sys::open_files_limit() as f64 * share) as usize)
    }

    /// Creates one that remembers at most so many callers.
    pub fn with_capacity(callers: usize) -> Router<V> {
        Router {
            shared: Arc::new(Shared {
                table: RwLock::default(),
                changes: Mutex::new(0),
                cache: Cache::new(callers.min(MOST)),
                ear: Arc::default(),
                emptied: Mutex::default(),
            }),
        }
    }

    /// Routes a process that runs, and all that descends from it now or will, to this value: from its return on everybody
    /// in there gets it who does not descend from a nearer root.
    ///
    /// # Errors
    ///
    /// [`is_gone`](Error::is_gone) if the process has ended, a zombie included;
    /// [`is_already_routed`](Error::is_already_routed) if it has a route; otherwise those of [`Tree::attach`].
    ///
    /// # Races
    ///
    /// Those of [`Tree::attach`]: who was orphaned before cannot be linked to the root any more. A root that ends while it is
    /// being routed is refused, or its route leaves by itself.
    pub fn insert(&self, root: &Process, value: V) -> Result<Route<V>> {
        // Its route, if it had one, may not have been told of that yet.
        if root.state()? != State::Running {
            return Err(Error::gone(root.pid(), INSERT));
        }
        self.refuse_routed(root.identity())?;
        let tree = self.shared.with_room(|| Tree::attach(root))?;
        self.shared.insert(tree, Some(root.clone()), value).map(|slot| self.route(slot))
    }

    /// The same, with a tree that the caller has spawned, adopted, or attached with exclusions or evidence of its own. The
    /// root may have ended if the tree lives.
    ///
    /// # Errors
    ///
    /// [`is_gone`](Error::is_gone) if the tree is empty; [`is_already_routed`](Error::is_already_routed) if its root has a
    /// route; [`is_unsupported`](Error::is_unsupported) if its root has ended, it shares members with another route, and both
    /// roots started within the same clock tick: nobody can say which is below the other.
    pub fn insert_tree(&self, tree: Tree, value: V) -> Result<Route<V>> {
        let root = tree.root();
        self.refuse_routed(&root)?;
        let pin = self.shared.with_room(|| tree.open_root())?;
        self.shared.insert(tree, pin, value).map(|slot| self.route(slot))
    }

    /// Returns the value of the nearest routed process that the caller is, or descends from; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`is_gone`](Error::is_gone) if there is no such caller, or it has ended, a zombie included, before the answer was
    /// found: it may have had a route, but it asks nothing any more. [`is_thread`](Error::is_thread) if [`Caller::Process`]
    /// names a thread. [`is_limit`](Error::is_limit) if no descriptor is free, not even after all callers were forgotten.
    /// [`is_unstable`](Error::is_unstable) if, with trees that have to be [polled](crate::Backend::Poll), it could not be
    /// proven whether it is in one; asking again may work, unless it is a possible orphan of one. Whoever may be in a tree is
    /// never told that it has no route. [`is_unsupported`](Error::is_unsupported) if it is in the trees of two routes and nothing
    /// tells which is the nearer one: one's root was orphaned before the other was put in, and both roots started within one
    /// clock tick.
    ///
    /// # Races
    ///
    /// The answer is of the process that had this number at one moment during the call. A caller that waits for the answer,
    /// as FUSE's do, has it all the time.
    pub fn resolve(&self, caller: Caller) -> Result<Option<Arc<V>>> {
        let (number, kind) = match caller {
            Caller::Process(pid) => (pid, As::Process),
            Caller::Thread(tid) => (tid, As::Thread),
            Caller::Kernel => return Ok(None),
        };
        if let Some(known) = self.shared.cache.look(number, kind)? {
            return Ok(known);
        }
        self.shared.settle();
        match kind {
            As::Process => self.shared.find(number).map(|found| found.value()),
            As::Thread => self.shared.find_thread(number),
        }
    }

    /// Takes the route of this root away, and returns its value; `None` if there is none (any more). Its members get what
    /// they get without it. The tree itself is no longer followed, unless somebody else has it.
    ///
    /// Of a route that is taken away, [`next_emptied`](Router::next_emptied) says nothing.
    pub fn remove(&self, root: &Identity) -> Option<Arc<V>> {
        self.shared.settle();
        let number = self.shared.table().of(root)?.rank.number;
        self.shared.remove(number).map(|slot| Arc::clone(&slot.value))
    }

    /// Waits for the next route to leave because all members of its tree have ended, and returns its root and value; `None` if
    /// the time was up before. `timeout`: `None` waits for ever, zero only looks.
    ///
    /// Each is said to one taker exactly once, whichever clones wait on whichever threads. Until it is taken, its value is
    /// kept: a router whose routes come and go should have somebody who asks.
    ///
    /// # Errors
    ///
    /// None at present: what goes wrong in following a tree is told by [`Route::tree`], and does not empty it.
    ///
    /// # Cost
    ///
    /// None while nothing happens: it sleeps, and there is one thread for all trees of the process.
    pub fn next_emptied(&self, timeout: Option<Duration>) -> Result<Option<(Identity, Arc<V>)>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let shared = &self.shared;
        let mut heard = false;
        loop {
            shared.settle();
            let taken = shared.emptied().pop_front();
            if taken.is_some() {
                return Ok(taken);
            }
            if !heard {
                heard = true;
                if let Some(slot) = shared.table().slots.first() {
                    hear_now(&slot.tree);
                }
                continue;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(None);
            }
            shared.ear.wait(deadline, || !shared.emptied().is_empty());
        }
    }

    /// Iterates over the routes that there are now, in the order in which they were put in.
    pub fn iter(&self) -> Routes<V> {
        self.shared.settle();
        Routes { table: self.shared.table(), next: 0, router: Arc::downgrade(&self.shared) }
    }

    /// Returns how many routes there are.
    pub fn len(&self) -> usize {
        self.shared.settle();
        self.shared.table().slots.len()
    }

    /// Returns whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Before anything is done for it.
    fn refuse_routed(&self, root: &Identity) -> Result<()> {
        self.shared.settle();
        match self.shared.table().at(root)? {
            Some(_) => Err(Error::already_routed(root.pid())),
            None => Ok(()),
        }
    }

    fn route(&self, slot: Arc<Slot<V>>) -> Route<V> {
        Route { slot, router: Arc::downgrade(&self.shared) }
    }
}

/// What was found out about a process.
struct Found<V> {
    value: Option<(u64, Arc<V>)>,
    /// That is how it stays, until routes come or go.
    settled: bool,
    moment: cache::Moment,
}

impl<V> Found<V> {
    fn value(self) -> Option<Arc<V>> {
        self.value.map(|(_, value)| value)
    }
}

impl<V> Shared<V> {
    fn table(&self) -> Arc<Table<V>> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The old one is to be dropped when no lock is held: values may have something to say to us, and trees to theirs.
    #[must_use]
    fn replace(&self, table: Table<V>) -> Arc<Table<V>> {
        let mut place = self.table.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut place, Arc::new(table))
    }

    fn changes(&self) -> MutexGuard<'_, u64> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn emptied(&self) -> MutexGuard<'_, VecDeque<(Identity, Arc<V>)>> {
        self.emptied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As long as descriptors run out, and callers can be forgotten for their sake.
    fn with_room<T>(&self, mut act: impl FnMut() -> Result<T>) -> Result<T> {
        for _ in 0..SHEDS {
            match act() {
                Err(error) if error.is_limit() && self.cache.shed() => {}
                done => return done,
            }
        }
        act()
    }

    fn find(&self, pid: Pid) -> Result<Found<V>> {
        let process = self.with_room(|| Process::open(pid))?;
        let found = self.with_room(|| self.find_process(&process))?;
        if found.settled {
            self.cache.keep(pid, Pin::Process(process), found.value.clone(), found.moment);
        }
        Ok(found)
    }

    /// A thread's process cannot end, nor another one get its PID, before the thread has ended.
    fn find_thread(&self, tid: Pid) -> Result<Option<Arc<V>>> {
        let thread = self.with_room(|| sys::Thread::open(tid))?;
        if thread.owner() == tid {
            return self.find(tid).map(Found::value);
        }
        let process = self.with_room(|| Process::open(thread.owner()))?;
        let found = self.with_room(|| self.find_process(&process));
        if !thread.is_alive()? {
            return Err(Error::gone(tid, "find the route of thread"));
        }
        let found = found?;
        if found.settled {
            self.cache.keep(tid, Pin::Thread(thread), found.value.clone(), found.moment);
        }
        Ok(found.value())
    }

    fn find_process(&self, process: &Process) -> Result<Found<V>> {
        let moment = self.cache.now();
        let table = self.table();
        if process.state()? != State::Running {
            return Err(Error::gone(process.pid(), RESOLVE));
        }
        let rank = |place: usize| &table.slots[place].rank;
        let matters = |inside: &[usize], place| Rank::may_be_nearest(inside, place, rank);
        let answer = which_contain(table.trees(), process, matters);
        // Once it has ended, trees do not know it any more.
        if process.state()? != State::Running {
            return Err(Error::gone(process.pid(), RESOLVE));
        }
        let answer = answer?;
        let nearest = Rank::nearest(&answer.inside, rank);
        if nearest.is_none() && !answer.inside.is_empty() {
            return Err(Error::unsupported(process.pid(), RESOLVE, ORDER));
        }
        let slot = nearest.map(|place| &table.slots[place]);
        let value = slot.map(|slot| (slot.rank.number, Arc::clone(&slot.value)));
        Ok(Found { value, settled: answer.settled, moment })
    }

    fn insert(&self, tree: Tree, pin: Option<Process>, value: V) -> Result<Arc<Slot<V>>> {
        let line = tree.line();
        let root = line[0];
        let value = Arc::new(value);
        let mut last = self.changes();
        let table = self.table();
        if table.at(&root)?.is_some() {
            return Err(Error::already_routed(root.pid()));
        }
        if tree.is_empty() {
            return Err(Error::gone(root.pid(), INSERT));
        }
        let number = *last + 1;
        let rank = self.with_room(|| table.rank(number, &line, pin.as_ref(), &tree))?;
        *last = number;
        let new = table.with(Slot { rank, pin, tree: tree.clone(), value });
        let slot = Arc::clone(&new.slots[new.slots.len() - 1]);
        // It has to be there before it can be told to leave.
        let old = self.replace(new);
        self.cache.forget_all();
        drop(last);
        drop((old, table));
        heed(&tree, &self.ear, number);
        Ok(slot)
    }

    /// Takes it out; its members are found out about anew.
    fn remove(&self, number: u64) -> Option<Arc<Slot<V>>> {
        let last = self.changes();
        let (new, slot) = self.table().without(number)?;
        let old = self.replace(new);
        self.cache.forget_all();
        drop(last);
        self.cache.forget_route(number);
        drop(old);
        Some(slot)
    }

    /// Takes out those whose trees were told to be over. Nobody lives that could have got anything by them, so what was
    /// found out about others stands.
    fn settle(&self) {
        if !self.ear.has_pending() {
            return;
        }
        let mut dropped = Vec::new();
        let mut left = 0;
        // Whoever comes second finds it done.
        let last = self.changes();
        while let Some(number) = self.ear.take() {
            if let Some((new, slot)) = self.table().without(number) {
                dropped.push(self.replace(new));
                self.cache.forget_route(number);
                self.emptied().push_back((slot.rank.root, Arc::clone(&slot.value)));
                left += 1;
            }
            self.ear.settled();
        }
        drop(last);
        if left > 0 {
            self.ear.nudge();
        }
    }
}

impl<V> Route<V> {
    /// Returns the root.
    pub fn root(&self) -> &Identity {
        &self.slot.rank.root
    }

    /// Returns the value.
    pub fn value(&self) -> &Arc<V> {
        &self.slot.value
    }

    /// Returns the tree, which says what can be promised of it, who is in it, and what went wrong.
    pub fn tree(&self) -> &Tree {
        &self.slot.tree
    }

    /// Takes this very route away, as [`Router::remove`] does. Returns whether it was there.
    pub fn remove(&self) -> bool {
        self.router.upgrade().is_some_and(|router| {
            router.settle();
            router.remove(self.slot.rank.number).is_some()
        })
    }
}

impl<V> Iterator for Routes<V> {
    type Item = Route<V>;

    fn next(&mut self) -> Option<Route<V>> {
        let slot = Arc::clone(self.table.slots.get(self.next)?);
        self.next += 1;
        Some(Route { slot, router: Weak::clone(&self.router) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.table.slots.len() - self.next;
        (left, Some(left))
    }
}

impl<V> ExactSizeIterator for Routes<V> {}

impl<V> std::iter::FusedIterator for Routes<V> {}

impl<V> IntoIterator for &Router<V> {
    type Item = Route<V>;
    type IntoIter = Routes<V>;

    fn into_iter(self) -> Routes<V> {
        self.iter()
    }
}

impl<V> Clone for Router<V> {
    fn clone(&self) -> Router<V> {
        Router { shared: Arc::clone(&self.shared) }
    }
}

impl<V> Clone for Route<V> {
    fn clone(&self) -> Route<V> {
        Route { slot: Arc::clone(&self.slot), router: Weak::clone(&self.router) }
    }
}

impl<V> Default for Router<V> {
    fn default() -> Router<V> {
        Router::new()
    }
}

impl<V> fmt::Debug for Router<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.shared.table();
        let roots = table.slots.iter().map(|slot| slot.rank.root);
        f.debug_struct("Router").field("roots", &roots.collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

impl<V: fmt::Debug> fmt::Debug for Route<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("root", self.root())
            .field("value", self.value())
            .finish_non_exhaustive()
    }
}

impl<V> fmt::Debug for Routes<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("left", &(self.table.slots.len() - self.next)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
