//! Other runtimes' monitors, as their runtime files name them.
//!
//! One that was started while nobody followed a tree is an orphan of that time, which could be the tree's for all the kernel tells:
//! a suspect, that would hold back the end of the tree until its own. But until a monitor says that it watches it hangs on its
//! caller, and from then on its runtime file names it; so whoever is a suspect is named in a file that is read after that.

use pidigree::{Process, Tree, TreeState};

use crate::store::Store;

/// Whom a tree is adopted without.
#[derive(Debug, Default)]
pub(crate) struct Neighbours(Vec<Process>);

impl Neighbours {
    /// Reads the files in the folder; returns whether they name somebody who was not known.
    pub(crate) fn look(&mut self, store: &Store) -> bool {
        let known = self.0.len();
        for other in store.neighbours() {
            if let Ok(process) = Process::reopen(&other) {
                if self.0.iter().all(|neighbour| neighbour.identity() != process.identity()) {
                    self.0.push(process);
                }
            }
        }
        self.0.len() > known
    }

    pub(crate) fn adopt(&self, state: &TreeState) -> pidigree::Result<Tree> {
        self.0.iter().fold(Tree::builder(), |builder, neighbour| builder.exclude(neighbour)).adopt(state)
    }
}
