//! What the kernel tells: forks, programs and ends, for whichever trees they concern.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::identity::{Identity, Sameness};
use crate::pid::Pid;
use crate::process::Process;
use crate::state::ExitStatus;
use crate::sys::{self, Notice};
use crate::tree::coverage;
use crate::tree::engine::Inner;
use crate::tree::follow::{Change, Pin};
use crate::tree::lineage::{Input, Lineage, Output};
use crate::tree::scan::told_until;
use crate::watch::Exited;

impl Inner {
    /// Takes in the connector's notices, all that there are by now, and looks at the trees that they may have emptied.
    pub(super) fn hear_connector(&mut self) {
        self.take_notices();
        self.check_sources();
    }

    /// Without a look at any tree, which may take in notices in its turn: none may be taken in before those that are older.
    pub(super) fn take_notices(&mut self) {
        let mut notices = Vec::new();
        let mut named: Vec<Named> = Vec::new();
        for turn in 0..=TURNS {
            notices.clear();
            let Some(connector) = &mut self.connector else { return };
            if let Err(error) = connector.read(&mut notices) {
                self.fail_fed(&error);
                break;
            }
            // A name that was read before this reading is of that exec, unless there was another one by then.
            for Named { key, pid, index, proven } in named.drain(..) {
                let again = |notice: &Notice| match *notice {
                    Notice::Executed { pid: other, .. } => other == pid,
                    // It may have ended before, and another one have had its PID.
                    Notice::Ended { pid: other, .. } => other == pid && !proven,
                    _ => false,
                };
                if notices.iter().any(again) {
                    self.tree(key).unname(index);
                }
            }
            let superseded = superseded(&notices);
            let mut lost = false;
            for (index, notice) in notices.iter().enumerate() {
                match *notice {
                    Notice::Forked { parent, child, at } => {
                        self.last_notice = at;
                        self.forked(parent, child, at);
                    }
                    Notice::Executed { pid, at } => {
                        self.last_notice = at;
                        // In the last turn nobody would be left to take it back.
                        let read = turn < TURNS && superseded.get(&pid) == Some(&index);
                        self.executed(pid, read, at, &mut named);
                    }
                    Notice::Ended { pid, status, at } => {
                        self.last_notice = at;
                        self.ended(pid, status, at);
                    }
                    Notice::Lost => lost = true,
                }
            }
            if lost {
                // What comes after a loss is not to be taken in before that has been made up for.
                for Named { key, index, .. } in named.drain(..) {
                    self.tree(key).unname(index);
                }
                self.recover();
            }
            if named.is_empty() {
                break;
            }
        }
        self.forget_strays();
    }

    /// After all that is told by now has been taken in: one that has its PID may be a member.
    fn forget_strays(&mut self) {
        for (stray, parent, at) in std::mem::take(&mut self.strays) {
            if !is_bare(&identify(stray, parent, at)) {
                self.forget_if_untold(stray);
            }
        }
    }

    fn fail_fed(&mut self, error: &Error) {
        for follow in self.trees.values_mut().filter(|follow| follow.fed) {
            follow.fail(error.again());
        }
    }

    fn trees_of(&self, pid: Pid) -> Vec<u64> {
        self.told.range((pid, 0)..=(pid, u64::MAX)).map(|(_, key)| *key).collect()
    }

    fn forked(&mut self, parent: Pid, child: Pid, at: u64) {
        let trees = self.trees_of(parent);
        if trees.is_empty() {
            // The child of somebody who was in a tree that is not followed any more; or, after a loss, a member that has been
            // counted already.
            self.strays.push((child, parent, at));
            return;
        }
        let child = identify(child, parent, at);
        for key in trees {
            self.step(key, Input::Forked { parent, child }, at);
            // What suspects start is told on, too.
            if self.tree(key).lineage.knows(child.pid()) {
                self.told.insert((child.pid(), key));
            }
        }
    }

    fn ended(&mut self, pid: Pid, status: ExitStatus, at: u64) {
        for key in self.trees_of(pid) {
            let status = match (status, self.tree(key).lineage.member(pid)) {
                (ExitStatus::Unknown, Some(member)) => status_of(member),
                _ => status,
            };
            // The kernel has forgotten it already; the PID may be another member's by now.
            self.told.remove(&(pid, key));
            self.step(key, Input::Ended { pid, status }, at);
            self.check_later(key);
        }
    }

    /// `read`: whether the name can be of this exec, and not of a later one.
    fn executed(&mut self, pid: Pid, read: bool, at: u64, named: &mut Vec<Named>) {
        for key in self.trees_of(pid) {
            let follow = self.tree(key);
            let Some(member) = follow.executes(pid) else { continue };
            let name = if read { name_of(&member) } else { None };
            let (program, proven) = name.map_or((None, None), |(name, proven)| (Some(name), Some(proven)));
            let index = follow.executed(member, program, at);
            if let Some(proven) = proven {
                named.push(Named { key, pid, index, proven });
            }
        }
    }

