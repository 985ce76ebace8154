//! Which of several routes is the nearest to somebody who is in all of their trees. Knows no kernel.

use crate::identity::{Identity, Sameness};

/// Where a route stands among the others.
#[derive(Debug)]
pub(crate) struct Rank {
    /// Counts up; never used again.
    pub(crate) number: u64,
    pub(crate) root: Identity,
    /// The ancestors of the root when its tree began.
    pub(crate) above: Vec<Identity>,
    /// The routes that were there before, and whose trees had the root as a member.
    pub(crate) outer: Vec<u64>,
}

impl Rank {
    fn is_below(&self, other: &Rank) -> bool {
        let is_other = |one: &Identity| one.same_process(&other.root) == Sameness::Same;
        self.outer.contains(&other.number) || self.above.iter().any(is_other)
    }

    /// To whoever is in both trees, for sure. It descends from both roots, so one of them descends from the other. Where that
    /// was orphaned before the other's tree was followed, no tree knows; but it started later.
    pub(crate) fn is_nearer_than(&self, other: &Rank) -> bool {
        self.is_below(other) || !other.is_below(self) && other.root.started_before(&self.root)
    }

    /// Of these places, in all of whose trees one process is, the nearest; `None` if nothing tells.
    pub(crate) fn nearest<'r>(inside: &[usize], at: impl Fn(usize) -> &'r Rank) -> Option<usize> {
        let nearer = |near, other| if at(other).is_nearer_than(at(near)) { other } else { near };
        let near = inside.iter().copied().reduce(nearer)?;
        let mut others = inside.iter().filter(|other| **other != near);
        others.all(|other| at(near).is_nearer_than(at(*other))).then_some(near)
    }

    /// The same places; whether this one as well could be the nearest.
    pub(crate) fn may_be_nearest<'r>(inside: &[usize], place: usize, at: impl Fn(usize) -> &'r Rank) -> bool {
        !inside.iter().any(|other| at(*other).is_nearer_than(at(place)))
    }
}
