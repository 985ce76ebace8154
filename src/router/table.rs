//! Which routes there are, and which of them is the nearest.

use std::sync::Arc;

use super::rank::Rank;
use crate::error::{Error, Result};
use crate::identity::{Identity, Sameness};
use crate::process::Process;
use crate::state::State;
use crate::tree::Tree;
use crate::tree::ask::which_contain;

/// One route.
#[derive(Debug)]
pub(super) struct Slot<V> {
    pub(super) rank: Rank,
    /// The root, pinned; `None` if it had ended before.
    pub(super) pin: Option<Process>,
    pub(super) tree: Tree,
    pub(super) value: Arc<V>,
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
        let index = self.slots.binary_search_by_key(&number, |slot| slot.rank.number).ok()?;
        let mut slots = self.slots.clone();
        let slot = slots.remove(index);
        Some((Table { slots }, slot))
    }

    /// The last that was put in, of those whose root is recorded so.
    pub(super) fn of(&self, root: &Identity) -> Option<&Arc<Slot<V>>> {
        self.slots.iter().rev().find(|slot| slot.rank.root == *root)
    }

    /// The one that begins at this very process.
    pub(super) fn at(&self, root: &Identity) -> Result<Option<&Arc<Slot<V>>>> {
        for slot in self.slots.iter().filter(|slot| slot.rank.root.pid() == root.pid()) {
            let is_same = match slot.rank.root.same_process(root) {
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

    /// Of a new route. `line`: its root, and those above it.
    pub(super) fn rank(
        &self,
        number: u64,
        line: &[Identity],
        pin: Option<&Process>,
        tree: &Tree,
    ) -> Result<Rank> {
        let rank = |outer| Rank { number, root: line[0], above: line[1..].to_vec(), outer };
        if let Some(pin) = pin {
            let inside = which_contain(self.trees(), pin, |_, _| true)?.inside;
            // It ended meanwhile: what it was in is not to be learned from what trees know by now.
            if pin.state()? == State::Running {
                return Ok(rank(inside.into_iter().map(|index| self.slots[index].rank.number).collect()));
            }
        }
        let rank = rank(Vec::new());
        for member in tree.members() {
            let process = match Process::open(member.pid()) {
                Ok(process) => process,
                Err(error) if error.is_gone() || error.is_thread() => continue,
                Err(error) => return Err(error),
            };
            let shared = which_contain(self.trees().chain([tree]), &process, |_, _| true)?.inside;
            let Some((_, others)) = shared.split_last().filter(|(last, _)| **last == self.slots.len()) else {
                continue;
            };
            for other in others.iter().map(|index| &self.slots[*index].rank) {
                if !rank.is_nearer_than(other) && !other.is_nearer_than(&rank) {
                    return Err(Error::unsupported(
                        rank.root.pid(),
                        "route the tree of process",
                        "it has ended, and its tree has members in common with another's; nothing tells which is \
                         below the other; route a tree whose root runs",
                    ));
                }
            }
        }
        Ok(rank)
    }
}