    /// Events were lost, from the last one that was not. Finds out anew who is a member: at once where the kernel has counted
    /// for us, by a scan where it has not.
    fn recover(&mut self) {
        let since = told_until(self.last_notice);
        let at = sys::monotonic();
        for key in self.fed() {
            let follow = self.tree(key);
            coverage::after_loss(&mut follow.coverage);
            follow.walked = false;
            self.step(key, Input::Lost { since }, at);
        }
        match self.connector.as_ref().and_then(|connector| connector.census()) {
            Some(Ok(alive)) => self.count(&alive),
            Some(Err(error)) => {
                self.fail_fed(&error);
                self.scan_all_fed();
            }
            None => {
                // Nobody is tracked any more, before a scan has shown whom to track.
                self.told.clear();
                if self.connector.as_ref().is_some_and(sys::Connector::is_filtered) {
                    for key in self.fed() {
                        coverage::after_uncounted_loss(&mut self.tree(key).coverage);
                    }
                }
                self.scan_all_fed();
            }
        }
    }

    fn scan_all_fed(&mut self) {
        for key in self.fed() {
            let follow = self.tree(key);
            follow.untracked = true;
            follow.look_after(Duration::ZERO);
        }
    }

    fn fed(&self) -> Vec<u64> {
        self.trees
            .iter()
            .filter(|(_, follow)| follow.fed && follow.emptied.is_none())
            .map(|(key, _)| *key)
            .collect()
    }

    /// Of each process that is alive and tracked, and of some that have just ended: its mark.
    fn count(&mut self, alive: &[(Pid, u64)]) {
        let at = sys::monotonic();
        for key in self.fed() {
            let follow = &self.trees[&key];
            // Who is not tracked is not counted; and suspects, and what they start, are counted as if they were members.
            if follow.untracked || follow.lineage.suspects().next().is_some() {
                self.tree(key).look_after(Duration::ZERO);
                continue;
            }
            let mut members: Vec<(Identity, Option<Pid>)> = Vec::new();
            for &(pid, mark) in alive {
                if !self.marks.trees_of(mark).contains(&key) {
                    continue;
                }
                let process = Process::open(pid).ok();
                let parent = process.as_ref().and_then(|process| process.handle.ppid().ok().flatten());
                // Not who was known under this PID, who may have ended unheard.
                let identity = process.map_or_else(|| bare(pid), |process| process.handle.identity(false));
                members.push((identity, parent));
            }
            self.step(key, Input::Census { alive: &members }, at);
            self.check_later(key);
        }
    }

    /// What is known of an adopted tree is all that is missing: the connector tells whom its members have started.
    pub(super) fn count_known(&mut self, key: u64) {
        let alive: Vec<_> = self.tree(key).lineage.members().map(|member| (*member, None)).collect();
        self.tree(key).untracked = false;
        self.step(key, Input::Census { alive: &alive }, sys::monotonic());
    }

    /// Takes in the ends of watched members.
    pub(super) fn hear_watcher(&mut self) {
        let mut exits: Vec<Exited> = Vec::new();
        let Some(watcher) = &self.watcher else { return };
        let trouble = watcher.drain(&mut exits).err();
        let at = sys::monotonic();
        let mut concerned = BTreeSet::new();
        for exited in exits {
            let Some((key, pid)) = self.watched.remove(&exited.key) else { continue };
            let Some(follow) = self.trees.get_mut(&key) else { continue };
            follow.pins.remove(&pid);
            if exited.status != ExitStatus::Unknown || !follow.is_to_be_told_of(pid) {
                self.step(key, Input::Ended { pid, status: exited.status }, at);
            }
            concerned.insert(key);
        }
        for key in concerned {
            if let Some(error) = &trouble {
                self.tree(key).fail(error.again());
            }
            if self.tree(key).is_polled() {
                self.tree(key).look_after(Duration::ZERO);
            }
            self.look(key);
        }
    }

    /// Lets the machine know, and sees to it that whoever joined is heard of.
    pub(super) fn step(&mut self, key: u64, input: Input<'_>, at: u64) {
        // Of those that a census counts, the ends are still to be told, of those that have ended by now, too.
        let told = matches!(input, Input::Forked { .. } | Input::Census { .. });
        let mut changes = std::mem::take(&mut self.changes);
        self.tree(key).step(input, at, &mut changes);
        self.apply(key, &mut changes, told);
        self.changes = changes;
    }

    /// The machine has answered on a copy, which takes its place.
    pub(super) fn replace(&mut self, key: u64, lineage: Lineage, outputs: Vec<Output>, at: u64) {
        let mut changes = std::mem::take(&mut self.changes);
        self.tree(key).replace(lineage, outputs, at, &mut changes);
        self.apply(key, &mut changes, false);
        self.changes = changes;
    }

