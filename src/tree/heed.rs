//! Who hears of trees that are over: one ear for as many trees as there are, and no thread.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::tree::Tree;
use crate::tree::engine::Inner;

/// Hears of each tree once, by the number that it was to be told as.
///
/// It is told under the engine's lock, so nobody may ask anything of a tree while holding the ear's.
#[derive(Debug, Default)]
pub(crate) struct Ear {
    told: Mutex<VecDeque<u64>>,
    /// Those that were told and not settled yet.
    pending: AtomicUsize,
    news: Condvar,
}

/// Of each tree, who is to hear of its end.
pub(super) type Heeded = HashMap<u64, Vec<(Weak<Ear>, u64)>>;

impl Ear {
    fn lock(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, number: u64) {
        let mut told = self.lock();
        self.pending.fetch_add(1, Ordering::SeqCst);
        told.push_back(number);
        self.news.notify_all();
    }

    /// Whether something was told and not [settled](Ear::settled).
    pub(crate) fn has_pending(&self) -> bool {
        self.pending.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn take(&self) -> Option<u64> {
        self.lock().pop_front()
    }

    /// What was taken has had its effect.
    pub(crate) fn settled(&self) {
        self.pending.fetch_sub(1, Ordering::SeqCst);
    }

    /// Wakes whoever waits, to look again.
    pub(crate) fn nudge(&self) {
        let _told = self.lock();
        self.news.notify_all();
    }

    /// Waits until something was told, or `look` has something. `look` is called under the ear's lock.
    pub(crate) fn wait(&self, deadline: Option<Instant>, mut look: impl FnMut() -> bool) {
        let mut told = self.lock();
        while told.is_empty() && !look() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            told = match left {
                Some(Duration::ZERO) => return,
                Some(left) => self.news.wait_timeout(told, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.news.wait(told).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// Has this ear hear when the tree is over, now if it is.
pub(crate) fn heed(tree: &Tree, ear: &Arc<Ear>, number: u64) {
    let key = tree.follower.key;
    let mut inner = tree.follower.engine.lock();
    if inner.tree(key).emptied.is_some() {
        return ear.tell(number);
    }
    inner.heeded.entry(key).or_default().push((Arc::downgrade(ear), number));
}

/// Takes in what the kernel has told of trees by now, of all that run in the engine of this one.
pub(crate) fn hear_now(tree: &Tree) {
    let mut inner = tree.follower.engine.lock();
    inner.hear_connector();
    inner.hear_watcher();
}

impl Inner {
    /// Its last step may have ended this tree.
    pub(super) fn tell_over(&mut self, key: u64) {
        for (ear, number) in self.heeded.remove(&key).into_iter().flatten() {
            if let Some(ear) = ear.upgrade() {
                ear.tell(number);
            }
        }
    }
}
