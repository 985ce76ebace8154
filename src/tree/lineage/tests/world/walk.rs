//! How the simulated listener attaches to a family while others fork all the time: link by link.

use std::collections::BTreeSet;

use super::World;
use crate::identity::Identity;
use crate::state::ExitStatus;
use crate::tree::lineage::Input;
use crate::tree::lineage::tests::kernel::{Act, Life, Process, ROOT, Truth};
use crate::tree::lineage::tests::setup::Source;

impl World {
    /// As when attaching while others fork all the time: the root is followed, and then whoever is linked to it, each
    /// before its children are listed; and no scan is proven.
    pub(super) fn walk(&mut self, acts: &[Act], turns: usize) {
        let mut acts = acts.iter();
        let is_polled = self.setup.source == Source::Poll;
        let missing = |since| if is_polled { Input::Lost { since } } else { Input::Unseen { since } };
        let since = self.kernel.tick();
        let is_above = |process: &Process| process.parent < ROOT && process.life != Life::Reaped;
        let beside = (0..self.kernel.processes.len()).filter(|&who| who != ROOT);
        let beside = beside.filter(|&who| is_above(&self.kernel.processes[who]));
        self.lineage.set_strangers(beside.map(|who| self.kernel.identity(who)));
        self.followed = (!is_polled).then(|| BTreeSet::from([ROOT]));
        self.bearers.follow(self.kernel.processes[ROOT].pid);
        self.tell(missing(u64::MAX));
        let mut met = vec![ROOT];
        let mut ended = BTreeSet::new();
        let mut whole = false;
        for turn in 0..turns {
            whole = self.walk_once(&mut acts, &mut met, &mut ended) && turn > 0;
            if whole {
                break;
            }
        }
        self.deliver(usize::MAX);
        let known: BTreeSet<usize> = {
            let bearer = |known: &Identity| self.kernel.bearer(known.pid);
            self.lineage.members().filter_map(bearer).collect()
        };
        if whole && !is_polled {
            self.counts.walked += 1;
            for who in self.kernel.running(Truth::Member) {
                let is_linked = self.kernel.linked(who) == Truth::Member;
                assert!(!is_linked || known.contains(&who), "process {who} was overlooked");
            }
            self.kernel.lapse(|who| !known.contains(&who));
        } else {
            self.counts.overlooked += 1;
            self.tell(missing(since));
            // Nor is what was orphaned during the walk, and whatever that has forked: makers come before whom they made.
            for who in (0..self.kernel.processes.len()).filter(|who| !known.contains(who)) {
                let process = &self.kernel.processes[who];
                let is_its = self.kernel.processes[process.maker].truth == Truth::Lapsed;
                if process.truth == Truth::Member && (is_its || process.tick() < since) {
                    self.kernel.processes[who].truth = Truth::Lapsed;
                }
            }
        }
        self.is_all = whole;
    }

    /// Returns whether it met nobody new, and nobody who ended under it.
    fn walk_once(
        &mut self,
        acts: &mut std::slice::Iter<'_, Act>,
        met: &mut Vec<usize>,
        ended: &mut BTreeSet<usize>,
    ) -> bool {
        self.deliver(usize::MAX);
        met.retain(|who| self.member(*who).is_some());
        let mut whole = true;
        let mut next = 0;
        while let Some(&who) = met.get(next) {
            next += 1;
            acts.next().into_iter().for_each(|act| self.act(act));
            // It was pinned when it was met: that another one looks the same makes no difference.
            let is_known = self.member(who).is_some();
            let has_ended = self.kernel.processes[who].life != Life::Running;
            if is_known && has_ended && self.setup.source == Source::Poll {
                let pid = self.kernel.processes[who].pid;
                self.tell(Input::Ended { pid, status: ExitStatus::Unknown });
            }
            if !is_known || has_ended {
                whole = false;
                continue;
            }
            let is_child = |(_, child): &(usize, &Process)| child.parent == who && child.life != Life::Reaped;
            let listed = self.kernel.processes.iter().enumerate().filter(is_child);
            let listed: Vec<usize> = listed.map(|(child, _)| child).collect();
            acts.next().into_iter().for_each(|act| self.act(act));
            if self.kernel.processes[who].life != Life::Running {
                whole = false;
                continue;
            }
            self.deliver(usize::MAX);
            for child in listed {
                whole &= self.meet(child, acts, met, ended);
            }
        }
        whole
    }

    /// As what it is known.
    fn member(&self, who: usize) -> Option<&Identity> {
        let known = self.lineage.member(self.kernel.processes[who].pid)?;
        self.kernel.is_of(known, who).then_some(known)
    }

    /// A child that was listed, and is held. Returns whether it is nobody new, and nobody who has just ended.
    fn meet(
        &mut self,
        child: usize,
        acts: &mut std::slice::Iter<'_, Act>,
        met: &mut Vec<usize>,
        ended: &mut BTreeSet<usize>,
    ) -> bool {
        let member = self.kernel.identity(child);
        let pid = member.pid;
        let was_known = self.lineage.member(pid).is_some();
        if !was_known && self.kernel.processes[child].life == Life::Running {
            let parent = self.kernel.processes[child].parent;
            self.tell(Input::Found { member, parent: Some(self.kernel.processes[parent].pid) });
            acts.next().into_iter().for_each(|act| self.act(act));
            if self.kernel.processes[child].life != Life::Running {
                self.tell(Input::Ended { pid, status: ExitStatus::Unknown });
            } else if self.lineage.member(pid).is_some() {
                self.followed.iter_mut().for_each(|followed| followed.extend([child]));
                self.bearers.follow(pid);
            }
        }
        match self.lineage.member(pid) {
            Some(_) if !was_known => {
                met.push(child);
                false
            }
            Some(known) => self.kernel.is_of(known, child),
            None if self.lineage.knows(pid) => true,
            None => !ended.insert(child),
        }
    }
}
