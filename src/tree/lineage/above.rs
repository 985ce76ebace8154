//! Who stands above a tree, and may be given its orphans.

use super::{Lineage, Standing};
use crate::pid::Pid;

impl Lineage {
    /// Who can be given orphans of the tree: the ancestors of the root, all of them, as they were when it began. PID 1 and
    /// "no visible parent" count in any case. One that is known not to be a subreaper may be left out, if it is
    /// [`spared`](Lineage::spare): children of its own are then never suspected.
    pub(crate) fn set_adopters(&mut self, adopters: impl IntoIterator<Item = Pid>) {
        self.adopters.clear();
        for pid in adopters {
            self.add_adopter(pid);
        }
        self.excludes = self.exclusions > 0;
    }

    /// This ancestor of the root is given no orphans so far. Whether it is by now is to be asked after each reading of who
    /// is whose child, see [`add_adopter`](Lineage::add_adopter).
    pub(crate) fn spare(&mut self, pid: Pid) {
        self.spared = Some(pid);
    }

    pub(crate) fn spared(&self) -> Option<Pid> {
        self.spared
    }

    /// This ancestor of the root is given orphans, and was before anybody was read to be its child who is not of its own
    /// making.
    pub(crate) fn add_adopter(&mut self, pid: Pid) {
        self.spared = self.spared.filter(|spared| *spared != pid);
        if pid == self.root.pid {
            return;
        }
        self.adopters.insert(pid);
        // It is not in the tree, and not all of its children are of its own making.
        if self.known.get(&pid).is_some_and(|known| known.standing == Standing::Excluded) {
            self.drop_known(pid);
        }
    }

    /// Who can be given orphans of the tree.
    pub(crate) fn adopters(&self) -> impl Iterator<Item = Pid> {
        self.adopters.iter().copied()
    }

    /// Whether it is given orphans of the tree, though it is no member.
    pub(crate) fn adopts(&self, pid: Pid) -> bool {
        pid.get() == 1 || self.adopters.contains(&pid)
    }
}
