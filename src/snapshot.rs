use std::fmt;
use std::ops::Range;

use crate::error::Result;
use crate::pid::Pid;
use crate::sys;

/// The process table, read in one pass: for many questions about many processes at one time.
///
/// Bare PIDs in, bare PIDs out: nothing is pinned, and the table was out of date when it was taken. What it proves
/// depends on whether anything was created meanwhile: see [`is_proven`](Snapshot::is_proven).
///
/// # Example: the whole family of a process, in one pass
///
/// ```
/// use pidigree::{Pid, Snapshot};
///
/// let table = Snapshot::capture()?;
/// let me = Pid::current();
/// println!("{} processes, {} of them mine", table.len(), table.descendants(me).len());
/// assert!(table.get(me).is_some());
/// # Ok::<(), pidigree::Error>(())
/// ```
#[derive(Clone)]
pub struct Snapshot {
    /// By PID.
    entries: Vec<Entry>,
    /// Positions in `entries`, by parent and then by PID.
    by_parent: Vec<u32>,
    proven: bool,
}

/// One process of a [`Snapshot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its PID.
    pub pid: Pid,
    /// The PID of its parent; `None` at the top of what can be seen.
    pub parent: Option<Pid>,
}

impl Snapshot {
    /// Reads the table once.
    ///
    /// Processes that end while they are read are left out. Zombies are in. Processes that hidepid hides from this user
    /// are not.
    ///
    /// # Errors
    ///
    /// [`is_unsupported`](crate::Error::is_unsupported) without a `/proc` of our PID namespace;
    /// [`is_limit`](crate::Error::is_limit) if no descriptor is free. A table that could not be read is never an empty
    /// one.
    ///
    /// # Cost
    ///
    /// For each process of the machine a directory entry, one pidfd_open, one ioctl and one close (or open, read and
    /// close of its stat file).
    pub fn capture() -> Result<Snapshot> {
        let mut entries = Vec::with_capacity(256);
        let before = sys::fork_count()?;
        sys::scan(|pid, parent| entries.push(Entry { pid, parent }))?;
        let proven = before.is_some() && sys::fork_count()? == before;
        Ok(Snapshot::of(entries, proven))
    }

    fn of(mut entries: Vec<Entry>, proven: bool) -> Snapshot {
        // The kernel lists in this order already.
        entries.sort_by_key(|entry| entry.pid);
        entries.dedup_by_key(|entry| entry.pid);
        let mut by_parent: Vec<u32> = (0..entries.len() as u32).collect();
        by_parent.sort_by_key(|&position| entries[position as usize].parent);
        Snapshot { entries, by_parent, proven }
    }

    /// Returns whether no process was created, on the whole machine, while the table was read (the kernel's fork counter
    /// stood still).
    ///
    /// Then no process that lived through the reading is missing, and no PID was reused: every link is between the two
    /// processes it seems to be between. Otherwise a process that forked and ended can have hidden its child (trap 1),
    /// and a link can join strangers. Processes that hidepid hides are missing in any case. Where it matters, capture again, or ask [`Process`](crate::Process).
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// Returns the process with this PID, if it was there.
    pub fn get(&self, pid: Pid) -> Option<&Entry> {
        let position = self.entries.binary_search_by_key(&pid, |entry| entry.pid).ok()?;
        Some(&self.entries[position])
    }

    /// Returns the children of a process, by ascending PID.
    pub fn children(&self, pid: Pid) -> impl ExactSizeIterator<Item = &Entry> {
        self.by_parent[self.positions(pid)].iter().map(|&position| &self.entries[position as usize])
    }

    /// Returns everything below a process, parents before their children. The process itself is not among them.
    pub fn descendants(&self, pid: Pid) -> Vec<&Entry> {
        let mut found: Vec<&Entry> = self.children(pid).collect();
        let mut next = 0;
        // Links taken at different moments could close a circle: nobody is met twice, and the root not at all.
        let mut met = std::collections::HashSet::from([pid]);
        found.retain(|entry| met.insert(entry.pid));
        while let Some(entry) = found.get(next) {
            found.extend(self.children(entry.pid).filter(|child| met.insert(child.pid)));
            next += 1;
        }
        found
    }

    /// Returns whether a process is below another in this table; a process is not below itself.
    pub fn is_descendant(&self, pid: Pid, root: Pid) -> bool {
        let mut at = pid;
        // At most as many links as there are processes, should they close a circle.
        for _ in 0..self.entries.len() {
            match self.get(at).and_then(|entry| entry.parent) {
                Some(parent) if parent == root => return pid != root,
                Some(parent) => at = parent,
                None => return false,
            }
        }
        false
    }

    /// Iterates over all processes, by ascending PID.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Returns how many processes there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there are none, as where hidepid hides them all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where in `by_parent` the children of a process are.
    fn positions(&self, pid: Pid) -> Range<usize> {
        let parent = |position: &u32| self.entries[*position as usize].parent;
        let start = self.by_parent.partition_point(|position| parent(position) < Some(pid));
        let count = self.by_parent[start..].partition_point(|position| parent(position) == Some(pid));
        start..start + count
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("len", &self.len())
            .field("proven", &self.proven)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
