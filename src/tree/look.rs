//! What is asked of the kernel: whether a tree's source says that it is empty, and who is in it where nobody tells.

use std::time::Duration;

use crate::error::Result;
use crate::identity::{Identity, Sameness};
use crate::pid::Pid;
use crate::process::Process;
use crate::state::{ExitStatus, State};
use crate::sys::{self, Report};
use crate::tree::engine::Inner;
use crate::tree::follow::{Pin, Source, Word};
use crate::tree::hear::is_bare;
use crate::tree::lineage::{Input, Lineage};

/// How often a cgroup is listed at once, while its members fork.
const TRIES: usize = 16;
const SOON: Duration = Duration::from_millis(1);
/// After an error.
const AGAIN: Duration = Duration::from_millis(100);

/// This process can have asked since the tree began to be given its orphans. To be called when it has been read who is
/// whose child, and before that is believed. Returns whether it is news.
pub(super) fn expect_orphans(lineage: &mut Lineage) -> bool {
    let us = Pid::current();
    let is_new = lineage.spared() == Some(us) && sys::adopts_orphans();
    if is_new {
        lineage.add_adopter(us);
    }
    is_new
}

impl Inner {
    /// Looks at what a tree goes by: what that says, and who is in it if nobody tells.
    pub(super) fn look(&mut self, key: u64) {
        let looked = match &self.tree(key).source {
            Source::Cgroup(_) => self.look_at_cgroup(key),
            Source::Subreaper { .. } => self.look_at_helper(key),
            Source::Connector | Source::Poll | Source::Over(_) => Ok(()),
        };
        if let Err(error) = looked {
            // That is told, and it is looked at again.
            let follow = self.tree(key);
            follow.fail(error);
            if follow.due().is_none() {
                follow.look_after(AGAIN);
            }
        }
    }

    /// Has a tree looked at when all notices have been taken in, if those so far tell that it may have ended.
    pub(super) fn check_later(&mut self, key: u64) {
        let follow = self.tree(key);
        if matches!(follow.source, Source::Cgroup(_)) && !follow.lineage.has_members() {
            self.unchecked.insert(key);
        }
    }

    pub(super) fn check_sources(&mut self) {
        while let Some(key) = self.unchecked.pop_first() {
            if self.trees.contains_key(&key) {
                self.look(key);
            }
        }
    }

    pub(super) fn look_at_cgroup(&mut self, key: u64) -> Result<()> {
        // The last one leaves its cgroup moments after its end has been told (trap 3 is about the wake-up, which is later).
        for _ in 0..64 {
            let follow = self.tree(key);
            let Source::Cgroup(cgroup) = &follow.source else { return Ok(()) };
            if !cgroup.is_populated()? {
                self.hear_connector_of(key);
                return self.settle(key);
            }
            let known = follow.lineage.has_members();
            if known && follow.fed {
                return Ok(());
            }
            let listed = cgroup.members()?;
            if self.find(key, &listed)? || known {
                return Ok(());
            }
            std::thread::yield_now();
        }
        self.tree(key).look_after(SOON);
        Ok(())
    }

    /// Whoever is in its cgroup, until a look finds nobody new: from then on all are heard of.
    pub(super) fn list_cgroup(&mut self, key: u64) -> Result<()> {
        for _ in 0..TRIES {
            let follow = self.tree(key);
            let Source::Cgroup(cgroup) = &follow.source else { return Ok(()) };
            let (seen, listed) = (follow.seen, cgroup.members()?);
            self.find(key, &listed)?;
            if self.tree(key).seen == seen {
                break;
            }
        }
        Ok(())
    }

    /// The kernel says that nobody is left. Members that were moved elsewhere can be, and of others the end is about to
    /// be told.
    fn settle(&mut self, key: u64) -> Result<()> {
        let members: Vec<Identity> = self.tree(key).members().collect();
        let mut alive = false;
        for member in members {
            let ended = match self.open_member(key, &member)? {
                Some(process) if process.state()? == State::Running => None,
                Some(process) => Some(process.handle.exit_status()),
                None => Some(ExitStatus::Unknown),
            };
            match ended {
                None => alive = true,
                // The connector will say how; if it has lost that, the next count says that it has ended.
                Some(_) if self.tree(key).fed => {
                    alive = true;
                    self.tree(key).look_after(SOON);
                }
                Some(status) => self.step(key, Input::Ended { pid: member.pid(), status }, sys::monotonic()),
            }
        }
        if !alive {
            self.finish(key, sys::monotonic());
        }
        Ok(())
    }