    pub(super) fn finish(&mut self, key: u64, at: u64) {
        let mut changes = std::mem::take(&mut self.changes);
        self.tree(key).finish(at, &mut changes);
        self.apply(key, &mut changes, true);
        self.changes = changes;
    }

    /// `told`: the connector tracks them already.
    fn apply(&mut self, key: u64, changes: &mut Vec<Change>, told: bool) {
        if let Some(remains) = &self.tree(key).remains {
            let remains = Arc::clone(remains);
            self.remains.push(remains);
            self.tell_over(key);
        }
        for change in changes.drain(..) {
            match change {
                Change::Joined(member) if told && self.tree(key).fed => {
                    self.told.insert((member.pid(), key));
                }
                Change::Joined(member) => {
                    if let Err(error) = self.mind(key, &member) {
                        self.tree(key).fail(error);
                    }
                }
                Change::Left(member) => self.unmind(key, member.pid()),
            }
        }
    }

    /// From now on its forks and its end are heard of, or its end alone.
    pub(super) fn mind(&mut self, key: u64, member: &Identity) -> Result<()> {
        let pid = member.pid();
        let known = self.told.contains(&(pid, key)) || self.tree(key).pins.contains_key(&pid);
        if known {
            return Ok(());
        }
        let ended = Input::Ended { pid, status: ExitStatus::Unknown };
        let Some(process) = self.open_member(key, member)? else {
            self.step(key, ended, sys::monotonic());
            return Ok(());
        };
        if !self.tree(key).fed {
            let Some(watcher) = &self.watcher else {
                return Err(Error::malformed(pid, "watch a member", "nobody made a watcher"));
            };
            let watch = watcher.watch(&process)?;
            self.watched.insert(watch, (key, pid));
            self.tree(key).pins.insert(pid, Pin { process, key: watch });
            return Ok(());
        }
        if self.track(key, pid, None)? {
            self.told.insert((pid, key));
        } else {
            // Of one that had ended before, no notice comes.
            self.step(key, ended, sys::monotonic());
        }
        Ok(())
    }

    fn unmind(&mut self, key: u64, pid: Pid) {
        // The kernel forgets it at its end by itself; told to by us, it could forget another one with that PID.
        self.told.remove(&(pid, key));
        if let Some(pin) = self.tree(key).pins.remove(&pid) {
            self.watched.remove(&pin.key);
            if let Some(watcher) = &self.watcher {
                watcher.unwatch(pin.key);
            }
        }
    }
}

/// How often notices are read for the sake of a program's name, while other programs are executed.
const TURNS: usize = 64;

/// Of each process that executed something in these notices, which notice was the last about it: an end, too.
fn superseded(notices: &[Notice]) -> HashMap<Pid, usize> {
    let mut last = HashMap::new();
    for (index, notice) in notices.iter().enumerate() {
        match notice {
            Notice::Executed { pid, .. } => {
                last.insert(*pid, index);
            }
            Notice::Ended { pid, .. } => {
                last.remove(pid);
            }
            Notice::Forked { .. } | Notice::Lost => {}
        }
    }
    last
}

/// Who the child is that `parent` forked at that time; bare if it has ended.
fn identify(child: Pid, parent: Pid, at: u64) -> Identity {
    let Ok(process) = Process::open(child) else { return bare(child) };
    let is_its_child = matches!(process.handle.ppid(), Ok(Some(ppid)) if ppid == parent);
    // An orphan by now, or a stranger that got the PID: who started later is not the one.
    let is_as_old = || process.identity().start_time().is_some_and(|start| start.ticks <= sys::ticks_at(at));
    if is_its_child || is_as_old() { process.handle.identity(false) } else { bare(child) }
}

/// Nothing but the PID, and where it is valid: of a process that ended before it could be looked at.
pub(super) fn bare(pid: Pid) -> Identity {
    let world = sys::world().ok();
    Identity {
        pid,
        unique: None,
        start: None,
        settled: false,
        pid_namespace: world.and_then(|world| world.pid_namespace),
        boot: world.and_then(|world| world.boot),
    }
}

pub(super) fn is_bare(identity: &Identity) -> bool {
    identity.unique.is_none() && identity.start.is_none()
}

/// How a member ended, where the notice of its end does not say.
fn status_of(member: &Identity) -> ExitStatus {
    Process::reopen(member).map_or(ExitStatus::Unknown, |process| process.handle.exit_status())
}

/// What a member runs, and whether that is proven to be of this very process. If not, nobody had told of its end by then.
fn name_of(member: &Identity) -> Option<(String, bool)> {
    let process = Process::open(member.pid()).ok()?;
    let name = process.handle.name().ok()?;
    match process.handle.identity(false).same_process(member) {
        Sameness::Same => Some((name, true)),
        Sameness::Unknown if !is_bare(member) => Some((name, false)),
        _ => None,
    }
}

/// The name of a program that an event was given.
struct Named {
    key: u64,
    pid: Pid,
    index: usize,
    proven: bool,
}
