//! What the kernel marks the members of trees with, so that after a loss it is known which trees whoever is alive is in.

use std::collections::{BTreeMap, BTreeSet};

/// A process inherits its mark when it is forked. The mark of those that are in one tree is the key of that.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Of those that are in several: one for each set of trees.
    shared: BTreeMap<u64, BTreeSet<u64>>,
    /// The last of these, there or not: processes outlive trees.
    last: u64,
}

/// Keys of trees are below.
const SHARED: u64 = 1 << 63;

impl Marks {
    /// Some of them may be over. 0 is the mark of those that are in none.
    pub(super) fn trees_of(&self, mark: u64) -> BTreeSet<u64> {
        match self.shared.get(&mark) {
            Some(trees) => trees.clone(),
            None => BTreeSet::from_iter((mark != 0).then_some(mark)),
        }
    }

    /// The mark of whoever has that mark, and is in this tree, too.
    pub(super) fn with(&mut self, tree: u64, mark: u64, is_tree: impl Fn(u64) -> bool) -> u64 {
        let mut trees = self.trees_of(mark);
        trees.retain(|tree| is_tree(*tree));
        trees.insert(tree);
        if trees.len() == 1 {
            return tree;
        }
        if let Some((known, _)) = self.shared.iter().find(|(_, set)| **set == trees) {
            return *known;
        }
        self.last = SHARED.max(self.last + 1);
        self.shared.insert(self.last, trees);
        self.last
    }

    /// Nobody asks for the others any more.
    pub(super) fn retain(&mut self, is_tree: impl Fn(u64) -> bool) {
        self.shared.retain(|_, trees| trees.iter().any(|tree| is_tree(*tree)));
    }
}
