//! Which routes there are, and which of them is the nearest.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::identity::{Identity, Sameness};
use crate::process::Process;
use crate::state::State;
use crate::tree::Tree;
use crate::tree::ask::which_contain;

/// One route.
#[derive(Debug)]
pub(super) struct Slot<V> {
    /// Counts up; never used again.
    pub(super) number: u64,
    pub(super) root: Identity,
    /// The root, pinned; `None` if it had ended before.
    pub(super) pin: Option<Process>,
    pub(super) tree: Tree,
    pub(super) value: Arc<V>,
    /// The routes that were there before, and whose trees this one's root descends from.
    pub(super) outer: Vec<u64>,
}

/// All routes at one moment, in the order in which they were put in. Never changed, but replaced.
#[derive(Debug)]
pub(super) struct Table<V> {
    pub(super) slots: Vec<Arc<Slot<V>>>,
}

impl<V> Default for Table<V> {
    fn default() -> Table<V> {
        Table { slots: Vec::new() }
    }
}

impl<V> Slot<V> {
    /// To whoever is in both trees: one that came later is nearer if it was put in below the other, and farther if it was
    /// put in above it.
    fn is_nearer_than(&self, other: &Slot<V>) -> bool {
        if self.number > other.number {
            self.outer.contains(&other.number)
        } else {
            !other.outer.contains(&self.number)
        }
    }
}

impl<V> Table<V> {
    pub(super) fn trees(&self) -> impl Iterator<Item = &Tree> + Clone {
        self.slots.iter().map(|slot| &slot.tree)
    }

    pub(super) fn with(&self, slot: Slot<V>) -> Table<V> {
        let mut slots = self.slots.clone();
        slots.push(Arc::new(slot));
        Table { slots }
    }

    /// Without this one, if it is there.
    pub(super) fn without(&self, number: u64) -> Option<(Table<V>, Arc<Slot<V>>)> {
        let index = self.slots.binary_search_by_key(&number, |slot| slot.number).ok()?;
        let mut slots = self.slots.clone();
        let slot = slots.remove(index);
        Some((Table { slots }, slot))
    }

    /// The last that was put in, of those whose root is recorded so.
    pub(super) fn of(&self, root: &Identity) -> Option<&Arc<Slot<V>>> {
        self.slots.iter().rev().find(|slot| slot.root == *root)
    }

    /// The one that begins at this very process.
    pub(super) fn at(&self, root: &Identity) -> Result<Option<&Arc<Slot<V>>>> {
        for slot in self.slots.iter().filter(|slot| slot.root.pid() == root.pid()) {
            let is_same = match slot.root.same_process(root) {
                Sameness::Same => true,
                Sameness::Different => false,
                // While one has the PID, nobody else does.
                Sameness::Unknown => match &slot.pin {
                    Some(pin) => pin.state()? != State::Gone,
                    None => false,
                },
            };
            if is_same {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    /// Of these, all of which one process is a member of, the one whose root is nearest to it: each of their roots descends
    /// from all that are farther.
    pub(super) fn nearest(&self, inside: &[usize]) -> Option<&Arc<Slot<V>>> {
        let mut inside = inside.iter().map(|index| &self.slots[*index]);
        let first = inside.next()?;
        Some(inside.fold(first, |near, other| if other.is_nearer_than(near) { other } else { near }))
    }

    /// The same places; whether this one as well would be the nearest.
    pub(super) fn would_be_nearest(&self, inside: &[usize], place: usize) -> bool {
        self.nearest(inside).is_none_or(|near| self.slots[place].is_nearer_than(near))
    }

    /// The routes that a new one is below.
    pub(super) fn outer(&self, root: &Identity, pin: Option<&Process>, tree: &Tree) -> Result<Vec<u64>> {
        if let Some(pin) = pin {
            let inside = which_contain(self.trees(), pin, |_, _| true)?.inside;
            // It ended meanwhile: what it was in is not to be learned from what trees know by now.
            if pin.state()? == State::Running {
                return Ok(inside.into_iter().map(|index| self.slots[index].number).collect());
            }
        }
        self.outer_of_ended(root, tree)
    }

    /// Who has ended is in no tree any more. But of trees that share a member one is below the other: if the other's root
    /// runs, it is in this tree or above it; and of two that have ended, the farther one started first.
    fn outer_of_ended(&self, root: &Identity, tree: &Tree) -> Result<Vec<u64>> {
        let mut outer = Vec::new();
        for member in tree.members() {
            let process = match Process::open(member.pid()) {
                Ok(process) => process,
                Err(error) if error.is_gone() || error.is_thread() => continue,
                Err(error) => return Err(error),
            };
            let shared = which_contain(self.trees().chain([tree]), &process, |_, _| true)?.inside;
            if shared.last() != Some(&self.slots.len()) {
                continue;
            }
            for slot in shared[..shared.len() - 1].iter().map(|index| &self.slots[*index]) {
                if let Some(pin) = &slot.pin {
                    let is_below = !which_contain([tree].into_iter(), pin, |_, _| true)?.inside.is_empty();
                    if pin.state()? == State::Running {
                        outer.extend((!is_below).then_some(slot.number));
                        continue;
                    }
                }
                if slot.root.started_before(root) {
                    outer.push(slot.number);
                } else if !root.started_before(&slot.root) {
                    return Err(Error::unsupported(
                        root.pid(),
                        "route the tree of process",
                        "it has ended, and its tree has members in common with another's; nothing tells which is \
                         below the other; route a tree whose root runs",
                    ));
                }
            }
        }
        outer.sort_unstable();
        outer.dedup();
        Ok(outer)
    }
}
