//! What the kernel knows: inodes, as long as it holds them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::layers::Found;
use crate::views::View;

/// A directory or file of a view.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) number: u64,
    pub(super) view: Arc<View>,
    pub(super) found: Found,
}

/// Nodes by their numbers, each with how often the kernel was told of it and has not said that it forgot.
#[derive(Debug)]
pub(super) struct Nodes([Mutex<HashMap<u64, Known>>; SHARDS]);

const SHARDS: usize = 16;

#[derive(Debug)]
struct Known {
    node: Arc<Node>,
    lookups: u64,
}

impl Nodes {
    pub(super) fn new() -> Nodes {
        Nodes(std::array::from_fn(|_| Mutex::default()))
    }

    pub(super) fn find(&self, number: u64) -> Option<Arc<Node>> {
        self.shard(number).get(&number).map(|known| known.node.clone())
    }

    /// The kernel is about to be told of this node once more.
    pub(super) fn tell(&self, number: u64, view: &Arc<View>, found: Found) {
        match self.shard(number).entry(number) {
            Entry::Occupied(mut known) => known.get_mut().lookups += 1,
            Entry::Vacant(free) => {
                free.insert(Known { node: Arc::new(Node { number, view: view.clone(), found }), lookups: 1 });
            }
        }
    }

    pub(super) fn forget(&self, number: u64, lookups: u64) {
        let mut shard = self.shard(number);
        let Entry::Occupied(mut known) = shard.entry(number) else { return };
        let left = known.get().lookups.saturating_sub(lookups);
        known.get_mut().lookups = left;
        let forgotten = (left == 0).then(|| known.remove());
        drop(shard);
        // The last node of a view that is gone takes what is left of it along: not under the lock
        drop(forgotten);
    }

    fn shard(&self, number: u64) -> MutexGuard<'_, HashMap<u64, Known>> {
        let shard = &self.0[(number % SHARDS as u64) as usize];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        // After a `find /` the table would keep its largest size for ever
        if shard.capacity() > 1024 && shard.len() < shard.capacity() / 8 {
            shard.shrink_to_fit();
        }
        shard
    }
}
