//! Members that are proven link by link, where no table can be; and who is beside a tree for certain.

use std::collections::{BTreeSet, HashSet};

use crate::error::Result;
use crate::identity::{Identity, Sameness};
use crate::pid::Pid;
use crate::process::Process;
use crate::state::{ExitStatus, State};
use crate::sys;
use crate::tree::engine::Inner;
use crate::tree::lineage::{Input, Lineage};
use crate::tree::scan::told_until;

/// How often a family is walked at once, while its members end.
const WALKS: usize = 16;

/// One walk after the other.
#[derive(Default)]
struct Walk {
    /// Whose children are to be listed: all others were followed when they were forked.
    met: Vec<Identity>,
    /// Had ended when their parent was listed, and what they had started was somebody else's.
    ended: HashSet<Identity>,
}

impl Inner {
    /// Has all found that are linked to members, not by way of those that are excluded.
    ///
    /// Where the connector tells of members, each is followed before its children are listed. So only one that was not
    /// followed yet can have hidden whom it had started, by its end: they are some subreaper's above it then, which may have
    /// been listed already. That one has been listed again when a second walk, or a later one, meets nobody new, and
    /// nobody who ended under it: then all who are linked to the root are followed, and so is whatever they start.
    pub(super) fn walk(&mut self, key: u64) -> Result<()> {
        if self.tree(key).walked {
            return Ok(());
        }
        let met = self.tree(key).lineage.members().copied().collect();
        let mut walk = Walk { met, ..Walk::default() };
        let mut whole = false;
        for turn in 0..WALKS {
            whole = self.walk_once(key, &mut walk)? && turn > 0;
            if whole {
                break;
            }
        }
        let at = sys::monotonic();
        let follow = self.tree(key);
        follow.walked = follow.fed && whole && !follow.lineage.is_lost();
        if follow.lineage.missing_since() == Some(u64::MAX) && !follow.walked {
            // No table has proven yet who was there when it was attached, and some may have come since.
            let since = told_until(follow.began);
            let missing = if follow.fed { Input::Unseen { since } } else { Input::Lost { since } };
            self.step(key, missing, at);
        }
        Ok(())
    }

    /// Returns whether it met nobody new, and nobody who ended under it.
    fn walk_once(&mut self, key: u64, walk: &mut Walk) -> Result<bool> {
        self.take_notices();
        let lineage = &self.tree(key).lineage;
        walk.met.retain(|one| lineage.member(one.pid()).is_some());
        let mut whole = true;
        let mut next = 0;
        while let Some(&member) = walk.met.get(next) {
            next += 1;
            let process = self.open_member(key, &member)?;
            if process.is_none() && !self.told.contains(&(member.pid(), key)) {
                // Nobody else tells of its end.
                let ended = Input::Ended { pid: member.pid(), status: ExitStatus::Unknown };
                self.step(key, ended, sys::monotonic());
            }
            let listed = match process {
                Some(process) => match process.listed_children() {
                    Ok(listed) if process.state()? == State::Running => Some((process, listed)),
                    Err(error) if !error.is_gone() => return Err(error),
                    _ => None,
                },
                None => None,
            };
            let Some((process, listed)) = listed else {
                whole = false;
                continue;
            };
            // What was told before they were listed is not to be overtaken.
            self.take_notices();
            for pid in listed {
                let child = match process.child(pid) {
                    Ok(Some(child)) => child,
                    Err(error) if !error.is_gone() => return Err(error),
                    // Reaped, or handed to another one.
                    _ => {
                        whole = false;
                        continue;
                    }
                };
                let was_known = self.tree(key).lineage.member(child.pid()).is_some();
                self.found(key, std::slice::from_ref(&child))?;
                let lineage = &self.tree(key).lineage;
                match lineage.member(child.pid()) {
                    Some(member) if !was_known => {
                        walk.met.push(*member);
                        whole = false;
                    }
                    // The end of one that had its PID is about to be told.
                    Some(member) if member.same_process(child.identity()) == Sameness::Different => {
                        whole = false
                    }
                    Some(_) => {}
                    None if lineage.knows(child.pid()) => {}
                    None => whole &= !walk.ended.insert(*child.identity()),
                }
            }
        }
        Ok(whole)
    }
}

/// The other children of these ancestors of a root, and those of the first process: they are not below the root, and
/// cannot come to be. Lets the machine know, and returns those that are to be held.
pub(super) fn beside(root: Pid, above: &[Process], lineage: &mut Lineage) -> Result<Vec<Process>> {
    let mut young = Vec::new();
    let first = Pid::new(1).filter(|first| *first != root).and_then(|first| Process::open(first).ok());
    let mut note = |child: Process| {
        if child.pid() != root {
            lineage.add_strangers([*child.identity()]);
            young.extend(lineage.has_young_stranger(child.pid()).then_some(child));
        }
    };
    for parent in above.iter().chain(&first) {
        match each_child(parent, &mut note) {
            Err(error) if !error.is_gone() && !error.is_denied() => return Err(error),
            _ => {}
        }
    }
    Ok(young)
}

/// Who can be taken for an orphan of a tree when it is adopted, as far as they can be read: children of whoever has these
/// PIDs, of the first process, and of this one, whose own are orphans then. They may be members.
///
/// Waits for a clock tick if only their start tells some from others.
pub(super) fn around(above: &[Pid]) -> Vec<Identity> {
    let parents = above.iter().copied().chain([Pid::current()]).chain(Pid::new(1));
    let parents: BTreeSet<Pid> = parents.collect();
    let list = || -> Vec<Identity> {
        let mut listed = Vec::new();
        for parent in parents.iter().filter_map(|parent| Process::open(*parent).ok()) {
            // As far as they can be.
            let _ = each_child(&parent, &mut |child| listed.push(*child.identity()));
        }
        listed
    };
    let listed = list();
    if listed.iter().all(|one| one.unique.is_some() || one.settled) {
        return listed;
    }
    std::thread::sleep(sys::TICK);
    list()
}

/// One descriptor at a time: they are other people's, and can be more than we may have open.
fn each_child(parent: &Process, each: &mut impl FnMut(Process)) -> Result<()> {
    for pid in parent.listed_children()? {
        parent.child(pid)?.into_iter().for_each(&mut *each);
    }
    Ok(())
}