    /// A member, pinned; `None` if it has ended and been reaped.
    pub(super) fn open_member(&mut self, key: u64, member: &Identity) -> Result<Option<Process>> {
        if let Some(pin) = self.tree(key).pins.get(&member.pid()) {
            return Ok(Some(pin.process.clone()));
        }
        let process = match Process::open(member.pid()) {
            Ok(process) => process,
            Err(error) if error.is_gone() || error.is_thread() => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(match process.handle.identity(false).same_process(member) {
            Sameness::Same => Some(process),
            Sameness::Different => None,
            Sameness::Unknown if is_bare(member) => None,
            // Its end has not been told: nobody else has its PID.
            Sameness::Unknown => Some(process),
        })
    }

    fn look_at_helper(&mut self, key: u64) -> Result<()> {
        let mut reports = Vec::new();
        let follow = self.tree(key);
        let fed = follow.fed;
        let Source::Subreaper { helper, process, word } = &mut follow.source else { return Ok(()) };
        let process = process.clone();
        match helper {
            _ if *word != Word::Waiting => {}
            Some(helper) => helper.read(&mut reports)?,
            // It said its words to a tracker that has ended; its own end is the last of them.
            None => match process.wait(Some(Duration::ZERO))? {
                Some(ExitStatus::Signal(_)) => reports.push(Report::Lost),
                Some(status) => {
                    // It mirrors the root's, and signals as shells do.
                    if matches!(status, ExitStatus::Code(0..=127)) {
                        follow.root_status.get_or_insert(status);
                    }
                    reports.push(Report::Empty { at: sys::monotonic() });
                }
                None => {}
            },
        }
        for report in reports {
            match report {
                Report::Ended { pid, status, at } => {
                    let follow = self.tree(key);
                    if follow.root.pid() == pid {
                        follow.root_ended(status);
                    }
                    // The helper has adopted, and reaped, processes that nobody had seen; a PID among them can be a
                    // member's by now.
                    let alive = |pin: &Pin| matches!(pin.process.state(), Ok(State::Running));
                    if !fed && !follow.pins.get(&pid).is_some_and(alive) {
                        self.step(key, Input::Ended { pid, status }, at);
                    }
                }
                // Of orphans, which are looked for below.
                Report::Dropped(_) => {}
                Report::Empty { .. } => self.tree(key).helper_said(Word::Empty),
                Report::Lost => self.tree(key).helper_said(Word::Lost),
            }
        }
        match &self.tree(key).source {
            Source::Subreaper { word: Word::Empty, .. } => {
                self.hear_connector_of(key);
                self.settle(key)
            }
            Source::Subreaper { word: Word::Waiting, .. } if !fed => match process.descendants() {
                Ok(family) => self.found(key, &family),
                Err(error) if error.is_gone() => Ok(()),
                Err(error) => Err(error),
            },
            _ => Ok(()),
        }
    }

    /// What the connector has told by now of the last ones, before the end is told.
    fn hear_connector_of(&mut self, key: u64) {
        if self.tree(key).fed {
            self.take_notices();
        }
    }

    /// Pins those of these that are in the cgroup still, and lets the machine know. Returns whether one of them lives.
    pub(super) fn find(&mut self, key: u64, listed: &[Pid]) -> Result<bool> {
        let mut fresh = Vec::new();
        let mut lives = false;
        for &pid in listed {
            match self.tree(key).pins.get(&pid) {
                Some(pin) => lives |= pin.process.state()? == State::Running,
                None => fresh.push(pid),
            }
        }
        let Source::Cgroup(cgroup) = &self.tree(key).source else { return Ok(lives) };
        let family = pin(cgroup, &fresh)?;
        self.found(key, &family)?;
        Ok(lives || !family.is_empty())
    }

    /// These are members, by the kernel's word.
    pub(super) fn found(&mut self, key: u64, family: &[Process]) -> Result<()> {
        let at = sys::monotonic();
        for process in family {
            let known = self.tree(key).lineage.member(process.pid()).is_some();
            if known || process.state()? != State::Running {
                continue;
            }
            let parent = match process.handle.ppid() {
                Ok(parent) => parent,
                Err(error) if error.is_gone() => continue,
                Err(error) => return Err(error),
            };
            self.step(key, Input::Found { member: process.handle.identity(false), parent }, at);
        }
        Ok(())
    }
}

/// Those of these that are in the cgroup, and run.
pub(super) fn pin(cgroup: &sys::Cgroup, listed: &[Pid]) -> Result<Vec<Process>> {
    let mut pinned = Vec::new();
    for &pid in listed {
        match Process::open(pid) {
            Ok(process) => pinned.push(process),
            Err(error) if error.is_gone() || error.is_thread() => {}
            Err(error) => return Err(error),
        }
    }
    if pinned.is_empty() {
        return Ok(pinned);
    }
    // Listed again while pinned, and not reaped after that: it is the pinned process that is in there.
    let again = cgroup.members()?;
    let mut inside = Vec::new();
    for process in pinned {
        if again.contains(&process.pid()) && process.state()? == State::Running {
            inside.push(process);
        }
    }
    Ok(inside)
}
